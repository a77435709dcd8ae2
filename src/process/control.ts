import { wallClock } from "../event-loop/clock.ts";
import type { MetricPart } from "../http/metrics.ts";
import type { ControlCall, ControlError } from "../messaging/control-server.ts";
import { describeEnding } from "../units/ending.ts";
import { signalName } from "../units/signals.ts";
import type { Bytes, Milliseconds, MonotonicTime } from "../units/units.ts";
import type { ConfigurationWarning } from "./configuration.ts";
import { decodeEnding, encodeEnding } from "./ending.ts";
import { formatHttpEndpoint } from "./endpoint.ts";
import { type BookedEvent, degradedBy, describeEntry } from "./event-book.ts";
import {
  comingWaits,
  ENDING_LIMIT,
  instanceOf,
  nobodyTold,
  type ProcessState,
} from "./lifecycle.ts";
import type { LogBook, StoredLine } from "./log-book.ts";
import type { Usage } from "./metrics.ts";
import {
  blockersOf,
  countsAsReady,
  isActive,
  isOnItsWay,
  type OrchestrationState,
  type Plan,
  type Wish,
} from "./orchestration.ts";
import type { PartitionEntry } from "./partition-book.ts";
import type {
  About,
  ControlRequest,
  LogLine,
  PartitionSummary,
  ProcessDetail,
  ProcessEventRecord,
  ProcessSummary,
  ReloadPart,
} from "./protocol.ts";
import type { ReexecutionRequest } from "./reexecution.ts";
import type { ReloadPlan } from "./reload-plan.ts";
import type { ReloadListener } from "./reloading.ts";
import type { Liveness, ProcessSpecification, Readiness, Scheduling } from "./specification.ts";

/** A file of lines, as it is shown and asked. */
export interface LogFileView {
  readonly path: string;
  readonly size: Bytes;
  readonly dropped: number;
  /** @throws Error (EACCES …), FileRefused */
  reopen(): Promise<void>;
}

/** What the control socket can see and ask of the orchestrator. */
export interface Orchestrated {
  /** As it is at the moment. */
  readonly plan: Plan;
  readonly state: OrchestrationState;
  now(): MonotonicTime;
  /** The sequence number of the newest event. */
  readonly newestEvent: number;
  eventsAfter(sequence: number): readonly BookedEvent[];
  historyOf(name: string): readonly BookedEvent[];
  partitions(): readonly PartitionEntry[];
  logOf(name: string): LogBook | undefined;
  /** The file that its lines are written to. */
  logFileOf(name: string): LogFileView | undefined;
  /** What it has parked. */
  parkedOf(name: string): readonly { readonly name: string; readonly is: string }[];
  /** What is told to scrapers, in parts. */
  metrics(): Promise<Iterable<MetricPart>>;
  /** What each process uses, by its name. */
  usage(): Promise<ReadonlyMap<string, Usage>>;
  /** Resolves when others have had their turn. */
  letOthers(): Promise<void>;
  /** A bug, in what nobody waits for. */
  fail(failure: unknown): void;
  /** Which program runs. @throws Error when its file cannot be read */
  about(): Promise<About>;
  /** Has it go on as another program, which answers; or refuses. */
  reexecute(request: ReexecutionRequest, call: ControlCall): void;
  /** Reads the configuration anew, and has it put in; a dry run only tells what it means. */
  reload(request: { readonly dryRun: boolean }, listener: ReloadListener): void;
  tell(names: readonly string[], wish: Wish): void;
  /** False when nothing runs that could be signalled. */
  signal(name: string, signal: number): boolean;
  /** Calls after every turn, until disposed. */
  onTurn(call: () => void): Disposable;
  /** Calls once, unless disposed before. */
  wakeAfter(delay: Milliseconds, call: () => void): Disposable;
}

/** Waits that `show` prints of the coming schedule. */
const SCHEDULE_LENGTH = 10;

