import * as v from "valibot";
import type { Ending } from "../units/ending.ts";
import type { BookedEvent } from "./event-book.ts";
import type { HistoryEntry, ProcessEvent, ProcessState } from "./lifecycle.ts";
import type { LogBookState } from "./log-book.ts";
import type { OrchestrationEvent } from "./orchestration.ts";
import type { PartitionStanding } from "./partition-book.ts";
import { type MeterState, restartReasons } from "./process-meter.ts";
import { controlRequestSchema } from "./protocol.ts";

/**
 * What an orchestrator hands to the program that it becomes: all that it knows, as JSON in a file
 * in memory, and the numbers of the descriptors that stay open. Pure.
 *
 * A version of the state is a promise to the release before and the one after: a program reads its
 * own version and the one before it. Whatever is changed in a type here, or in one that stands here
 * as it is in memory (ProcessState, HistoryEntry, …), is another version, and needs a reader that
 * makes it of the old one. Fields that are undefined in memory are null in the file.
 */

/** The name of the format: it is looked for before anything else. */
export const STATE_FORMAT = "hostler-orchestrator-state";

/** The version that is written. */
export const STATE_VERSION = 3;
const FORMER_VERSION = 2;

/** The versions that are read: this one, and the one before it. */
export const readableVersions: readonly number[] = [STATE_VERSION, FORMER_VERSION];

/** Bytes of log lines that are carried, of all processes together: 64 MiB; the newest are. */
export const CARRIED_LOG_BYTES = 64 * 1024 * 1024;

/** Buckets of a histogram: another version may have others. */
const MOST_BUCKETS = 64;

const text = v.string();
const time = v.pipe(v.number(), v.finite());
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const id = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const invocation = v.pipe(text, v.regex(/^[0-9a-f]{32}$/, "Expected 32 hexadecimal digits"));

/** What may be undefined in memory. */
function maybe<Output>(schema: v.GenericSchema<unknown, Output>) {
  return v.pipe(
    v.nullable(schema),
    v.transform((value): Output | undefined => value ?? undefined),
  );
}

const endingSchema: v.GenericSchema<unknown, Ending> = v.variant("kind", [
  v.strictObject({ kind: v.literal("exited"), status: v.pipe(v.number(), v.safeInteger()) }),
  v.strictObject({ kind: v.literal("signalled"), signal: count, coreDumped: v.boolean() }),
  v.strictObject({ kind: v.literal("unknown"), reason: text }),
]);

const refusal = v.strictObject({ message: text, code: maybe(text) });
const instance = v.strictObject({ invocation, processId: count, startedAt: time });
const stopReason = v.picklist(["stop", "restart", "unready", "unhealthy"]);

const common = {
  wanted: v.boolean(),
  restarts: count,
  begunBy: v.picklist(["start", "restart"]),
  refusedStarts: count,
  failures: count,
  recentStarts: v.array(time),
  lastInvocation: maybe(invocation),
  lastEnding: maybe(endingSchema),
  awaitedEndings: v.array(invocation),
  toldEnding: maybe(v.strictObject({ invocation, ending: endingSchema })),
};

/** Every phase of the lifecycle, as it is in memory. */
export const processStateSchema: v.GenericSchema<unknown, ProcessState> = v.variant("phase", [
  v.strictObject({ ...common, phase: v.literal("idle") }),
  v.strictObject({ ...common, phase: v.literal("waiting") }),
  v.strictObject({ ...common, phase: v.literal("starting"), invocation, answerBy: time }),
  v.strictObject({ ...common, phase: v.literal("uncertain"), invocation }),
  v.strictObject({ ...common, phase: v.literal("running"), instance, readyBy: time }),
  v.strictObject({ ...common, phase: v.literal("ready"), instance, readyAt: time }),
  v.strictObject({
    ...common,
    phase: v.literal("stopping"),
    instance,
    why: stopReason,
    killAt: maybe(time),
  }),
  v.strictObject({
    ...common,
    phase: v.literal("clearing"),
    instance,
    why: maybe(stopReason),
    diedAt: time,
    ending: maybe(endingSchema),
    endingBy: maybe(time),
  }),
  v.strictObject({ ...common, phase: v.literal("backing-off"), until: time }),
  v.strictObject({ ...common, phase: v.literal("finished") }),
  v.strictObject({ ...common, phase: v.literal("failed"), reason: text }),
]);

/** What somebody asks for, of one process or of several. */
const wishSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("start") }),
  v.strictObject({ kind: v.literal("stop"), hurry: v.boolean() }),
  v.strictObject({ kind: v.literal("restart") }),
]);

