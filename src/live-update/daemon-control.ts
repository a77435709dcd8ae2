import type { ControlCall } from "../messaging/control-server.ts";
import type { MonotonicTime } from "../units/units.ts";
import {
  describeStatus,
  listMetrics,
  type StatusSources,
  summarizeClients,
  summarizeSessions,
} from "./daemon-view.ts";
import type { EventBook } from "./event-book.ts";
import type { DaemonEvent, DaemonState } from "./lifecycle-state.ts";
import { refuseSecondUpdate, refuseUpdate } from "./lifecycle-update.ts";
import type { EntryWay } from "./options.ts";
import type { ControlRequest, LoadReport, Status, WireError } from "./protocol.ts";

type Of<V extends ControlRequest["verb"]> = Extract<ControlRequest, { verb: V }>;

/** What the control socket can see and ask of the daemon. */
export interface Commanded {
  readonly state: DaemonState;
  readonly sources: StatusSources;
  readonly events: EventBook;
  readonly counters: { readonly updates: ReadonlyMap<string, number>; readonly claims: number };
  now(): MonotonicTime;
  tell(event: DaemonEvent): void;
  /** A kernel is being loaded: it is not known which one would be entered. */
  readonly isLoading: boolean;
  load(request: Of<"load">): Promise<LoadReport>;
  /** Why it cannot be unloaded, and the mend; undefined when it was. */
  unload(): { readonly why: string; readonly mend: string } | undefined;
  /** Begins an update, or says why not: the call is answered when it has ended in this kernel. */
  begin(order: Of<"kexec">, way: EntryWay, call: ControlCall): WireError | undefined;
  /** Calls after every turn, until disposed. */
  onTurn(call: () => void): Disposable;
}

/** Answers one request of the command line. */
export function answerControl(daemon: Commanded, request: ControlRequest, call: ControlCall): void {
  switch (request.verb) {
    case "status":
      call.done(statusOf(daemon));
      break;
    case "list":
      call.done(summarizeClients(daemon.state));
      break;
    case "sessions":
      call.done(summarizeSessions(daemon.state, daemon.now()));
      break;
    case "metrics": {
      const status = statusOf(daemon);
      call.done(listMetrics(daemon.state, status, daemon.counters));
      break;
    }
    case "load":
      load(daemon, request, call);
      break;
    case "unload":
      unload(daemon, call);
      break;
    case "kexec":
      begin(daemon, request, call);
      break;
    case "abort":
      abort(daemon, request, call);
      break;
    case "finish":
      finish(daemon, request, call);
      break;
    case "subscribe":
      follow(daemon, request, call);
      break;
  }
}

function statusOf(daemon: Commanded): Status {
  // Looking for them may change the state: others load kernels as well.
  const { sources } = daemon;
  return describeStatus(daemon.state, sources);
}

function refuseWhileLoading(daemon: Commanded, call: ControlCall): boolean {
  if (!daemon.isLoading) return false;
  call.refuse({ kind: "busy", message: "A kernel is being loaded", hint: "Wait for its end." });
  return true;
}

/** With what hinders the daemon besides: it may be the reason. */
function refuse(daemon: Commanded, call: ControlCall, error: WireError): void {
  const { kind, message, hint } = error;
  const { troubles } = daemon.sources;
  const hinders =
    kind === "busy" && troubles.length > 0 ? [`luod says: ${troubles.join("; ")}.`] : [];
  const words = [hint, ...hinders].filter((word) => word !== undefined);
  call.refuse({ kind, message, ...(words.length > 0 && { hint: words.join(" ") }) });
}

function refuseWhileUpdating(daemon: Commanded, call: ControlCall): boolean {
  if (refuseWhileLoading(daemon, call)) return true;
  const refusal = refuseSecondUpdate(daemon.state);
  if (refusal !== undefined) refuse(daemon, call, refusal);
  return refusal !== undefined;
}

function load(daemon: Commanded, request: Of<"load">, call: ControlCall): void {
  if (refuseWhileUpdating(daemon, call)) return;
  void daemon.load(request).then((report) => call.done(report));
}

function unload(daemon: Commanded, call: ControlCall): void {
  if (refuseWhileUpdating(daemon, call)) return;
  const problem = daemon.unload();
  if (problem === undefined) call.done(null);
  else {
    const { why, mend: hint } = problem;
    call.refuse({ kind: "kernel", message: `Cannot unload: ${why}`, hint });
  }
}

function begin(daemon: Commanded, request: Of<"kexec">, call: ControlCall): void {
  if (refuseWhileLoading(daemon, call)) return;
  // Looking may change the state: others load and unload kernels as well.
  statusOf(daemon);
  const order = {
    dryRun: request.dry_run,
    includeBare: request.include_bare,
    discardUnclaimed: request.discard_unclaimed,
  };
  const refusal = refuseUpdate(daemon.state, order) ?? daemon.begin(request, request.by, call);
  if (refusal !== undefined) refuse(daemon, call, refusal);
}

function abort(daemon: Commanded, request: Of<"abort">, call: ControlCall): void {
  const { update } = daemon.state;
  if (update === undefined) {
    call.refuse({ kind: "no-update", message: "No update is under way that could be aborted" });
    return;
  }
  if (update.phase === "aborting") {
    const message = `The update ${update.id} is being rolled back already`;
    refuse(daemon, call, { kind: "busy", message, hint: "Wait for its end." });
    return;
  }
  if (update.commit === "kernel") {
    const message = "The new kernel is being entered: it is too late";
    call.refuse({ kind: "too-late", message });
    return;
  }
  daemon.tell({ kind: "operator-aborts", reason: request.reason ?? "the operator aborted it" });
  call.done(null);
}

function finish(daemon: Commanded, request: Of<"finish">, call: ControlCall): void {
  const { incoming } = daemon.state;
  const known = [...incoming.values()];
  const own = known.filter(({ id, name }) => id === request.client || name === request.client);
  if (own.length === 0) {
    const received = request.client;
    const expected = [...new Set(known.map(({ id }) => id))].join(", ") || "none is restored";
    const message = `Nothing was restored for ${received}`;
    call.refuse({ kind: "unknown-client", message, expected, received });
    return;
  }
  daemon.tell({ kind: "operator-finishes", id: request.client });
  call.done(own.map(({ name }) => name));
}

/**
 * Kept events, then the coming ones. A client that is behind is given more when it has read, and
 * the end of what was kept when it was asked for is its answer, however long it reads.
 */
function follow(daemon: Commanded, request: Of<"subscribe">, call: ControlCall): void {
  let told = request.after ?? 0;
  const last = request.follow === true ? undefined : daemon.events.last;
  const tell = () => {
    for (const event of daemon.events.after(told)) {
      if (last !== undefined && event.sequence > last) break;
      if (call.isBehind) return;
      told = event.sequence;
      call.item(event);
    }
    if (last !== undefined) call.done(null);
  };
  call.onDrained(tell);
  tell();
  if (last !== undefined) return;
  const listening = daemon.onTurn(tell);
  call.onGone(() => listening[Symbol.dispose]());
}