function encodeEvent(event: BookedEvent): ProcessEventRecord {
  const { entry } = event;
  const record: ProcessEventRecord = {
    sequence: event.sequence,
    time: wallClock(event.at),
    monotonic_us: Math.round(event.at * 1_000),
    name: event.name,
    what: entry.what,
  };
  if ("invocation" in entry) record.invocation = entry.invocation;
  if ("processId" in entry) record.pid = entry.processId;
  if ("ending" in entry) record.ending = encodeEnding(entry.ending);
  const detail = describeEntry(entry, signalName);
  if (detail !== undefined) record.detail = detail;
  return record;
}

/** Entries that say why a process does not run now. */
const reasons = new Set<string>(["start-refused", "ended", "readiness-timeout"]);

function reasonOf(orchestrated: Orchestrated, name: string, state: ProcessState): string | null {
  if (state.phase === "failed") return state.reason;
  if (state.phase === "uncertain") return "its start was not answered; waits for its agent's end";
  if (state.phase === "backing-off") {
    return lastFailure(orchestrated.historyOf(name));
  }
  if (state.phase === "running" || state.phase === "ready") {
    return degradedReason(orchestrated, name) ?? pastCrash(orchestrated, name);
  }
  if (state.phase === "idle") return dependencyReason(orchestrated.historyOf(name));
  if (state.phase !== "waiting") return renewalReason(orchestrated, name);
  const blockers = blockersOf(orchestrated.plan, orchestrated.state, name);
  if (blockers.length > 0) return `waits for ${blockers.join(", ")}`;
  const { concurrentStarts } = orchestrated.plan;
  if (!Number.isFinite(concurrentStarts)) return null;
  const starting = [...orchestrated.state.processes].flatMap(([other, process]) =>
    isOnItsWay(process) ? [other] : [],
  );
  const who = starting.length === 0 ? "" : `: ${starting.slice(0, 3).join(", ")}`;
  return `waits for its turn, as ${concurrentStarts} start at once${who}`;
}

/** Why the last instance ended, or was none: what it was ended for tells more than how. */
function lastFailure(history: readonly BookedEvent[]): string | null {
  const why = history.findLast(({ entry }) => reasons.has(entry.what))?.entry;
  if (why === undefined) return null;
  const invocation = "invocation" in why ? why.invocation : undefined;
  const seen = history.findLast(
    ({ entry }) => entry.what === "unhealthy" && entry.invocation === invocation,
  );
  return describeEntry(seen?.entry ?? why, signalName) ?? null;
}

/** It runs, and does its work no more. */
function degradedReason(orchestrated: Orchestrated, name: string): string | null {
  const isLooked = orchestrated.plan.specifications.get(name)?.liveness?.onFailure === "degrade";
  const reason = isLooked ? degradedBy(orchestrated.historyOf(name)) : undefined;
  return reason === undefined ? null : `degraded: ${reason}`;
}

/** Who took it down was no operator. */
function dependencyReason(history: readonly BookedEvent[]): string | null {
  const told = ["dependency-failed", "start-requested"];
  const last = history.findLast(({ entry }) => told.includes(entry.what))?.entry;
  return last?.what === "dependency-failed" ? `stopped: ${last.dependency} failed` : null;
}

/** What a reload does with it. */
function renewalReason(orchestrated: Orchestrated, name: string): string | null {
  const renewal = orchestrated.state.renewing.get(name);
  if (renewal === undefined || renewal === "in-place") return null;
  return renewal === "gone" ? "the configuration has it no more" : "its configuration has changed";
}

/** What the last start, or the lack of one, had to do with an orchestrator that was killed. */
function pastCrash(orchestrated: Orchestrated, name: string): string | null {
  const told = ["adopted", "lost", "died"];
  const last = orchestrated.historyOf(name).findLast(({ entry }) => told.includes(entry.what));
  if (last?.entry.what === "adopted") return "adopted: found running";
  if (last?.entry.what === "lost") return `the one before it was lost: ${last.entry.reason}`;
  return null;
}