/** Everything that can happen to a process, as it waits for its turn. */
export const processEventSchema: v.GenericSchema<unknown, ProcessEvent> = v.variant("kind", [
  wishSchema,
  v.strictObject({ kind: v.literal("unblocked") }),
  v.strictObject({ kind: v.literal("started"), invocation, processId: count }),
  v.strictObject({ kind: v.literal("start-refused"), invocation, refusal }),
  v.strictObject({ kind: v.literal("answer-lost"), invocation }),
  v.strictObject({ kind: v.literal("found"), invocation, processId: count }),
  v.strictObject({ kind: v.literal("not-found"), invocation }),
  v.strictObject({ kind: v.literal("became-ready"), invocation }),
  v.strictObject({ kind: v.literal("unhealthy"), invocation, reason: text }),
  v.strictObject({ kind: v.literal("died"), invocation, ending: maybe(endingSchema) }),
  v.strictObject({ kind: v.literal("ending-known"), invocation, ending: endingSchema }),
  v.strictObject({ kind: v.literal("cleared"), invocation }),
  v.strictObject({ kind: v.literal("deadline") }),
]);

/** Events that came while no turn was begun any more; a shutdown is none, it takes all back. */
export type HeldEvent = Extract<
  OrchestrationEvent,
  { readonly kind: "process" | "wish" | "partition" }
>;

const heldEventSchema: v.GenericSchema<unknown, HeldEvent> = v.variant("kind", [
  v.strictObject({ kind: v.literal("process"), name: text, event: processEventSchema }),
  v.strictObject({ kind: v.literal("wish"), names: v.array(text), event: wishSchema }),
  v.strictObject({ kind: v.literal("partition"), name: text, reachable: v.boolean() }),
]);

/** Every entry of a history. */
export const historyEntrySchema: v.GenericSchema<unknown, HistoryEntry> = v.variant("what", [
  v.strictObject({ what: v.literal("start-requested"), invocation }),
  v.strictObject({ what: v.literal("started"), invocation, processId: count }),
  v.strictObject({ what: v.literal("adopted"), invocation, processId: count }),
  v.strictObject({ what: v.literal("start-refused"), invocation, refusal }),
  v.strictObject({ what: v.literal("uncertain"), invocation }),
  v.strictObject({ what: v.literal("ready"), invocation, after: time }),
  v.strictObject({ what: v.literal("readiness-timeout"), invocation }),
  v.strictObject({ what: v.literal("unhealthy"), invocation, reason: text }),
  v.strictObject({ what: v.literal("degraded"), invocation, reason: text }),
  v.strictObject({ what: v.literal("recovered"), invocation }),
  v.strictObject({ what: v.literal("stop-requested"), invocation }),
  v.strictObject({ what: v.literal("killed"), invocation }),
  v.strictObject({ what: v.literal("died"), invocation, ranFor: time }),
  v.strictObject({ what: v.literal("ended"), invocation, ending: endingSchema }),
  v.strictObject({ what: v.literal("backing-off"), wait: time, failures: count }),
  v.strictObject({ what: v.literal("failed"), reason: text }),
  v.strictObject({ what: v.literal("dependency-failed"), dependency: text }),
  v.strictObject({ what: v.literal("lost"), invocation, reason: text }),
  v.strictObject({ what: v.literal("strays-ended"), count }),
]);

const bookedEventSchema: v.GenericSchema<unknown, BookedEvent> = v.strictObject({
  sequence: id,
  at: time,
  name: text,
  entry: historyEntrySchema,
});

/** By hand: there may be a hundred thousand lines, and nobody supervises while they are read. */
function areLines(input: unknown): input is LogBookState["lines"] {
  if (!Array.isArray(input)) return false;
  return input.every(
    (line) =>
      Array.isArray(line) &&
      line.length === 3 &&
      Number.isFinite(line[0]) &&
      (line[1] === "stdout" || line[1] === "stderr") &&
      typeof line[2] === "string",
  );
}

const base64 = v.pipe(text, v.base64());

const logBookSchema: v.GenericSchema<unknown, LogBookState> = v.strictObject({
  lines: v.custom<LogBookState["lines"]>(areLines, "Expected lines of a log"),
  sequence: count,
  dropped: count,
  rest: v.strictObject({
    stdout: v.union([v.literal(""), base64]),
    stderr: v.union([v.literal(""), base64]),
  }),
});

const standingSchema: v.GenericSchema<unknown, PartitionStanding> = v.variant("state", [
  v.strictObject({
    state: v.literal("connected"),
    since: time,
    agent: maybe(v.strictObject({ version: text, processId: count })),
  }),
  v.strictObject({ state: v.literal("away"), since: time, reason: text }),
]);

