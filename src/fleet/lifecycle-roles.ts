import { defaultControlSocket as authoritySocket } from "../authority/protocol.ts";
import { defaultControlSocket as luodSocket } from "../live-update/protocol.ts";
import { defaultControlSocket as processSocket } from "../process/protocol.ts";
import { defaultControlSocket as vmSocket } from "../vm/protocol.ts";
import { answersFrom } from "./lifecycle-commit.ts";
import { shortened } from "./lifecycle-moves.ts";
import { type Build, fleetLimits, type RoleHealth } from "./protocol.ts";
import { defaultSuperviseSocket } from "./protocol-supervise.ts";

/**
 * The roles of a host: which of its processes are one, which are expected, which of them an upgrade
 * has to wait for, and which is handed over next. Pure: what is seen comes in as arguments.
 */

/** How a role comes to go on from another file. */
export type HandOverWay =
  /** Its unit is started again. */
  | "restart"
  /** As that, and luod is asked first: not between PRESERVING and FINISHED. */
  | "restart-when-idle"
  /** It is asked to go on as that file by execve(2), with its children. */
  | "reexecute"
  /** The supervisor that is this agent's parent goes on as what `current` leads to. */
  | "renew";

interface Kind {
  /** The first words of its command line; a name of the program stands for them as well. */
  readonly words: readonly [string, string];
  readonly calledAs?: string;
  /** As `hostler install` calls it; another one is named in reports. */
  readonly unit: string | null;
  /** Where it takes requests when nobody says otherwise; null: nowhere that we could ask. */
  readonly socket: string | null;
  readonly way: HandOverWay;
}

/** In the order in which they are handed over: whose restart others feel least comes first. */
const kinds = {
  authority: {
    words: ["identity", "authority"],
    unit: "hostler-authority.service",
    socket: authoritySocket,
    way: "restart",
  },
  "fleet operator": {
    words: ["fleet", "operator"],
    unit: "hostler-fleet-operator.service",
    socket: authoritySocket,
    way: "restart",
  },
  "vm master": {
    words: ["vm", "master"],
    unit: "hostler-vm-master.service",
    socket: authoritySocket,
    way: "restart",
  },
  "vetting orchestrator": {
    words: ["vetting", "orchestrator"],
    unit: "hostler-vetting-orchestrator.service",
    socket: authoritySocket,
    way: "restart",
  },
  "process agent": {
    words: ["process", "agent"],
    calledAs: "holden-agent",
    unit: "hostler-process-agent.service",
    socket: null,
    way: "restart",
  },
  luod: {
    words: ["live-update", "daemon"],
    calledAs: "luod",
    unit: "luod.service",
    socket: luodSocket,
    way: "restart-when-idle",
  },
  "vm worker": {
    words: ["vm", "worker"],
    unit: "hostler-vm-worker.service",
    socket: vmSocket,
    way: "restart",
  },
  "process orchestrator": {
    words: ["process", "orchestrator"],
    calledAs: "holden-orchestrator",
    unit: "hostler-process-orchestrator.service",
    socket: processSocket,
    way: "reexecute",
  },
  "fleet supervise": {
    words: ["fleet", "supervise"],
    unit: null,
    socket: defaultSuperviseSocket,
    way: "renew",
  },
} as const satisfies Readonly<Record<string, Kind>>;

export type RoleKind = keyof typeof kinds;
export const roleKinds: readonly RoleKind[] = Object.keys(kinds) as RoleKind[];
const kindOf = (kind: RoleKind): Kind => kinds[kind];

/** What a command line says when it is a role's. */
export interface RoleWords {
  readonly kind: RoleKind;
  /** Its control socket; null for one that has none. */
  readonly socket: string | null;
  /** The file that a worker of virtual machines has, in which it may name another socket. */
  readonly configuration: string | undefined;
}