function summarize(orchestrated: Orchestrated, name: string): ProcessSummary {
  const state = orchestrated.state.processes.get(name) as ProcessState;
  const specification = orchestrated.plan.specifications.get(name) as ProcessSpecification;
  const instance = instanceOf(state);
  const isLate = (endingDue(orchestrated, name) ?? Number.POSITIVE_INFINITY) <= orchestrated.now();
  const ending = isLate ? nobodyTold : state.lastEnding;
  return {
    name,
    partition: specification.partition ?? null,
    phase: state.phase,
    pid: instance?.processId ?? null,
    restarts: state.restarts,
    refused_starts: state.refusedStarts,
    last_exit: ending === undefined ? null : encodeEnding(ending),
    uptime_ms: instance === undefined ? null : Math.round(orchestrated.now() - instance.startedAt),
    invocation: instance?.invocation ?? null,
    reason: reasonOf(orchestrated, name, state),
  };
}

function summarizePartition({
  specification,
  standing,
  processes,
}: PartitionEntry): PartitionSummary {
  const { name, endpoint, protocol } = specification;
  const agent = standing.state === "connected" ? standing.agent : undefined;
  return {
    name,
    state: standing.state,
    since: wallClock(standing.since),
    reason: standing.state === "away" ? standing.reason : null,
    agent_version: agent?.version ?? null,
    agent_pid: agent?.processId ?? null,
    protocol,
    endpoint: { [endpoint.kind]: endpoint.path },
    processes: [...processes],
  };
}

function describeCheck(check: Readiness | Liveness["check"]): string {
  switch (check.kind) {
    case "tcp":
      return `tcp ${check.host}:${check.port}`;
    case "unix":
      return `unix ${check.path}`;
    case "http":
      return formatHttpEndpoint(check);
    case "command":
      return `command ${check.command.join(" ")}`;
    default:
      return check.kind;
  }
}

function encodeLiveness(liveness: Liveness | undefined): Pick<ProcessDetail, "liveness"> {
  if (liveness === undefined) return {};
  const { check, interval, timeout, failures, onFailure } = liveness;
  return {
    liveness: {
      check: describeCheck(check),
      interval_ms: interval,
      ...(check.kind !== "watchdog" && { timeout_ms: timeout, failures }),
      on_failure: onFailure,
    },
  };
}

function detail(orchestrated: Orchestrated, name: string): ProcessDetail {
  const specification = orchestrated.plan.specifications.get(name) as ProcessSpecification;
  const state = orchestrated.state.processes.get(name) as ProcessState;
  const { startLimit, stopSignal, stopGrace } = specification;
  const book = orchestrated.logOf(name);
  const file = orchestrated.logFileOf(name);
  const now = orchestrated.now();
  const { waits, thenFails } = comingWaits(state, specification, { now, most: SCHEDULE_LENGTH });
  return {
    summary: summarize(orchestrated, name),
    command: [...specification.command],
    restart: specification.restart,
    readiness: describeCheck(specification.readiness),
    ...encodeLiveness(specification.liveness),
    after: [...specification.after],
    on_dependency_failure: specification.onDependencyFailure,
    stop: { signal: signalName(stopSignal), grace_ms: stopGrace },
    start_limit:
      startLimit === "none" ? null : { starts: startLimit.starts, within_ms: startLimit.within },
    backoff_schedule_ms: [...waits],
    fails_after_schedule: thenFails,
    ...encodeScheduling(specification.scheduling),
    ...(specification.descriptorStore > 0 && {
      descriptor_store: {
        most: specification.descriptorStore,
        parked: [...orchestrated.parkedOf(name)],
      },
    }),
    log: {
      lines: book?.size.lines ?? 0,
      bytes: book?.size.bytes ?? 0,
      dropped_lines: book?.dropped ?? 0,
      file:
        file === undefined
          ? null
          : { path: file.path, bytes: file.size, dropped_lines: file.dropped },
    },
    history: orchestrated.historyOf(name).map(encodeEvent),
  };
}