/** A descriptor that stays open, and which file it is: as /proc shows it, or by its inode. */
const descriptorSchema = v.strictObject({
  number: v.pipe(v.number(), v.safeInteger(), v.minValue(3), v.maxValue(2 ** 31 - 1)),
  is: text,
});
export type CarriedDescriptor = v.InferOutput<typeof descriptorSchema>;

/** A socket that listens, and the file at its path: device and inode; null without one. */
const listenerSchema = v.strictObject({ socket: descriptorSchema, file: maybe(text) });
export type CarriedListener = v.InferOutput<typeof listenerSchema>;

/** A child of ours. */
const childSchema = v.strictObject({
  invocation,
  /** The process of the configuration; null for what nobody asks for any more. */
  name: maybe(text),
  processId: id,
  process: descriptorSchema,
  leftovers: v.picklist(["kill", "keep"]),
  /** The folder of cgroups in which its own is. */
  groupParent: maybe(text),
});
export type CarriedChild = v.InferOutput<typeof childSchema>;

/** A process that somebody else is the parent of. */
const remoteInstanceSchema = v.strictObject({
  invocation,
  name: text,
  /** 0: it had been reaped before anybody could see its number. */
  processId: count,
  process: descriptorSchema,
  parentTells: v.boolean(),
  dead: v.boolean(),
  notice: maybe(endingSchema),
});
export type CarriedInstance = v.InferOutput<typeof remoteInstanceSchema>;

const linkSchema = v.strictObject({
  socket: descriptorSchema,
  /** The version of the wire that both sides have said hello in. */
  protocol: count,
  dialled: v.boolean(),
  agentProcessId: id,
  nextId: id,
  running: v.array(invocation),
});
export type CarriedLink = v.InferOutput<typeof linkSchema>;

const remotePartitionSchema = v.strictObject({
  name: text,
  listener: maybe(listenerSchema),
  link: maybe(linkSchema),
  instances: v.array(remoteInstanceSchema),
  /** Instances that were started on that link. */
  startedOn: v.array(invocation),
  /** Starts that the agent holds prepared. */
  standby: v.array(v.strictObject({ name: text, invocation, replaces: invocation })),
});
export type CarriedPartition = v.InferOutput<typeof remotePartitionSchema>;

const holdenPartitionSchema = v.strictObject({
  name: text,
  reachable: v.boolean(),
  instances: v.array(remoteInstanceSchema),
});
export type CarriedHoldenPartition = v.InferOutput<typeof holdenPartitionSchema>;

const sender = v.strictObject({
  processId: count,
  parentId: count,
  group: count,
  session: v.pipe(v.number(), v.safeInteger()),
  state: text,
  startTicks: count,
});

/** By hand, as those of a log. */
const areTexts = (input: unknown): input is readonly string[] =>
  Array.isArray(input) && input.every((one) => typeof one === "string");

/** A file of lines between two writes, and what waits to be written. */
const logFileSchema = v.strictObject({
  /** null: it could not be opened, and is tried again. */
  file: maybe(descriptorSchema),
  waiting: v.custom<readonly string[]>(areTexts, "Expected lines of a log"),
  dropped: count,
  wantsReopening: v.boolean(),
  /** Lines that are dropped since the last one that was written. */
  episode: maybe(v.strictObject({ reason: text, lines: count, retryAt: maybe(time) })),
});
export type CarriedLogFile = v.InferOutput<typeof logFileSchema>;

/** What a process has parked. */
const parkedSchema = v.strictObject({
  slot: id,
  isPolled: v.boolean(),
  name: text,
  descriptor: descriptorSchema,
});
export type CarriedParked = v.InferOutput<typeof parkedSchema>;

/** What outlives the instances of a process. */
const managedSchema = v.strictObject({
  name: text,
  /** Both ends of stdout, then of stderr; null for output = "inherit". */
  pipes: maybe(
    v.pipe(
      v.array(v.strictObject({ read: descriptorSchema, write: descriptorSchema })),
      v.length(2),
    ),
  ),
  book: logBookSchema,
  /** The name in NOTIFY_SOCKET. */
  notifyName: maybe(text),
  notify: maybe(v.strictObject({ socket: descriptorSchema, early: v.array(sender) })),
  logFile: maybe(logFileSchema),
  /**
   * Absent where nothing is parked: a program that does not know of it takes such a state, and
   * refuses another, because it would let go of what is parked.
   */
  parked: v.optional(v.array(parkedSchema)),
});

