import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { places } from "../../authority/protocol.ts";
import { printJson, printText } from "../../command-line/output.ts";
import { wallClock } from "../../event-loop/clock.ts";
import { restore } from "../../store/restore.ts";
import { lockFolder } from "../../store/store-folder.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { besideBackup, finishRestore, prepareRestore } from "../orchestrator/backup.ts";
import { databasePlace } from "../orchestrator/place.ts";

/**
 * Puts a backup of an orchestrator in its place: the authority's store, then hosts, specs and runs.
 * Killed at any moment, the same command ends it.
 */
export async function runRestore(flags: {
  readonly file: string;
  readonly "state-directory": string;
  readonly "without-ledger": boolean;
  readonly json: boolean;
}): Promise<number> {
  const state = resolve(flags["state-directory"]);
  const file = resolve(flags.file);
  const [folder, path] = [join(state, places.store), join(state, databasePlace)];
  const time = wallClock();
  let runs = 0;
  {
    // Who runs is told before anything is made, and nobody begins meanwhile.
    using _lock = lockFolder(folder);
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    runs = prepareRestore(besideBackup(file), path, time);
  }
  const store = restore({ folder, file, withoutLedger: flags["without-ledger"] });
  using _lock = lockFolder(folder);
  const keptAs = finishRestore(path);
  if (flags.json) {
    await printJson({ ...store, runs, vetting_kept_as: keptAs ?? null });
    return ExitCode.done;
  }
  const kept = [store.keptAs, keptAs].filter((one) => one !== undefined);
  const former = kept.length === 0 ? "" : `what was there before is kept: ${kept.join(", ")}\n`;
  const spent = store.fenced ? "all tokens of operators and hosts of before are spent\n" : "";
  await printText(
    `restored ${store.entries} entries of the authority and ${runs} runs of ${file}\n` +
      `${former}${spent}hosts of open runs have to boot anew: no session of before counts\n`,
  );
  return ExitCode.done;
}