/** @param words with the program's name first */
export function readRole(words: readonly string[]): RoleWords | undefined {
  const [program = "", ...rest] = words;
  const name = program.slice(program.lastIndexOf("/") + 1);
  const kind = roleKinds.find((one) => {
    const { words: first, calledAs } = kindOf(one);
    return name === calledAs || (rest[0] === first[0] && rest[1] === first[1]);
  });
  if (kind === undefined) return undefined;
  const { socket: usual } = kindOf(kind);
  const socket = usual === null ? null : (flagOf(rest, "--control-socket") ?? usual);
  return {
    kind,
    socket,
    configuration: kind === "vm worker" ? flagOf(rest, "--config") : undefined,
  };
}

function flagOf(words: readonly string[], flag: string): string | undefined {
  const own = words.includes("--") ? words.slice(0, words.indexOf("--")) : words;
  const joined = own.find((word) => word.startsWith(`${flag}=`));
  return joined?.slice(flag.length + 1) ?? own[own.indexOf(flag) + 1 || own.length];
}

/** The unit of the system's manager that a process belongs to: proc_pid_cgroup(5), cgroup v2. */
export function unitOfCgroup(text: string): string | null {
  const path = /^0::(.*)$/m.exec(text)?.[1] ?? "";
  const parts = path.split("/");
  // Units of a user are another manager's.
  if (parts.some((part) => /^user@\d+\.service$/.test(part))) return null;
  return parts.findLast((part) => part.endsWith(".service")) ?? null;
}

/** A process that is a role, as the kernel says. */
export interface FoundRole {
  readonly kind: RoleKind;
  readonly process: number;
  readonly unit: string | null;
  readonly socket: string | null;
  /** The file that it runs. */
  readonly program: string;
  /** null: it is no version of the installation. */
  readonly build: Build | null;
  /** Why it is not well; null: it answers, or there is nothing to ask. */
  readonly silence: string | null;
}

/** A role that was seen, and is to be there. */
export interface ExpectedRole {
  readonly kind: RoleKind;
  readonly unit: string | null;
  readonly socket: string | null;
  /** It was told to go on from this file, and has not answered from it yet. */
  readonly asked: string | null;
}

export const roleKey = ({
  kind,
  unit,
  socket,
}: Pick<ExpectedRole, "kind" | "unit" | "socket">): string => `${kind} ${unit ?? socket ?? ""}`;

/** What the service manager says of a unit: systemctl(1), show. */
export interface UnitState {
  readonly load: string;
  readonly active: string;
  readonly sub: string;
  readonly result: string;
  /** Something is to be done with it, and is not done yet. */
  readonly hasJob: boolean;
}

export const unitProperties = "LoadState,ActiveState,SubState,Result,Job";

/** undefined where the service manager said nothing of a unit. */
export function parseUnitState(text: string): UnitState | undefined {
  const said = new Map(
    text.split("\n").map((line) => {
      const equals = line.indexOf("=");
      return [line.slice(0, equals), line.slice(equals + 1)] as const;
    }),
  );
  const [load, active] = [said.get("LoadState"), said.get("ActiveState")];
  if (load === undefined || active === undefined) return undefined;
  const [sub, result] = [said.get("SubState") ?? "", said.get("Result") ?? ""];
  return { load, active, sub, result, hasJob: !["", "0", undefined].includes(said.get("Job")) };
}

/** What became of the last attempt to have a role go on from another file. */
export type Asked =
  | { readonly kind: "asked"; readonly process: number | null }
  | { readonly kind: "refused"; readonly reason: string; readonly at: number }
  /** It is not the time yet. */
  | { readonly kind: "waits"; readonly reason: string }
  /** Its version knows no way. */
  | { readonly kind: "unsupported"; readonly reason: string };

export interface HandingOver {
  readonly build: Build;
  /** By roleKey. */
  readonly asked: ReadonlyMap<string, Asked>;
}

