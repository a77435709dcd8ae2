/** Turns what was found of a host of a fleet into advice. Pure, as judgement.ts is. */
import type {
  AgentFindings,
  FleetFindings,
  LinkFindings,
  MetadataFindings,
  OperatorFindings,
  ServiceFindings,
} from "../fleet/perform/examination.ts";
import { formatBytes } from "../units/bytes.ts";
import { type Bytes, formatDuration, type Milliseconds } from "../units/units.ts";
import type { Advice, Status } from "./judgement.ts";

const DAY: Milliseconds = 86_400_000;
/** Metadata that ends sooner should be signed anew. */
export const SOON: Milliseconds = 14 * DAY;
/** A clock that is behind by less says nothing. */
export const CLOCK_BEHIND: Milliseconds = 60_000;
/** The next version and what is unpacked beside it. */
const PROGRAMS = 2;
/** An operator whose store would be full sooner is warned of. */
const LEAST_STORE_TIME: Milliseconds = 7 * DAY;
/** Free beside an operator's store. */
export const LEAST_STORE_BYTES: Bytes = 1024 ** 3;
/** Devices that are named. */
const NAMED = 5;

/** All that a device and an operator of a fleet need here, in the order in which it is mended. */
export function judgeFleet(findings: FleetFindings): Advice[] {
  const { agent, operator } = findings;
  if (agent === undefined && operator === undefined) return [nothingHere(findings)];
  return [
    ...(agent === undefined ? [] : judgeAgent(findings, agent)),
    ...(operator === undefined ? [] : judgeOperator(findings, operator)),
  ];
}

interface Line {
  readonly check: string;
  readonly status: Status;
  readonly found: string;
  readonly why: string;
  readonly mend: string;
}

function advise({ check, status, found, why, mend }: Line): Advice {
  return { check, status, found, needed_by: `fleet: ${why}`, mend: status === "ok" ? null : mend };
}

function nothingHere({ folder }: FleetFindings): Advice {
  return advise({
    check: "fleet_installation",
    status: "missing",
    found: `nothing in ${folder}, no identity, and no operator that runs`,
    why: "a host that is upgraded, or an operator that looks after such hosts",
    mend: "Make it a device: hostler fleet enroll, then hostler fleet install --root FILE.",
  });
}

function judgeAgent(findings: FleetFindings, agent: AgentFindings): Advice[] {
  return [
    judgeLayout(findings, agent),
    judgePersistence(findings, agent),
    judgeCurrent(findings, agent),
    judgePrevious(agent),
    judgeJournal(findings, agent),
    judgeRoom(findings, agent),
    judgeTrust(findings, agent),
    ...judgeService(findings, agent.service),
    judgeIdentity(agent),
    judgeReach(agent),
    judgeClock(findings, agent),
  ];
}

function judgeLayout({ folder }: FleetFindings, { layout }: AgentFindings): Advice {
  const found = layout.kind === "unknown" ? layout.reason : `no installation in ${folder}`;
  return advise({
    check: "fleet_installation",
    status: layout.kind === "made" ? "ok" : "missing",
    found: layout.kind === "made" ? folder : found,
    why: "versions, and the links to them",
    mend:
      layout.kind === "unknown"
        ? `Run as root, or look at ${folder}.`
        : "Make it: hostler fleet install --root FILE; where it lies elsewhere, --folder.",
  });
}

const persistenceStatus = {
  lasting: "ok",
  volatile: "warning",
  immutable: "missing",
  unknown: "missing",
} as const;

function judgePersistence({ folder }: FleetFindings, { persistence }: AgentFindings): Advice {
  const found = persistence.kind === "unknown" ? persistence.reason : persistence.mount;
  const words = {
    lasting: found,
    volatile: `${found}, which may be gone with the next start`,
    immutable: `${found}, which cannot be written`,
    unknown: found,
  };
  return advise({
    check: "fleet_persistence",
    status: persistenceStatus[persistence.kind],
    found: words[persistence.kind],
    why: "a version that is there after the next start",
    mend:
      persistence.kind === "immutable"
        ? "Update the image: this host is replaced as a whole, and not upgraded."
        : `Mount a volume that lasts at ${folder}; where it does last, nothing is to be done.`,
  });
}

function linkText(link: LinkFindings): string {
  switch (link.kind) {
    case "absent":
      return "the link is not there";
    case "astray":
      return `it leads to ${link.target}, which is no version`;
    case "damaged":
      return `${link.name}: ${link.why}`;
    case "whole":
      return `${link.build.version}, ${link.build.digest.slice(0, 12)}, whole`;
  }
}

/** What links a version again that was proven here; the unit does it before each start. */
function relink({ folder }: FleetFindings, { proven }: AgentFindings): string {
  return proven === undefined
    ? "Store this program, and link to it: hostler fleet install."
    : `Have what was proven linked again: ${proven} fleet guard --folder ${folder}.`;
}