function encodeScheduling(scheduling: Scheduling): Pick<ProcessDetail, "scheduling"> {
  const { nice, affinity, policy, oomScoreAdjust } = scheduling;
  if (Object.keys(scheduling).length === 0) return {};
  return {
    scheduling: {
      ...(nice !== undefined && { nice }),
      ...(affinity !== undefined && { affinity: [...affinity] }),
      ...(policy !== undefined && { policy: policy.name }),
      ...(policy !== undefined && "priority" in policy && { priority: policy.priority }),
      ...(oomScoreAdjust !== undefined && { oom_score_adjust: oomScoreAdjust }),
    },
  };
}

/** Sends what is there, and with `follow` what comes, until the client leaves. */
function follow(
  orchestrated: Orchestrated,
  call: ControlCall,
  options: { readonly follow: boolean; readonly send: () => void },
): void {
  options.send();
  if (!options.follow) {
    call.done(null);
    return;
  }
  const subscription = orchestrated.onTurn(options.send);
  call.onGone(() => subscription[Symbol.dispose]());
}

type Of<Verb extends ControlRequest["verb"]> = Extract<ControlRequest, { verb: Verb }>;

function subscribe(orchestrated: Orchestrated, request: Of<"subscribe">, call: ControlCall): void {
  let last = request.after ?? 0;
  const send = () => {
    for (const event of orchestrated.eventsAfter(last)) {
      last = event.sequence;
      call.item(encodeEvent(event));
    }
  };
  call.resumeBy(() => ({ ...request, after: last }));
  follow(orchestrated, call, { follow: request.follow === true, send });
}

function logs(orchestrated: Orchestrated, request: Of<"logs">, call: ControlCall): void {
  const { name } = request;
  const names = () => (name === undefined ? [...orchestrated.plan.specifications.keys()] : [name]);
  const reader = new LogReader(orchestrated, names, request.lines);
  const follows = request.follow === true;
  const ends = follows ? undefined : reader.newest();
  let subscription: Disposable | undefined;
  const send = () => {
    // To a client that is behind, memory would have to hold what it does not take: it is sent the
    // rest when it has read, and told how many lines were dropped by then.
    while (!call.isBehind) {
      const items = reader.next(ends);
      for (const item of items) call.item(item);
      if (items.length > 0) continue;
      if (follows) return;
      subscription?.[Symbol.dispose]();
      call.done(null);
      return;
    }
  };
  if (follows) {
    subscription = orchestrated.onTurn(send);
    // Whoever is not behind has got all that is there.
    call.resumeBy(() => ({ ...request, lines: 0 }));
  }
  call.onGone(() => subscription?.[Symbol.dispose]());
  call.onDrained(send);
  send();
}

function list(orchestrated: Orchestrated, request: Of<"list">, call: ControlCall): void {
  const summaries = () =>
    [...orchestrated.plan.specifications.keys()].map((name) => summarize(orchestrated, name));
  if (request.usage !== true) {
    call.done(summaries());
    return;
  }
  call.resumeBy(() => request);
  orchestrated.usage().then(
    (usage) => {
      const encode = (used: Usage | undefined) =>
        used === undefined
          ? null
          : { cpu_seconds: used.cpu.value, memory_bytes: used.memory.value };
      call.done(summaries().map((one) => ({ ...one, usage: encode(usage.get(one.name)) })));
    },
    (failure: unknown) => orchestrated.fail(failure),
  );
}

/** Sends part by part, no faster than they are taken: nothing else is held up. */
async function metrics(orchestrated: Orchestrated, call: ControlCall): Promise<void> {
  let isGone = false;
  let wake = () => {};
  call.onGone(() => {
    isGone = true;
    wake();
  });
  call.onDrained(() => wake());
  for (const part of await orchestrated.metrics()) {
    if (isGone) return;
    call.item(part);
    await orchestrated.letOthers();
    while (call.isBehind && !isGone) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }
  call.done(null);
}