export interface Sight {
  readonly found: readonly FoundRole[];
  readonly book: readonly ExpectedRole[];
  /** Of those in the book that were not found. */
  readonly units: ReadonlyMap<string, UnitState>;
  /** This agent's own file. */
  readonly self: Build;
  /** Of the installation, as people know it. */
  readonly folder: string;
  /** The control socket of the supervisor that is this agent's parent. */
  readonly supervisor: string | null;
  readonly handingOver: HandingOver | undefined;
}

/** A role, and what is thought of it. */
export interface JudgedRole extends ExpectedRole {
  readonly health: RoleHealth;
  readonly process: number | null;
  /** null: nobody but its operator can hand it over, or there is nothing to hand over. */
  readonly way: HandOverWay | null;
  /** An upgrade waits for it. */
  readonly counts: boolean;
}

export interface Judgement {
  /** In the order in which they are handed over. */
  readonly roles: readonly JudgedRole[];
  readonly book: readonly ExpectedRole[];
}

/** Those in the book that were not found. */
export function goneRoles({ found, book }: Pick<Sight, "found" | "book">): ExpectedRole[] {
  const there = new Set(found.map(roleKey));
  return book.filter((one) => !there.has(roleKey(one)));
}

export function judgeRoles(sight: Sight): Judgement {
  const known = new Map(sight.book.map((one) => [roleKey(one), one]));
  const found = sight.found.map((one) => judgeFound(one, known.get(roleKey(one)), sight));
  const gone = goneRoles(sight)
    .map((one) => judgeGone(one, sight))
    .filter((one) => one !== undefined);
  const roles = [...found, ...gone].sort(
    (one, other) => roleKinds.indexOf(one.kind) - roleKinds.indexOf(other.kind),
  );
  const noted = roles.filter(
    (one) => one.counts && (known.has(roleKey(one)) || one.health.healthy),
  );
  const book = noted.map(({ kind, unit, socket, asked }) => ({ kind, unit, socket, asked }));
  return { roles: named(roles), book: book.slice(0, fleetLimits.roles) };
}

function judgeFound(found: FoundRole, known: ExpectedRole | undefined, sight: Sight): JudgedRole {
  const { kind, unit, socket, process, build, silence } = found;
  const tried = sight.handingOver?.asked.get(roleKey(found));
  const way = tried?.kind === "unsupported" ? null : wayOf(found, sight);
  const asked = known?.asked ?? null;
  const isThere = build !== null && build.digest === asked && silence === null;
  const reason = silence ?? remarkOn(found, { sight, tried, way });
  return {
    ...{ kind, unit, socket, process, way },
    asked: isThere ? null : asked,
    counts: way !== null,
    health: {
      role: kind,
      digest: build?.digest ?? null,
      healthy: silence === null,
      reason: reason === null ? null : shortened(reason),
    },
  };
}

function wayOf({ kind, unit, socket, build }: FoundRole, sight: Sight): HandOverWay | null {
  const { way } = kindOf(kind);
  if (way === "renew") {
    // Whatever file it was started from, it goes on as what `current` leads to.
    if (socket === sight.supervisor) return way;
    return unit === null || build === null ? null : "restart";
  }
  if (build === null) return null;
  if (way === "reexecute") return way;
  return unit === null ? null : way;
}

/** What is to be known of one that answers; null: all is as it should be. */
function remarkOn(
  { build, unit, program, process }: FoundRole,
  {
    sight,
    tried,
    way,
  }: {
    readonly sight: Sight;
    readonly tried: Asked | undefined;
    readonly way: HandOverWay | null;
  },
): string | null {
  const wanted = (sight.handingOver?.build ?? sight.self).digest;
  if (build?.digest === wanted) return null;
  const link = `${sight.folder}/current/hostler`;
  if (build === null && way === null) {
    return `it runs ${program}, which is no version of ${sight.folder}: start it from ${link}`;
  }
  if (tried?.kind === "asked" && tried.process !== null && tried.process !== process) {
    return `it was started again, and runs ${program}: have ExecStart= of ${unit} name ${link}`;
  }
  if (tried !== undefined && tried.kind !== "asked") return tried.reason;
  if (way !== null) return null;
  return "no unit starts it: it goes on with its file until you start it again";
}