function judgeCurrent(findings: FleetFindings, agent: AgentFindings): Advice {
  return advise({
    check: "fleet_current",
    status: agent.current.kind === "whole" ? "ok" : "missing",
    found: linkText(agent.current),
    why: "the version that runs at the next start",
    mend: relink(findings, agent),
  });
}

/** A host that was never upgraded has none. */
function judgePrevious({ previous }: AgentFindings): Advice {
  const isNone = previous.kind === "absent";
  return advise({
    check: "fleet_previous",
    status: isNone || previous.kind === "whole" ? "ok" : "warning",
    found: isNone ? "none: there is nothing to go back to yet" : linkText(previous),
    why: "the version that is gone back to, and that guards each start",
    mend: "The next upgrade makes it anew; until then there is no way back.",
  });
}

function judgeJournal({ folder }: FleetFindings, { journal }: AgentFindings): Advice {
  const check = "fleet_journal";
  const why = "an upgrade that goes on after a power cut";
  if (journal.kind === "read") {
    const { phase, reason } = journal;
    const found = reason === null ? phase : `${phase}: ${reason}`;
    return advise({ check, status: "ok", found, why, mend: "" });
  }
  if (journal.kind === "absent") {
    const found = "none: the agent writes it when it first runs";
    return advise({ check, status: "ok", found, why, mend: "" });
  }
  return advise({
    check,
    status: journal.kind === "refused" ? "warning" : "missing",
    found: journal.reason,
    why,
    mend:
      journal.kind === "refused"
        ? "hostler fleet install sets it aside; only an upgrade under way is lost."
        : `Run as root, or look at ${folder}.`,
  });
}

function judgeRoom({ folder }: FleetFindings, { room }: AgentFindings): Advice {
  const { freeBytes, programBytes } = room;
  const wanted = PROGRAMS * programBytes;
  const isFull = freeBytes !== undefined && freeBytes < wanted;
  return advise({
    check: "fleet_room",
    status: isFull ? "warning" : "ok",
    found: freeBytes === undefined ? "not told" : `${formatBytes(freeBytes)} free`,
    why: "the next version beside the present one",
    mend: `Have at least ${formatBytes(wanted)} free at ${folder}: an upgrade ends without it.`,
  });
}

function judgeTrust({ now, folder }: FleetFindings, { trust }: AgentFindings): Advice {
  const common = { check: "fleet_trust", why: "releases that may be believed" };
  if (trust.kind !== "pinned") {
    const found = trust.kind === "none" ? "no root set is pinned" : trust.reason;
    const mend =
      trust.kind === "none"
        ? "Pin it: hostler fleet install --root FILE. Until then no release is taken."
        : `Look at ${folder}/trust: what is damaged there is moved away, and pinned again.`;
    return advise({ ...common, status: "missing", found, mend });
  }
  const root = `root set ${trust.rootVersion}`;
  if (trust.metadata === undefined) {
    const found = `${root}; metadata comes with the first upgrade`;
    return advise({ ...common, status: "ok", found, mend: "" });
  }
  const { status, words } = judgeExpiry(trust.metadata, now);
  return advise({ ...common, status, found: `${root}, ${words}`, mend: signAnew });
}

const signAnew =
  "Where releases are made: hostler fleet root metadata, sign it by a root key, and push it.";

/** Stale metadata keeps serving: somebody may keep news of revocations from its host. */
function judgeExpiry(
  { version, expires }: MetadataFindings,
  now: number,
): { readonly status: Status; readonly words: string } {
  const left = Date.parse(expires) - now;
  const words = `metadata ${version}`;
  if (left <= 0) return { status: "warning", words: `${words} is stale since ${expires}` };
  const days = Math.floor(left / DAY);
  const status = left < SOON ? "warning" : "ok";
  return { status, words: `${words} is fresh until ${expires}, for ${days} days` };
}

function judgeService(findings: FleetFindings, service: ServiceFindings): Advice[] {
  switch (service.kind) {
    case "systemd":
      return judgeUnit(findings, service);
    case "supervised": {
      const { process, silence } = service;
      const supervised = advise({
        check: "fleet_unit",
        status: silence === null ? "ok" : "warning",
        found: silence ?? `hostler fleet supervise, process ${process}`,
        why: "an agent that runs, its guard, and its dead man's switch",
        mend: "Look at its log; when it is started again, it goes on by itself.",
      });
      return [supervised];
    }
    case "none":
      return [
        advise({
          check: "fleet_unit",
          status: "missing",
          found: "neither systemd nor hostler fleet supervise is here",
          why: "an agent that runs, its guard, and its dead man's switch",
          mend: "Run hostler fleet supervise, as a container's first process or beside it.",
        }),
      ];
  }
}