const journalSchema = v.strictObject({
  lock: descriptorSchema,
  run: v.pipe(text, v.regex(/^[0-9a-f]{8}$/, "Expected 8 hexadecimal digits")),
  alive: v.array(v.tuple([text, text])),
  left: v.array(v.tuple([text, text])),
  made: v.array(v.tuple([text, text])),
  isDoubtful: v.boolean(),
});
export type CarriedJournal = v.InferOutput<typeof journalSchema>;

const meterSchema: v.GenericSchema<unknown, MeterState> = v.strictObject({
  name: text,
  since: time,
  restarts: v.strictObject({
    died: count,
    unready: count,
    unhealthy: count,
    asked: count,
  }),
  counts: v.pipe(v.array(count), v.maxLength(MOST_BUCKETS)),
  sum: time,
  reason: v.picklist(restartReasons),
  diedAt: maybe(time),
});

/** What is told to scrapers. */
const metricsSchema = v.strictObject({
  listener: maybe(listenerSchema),
  meters: v.array(meterSchema),
});

/** Who may go on with it: this process alone, in this boot. */
const ownerSchema = v.strictObject({ boot: text, processId: id, startTicks: count });
export type StateOwner = v.InferOutput<typeof ownerSchema>;

const stateSchema = v.strictObject({
  format: v.literal(STATE_FORMAT),
  version: v.literal(STATE_VERSION),
  owner: ownerSchema,
  /** The program that wrote it, for people. */
  program: v.strictObject({ version: text, commit: text }),
  /** The text that it runs by, whatever stands in the file by now; null: from the command line. */
  configuration: maybe(v.strictObject({ file: text, text })),
  /** Microseconds between the two clocks: what has happened keeps the time that was told. */
  wallOffset: maybe(time),
  journal: journalSchema,
  control: v.strictObject({
    listener: maybe(listenerSchema),
    /** Who is connected, and what the next program is to answer there. */
    clients: v.array(
      v.strictObject({ socket: descriptorSchema, requests: v.array(controlRequestSchema) }),
    ),
  }),
  processes: v.array(v.strictObject({ name: text, state: processStateSchema })),
  reachable: v.array(text),
  unsearched: v.array(text),
  held: v.array(heldEventSchema),
  standings: v.array(v.strictObject({ name: text, standing: standingSchema })),
  events: v.strictObject({
    newest: count,
    /** Of single processes, older than all of `all`. */
    older: v.array(bookedEventSchema),
    all: v.array(bookedEventSchema),
  }),
  managed: v.array(managedSchema),
  strays: v.array(v.strictObject({ invocation, name: text, rounds: count })),
  children: v.array(childSchema),
  /** Processes of this host that were adopted after a crash: children of somebody else. */
  adopted: v.array(remoteInstanceSchema),
  partitions: v.array(remotePartitionSchema),
  holden: v.array(holdenPartitionSchema),
  metrics: metricsSchema,
});
export type OrchestratorState = v.InferOutput<typeof stateSchema>;

/** Why a state cannot be gone on with. */
export interface StateRefusal {
  readonly expected: string;
  readonly received: string;
}

export function encodeState(state: OrchestratorState): string {
  return JSON.stringify(state, (_key, value) => (value === undefined ? null : value));
}

/** The form of the version before, for a program that reads no later one. */
export function encodeFormerState(state: OrchestratorState): string {
  const { events, metrics } = state;
  const known = { ...events, older: inFormerWords(events.older), all: inFormerWords(events.all) };
  const processes = state.processes.map((one) => ({ ...one, state: inFormerPhase(one.state) }));
  const held = state.held.filter(
    (event) => event.kind !== "process" || event.event.kind !== "unhealthy",
  );
  const meters = metrics.meters.map(({ restarts, reason, ...same }) => {
    const { unhealthy, ...counted } = restarts;
    const all = { ...counted, unready: counted.unready + unhealthy };
    return { ...same, restarts: all, reason: reason === "unhealthy" ? "unready" : reason };
  });
  const same = { ...state, version: FORMER_VERSION, events: known, processes, held };
  const former = { ...same, metrics: { ...metrics, meters } };
  return JSON.stringify(former, (_key, value) => (value === undefined ? null : value));
}

/** What is stopped because it does its work no more is followed by the same as one not ready. */
function inFormerPhase(state: ProcessState): object {
  return "why" in state && state.why === "unhealthy" ? { ...state, why: "unready" } : state;
}

