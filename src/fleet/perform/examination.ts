import { readdirSync, readFileSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";
import { ArtifactRefused } from "../../artifact/artifact-refused.ts";
import { readUnverified } from "../../artifact/lifecycle-verify.ts";
import { artifactLimits, publishedNames } from "../../artifact/protocol.ts";
import { textsOf } from "../../artifact/published.ts";
import { openSource } from "../../artifact/source.ts";
import { TrustFolder } from "../../artifact/trust-folder.ts";
import { AuthorityClient } from "../../authority/client.ts";
import {
  authorityApi,
  places as authorityPlaces,
  defaultStateDirectory,
} from "../../authority/protocol.ts";
import { HttpClient } from "../../http/client.ts";
import { readAuthorityFile } from "../../identity/authority-file.ts";
import { readHostJournal } from "../../identity/host-journal.ts";
import type { Bytes, Milliseconds } from "../../units/units.ts";
import { type LinkName, type LinkState, layoutNames, linked } from "../layout.ts";
import type { Build } from "../protocol.ts";
import { fleetApi } from "../protocol-operator.ts";
import { agentUnit } from "../units.ts";
import { findRoles } from "./find-roles.ts";
import { checkVersion } from "./installation.ts";
import { programOf, readLayout } from "./layout-files.ts";
import { persistenceOf } from "./persistence.ts";
import { readJournalIn } from "./read-journal.ts";
import { runCommand } from "./run-command.ts";
import { isSystemdBooted } from "./systemd.ts";

/**
 * Looks at this host as a device of a fleet, and as its operator: nothing is changed, and no
 * session is opened. What is absent, or cannot be looked at, is a finding and no error.
 */

/** For an operator, or a published file, to answer. */
const ANSWER_TIME: Milliseconds = 10_000;
const ASK_TIME: Milliseconds = 10_000;
/** Sources of rollouts that are asked for their metadata. */
const MOST_SOURCES = 8;

/** Where this host's parts of a fleet lie. */
export interface ExaminedPlaces {
  /** Of the installation. */
  readonly folder: string;
  /** Of the host's identity. */
  readonly identity: string;
}

export interface FleetFindings extends ExaminedPlaces {
  /** Milliseconds since 1970, by this host's clock. */
  readonly now: number;
  /** undefined: nothing of an agent is on this host. */
  readonly agent: AgentFindings | undefined;
  /** undefined: no operator is on this host. */
  readonly operator: OperatorFindings | undefined;
}

/** What could not be looked at, in words. */
export interface Unknown {
  readonly kind: "unknown";
  readonly reason: string;
}

export interface AgentFindings {
  readonly layout: { readonly kind: "none" } | { readonly kind: "made" } | Unknown;
  readonly persistence:
    | { readonly kind: "lasting" | "volatile" | "immutable"; readonly mount: string }
    | Unknown;
  readonly current: LinkFindings;
  readonly previous: LinkFindings;
  /** A program that is whole and was proven here, to be typed; undefined: there is none. */
  readonly proven: string | undefined;
  readonly journal:
    | { readonly kind: "read"; readonly phase: string; readonly reason: string | null }
    | { readonly kind: "absent" }
    | { readonly kind: "refused"; readonly reason: string }
    | Unknown;
  readonly room: Room;
  readonly trust:
    | { readonly kind: "none" }
    | {
        readonly kind: "pinned";
        readonly rootVersion: number;
        readonly metadata: MetadataFindings | undefined;
      }
    | Unknown;
  readonly service: ServiceFindings;
  readonly identity:
    | { readonly kind: "none" }
    | {
        readonly kind: "enrolled";
        readonly host: string;
        readonly address: string;
        /** Milliseconds since 1970 that have passed for certain, as its operator has said. */
        readonly time: number;
        /** Why it is not reached; undefined: it is. */
        readonly refusal: string | undefined;
      }
    | Unknown;
}

export type LinkFindings =
  | { readonly kind: "absent" }
  | { readonly kind: "astray"; readonly target: string }
  | { readonly kind: "whole"; readonly build: Build }
  | { readonly kind: "damaged"; readonly name: string; readonly why: string };

export interface Room {
  /** That this user may fill; undefined where the file system does not tell. */
  readonly freeBytes: Bytes | undefined;
  /** Of the current program; 0 where there is none. */
  readonly programBytes: Bytes;
}

export interface MetadataFindings {
  readonly version: number;
  /** RFC 3339. */
  readonly issued: string;
  readonly expires: string;
}

/** Who starts the agent here. */
export type ServiceFindings =
  | {
      readonly kind: "systemd";
      /** As systemctl show has them; empty where it was not answered. */
      readonly properties: Readonly<Record<string, string>>;
      /** systemd-run is there: it gives a candidate its end. */
      readonly canRun: boolean;
    }
  | { readonly kind: "supervised"; readonly process: number; readonly silence: string | null }
  | { readonly kind: "none" };

export interface OperatorFindings {
  readonly stateDirectory: string;
  /** Why it does not answer; undefined: it does. */
  readonly refusal: string | undefined;
  readonly devices: number;
  /** Devices that have told that their metadata is stale. */
  readonly staleDevices: readonly string[];
  readonly disk: { readonly freeBytes: Bytes; readonly fullAfter: Milliseconds | null } | undefined;
  readonly certificates:
    | { readonly kind: "read"; readonly serial: number; readonly isRotating: boolean }
    | { readonly kind: "none" }
    | Unknown;
  /** Of each source of a rollout that has not ended. */
  readonly metadata: readonly ({ readonly source: string } & (
    | ({ readonly kind: "read" } & MetadataFindings)
    | Unknown
  ))[];
}

export async function examineFleet(places: ExaminedPlaces): Promise<FleetFindings> {
  return {
    ...places,
    now: Date.now(),
    agent: await examineAgent(places),
    operator: await examineOperator(places),
  };
}

const unknown = (error: unknown): Unknown => ({
  kind: "unknown",
  reason: error instanceof Error ? error.message : String(error),
});

function tryTo<T>(look: () => T): T | Unknown {
  try {
    return look();
  } catch (error) {
    return unknown(error);
  }
}

async function examineAgent(places: ExaminedPlaces): Promise<AgentFindings | undefined> {
  const { folder } = places;
  const identity = await examineIdentity(places.identity);
  const layout = tryTo(() => readLayout(folder));
  const isMade = "kind" in layout || layout.format !== undefined || layout.versions.length > 0;
  if (!isMade && identity.kind === "none") return undefined;
  const links = "kind" in layout ? undefined : layout.links;
  const current = "kind" in layout ? undefined : linked(layout, "current");
  return {
    layout: "kind" in layout ? layout : { kind: isMade ? "made" : "none" },
    persistence: tryTo(() => {
      const { kind, mount } = persistenceOf(folder);
      return { kind, mount: `${mount.type} at ${mount.mountPoint}` };
    }),
    current: examineLink(folder, links, "current"),
    previous: examineLink(folder, links, "previous"),
    proven: "kind" in layout ? undefined : provenIn(folder, layout.versions),
    journal: tryTo(() => examineJournal(folder)),
    room: {
      freeBytes: freeBytesOf(folder),
      programBytes: current === undefined ? 0 : sizeOf(programOf(folder, current)),
    },
    trust: tryTo(() => examineTrust(join(folder, layoutNames.trust))),
    service: await examineService(folder),
    identity,
  };
}

function examineLink(
  folder: string,
  links: Readonly<Record<LinkName, LinkState>> | undefined,
  link: LinkName,
): LinkFindings {
  const state = links?.[link] ?? { kind: "absent" };
  if (state.kind !== "version") return state;
  const found = tryTo(() => checkVersion(folder, state.name));
  if (found.kind === "whole") return found;
  const why =
    found.kind === "unknown"
      ? found.reason
      : `expected ${found.expected}, received ${found.received}`;
  return { kind: "damaged", name: state.name, why };
}

function provenIn(
  folder: string,
  versions: ReturnType<typeof readLayout>["versions"],
): string | undefined {
  const found = versions.find(
    ({ name, isProven }) => isProven && tryTo(() => checkVersion(folder, name)).kind === "whole",
  );
  return found && programOf(folder, found.name);
}

function examineJournal(folder: string): Exclude<AgentFindings["journal"], Unknown> {
  const read = readJournalIn(folder);
  if (read.kind !== "ok") return read;
  const { life } = read.journal;
  return { kind: "read", phase: life.phase, reason: "reason" in life ? life.reason : null };
}

function examineTrust(folder: string): AgentFindings["trust"] {
  try {
    const { root, metadata } = TrustFolder.open(folder).trust;
    return { kind: "pinned", rootVersion: root.version, metadata: metadata ?? undefined };
  } catch (error) {
    const isNone = error instanceof ArtifactRefused && !hasFiles(folder);
    if (isNone) return { kind: "none" };
    throw error;
  }
}

function hasFiles(folder: string): boolean {
  try {
    return readdirSync(folder).length > 0;
  } catch {
    return false;
  }
}

async function examineIdentity(folder: string): Promise<AgentFindings["identity"]> {
  const journal = tryTo(() => readHostJournal(join(folder, "authority.json")));
  if (journal === undefined) return { kind: "none" };
  if ("kind" in journal) return journal;
  const { host, address, pins, time } = journal;
  return { kind: "enrolled", host, address, time, refusal: await whyNotReached(address, pins) };
}

/** Its certificate is looked at, and nothing is asked: a session would end the agent's own. */
async function whyNotReached(url: string, pins: readonly string[]): Promise<string | undefined> {
  try {
    const limits = { answerTime: ANSWER_TIME };
    await new HttpClient({ url, pins, limits }).connect();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

const shown = [
  ...["LoadState", "ActiveState", "SubState", "UnitFileState", "StatusText", "NeedDaemonReload"],
  ...["Restart", "WatchdogUSec", "ExecStart", "ExecStartPre"],
] as const;

async function examineService(folder: string): Promise<ServiceFindings> {
  const roles = tryTo(() => findRoles(folder));
  const supervisor = Array.isArray(roles)
    ? roles.find(({ kind }) => kind === "fleet supervise")
    : undefined;
  if (supervisor !== undefined) {
    const { process, silence } = supervisor;
    return { kind: "supervised", process, silence };
  }
  if (!isSystemdBooted()) return { kind: "none" };
  const argv = ["systemctl", "show", `--property=${shown.join(",")}`, agentUnit];
  const { output } = await runCommand(argv, ASK_TIME);
  const pairs = output.split("\n").flatMap((line): [string, string][] => {
    const [, name, value = ""] = /^(\w+)=(.*)$/.exec(line) ?? [];
    return name === undefined ? [] : [[name, value]];
  });
  const canRun = Bun.which("systemd-run") !== null;
  return { kind: "systemd", properties: Object.fromEntries(pairs), canRun };
}

/** What is kept for root alone is left out, as df(1) does. */
function freeBytesOf(folder: string): Bytes | undefined {
  const found = tryTo(() => statfsSync(folder));
  return "kind" in found ? undefined : found.bavail * found.bsize;
}

function sizeOf(path: string): Bytes {
  const found = tryTo(() => statSync(path));
  return "kind" in found ? 0 : found.size;
}

async function examineOperator({ folder }: ExaminedPlaces): Promise<OperatorFindings | undefined> {
  const roles = tryTo(() => findRoles(folder));
  const role = Array.isArray(roles)
    ? roles.find(({ kind }) => kind === "fleet operator")
    : undefined;
  if (role === undefined || role.socket === null) return undefined;
  const stateDirectory = stateDirectoryOf(role.process);
  const certificates = tryTo((): OperatorFindings["certificates"] => {
    const path = join(stateDirectory, authorityPlaces.identity, "authority.json");
    const facts = readAuthorityFile(path);
    if (facts === undefined) return { kind: "none" };
    const isRotating = facts.certificates.next !== undefined;
    return { kind: "read", serial: facts.serial, isRotating };
  });
  const silent = { devices: 0, staleDevices: [], disk: undefined, metadata: [] } as const;
  try {
    using client = await AuthorityClient.connect({ kind: "control", path: role.socket });
    const answers = await askOperator(client);
    return { stateDirectory, certificates, refusal: undefined, ...answers };
  } catch (error) {
    return { stateDirectory, certificates, refusal: (error as Error).message, ...silent };
  }
}

/** As it was started with; the default where its words are not to be had. */
function stateDirectoryOf(process: number): string {
  const words = tryTo(() => readFileSync(`/proc/${process}/cmdline`, "utf8").split("\0"));
  if (!Array.isArray(words)) return defaultStateDirectory;
  const flag = "--state-directory";
  const joined = words.find((word) => word.startsWith(`${flag}=`));
  return (
    joined?.slice(flag.length + 1) ?? words[words.indexOf(flag) + 1 || -1] ?? defaultStateDirectory
  );
}

async function askOperator(
  client: AuthorityClient,
): Promise<Pick<OperatorFindings, "devices" | "staleDevices" | "disk" | "metadata">> {
  const usage = await client.call(authorityApi.usage, {});
  const staleDevices: string[] = [];
  let devices = 0;
  for (let after: string | null | undefined; after !== null; ) {
    const page: { readonly next: string | null; readonly total: number } & {
      readonly devices: readonly { readonly name: string; readonly stale_since: string | null }[];
    } = await client.call(fleetApi.devices, after === undefined ? {} : { after });
    devices = page.total;
    staleDevices.push(
      ...page.devices.filter((one) => one.stale_since !== null).map(({ name }) => name),
    );
    after = page.next;
  }
  const { rollouts } = await client.call(fleetApi.rollouts, {});
  const open = rollouts.filter(({ phase }) => phase === "running" || phase === "paused");
  const sources = new Set<string>();
  for (const { name } of open) {
    const { spec } = await client.call(fleetApi.rollout, { rollout: name });
    for (const source of spec.sources) sources.add(source);
  }
  const { disk, database } = usage;
  return {
    ...{ devices, staleDevices },
    disk: { freeBytes: disk.free, fullAfter: database.full_after_ms },
    metadata: await Promise.all([...sources].slice(0, MOST_SOURCES).map(publishedMetadata)),
  };
}

/** As it is published; nobody's signature is looked at here: devices do. */
async function publishedMetadata(source: string): Promise<OperatorFindings["metadata"][number]> {
  const signal = AbortSignal.timeout(ANSWER_TIME);
  try {
    const texts = textsOf(openSource(source), signal);
    const read = await texts.read(publishedNames.metadata, artifactLimits.metadataBytes);
    if (read.kind !== "text") {
      const reason = "why" in read ? read.why : "it asks for patience";
      return { source, kind: "unknown", reason };
    }
    const parsed = readUnverified("metadata", read.text);
    if (parsed.kind === "refused") {
      return { source, kind: "unknown", reason: `what is there is no metadata` };
    }
    const { version, issued, expires } = parsed.value.value;
    return { source, kind: "read", version, issued, expires };
  } catch (error) {
    return { source, ...unknown(error) };
  }
}