type Unit = Extract<ServiceFindings, { readonly kind: "systemd" }>;

function judgeUnit(findings: FleetFindings, unit: Unit): Advice[] {
  return [judgeActive(unit), judgeGuard(findings, unit), judgeSwitch(unit)];
}

function judgeActive({ properties }: Unit): Advice {
  const {
    LoadState: load,
    ActiveState: active,
    UnitFileState: file,
    StatusText: said,
  } = properties;
  const common = { check: "fleet_unit", why: "an agent that runs, now and after the next start" };
  if (load !== "loaded") {
    const found = `hostler-fleet-agent.service: ${load ?? "systemd does not answer"}`;
    const mend =
      "Write it: hostler fleet install; then systemctl enable --now hostler-fleet-agent.";
    return advise({ ...common, status: "missing", found, mend });
  }
  const words = said === undefined || said === "" ? "" : `: ${said}`;
  const found = `${active}, ${file === "" ? "linked nowhere" : file}${words}`;
  const isStale = properties["NeedDaemonReload"] === "yes";
  if (active === "active" && file === "enabled" && !isStale) {
    return advise({ ...common, status: "ok", found, mend: "" });
  }
  if (active === "active") {
    const mend = isStale ? "systemctl daemon-reload." : "systemctl enable hostler-fleet-agent.";
    const why = isStale ? `${found}; its file has changed since it was read` : found;
    return advise({ ...common, status: "warning", found: why, mend });
  }
  const mend =
    "systemctl enable --now hostler-fleet-agent; journalctl -u hostler-fleet-agent says why it " +
    "does not run.";
  return advise({ ...common, status: "missing", found, mend });
}

/** Before each start the former version says which one may run. */
function judgeGuard({ folder }: FleetFindings, { properties }: Unit): Advice {
  const { ExecStartPre: before = "", ExecStart: start = "" } = properties;
  const guards = before.includes("fleet guard") && before.includes(`${folder}/previous/`);
  const follows = start.includes(`${folder}/current/`);
  const found = guards
    ? "it stands before the start"
    : "ExecStartPre= does not run the former version's fleet guard";
  return advise({
    check: "fleet_guard",
    status: guards && follows ? "ok" : "missing",
    found: follows ? found : `ExecStart= does not lead through ${folder}/current`,
    why: "a version that fails at its start is left",
    mend:
      "Write the unit anew: hostler fleet install --force; a file of yours beside it may say " +
      "another identity, and has to keep ExecStartPre= and the way through current.",
  });
}

/** A candidate ends by itself, and an agent that hangs is started again. */
function judgeSwitch({ properties, canRun }: Unit): Advice {
  const { WatchdogUSec: watchdog = "0", Restart: restart = "no" } = properties;
  const isWatched = watchdog !== "0" && watchdog !== "infinity" && watchdog !== "";
  const isRestarted = restart === "always";
  const whatLacks = canRun ? "warning" : "missing";
  const lacking = [
    ...(canRun ? [] : ["systemd-run is not here"]),
    ...(isWatched ? [] : ["WatchdogSec= is not set"]),
    ...(isRestarted ? [] : [`Restart=${restart}`]),
  ];
  return advise({
    check: "fleet_dead_mans_switch",
    status: lacking.length === 0 ? "ok" : whatLacks,
    found:
      lacking.length === 0
        ? `candidates end by RuntimeMaxSec=, a hang by the watchdog after ${watchdog}`
        : lacking.join("; "),
    why: "a candidate that ends whoever lives, and an agent that does not hang",
    mend: "Install systemd-run, and write the unit anew: hostler fleet install --force.",
  });
}

function identityText(identity: AgentFindings["identity"]): string {
  if (identity.kind === "none") return "this host is not enrolled";
  if (identity.kind === "unknown") return identity.reason;
  return `${identity.host}, enrolled at ${identity.address}`;
}

function judgeIdentity({ identity }: AgentFindings): Advice {
  return advise({
    check: "fleet_identity",
    status: identity.kind === "enrolled" ? "ok" : "missing",
    found: identityText(identity),
    why: "the name under which it speaks to its operator",
    mend:
      identity.kind === "none"
        ? "At the operator: hostler identity token create HOST; here: hostler fleet enroll."
        : "Run as root; where it is damaged, enroll this host again: hostler fleet enroll.",
  });
}

