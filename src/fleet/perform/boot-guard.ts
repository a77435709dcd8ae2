import { join } from "node:path";
import { writeDurably } from "../../journal/append-journal.ts";
import { withFile } from "../../journal/file-refused.ts";
import { folderOf, layoutNames, linked } from "../layout.ts";
import type { GuardGround } from "../lifecycle-guard.ts";
import type { Build } from "../protocol.ts";
import { checkVersion, Installation } from "./installation.ts";
import { passStep } from "./kill-points.ts";
import { removeLink, setLink } from "./layout-files.ts";
import { readJournalIn } from "./read-journal.ts";

/** What is on the disk when a start is about to be made. */
export type GuardedGround = Omit<GuardGround, "boot" | "now">;

/** What is to be so before the start. */
export interface GuardedStart {
  /** Written first; undefined: it stays as it is. */
  readonly journal: string | undefined;
  /** undefined: they stay as they are. */
  readonly links: { readonly current: Build; readonly previous: Build | null } | undefined;
}

/**
 * Before each start of the canonical agent, by the PREVIOUS version's file: looks at the disk, asks
 * which version may run, and sees to it. Nobody else changes the installation meanwhile.
 * @throws FileRefused
 */
export function performGuard<Start extends GuardedStart>(
  folder: string,
  decide: (ground: GuardedGround) => Start,
): Start {
  using installation = Installation.open(folder, { make: false });
  const state = installation.read();
  const path = join(folder, layoutNames.journal);
  const buildOf = (link: "current" | "previous"): Build | null => {
    const name = linked(state, link);
    return state.versions.find((version) => version.name === name)?.build ?? null;
  };
  const intact = state.versions.flatMap(({ name, build }) =>
    build !== undefined && checkVersion(folder, name).kind === "whole" ? [build.digest] : [],
  );
  const start = decide({
    journal: readJournalIn(folder),
    links: { current: buildOf("current"), previous: buildOf("previous") },
    intact: new Set(intact),
    proven: state.versions.flatMap(({ build, isProven }) =>
      build !== undefined && isProven ? [build] : [],
    ),
  });
  const { journal, links } = start;
  if (journal !== undefined) {
    const place = { what: "write the journal", path, otherwise: "give another --folder" };
    withFile(place, () => writeDurably(path, journal));
    passStep("noted");
  }
  if (links !== undefined) {
    setLink(folder, "current", folderOf(links.current));
    passStep("guarded");
    if (links.previous === null) removeLink(folder, "previous");
    else setLink(folder, "previous", folderOf(links.previous));
  }
  return start;
}
