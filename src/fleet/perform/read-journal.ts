import { existsSync, lstatSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { withFile } from "../../journal/file-refused.ts";
import { layoutNames } from "../layout.ts";
import {
  type DecodedJournal,
  decodeJournal,
  JOURNAL_FORMAT,
  journalFormat,
} from "../lifecycle-journal.ts";
import { syncFolder } from "./layout-files.ts";

/** What the agent of an installation has written down. @throws FileRefused */
export function readJournalIn(folder: string): DecodedJournal {
  const text = readJournal(join(folder, layoutNames.journal));
  if (text !== undefined) return decodeJournal(text);
  const aside = join(folder, layoutNames.damagedJournal);
  // There was one: a floor is not forgotten because its file was set aside.
  if (existsSync(aside)) return { kind: "refused", reason: `it was damaged, and is ${aside} now` };
  return { kind: "absent" };
}

/** Why the journal is of use to nobody; undefined: it is right, or a later hostler's, or none. */
export function journalDamage(folder: string): string | undefined {
  const text = readJournal(join(folder, layoutNames.journal));
  if (text === undefined || (journalFormat(text) ?? 0) > JOURNAL_FORMAT) return undefined;
  const decoded = decodeJournal(text);
  return decoded.kind === "refused" ? decoded.reason : undefined;
}

/** Keeps a damaged one for people, under another name. @throws FileRefused */
export function setJournalAside(folder: string): void {
  const path = join(folder, layoutNames.journal);
  withFile({ what: "set the journal aside", path, otherwise: "give another --folder" }, () => {
    renameSync(path, join(folder, layoutNames.damagedJournal));
    syncFolder(folder);
  });
}

function readJournal(path: string): string | undefined {
  const place = { what: "read the journal", path, otherwise: "give another --folder" };
  return withFile(place, () => {
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
    return readFileSync(path, "utf8");
  });
}