/** Whatever an agent has to do on its host it does without. */
function judgeReach({ identity }: AgentFindings): Advice {
  const common = { check: "fleet_operator", why: "upgrades, which its operator alone commits" };
  if (identity.kind !== "enrolled") {
    const mend = "Mend fleet_identity, and ask again.";
    return advise({ ...common, status: "warning", found: "not asked", mend });
  }
  const { address, refusal } = identity;
  return advise({
    ...common,
    status: refusal === undefined ? "ok" : "warning",
    found: refusal ?? `${address} shows a certificate that is pinned here`,
    mend:
      "Look whether it runs and is reached from here; one that shows another certificate is " +
      "believed when this host is enrolled anew.",
  });
}

/** Nothing is decided by the wall clock but whether metadata is fresh. */
function judgeClock({ now }: FleetFindings, { identity, trust }: AgentFindings): Advice {
  const passed = [
    ...(identity.kind === "enrolled" ? [identity.time] : []),
    ...(trust.kind === "pinned" && trust.metadata !== undefined
      ? [Date.parse(trust.metadata.issued)]
      : []),
  ];
  const behind = Math.max(0, ...passed) - now;
  const isBehind = behind > CLOCK_BEHIND;
  const text = new Date(now).toISOString().slice(0, 19);
  return advise({
    check: "fleet_clock",
    status: isBehind ? "warning" : "ok",
    found: isBehind ? `${text}Z, at least ${formatDuration(behind)} behind` : `${text}Z`,
    why: "to tell stale metadata from fresh",
    mend: "Set it, and have it follow a time server: timedatectl set-ntp true.",
  });
}

function judgeOperator(findings: FleetFindings, operator: OperatorFindings): Advice[] {
  return [
    judgeAnswer(operator),
    ...(operator.refusal === undefined ? [judgeStore(operator), judgeStale(operator)] : []),
    judgeCertificates(operator),
    ...operator.metadata.map((one) => judgePublished(findings, one)),
  ];
}

function judgeAnswer({ refusal, devices }: OperatorFindings): Advice {
  return advise({
    check: "operator_answers",
    status: refusal === undefined ? "ok" : "missing",
    found: refusal ?? `it answers, for ${devices} devices`,
    why: "commits, and whoever asks how far they are",
    mend: "Run as root; else look at its log, and start it again.",
  });
}

function judgeStore({ disk, stateDirectory }: OperatorFindings): Advice {
  const { freeBytes = 0, fullAfter = null } = disk ?? {};
  const isLow = freeBytes < LEAST_STORE_BYTES;
  const isSoon = fullAfter !== null && fullAfter < LEAST_STORE_TIME;
  const when = fullAfter === null ? "" : `, full in ${formatDuration(fullAfter)} as it grows now`;
  return advise({
    check: "operator_store",
    status: isLow || isSoon ? "warning" : "ok",
    found: `${stateDirectory}: ${formatBytes(freeBytes)} free${when}`,
    why: "markers and rollouts, which are nowhere else",
    mend: "Make room there, or keep less: --retain; hostler store storage says what takes it.",
  });
}

function judgeStale({ staleDevices }: OperatorFindings): Advice {
  const named = staleDevices.slice(0, NAMED).join(", ");
  const more = staleDevices.length > NAMED ? ` and ${staleDevices.length - NAMED} more` : "";
  return advise({
    check: "operator_stale_devices",
    status: staleDevices.length === 0 ? "ok" : "warning",
    found: staleDevices.length === 0 ? "no device tells of stale metadata" : `${named}${more}`,
    why: "devices that hear of revocations",
    mend: `${signAnew} A device reads it with its next upgrade.`,
  });
}

/** They have no last day: trust ends by pins. */
function judgeCertificates({ certificates, stateDirectory }: OperatorFindings): Advice {
  const common = { check: "operator_certificates", why: "devices that know it by its certificate" };
  if (certificates.kind !== "read") {
    const found = certificates.kind === "none" ? `none in ${stateDirectory}` : certificates.reason;
    const mend =
      "Run as root; else restore the state directory's identity from where it was moved.";
    return advise({ ...common, status: "missing", found, mend });
  }
  const { serial, isRotating } = certificates;
  return advise({
    ...common,
    status: isRotating ? "warning" : "ok",
    found: isRotating ? "the next one is announced, and not shown yet" : `statement ${serial}`,
    mend: "Finish it when all hosts have come by: hostler identity certificate finish.",
  });
}

function judgePublished(
  { now }: FleetFindings,
  published: OperatorFindings["metadata"][number],
): Advice {
  const common = { check: "operator_metadata", why: "devices that take a release from there" };
  const { source } = published;
  if (published.kind === "unknown") {
    const mend = "Publish it there: hostler fleet artifact push; or mend what hinders reading it.";
    const found = `${source}: ${published.reason}`;
    return advise({ ...common, status: "warning", found, mend });
  }
  const { status, words } = judgeExpiry(published, now);
  return advise({ ...common, status, found: `${source}: ${words}`, mend: signAnew });
}