/** It has no word for what does its work no more, and for whom that concerns. */
function inFormerWords(events: readonly BookedEvent[]): readonly BookedEvent[] {
  return events.map((event) => {
    const { entry } = event;
    switch (entry.what) {
      case "unhealthy":
      case "degraded":
        return { ...event, entry: { what: "failed", reason: `${entry.what}: ${entry.reason}` } };
      case "dependency-failed": {
        const reason = `${entry.dependency} failed, which it comes after`;
        return { ...event, entry: { what: "failed", reason } };
      }
      case "recovered":
        return { ...event, entry: { what: "ready", invocation: entry.invocation, after: 0 } };
      default:
        return event;
    }
  });
}

/** The forms that a state can be handed over in, the best one first. */
export const stateForms: readonly ((state: OrchestratorState) => string)[] = [
  encodeState,
  encodeFormerState,
];

/** What a program that does not read this version says that it received. */
export const describeVersion = (version: unknown) =>
  `version ${JSON.stringify(version)?.slice(0, 40)}`;

/** A state of the version before, as this one has it: without all that it did not know. */
function fromFormer(input: { readonly metrics?: { readonly meters?: unknown } }): object {
  const { metrics } = input;
  const meters = Array.isArray(metrics?.meters)
    ? metrics.meters.map(({ restarts, ...one }) => ({
        ...one,
        restarts: { ...restarts, unhealthy: 0 },
      }))
    : metrics?.meters;
  return { ...input, version: STATE_VERSION, metrics: { ...metrics, meters } };
}

/** A state, or what is wrong with it: of another version, damaged, or no state at all. */
export function decodeState(
  encoded: string,
): { readonly state: OrchestratorState } | { readonly refusal: StateRefusal } {
  let input: unknown;
  try {
    input = JSON.parse(encoded);
  } catch (error) {
    const received = (error as Error).message.slice(0, 200);
    return { refusal: { expected: `JSON of ${STATE_FORMAT}`, received } };
  }
  const { format, version } = (input ?? {}) as { format?: unknown; version?: unknown };
  if (format !== STATE_FORMAT) {
    const received = JSON.stringify(format) ?? "nothing of that name";
    return { refusal: { expected: `the format ${STATE_FORMAT}`, received: received.slice(0, 80) } };
  }
  if (!readableVersions.includes(version as number)) {
    const expected = `${STATE_FORMAT} of version ${readableVersions.join(" or ")}`;
    return { refusal: { expected, received: describeVersion(version) } };
  }
  const current = version === FORMER_VERSION ? fromFormer(input as object) : input;
  const parsed = v.safeParse(stateSchema, current, { abortEarly: true });
  if (parsed.success) return { state: parsed.output };
  const [issue] = parsed.issues;
  const where = v.getDotPath(issue) ?? "it";
  const { expected, received } = issue;
  return {
    refusal: {
      expected: `${STATE_FORMAT} with ${where}: ${expected ?? issue.message}`,
      received: received.slice(0, 200),
    },
  };
}

/** Phases in which a process of the instance is there, dead or alive. */
const livingPhases: readonly string[] = ["running", "ready", "stopping"];

/**
 * What of a state does not fit its configuration or itself: nobody could go on with it.
 * @param names the processes that the configuration has
 */
export function refuseState(
  state: OrchestratorState,
  configured: { readonly processes: readonly string[]; readonly partitions: readonly string[] },
): StateRefusal | undefined {
  const same = (kind: string, wanted: readonly string[], found: readonly string[]) =>
    [...wanted].sort().join() === [...found].sort().join()
      ? undefined
      : { expected: `the ${kind} ${wanted.join(", ")}`, received: found.join(", ") };
  const nameOf = ({ name }: { readonly name: string }) => name;
  const partitions = [...state.partitions, ...state.holden].map(nameOf);
  const carried = new Set([
    ...[...state.children, ...state.adopted].map(({ invocation: known }) => known),
    ...[...state.partitions, ...state.holden].flatMap(({ instances }) =>
      instances.map(({ invocation: known }) => known),
    ),
    ...state.held.flatMap((held) =>
      held.kind === "process" && held.event.kind === "died" ? [held.event.invocation] : [],
    ),
  ]);
  const lost = state.processes.find(
    ({ state: process }) =>
      livingPhases.includes(process.phase) &&
      "instance" in process &&
      !carried.has(process.instance.invocation),
  );
  return (
    same("processes", configured.processes, state.processes.map(nameOf)) ??
    same("processes", configured.processes, state.managed.map(nameOf)) ??
    same("partitions", configured.partitions, partitions) ??
    (lost === undefined
      ? undefined
      : { expected: `a descriptor of ${lost.name}, which runs`, received: "none" })
  );
}
