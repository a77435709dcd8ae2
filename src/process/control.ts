import { wallClock } from "../event-loop/clock.ts";
import type { ControlCall } from "../messaging/control-server.ts";
import { signalName } from "../units/signals.ts";
import type { MonotonicTime } from "../units/units.ts";
import { type BookedEvent, describeEntry } from "./event-book.ts";
import { backoffWait, type Ending, instanceOf, type ProcessState } from "./lifecycle.ts";
import type { LogBook } from "./log-book.ts";
import { blockersOf, isActive, type OrchestrationState, type Plan } from "./orchestration.ts";
import type {
  ControlRequest,
  LogLine,
  ProcessDetail,
  ProcessEventRecord,
  ProcessSummary,
  WireEnding,
} from "./protocol.ts";
import type { ProcessSpecification } from "./specification.ts";

/** What the control socket can see and ask of the orchestrator. */
export interface Orchestrated {
  readonly plan: Plan;
  readonly state: OrchestrationState;
  now(): MonotonicTime;
  eventsAfter(sequence: number): readonly BookedEvent[];
  historyOf(name: string): readonly BookedEvent[];
  logOf(name: string): LogBook | undefined;
  tell(name: string, event: { kind: "start" | "restart" } | { kind: "stop"; hurry: boolean }): void;
  /** False when nothing runs that could be signalled. */
  signal(name: string, signal: number): boolean;
  /** Calls after every turn, until disposed. */
  onTurn(call: () => void): Disposable;
}

/** Waits that `show` prints of the coming schedule. */
const SCHEDULE_LENGTH = 10;

export function encodeEnding(ending: Ending): WireEnding {
  if (ending.kind !== "signalled") return ending;
  return { kind: "signalled", signal: ending.signal, core_dumped: ending.coreDumped };
}

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

function reasonOf(orchestrated: Orchestrated, name: string, state: ProcessState): string | null {
  if (state.phase === "failed") return state.reason;
  if (state.phase !== "waiting") return null;
  const blockers = blockersOf(orchestrated.plan, orchestrated.state, name);
  return blockers.length === 0 ? null : `waits for ${blockers.join(", ")}`;
}

function summarize(orchestrated: Orchestrated, name: string): ProcessSummary {
  const state = orchestrated.state.processes.get(name) as ProcessState;
  const specification = orchestrated.plan.specifications.get(name) as ProcessSpecification;
  const instance = instanceOf(state);
  const ending = state.lastEnding;
  return {
    name,
    partition: specification.partition ?? null,
    phase: state.phase,
    pid: instance?.processId ?? null,
    restarts: state.restarts,
    last_exit: ending === undefined ? null : encodeEnding(ending),
    uptime_ms: instance === undefined ? null : Math.round(orchestrated.now() - instance.startedAt),
    invocation: instance?.invocation ?? null,
    reason: reasonOf(orchestrated, name, state),
  };
}

function describeReadiness(specification: ProcessSpecification): string {
  const { readiness } = specification;
  switch (readiness.kind) {
    case "tcp":
      return `tcp ${readiness.host}:${readiness.port}`;
    case "unix":
      return `unix ${readiness.path}`;
    case "command":
      return `command ${readiness.command.join(" ")}`;
    default:
      return readiness.kind;
  }
}

/** The waits before the coming restarts if it kept dying early; jitter is left out. */
function scheduleOf(specification: ProcessSpecification, state: ProcessState): number[] {
  const { backoff } = specification;
  const MIDDLE = 0.5;
  return Array.from({ length: SCHEDULE_LENGTH }, (_, index) =>
    backoff === "none" ? 0 : backoffWait(backoff, state.failures + 1 + index, MIDDLE),
  );
}