/** @returns undefined for one that nobody expects any more */
function judgeGone(known: ExpectedRole, sight: Sight): JudgedRole | undefined {
  const { kind, unit, asked } = known;
  const isAsked = asked !== null && asked === sight.handingOver?.build.digest;
  const state = unit === null ? undefined : sight.units.get(unit);
  if (!isAsked && isGivenUp(known, state, sight)) return undefined;
  const isFailed = state?.active === "failed";
  return {
    ...known,
    process: null,
    way: isFailed ? "restart" : null,
    counts: true,
    health: {
      ...{ role: kind, digest: null, healthy: false },
      reason: shortened(reasonOf(unit, state)),
    },
  };
}

/**
 * Its operator has stopped it, or has taken its unit away: then it is inactive, and not failed. One
 * without a unit is nobody's to start again.
 */
function isGivenUp(
  { unit }: ExpectedRole,
  state: UnitState | undefined,
  { handingOver }: Sight,
): boolean {
  if (unit === null) return true;
  if (state === undefined || state.hasJob) return false;
  if (state.load === "not-found" || state.load === "masked") return true;
  // A unit that runs something else now; in a hand-over it may be about to run the role.
  if (state.active === "active") return handingOver === undefined;
  return state.active === "inactive";
}

function reasonOf(unit: string | null, state: UnitState | undefined): string {
  if (unit === null) return "it has ended, and no unit starts it again";
  if (state === undefined) return `it is gone, and systemctl show ${unit} says nothing`;
  const { active, sub, result } = state;
  if (active === "failed") {
    return (
      `${unit} failed (${result}): see journalctl -u ${unit}; where it is not to run any ` +
      `more, systemctl reset-failed ${unit}`
    );
  }
  const what = sub === "" || sub === active ? active : `${active} (${sub})`;
  return `it is not there, and ${unit} is ${what}`;
}

/** One of a kind, in its usual unit, is called by its kind. */
function named(roles: readonly JudgedRole[]): JudgedRole[] {
  return roles.map((one) => {
    const { kind, unit, socket, process } = one;
    const alike = roles.filter((other) => other.kind === kind);
    const isUsual = alike.length === 1 || unit === kindOf(kind).unit;
    const which = unit ?? socket ?? `process ${process}`;
    const role = isUsual ? kind : `${kind} ${which}`.slice(0, fleetLimits.labelLength);
    return { ...one, health: { ...one.health, role } };
  });
}

/** A role that refused is asked again after so long, in milliseconds. */
export const ASK_AGAIN = 5_000;

/**
 * The one that is to be handed over now: one after the other, and none before the former one
 * answers from the new file. undefined: nothing is to be done but to look again.
 */
export function nextHandOver(
  roles: readonly JudgedRole[],
  { build, asked }: HandingOver,
  now: number,
): JudgedRole | undefined {
  const next = roles.find((one) => one.counts && !answersFrom(one.health, build));
  if (next === undefined || next.way === null) return undefined;
  const tried = asked.get(roleKey(next));
  if (tried === undefined || tried.kind === "waits") return next;
  return tried.kind === "refused" && now - tried.at >= ASK_AGAIN ? next : undefined;
}

/** The agent itself, of which the file that it runs is known: who tells this is well. */
export const agentRole = ({ digest }: Build): RoleHealth => ({
  ...{ role: "fleet agent", digest, healthy: true, reason: null },
});

/** What a heartbeat has room for: those that an upgrade waits for come first. */
export function toldRoles(own: RoleHealth, roles: readonly JudgedRole[]): RoleHealth[] {
  const first = [...roles.filter(({ counts }) => counts), ...roles.filter(({ counts }) => !counts)];
  return [own, ...first.map(({ health }) => health)].slice(0, fleetLimits.roles);
}