/** Opens files of lines anew, and answers what became of each. */
async function reopenLogs(
  orchestrated: Orchestrated,
  { name }: Of<"reopen-logs">,
  call: ControlCall,
): Promise<void> {
  const names = name === undefined ? [...orchestrated.plan.specifications.keys()] : [name];
  const files = names.flatMap((one) => {
    const file = orchestrated.logFileOf(one);
    return file === undefined ? [] : [{ name: one, file }];
  });
  if (name !== undefined && files.length === 0) {
    const message = `${name} has no log_file`;
    call.refuse({ kind: "no-log-file", message, hint: "hostler process show tells what it has" });
    return;
  }
  const answers = files.map(async ({ name: one, file }) => {
    const error = await file.reopen().then(
      () => null,
      (failure: Error) => failure.message,
    );
    return { name: one, path: file.path, error };
  });
  call.done(await Promise.all(answers));
}

/** Lines of one process that are sent before others get their turn. */
const LINES_A_BATCH = 512;

/** Reads the books of several processes in the order of time, from where it stands. */
class LogReader {
  readonly #orchestrated: Orchestrated;
  /** Who is read at the moment: a configuration that is read anew may have others. */
  readonly #names: () => readonly string[];
  readonly #positions = new Map<string, number>();
  /** A reader that asked for the last lines alone does not miss the ones before. */
  readonly #silent: Set<string>;

  constructor(orchestrated: Orchestrated, names: () => readonly string[], last?: number) {
    this.#orchestrated = orchestrated;
    this.#names = names;
    this.#silent = new Set(last === undefined ? [] : names());
    for (const name of names()) {
      const book = orchestrated.logOf(name);
      const position = last === undefined ? 0 : (book?.sequenceBefore(last) ?? 0);
      this.#positions.set(name, position);
    }
  }

