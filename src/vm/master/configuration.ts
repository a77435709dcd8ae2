import * as v from "valibot";
import type { Credentials } from "../../store/nats/credentials.ts";
import { type DurabilityProof, isMonitoringAddress } from "../../store/nats/durability.ts";
import { absolutePath, nonEmptyText, path, someDuration } from "../../toml/common-readers.ts";
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

/** A store in NATS, which several masters have. */
export interface SharedStoreConfiguration {
  /** Of this master, shown to people; undefined: the host's name. */
  readonly name: string | undefined;
  readonly servers: readonly string[];
  readonly credentials: Credentials;
  /** Files with PEM texts. */
  readonly tls: { readonly ca?: string; readonly certificate?: string; readonly key?: string };
  readonly replicas: 1 | 3 | 5;
  readonly proof: DurabilityProof;
}

/** Going over one is a refusal that a test shows. */
export const masterConfigurationLimits = {
  fileBytes: 64 * 1024,
  /** Words of the fence hook. */
  commandWords: 64,
  servers: 16,
} as const;

export const masterDefaults: MasterConfiguration = {
  silentAfter: 3 * masterLimits.reportEvery,
  lostAfter: 60_000,
  fence: undefined,
  shared: undefined,
};

/** Milliseconds that the fence hook may take, when nothing is said. */
const HOOK_TIME: Milliseconds = 60_000;

const { commandWords, servers: mostServers } = masterConfigurationLimits;
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
  store: table(
    {
      name: value("a name of 1 to 64 letters", v.pipe(v.string(), v.nonEmpty(), v.maxLength(64))),
      servers: list(value('"tls://HOST:PORT"', nonEmptyText), {
        expected: `an array of 1 to ${mostServers} addresses such as "tls://nats.example:4222"`,
        least: 1,
        most: mostServers,
      }),
      credentials: value('"nkey", "jwt" or "token"', v.picklist(["nkey", "jwt", "token"])),
      credentials_file: path,
      ca_file: path,
      certificate_file: path,
      key_file: path,
      replicas: value("1, 3 or 5", v.picklist([1, 3, 5])),
      monitoring: value(
        'the address of its monitoring, such as "http://127.0.0.1:8222"',
        v.pipe(nonEmptyText, v.check(isMonitoringAddress)),
      ),
      durable_acknowledgements: value('"checked"', v.literal("checked")),
    },
    { expected: "servers, and who this master is to them", required: ["servers"] },
  ),
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

function makeShared(read: NonNullable<MasterTable["store"]>): SharedStoreConfiguration {
  const { ca_file: ca, certificate_file: certificate, key_file: key, monitoring } = read;
  const { credentials: kind, credentials_file: file } = read;
  return {
    name: read.name,
    servers: read.servers ?? [],
    credentials: kind === undefined || file === undefined ? { kind: "none" } : { kind, file },
    tls: {
      ...(ca !== undefined && { ca }),
      ...(certificate !== undefined && { certificate }),
      ...(key !== undefined && { key }),
    },
    replicas: read.replicas ?? 1,
    proof: proofOf(monitoring, read.durable_acknowledgements === "checked"),
  };
}

function proofOf(monitoring: string | undefined, isChecked: boolean): DurabilityProof {
  if (monitoring !== undefined) return { kind: "monitoring", address: monitoring };
  return { kind: isChecked ? "operator" : "none" };
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
  checkPairs(root, read, report);
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

/** Of two keys of the store that mean something together alone. */
function checkPairs(root: TomlTable, read: MasterTable, report: Report): void {
  const { store } = read;
  if (store === undefined) return;
  const pairs = [
    ["credentials", "credentials_file"],
    ["certificate_file", "key_file"],
  ] as const;
  for (const pair of pairs) {
    const [missing] = pair.filter((key) => store[key] === undefined);
    if (missing === undefined || pair.every((key) => store[key] === undefined)) continue;
    const at = root.entries.get("store")?.node.at ?? root.at;
    const expected = `${pair.join(" and ")} together`;
    report({ at, path: ["store", missing], expected, received: `no ${missing}` });
  }
}