function detail(orchestrated: Orchestrated, name: string): ProcessDetail {
  const specification = orchestrated.plan.specifications.get(name) as ProcessSpecification;
  const state = orchestrated.state.processes.get(name) as ProcessState;
  const { startLimit, stopSignal, stopGrace } = specification;
  const book = orchestrated.logOf(name);
  return {
    summary: summarize(orchestrated, name),
    command: [...specification.command],
    restart: specification.restart,
    readiness: describeReadiness(specification),
    after: [...specification.after],
    stop: { signal: signalName(stopSignal), grace_ms: stopGrace },
    start_limit:
      startLimit === "none" ? null : { starts: startLimit.starts, within_ms: startLimit.within },
    backoff_schedule_ms: scheduleOf(specification, state),
    log: {
      lines: book?.size.lines ?? 0,
      bytes: book?.size.bytes ?? 0,
      dropped_lines: book?.dropped ?? 0,
    },
    history: orchestrated.historyOf(name).map(encodeEvent),
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
  follow(orchestrated, call, { follow: request.follow === true, send });
}

function logs(orchestrated: Orchestrated, request: Of<"logs">, call: ControlCall): void {
  const all = [...orchestrated.plan.specifications.keys()];
  const names = request.name === undefined ? all : [request.name];
  const positions = new Map<string, number>();
  for (const name of names) {
    const book = orchestrated.logOf(name);
    positions.set(
      name,
      request.lines === undefined ? 0 : (book?.sequenceBefore(request.lines) ?? 0),
    );
  }
  let first = true;
  const send = () => {
    const items: { at: MonotonicTime; line: LogLine }[] = [];
    for (const [name, position] of positions) {
      const { lines, dropped } = orchestrated.logOf(name)?.after(position) ?? {
        lines: [],
        dropped: 0,
      };
      lines.forEach(({ at, stream, line, sequence }, index) => {
        const item: LogLine = { name, time: wallClock(at), stream, line };
        if (index === 0 && dropped > 0 && !(first && request.lines !== undefined)) {
          item.dropped = dropped;
        }
        items.push({ at, line: item });
        positions.set(name, sequence);
      });
    }
    first = false;
    // One process's lines come in order; between processes the clock decides.
    items.sort((one, other) => one.at - other.at);
    for (const { line } of items) call.item(line);
  };
  follow(orchestrated, call, { follow: request.follow === true, send });
}

function waitFor(orchestrated: Orchestrated, request: Of<"wait">, call: ControlCall): void {
  const reached = () => {
    const state = orchestrated.state.processes.get(request.name);
    if (request.until === "ready") return state?.phase === "ready";
    return (
      state !== undefined && !isActive(state) && !["waiting", "backing-off"].includes(state.phase)
    );
  };
  if (reached()) {
    call.done(summarize(orchestrated, request.name));
    return;
  }
  const subscription = orchestrated.onTurn(() => {
    if (!reached()) return;
    subscription[Symbol.dispose]();
    call.done(summarize(orchestrated, request.name));
  });
  call.onGone(() => subscription[Symbol.dispose]());
}

/** Refuses a name that is not in the configuration. */
function refuseUnknown(orchestrated: Orchestrated, name: string, call: ControlCall): boolean {
  if (orchestrated.plan.specifications.has(name)) return false;
  const known = [...orchestrated.plan.specifications.keys()].join(", ");
  call.refuse({
    kind: "unknown-process",
    message: `There is no process ${name} in the configuration`,
    expected: known,
    received: name,
    hint: "hostler process list shows all",
  });
  return true;
}

/** Answers one request of the command line. */
export function answerControl(
  orchestrated: Orchestrated,
  request: ControlRequest,
  call: ControlCall,
): void {
  if ("name" in request && request.name !== undefined) {
    if (refuseUnknown(orchestrated, request.name, call)) return;
  }
  switch (request.verb) {
    case "list": {
      const names = [...orchestrated.plan.specifications.keys()];
      call.done(names.map((name) => summarize(orchestrated, name)));
      break;
    }
    case "show":
      call.done(detail(orchestrated, request.name));
      break;
    case "start":
    case "restart":
      if (orchestrated.state.shutdown !== "no") {
        call.refuse({ kind: "shutdown", message: "The orchestrator is stopping" });
        break;
      }
      orchestrated.tell(request.name, { kind: request.verb });
      call.done(summarize(orchestrated, request.name));
      break;
    case "stop":
      orchestrated.tell(request.name, { kind: "stop", hurry: request.now === true });
      call.done(summarize(orchestrated, request.name));
      break;
    case "signal":
      if (orchestrated.signal(request.name, request.signal)) call.done(null);
      else call.refuse({ kind: "not-running", message: `${request.name} does not run` });
      break;
    case "logs":
      logs(orchestrated, request, call);
      break;
    case "subscribe":
      subscribe(orchestrated, request, call);
      break;
    case "wait":
      waitFor(orchestrated, request, call);
      break;
  }
}