  /** Where each book ends now. */
  newest(): ReadonlyMap<string, number> {
    const names = [...this.#positions.keys()];
    return new Map(names.map((name) => [name, this.#orchestrated.logOf(name)?.newest ?? 0]));
  }

  /** The next lines, up to `ends` where it is given; none when there are none at the moment. */
  next(ends: ReadonlyMap<string, number> | undefined): LogLine[] {
    const found: { readonly name: string; readonly line: StoredLine; readonly lost: number }[] = [];
    let horizon = Number.POSITIVE_INFINITY;
    for (const name of this.#names()) {
      const book = this.#orchestrated.logOf(name);
      const known = this.#positions.get(name) ?? 0;
      // One that was removed and came again has counted from the beginning.
      const position = known > (book?.newest ?? 0) ? 0 : known;
      const part = book?.after(position, LINES_A_BATCH);
      const end = ends?.get(name) ?? Number.POSITIVE_INFINITY;
      part?.lines.forEach((line, index) => {
        if (line.sequence <= end) found.push({ name, line, lost: index === 0 ? part.dropped : 0 });
      });
      const newest = part?.lines.at(-1);
      // Of this one there may be more: nobody's later lines can come before those.
      if (part?.lines.length === LINES_A_BATCH) horizon = Math.min(horizon, newest?.at ?? 0);
    }
    // One process's lines come in order; between processes the clock decides.
    return found
      .filter(({ line }) => line.at <= horizon)
      .sort((one, other) => one.line.at - other.line.at)
      .map(({ name, line, lost }) => this.#take(name, line, lost));
  }

  #take(name: string, { at, stream, line, sequence }: StoredLine, lost: number): LogLine {
    this.#positions.set(name, sequence);
    const item: LogLine = { name, time: wallClock(at), stream, line };
    if (lost > 0 && !this.#silent.has(name)) item.dropped = lost;
    this.#silent.delete(name);
    return item;
  }
}

/** Until when the ending of the newest instance that has died may still be told in time. */
function endingDue(orchestrated: Orchestrated, name: string): MonotonicTime | undefined {
  const state = orchestrated.state.processes.get(name);
  const invocation = state?.lastEnding === undefined ? state?.awaitedEndings.at(-1) : undefined;
  if (invocation === undefined) return undefined;
  const death = orchestrated
    .historyOf(name)
    .findLast(({ entry }) => entry.what === "died" && entry.invocation === invocation);
  return death === undefined ? undefined : death.at + ENDING_LIMIT;
}

/**
 * Has an answer looked for after every turn, and after the time that `look` says, until it finds
 * one.
 */
function answerInTime(
  orchestrated: Orchestrated,
  { name, call }: { readonly name: string; readonly call: ControlCall },
  look: () => "answered" | { readonly againAfter: Milliseconds | undefined },
): void {
  let subscription: Disposable | undefined;
  let expiry: Disposable | undefined;
  const end = () => {
    subscription?.[Symbol.dispose]();
    expiry?.[Symbol.dispose]();
    expiry = undefined;
  };
  const answer = () => {
    expiry?.[Symbol.dispose]();
    expiry = undefined;
    const gone = unknownName(orchestrated, name);
    if (gone !== undefined) {
      end();
      call.refuse(gone);
      return;
    }
    const found = look();
    if (found === "answered") end();
    else if (found.againAfter !== undefined) {
      expiry = orchestrated.wakeAfter(found.againAfter, answer);
    }
  };
  subscription = orchestrated.onTurn(answer);
  call.onGone(end);
  answer();
}

/** How long it may still be told in time how the process ended; undefined when it need not be. */
function endingAwaited(orchestrated: Orchestrated, name: string): Milliseconds | undefined {
  const left = (endingDue(orchestrated, name) ?? 0) - orchestrated.now();
  return left > 0 ? left : undefined;
}

/** Answers when the process rests and it is known how it ended, or nobody told in time. */
function waitUntilStopped(orchestrated: Orchestrated, name: string, call: ControlCall): void {
  answerInTime(orchestrated, { name, call }, () => {
    const state = orchestrated.state.processes.get(name);
    const isStopped = state !== undefined && !isActive(state);
    if (!isStopped || ["waiting", "backing-off"].includes(state.phase)) {
      return { againAfter: undefined };
    }
    const againAfter = endingAwaited(orchestrated, name);
    if (againAfter !== undefined) return { againAfter };
    call.done(summarize(orchestrated, name));
    return "answered";
  });
}

/** The last thing that happened to a process that waits for its next start: a refusal. */
function wasRefused(orchestrated: Orchestrated, name: string): boolean {
  const history = orchestrated.historyOf(name);
  return history.findLast(({ entry }) => reasons.has(entry.what))?.entry.what === "start-refused";
}

/** What happened decides, and not the phase that is found later: a job is ready for a moment. */
function waitUntilReady(orchestrated: Orchestrated, request: Of<"wait">, call: ControlCall): void {
  const { name, once_only: onceOnly, since = orchestrated.newestEvent } = request;
  const wasReady = () =>
    orchestrated
      .historyOf(name)
      .some(({ sequence, entry }) => sequence > since && entry.what === "ready");
  answerInTime(orchestrated, { name, call }, () => {
    const state = orchestrated.state.processes.get(name);
    if (countsAsReady(state) || wasReady()) call.done(summarize(orchestrated, name));
    else if (state?.phase === "failed" || state?.phase === "finished") {
      const againAfter = state.phase === "finished" ? endingAwaited(orchestrated, name) : undefined;
      if (againAfter !== undefined) return { againAfter };
      refuseUnready(orchestrated, name, call);
    } else if (onceOnly && state?.phase === "backing-off" && wasRefused(orchestrated, name)) {
      const { reason } = summarize(orchestrated, name);
      const message = `${name} was not started: ${reason ?? "refused"}`;
      const hint = "It is tried again by itself; hostler process show tells when";
      call.refuse({ kind: "start-refused", message, hint });
    } else return { againAfter: undefined };
    return "answered";
  });
}

/** Nothing will make it ready by itself. */
function refuseUnready(orchestrated: Orchestrated, name: string, call: ControlCall): void {
  const { phase, reason, last_exit: ending } = summarize(orchestrated, name);
  const ended = ending === null ? null : describeEnding(decodeEnding(ending), signalName);
  const why = phase === "finished" ? ended : reason;
  const detail = why === null ? "" : `: ${why}`;
  const message = `${name} has ${phase}${detail}, and will not be ready by itself`;
  call.refuse({ kind: "over", message, hint: `hostler process start ${name}` });
}

/** The refusal of a name that is not in the configuration. */
function unknownName(orchestrated: Orchestrated, name: string): ControlError | undefined {
  if (orchestrated.plan.specifications.has(name)) return undefined;
  const known = [...orchestrated.plan.specifications.keys()].join(", ");
  return {
    kind: "unknown-process",
    message: `There is no process ${name} in the configuration`,
    expected: known,
    received: name,
    hint: "hostler process list shows all",
  };
}

/** The refusal of a name that a reload is about to remove. */
function goingName({ state }: Orchestrated, name: string): ControlError | undefined {
  if (state.renewing.get(name) !== "gone") return undefined;
  const message = `${name} is being removed: the configuration has it no more`;
  const hint = `hostler process stop ${name} --now ends it at once`;
  return { kind: "going", message, hint };
}

/** A stop stops one process alone: who it was needed by is named. */
function summarizeStop(orchestrated: Orchestrated, name: string): ProcessSummary {
  const { plan, state } = orchestrated;
  const others = [...plan.specifications.values()]
    .filter(({ after, name: other }) => {
      const process = state.processes.get(other);
      return after.includes(name) && process?.wanted === true && isActive(process);
    })
    .map((specification) => specification.name);
  const summary = summarize(orchestrated, name);
  return others.length === 0 ? summary : { ...summary, still_run_after: others };
}

const wishes: Readonly<Record<Wish["kind"], (request: { now?: boolean | undefined }) => Wish>> = {
  start: () => ({ kind: "start" }),
  restart: () => ({ kind: "restart" }),
  stop: ({ now }) => ({ kind: "stop", hurry: now === true }),
};

type Changed =
  | { readonly name: string; readonly summary: ProcessSummary }
  | { readonly name: string; readonly error: ControlError };

/** Tells what is wanted of these processes; each answer says how things are right after. */
function change(
  orchestrated: Orchestrated,
  request: Pick<Of<"change">, "what" | "names" | "now">,
): readonly Changed[] {
  const { what, names } = request;
  const isOver = what !== "stop" && orchestrated.state.shutdown !== "no";
  const shutdown = isOver
    ? { kind: "shutdown", message: "The orchestrator is stopping" }
    : undefined;
  const refusals = new Map(
    names.map((name) => {
      const going = what === "stop" ? undefined : goingName(orchestrated, name);
      return [name, unknownName(orchestrated, name) ?? going ?? shutdown];
    }),
  );
  const known = names.filter((name) => refusals.get(name) === undefined);
  orchestrated.tell(known, wishes[what](request));
  const summary = what === "stop" ? summarizeStop : summarize;
  return names.map((name) => {
    // Whoever was about to be removed may be gone by now.
    const error = refusals.get(name) ?? unknownName(orchestrated, name);
    return error === undefined ? { name, summary: summary(orchestrated, name) } : { name, error };
  });
}

function changeOne(
  orchestrated: Orchestrated,
  request: Of<"start" | "stop" | "restart">,
  call: ControlCall,
): void {
  const now = request.verb === "stop" ? request.now : undefined;
  for (const answer of change(orchestrated, { what: request.verb, names: [request.name], now })) {
    if ("error" in answer) call.refuse(answer.error);
    else call.done(answer.summary);
  }
}

function reload(orchestrated: Orchestrated, request: Of<"reload">, call: ControlCall): void {
  const dryRun = request.dry_run === true;
  // What it came to is nothing for somebody who has gone.
  let isGone = false;
  call.onGone(() => {
    isGone = true;
  });
  const tell = (part: ReloadPart, isLast: boolean) => {
    if (isGone) return;
    call.item(part);
    if (isLast) call.done(null);
  };
  orchestrated.reload(
    { dryRun },
    {
      refused: (errors) => tell({ what: "refused", errors: [...errors] }, true),
      impossible: (error) => {
        if (!isGone) call.refuse(error);
      },
      planned: (plan, warnings) => {
        tell({ ...encodePlan(plan, warnings), dry_run: dryRun }, dryRun);
      },
      applied: (refused) => tell({ what: "applied", refused: [...refused] }, true),
    },
  );
}

function encodePlan(
  { orchestrator, processes, partitions }: ReloadPlan,
  warnings: readonly ConfigurationWarning[],
): Omit<Extract<ReloadPart, { what: "planned" }>, "dry_run"> {
  const keysOf = ({ name, keys }: { readonly name: string; readonly keys: readonly string[] }) => ({
    name,
    keys: [...keys],
  });
  return {
    what: "planned",
    warnings: [...warnings],
    orchestrator: [...orchestrator],
    processes: {
      added: [...processes.added],
      removed: [...processes.removed],
      changed: processes.changed.map((one) => ({ ...keysOf(one), how: one.how })),
      unchanged: processes.unchanged,
    },
    partitions: {
      added: [...partitions.added],
      removed: [...partitions.removed],
      changed: partitions.changed.map(keysOf),
    },
  };
}

/** The file is hashed first, which takes a while: others are answered meanwhile. */
function about(orchestrated: Orchestrated, call: ControlCall): void {
  orchestrated.about().then(
    (answer) => call.done(answer),
    (error: Error) => {
      const message = `Cannot read the file that runs: ${error.message}`;
      call.refuse({ kind: "unreadable", message });
    },
  );
}

/** Answers one request of the command line. */
export function answerControl(
  orchestrated: Orchestrated,
  request: ControlRequest,
  call: ControlCall,
): void {
  if ("name" in request && request.name !== undefined) {
    const refusal = unknownName(orchestrated, request.name);
    if (refusal !== undefined) {
      call.refuse(refusal);
      return;
    }
  }
  switch (request.verb) {
    case "list":
      list(orchestrated, request, call);
      break;
    case "metrics":
      metrics(orchestrated, call).catch((failure) => orchestrated.fail(failure));
      break;
    case "partitions":
      call.done(orchestrated.partitions().map(summarizePartition));
      break;
    case "reexecute":
      // The program that it becomes says what it is.
      call.resumeBy(() => ({ id: request.id, verb: "about" }));
      orchestrated.reexecute(request, call);
      break;
    case "about":
      call.resumeBy(() => request);
      about(orchestrated, call);
      break;
    case "reload":
      reload(orchestrated, request, call);
      break;
    case "show":
      call.done(detail(orchestrated, request.name));
      break;
    case "start":
    case "stop":
    case "restart":
      changeOne(orchestrated, request, call);
      break;
    case "change":
      call.done({ since: orchestrated.newestEvent, outcomes: change(orchestrated, request) });
      break;
    case "signal":
      if (orchestrated.signal(request.name, request.signal)) call.done(null);
      else call.refuse({ kind: "not-running", message: `${request.name} does not run` });
      break;
    case "logs":
      logs(orchestrated, request, call);
      break;
    case "reopen-logs":
      reopenLogs(orchestrated, request, call).catch((failure) => orchestrated.fail(failure));
      break;
    case "subscribe":
      subscribe(orchestrated, request, call);
      break;
    case "wait": {
      const since = request.since ?? orchestrated.newestEvent;
      call.resumeBy(() => ({ ...request, since }));
      if (request.until === "ready") waitUntilReady(orchestrated, request, call);
      else waitUntilStopped(orchestrated, request.name, call);
      break;
    }
  }
}
