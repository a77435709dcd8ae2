import * as v from "valibot";
import {
  checkNatsPairs,
  makeShared,
  mostNatsServers,
  readNatsOwner,
  type SharedStoreConfiguration,
} from "../../store/nats/configuration.ts";
import { absolutePath, nonEmptyText, someDuration } from "../../toml/common-readers.ts";
import {
  type Refused,
  readConfigurationText,
  validateText,
} from "../../toml/configuration-file.ts";
import { list, type Read, type Report, table, value } from "../../toml/configuration-reader.ts";
import type { TomlTable } from "../../toml/toml-tree.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { HookPlan } from "../perform/fence-hook.ts";
import { masterLimits } from "../protocol-master.ts";

/** What `hostler vm master --config FILE` says, with the defaults of all that it does not say. */
export interface MasterConfiguration {
  readonly silentAfter: Milliseconds;
  readonly lostAfter: Milliseconds;
  /** undefined: nothing of ours cuts a worker's power. */
  readonly fence: HookPlan | undefined;
  /** undefined: this master is alone, over its authority's own store. */
  readonly shared: SharedStoreConfiguration | undefined;
}

/** Going over one is a refusal that a test shows. */
export const masterConfigurationLimits = {
  fileBytes: 64 * 1024,
  /** Words of the fence hook. */
  commandWords: 64,
  servers: mostNatsServers,
} as const;

export const masterDefaults: MasterConfiguration = {
  silentAfter: 3 * masterLimits.reportEvery,
  lostAfter: 60_000,
  fence: undefined,
  shared: undefined,
};

/** Milliseconds that the fence hook may take, when nothing is said. */
const HOOK_TIME: Milliseconds = 60_000;

const { commandWords } = masterConfigurationLimits;
const readers = {
  silent_after: someDuration,
  lost_after: someDuration,
  fence: table(
    {
      command: list(value("a word", nonEmptyText), {
        expected: `an array of at most ${commandWords} words, the first a program by absolute path`,
        least: 1,
        most: commandWords,
      }),
      timeout: someDuration,
    },
    { expected: "command, and timeout" },
  ),
  store: readNatsOwner,
};
const readMaster = table(readers, { expected: "keys" });
type MasterTable = Read<typeof readMaster>;

export type MasterOutcome =
  | { readonly kind: "ok"; readonly configuration: MasterConfiguration }
  | Refused;

/** Reads and validates a file. What keeps it from being read is an error of the file as well. */
export function readMasterConfiguration(file: string): MasterOutcome {
  const read = readConfigurationText(file, masterConfigurationLimits.fileBytes);
  return read.kind === "text" ? parseMasterConfiguration(file, read.text) : read;
}

/** Validates a whole text; all its mistakes are reported at once. Pure. */
export function parseMasterConfiguration(file: string, text: string): MasterOutcome {
  const outcome = validateText(file, text, {
    limit: masterConfigurationLimits.fileBytes,
    reader: readMaster,
    relations: checkRelations,
  });
  return outcome.kind === "refused"
    ? outcome
    : { kind: "ok", configuration: makeConfiguration(outcome.read) };
}

function makeConfiguration(read: MasterTable): MasterConfiguration {
  const { command, timeout = HOOK_TIME } = read.fence ?? {};
  return {
    silentAfter: read.silent_after ?? masterDefaults.silentAfter,
    lostAfter: read.lost_after ?? masterDefaults.lostAfter,
    fence: command === undefined ? undefined : { command, timeLimit: timeout },
    shared: read.store === undefined ? undefined : makeShared(read.store),
  };
}

/** What the keys must be to each other. */
function checkRelations(root: TomlTable, read: MasterTable, report: Report): void {
  const placeOf = (key: string) => root.entries.get(key)?.node.at ?? root.at;
  const { silentAfter, lostAfter, fence } = makeConfiguration(read);
  if (silentAfter < 2 * masterLimits.reportEvery) {
    report({
      at: placeOf("silent_after"),
      path: ["silent_after"],
      expected: `${2 * masterLimits.reportEvery} ms at least: workers report that often`,
      received: `${silentAfter} ms`,
    });
  }
  const { leastLostAfter } = masterLimits;
  if (lostAfter < leastLostAfter) {
    report({
      at: placeOf("lost_after"),
      path: ["lost_after"],
      expected: `${leastLostAfter} ms at least: one that was cut off asks again within that time`,
      received: `${lostAfter} ms`,
    });
  }
  if (lostAfter < silentAfter) {
    report({
      at: placeOf("lost_after"),
      path: ["lost_after"],
      expected: "lost_after not below silent_after",
      received: `${lostAfter} ms, and ${silentAfter} ms`,
    });
  }
  checkNatsPairs(root, read.store, report);
  if (read.fence !== undefined && fence === undefined) {
    report({ at: placeOf("fence"), path: ["fence"], expected: "a command", received: "none" });
  }
  const program = fence?.command[0];
  if (program !== undefined && !v.is(absolutePath, program)) {
    report({
      at: placeOf("fence"),
      path: ["fence", "command"],
      expected: "a program by absolute path",
      received: program,
      mend: "No PATH is searched, and there is no shell.",
    });
  }
}
