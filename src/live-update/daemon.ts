import { randomBytes } from "node:crypto";
import * as v from "valibot";
import { monotonicNow } from "../event-loop/clock.ts";
import { EventLoop } from "../event-loop/event-loop.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import { HolderClient, holderCommand } from "../holding/holder-client.ts";
import { ignoreSignals } from "../logging/ignored-signals.ts";
import { LimitedLogger } from "../logging/limited-logger.ts";
import { createLogger, type Logger } from "../logging/logger.ts";
import {
  type ControlCall,
  ControlServer,
  defaultControlLimits,
} from "../messaging/control-server.ts";
import { allowUsers } from "../messaging/peer.ts";
import { ServiceNotifier } from "../messaging/service-notify.ts";
import { ExitCode } from "../units/exit-code.ts";
import { answerControl, type Commanded } from "./daemon-control.ts";
import {
  measureBlackout,
  type StatusSources,
  summarizeLeftOut,
  summarizeParticipants,
} from "./daemon-view.ts";
import { EventBook } from "./event-book.ts";
import { nextDeadline, step } from "./lifecycle.ts";
import { preservedBy, restoredEvent, savedDecisions } from "./lifecycle-saved.ts";
import {
  type Context,
  type DaemonEvent,
  type DaemonState,
  type HistoryEntry,
  initialState,
  type Outcome,
  type Update,
} from "./lifecycle-state.ts";
import { DEVICE_MEND, NO_DEVICE, refuseUpdate } from "./lifecycle-update.ts";
import { type DaemonOptions, type EntryWay, mayUseId } from "./options.ts";
import { ClientConnections } from "./perform/client-connections.ts";
import { AlreadyRunning, bootTime, takeDaemonLock, takeKernelLock } from "./perform/daemon-lock.ts";
import { isSystemStopping, lookAtHooks, resolveWay } from "./perform/enter-kernel.ts";
import { currentlyLoaded, loadTarget, unloadTarget } from "./perform/load-kernel.ts";
import { Performer } from "./perform/performer.ts";
import { hasDevice, Sessions } from "./perform/sessions.ts";
import {
  readSavedRegistry,
  readState,
  type SavedState,
  StateFile,
  savedRegistry,
} from "./perform/state-file.ts";
import {
  type ControlRequest,
  controlRequestSchema,
  type LoadedKernel,
  type LoadReport,
  OWN_SESSION,
  type WireError,
} from "./protocol.ts";
import { type Registry, updateTimesSchema } from "./registry.ts";

const ROOT = 0;
/** Milliseconds until the registry is asked for again, when another has the device. */
const REGISTRY_AGAIN_AFTER = 1_000;
/** Milliseconds for an update to be taken back when the daemon is stopped. */
const STOP_LIMIT = 5_000;

type KexecOrder = Extract<ControlRequest, { verb: "kexec" }>;

/** What is said without being asked for; the rest stands in `luoctl events` and with -v. */
const loud = new Set(["aborting", "aborted", "lost", "refused-by-kernel", "left-out"]);
const told = new Set(["update-accepted", "all-ready", "restoring", "restored", "entering-kernel"]);

/** What comes from each of many clients, and of many sessions: nobody waits for its decision. */
const patient = new Set<DaemonEvent["kind"]>([
  "subscribe",
  "ready",
  "progress",
  "claim",
  "client-finished",
  "disconnected",
  "session-created",
  "session-dropped",
  "retrieved",
]);

/** What is done of our own session goes on in the very call that tells of it. */
const canWait = (event: DaemonEvent): boolean =>
  patient.has(event.kind) && !("session" in event && event.session === OWN_SESSION);

/** The driver: waits, decides by `step`, and has what was decided performed. */
class LiveUpdateDaemon {
  readonly #options: DaemonOptions;
  readonly #logger: Logger;
  readonly #limited: LimitedLogger;
  readonly #loop: EventLoop;
  readonly #notifier = new ServiceNotifier();
  readonly #events = new EventBook();
  readonly #queue: DaemonEvent[] = [];
  readonly #turnListeners = new Set<() => void>();
  readonly #updates = new Map<string, number>();
  readonly #stateFile: StateFile;
  readonly #holder: HolderClient;
  readonly #sessions: Sessions;
  readonly #performer: Performer;
  #state: DaemonState = initialState;
  #saved: SavedState;
  #loaded: LoadedKernel | undefined;
  #registry: Registry | undefined;
  /** The session that the registry came in is held; else it is known from its copy. */
  #registryHeld = false;
  /** Why the registry of the former kernel is not understood. */
  #unreadable: string | undefined;
  readonly #registryPath: string;
  /** It is known what of an update a daemon before this one left. */
  #isTakenBack = false;
  /** A kernel is being looked at and loaded. */
  #isLoading = false;
  #claims = 0;
  #way: "reboot" | "systemctl" = "reboot";
  /** Who ordered the update under way. */
  #caller: ControlCall | undefined;
  #clients: ClientConnections | undefined;
  #control: ControlServer<ControlRequest> | undefined;
  #timer: { readonly at: number; readonly wake: Disposable } | undefined;
  #watchdog: Disposable | undefined;
  #deciding = false;
  /** The update under way after the event whose effects are being performed. */
  #decidedUpdate: string | undefined;
  #isUp = false;
  readonly #onRefused: (error: Error) => void;

  /** `onRefused` is told once, when what it needs cannot be had. */
  constructor(
    options: DaemonOptions,
    parts: {
      readonly logger: Logger;
      readonly loop: EventLoop;
      readonly onRefused: (error: Error) => void;
    },
  ) {
    const { logger, loop } = parts;
    this.#onRefused = parts.onRefused;
    this.#options = options;
    this.#logger = logger;
    this.#loop = loop;
    this.#limited = new LimitedLogger(logger, {
      now: monotonicNow,
      wakeAfter: (delay, call) => loop.wakeAfter(delay, call),
    });
    const path = `${options.stateDirectory}/state.json`;
    this.#registryPath = `${options.stateDirectory}/registry.json`;
    this.#saved = readState(path, (message) => logger.warn(message));
    const { last, given } = this.#saved;
    this.#state = { ...initialState, last: last ?? undefined, given };
    this.#stateFile = new StateFile(path, (message) => logger.warn(message));
    this.#holder = new HolderClient(loop, {
      controlSocket: options.controlSocket,
      command: holderCommand(),
      onTrouble: (message) => this.#limited.warn(message),
      onTaken: (message) => this.#refuseSecond(message),
      onReady: () => this.#restore(),
    });
    this.#sessions = new Sessions(this.#holder);
    this.#performer = this.#makePerformer();
  }

  #makePerformer(): Performer {
    const parts = { sessions: this.#sessions, clients: () => this.#clients };
    return new Performer(this.#loop, parts, {
      onEvent: (event) => this.#receive(event),
      onRecord: (entry) => this.#record(entry),
      onEnd: (update, outcome, reason) => this.#end(update, outcome, reason),
      onTrouble: (message) => this.#limited.warn(message),
      onClaimed: () => this.#noteClaim(),
      registry: (entered) => this.#makeRegistry(entered),
      way: () => this.#way,
      hooks: () => this.#options.kexecHooks,
      keep: () => [this.#holder.processId].filter((processId) => processId > 0),
    });
  }

  /** The holder of this control socket serves another daemon: there is no place for this one. */
  #refuseSecond(message: string): void {
    if (this.#isUp) return;
    const { controlSocket } = this.#options;
    const mend = "Stop it first, or give another --control-socket.";
    const text = `Another luod has the control socket ${controlSocket}; its holder says`;
    this.#onRefused(new AlreadyRunning(`${text}: ${message}. ${mend}`));
  }

  /** Once the holder is there: what does it hold, and what came over a kexec? */
  #restore(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    this.#sessions.list(({ outgoing, incoming }) => {
      this.#takeRegistry(() => this.#openOrRefuse(outgoing, new Set(incoming)));
    });
  }

  /** Nobody is served before it is known what came: a device that another has is waited for. */
  #takeRegistry(onTaken: () => void): void {
    this.#sessions.takeRegistry((found) => {
      if (found !== undefined && "later" in found) {
        this.#limited.warn(`cannot retrieve the registry yet: ${found.later}`);
        this.#loop.wakeAfter(REGISTRY_AGAIN_AFTER, () => this.#takeRegistry(onTaken));
        return;
      }
      if (found !== undefined && "problem" in found) this.#unreadable = found.problem;
      const isFound = found !== undefined && "update" in found;
      this.#registry = isFound ? found : readSavedRegistry(this.#registryPath);
      this.#registryHeld = found !== undefined;
      if (isFound) this.#stateFile.writeBeside(this.#registryPath, savedRegistry(found));
      if (this.#registry !== undefined) this.#unreadable = undefined;
      if (this.#unreadable !== undefined) {
        this.#logger.error(
          `the registry of the former kernel is not understood: ${this.#unreadable}. ` +
            "Its sessions are left alone; root may claim them",
        );
      }
      onTaken();
    });
  }

  /** A path that cannot be used is no bug: it is said, and that is the end. */
  #openOrRefuse(outgoing: readonly string[], retrieved: ReadonlySet<string>): void {
    try {
      this.#open(outgoing, retrieved);
    } catch (error) {
      if (!(error instanceof Error && "exitCode" in error)) throw error;
      this.#onRefused(error);
    }
  }

  #open(outgoing: readonly string[], retrieved: ReadonlySet<string>): void {
    const { clientSocket: path, allowUsers: users, allowGroups: groups } = this.#options;
    this.#loaded = currentlyLoaded(this.#saved.loaded ?? undefined);
    // First: until it is known what was restored, all of it would be written down as settled.
    this.#handle(this.#restoredEvent(retrieved));
    this.#handle(this.#kernelEvent());
    this.#takeBack(outgoing);
    this.#clients = new ClientConnections(this.#loop, {
      path,
      // What came is root's to claim, whoever else may: an operator can always come for it.
      policy: { ...allowUsers([...new Set([...users, ROOT])]), groups },
      handlers: {
        onEvent: (event) => this.#receive(event),
        onTrouble: (message) => this.#limited.warn(message),
        mayUse: (id, user) => mayUseId(this.#options.idRules, id, user),
      },
    });
    this.#control = new ControlServer(this.#loop, {
      path: this.#options.controlSocket,
      policy: allowUsers(this.#options.commandUsers),
      limits: defaultControlLimits,
      schema: controlRequestSchema,
      onRequest: (request, call) => answerControl(this.#commanded(), request, call),
      onTrouble: (message) => this.#limited.warn(message),
    });
    this.#notifier.tell("READY=1", `STATUS=listening at ${path}`);
    this.#keepWatchdog();
    this.#logger.info(`listening at ${path}`);
    for (const problem of lookAtHooks(this.#options.kexecHooks)) {
      const mend = "Until that is mended, every kexec is rolled back";
      this.#logger.warn(`a kexec hook cannot be run: ${problem}. ${mend}`);
    }
    if (!this.#state.device) this.#logger.warn(`${NO_DEVICE}: ${DEVICE_MEND}`);
  }

  /** What a daemon before this one began is rolled back, unless systemd goes on with it. */
  #takeBack(sessions: readonly string[]): void {
    const { update, entering } = this.#saved;
    this.#isTakenBack = true;
    if (sessions.length === 0 && update === null) return;
    if (entering && isSystemStopping()) {
      this.#logger.info("the new kernel is being entered: the sessions stay with the holder");
      return;
    }
    this.#handle({ kind: "left-behind", update: update ?? "unknown", sessions });
  }

  #restoredEvent(retrieved: ReadonlySet<string>): DaemonEvent {
    const registry = this.#registry;
    if (registry !== undefined) {
      const followed = v.parse(updateTimesSchema, registry);
      const offered = this.#saved.offered_monotonic_ms ?? monotonicNow();
      const times = { offered_at_ms: this.#offeredAt(), offered_monotonic_ms: offered };
      this.#saved = { ...this.#saved, followed, ...times };
    }
    return restoredEvent(registry, {
      saved: this.#saved,
      retrieved,
      registryHeld: this.#registryHeld,
      offeredAt: this.#saved.offered_monotonic_ms ?? undefined,
      unreadable: this.#unreadable,
    });
  }

  #offeredAt(): number {
    return this.#saved.offered_at_ms ?? Date.now();
  }

  #keepWatchdog(): void {
    const interval = this.#notifier.watchdog;
    if (interval === undefined) return;
    const beat = () => {
      this.#notifier.tell("WATCHDOG=1");
      this.#watchdog = this.#loop.wakeAfter(interval / 2, beat);
    };
    beat();
  }

  /** What a thousand clients say at once is decided together, at the end of the turn. */
  #receive(event: DaemonEvent): void {
    if (!canWait(event)) {
      this.#handle(event);
      return;
    }
    this.#queue.push(event);
    if (this.#queue.length === 1) this.#loop.afterTurn(() => this.#decide());
  }

  #handle(event: DaemonEvent): void {
    this.#queue.push(event);
    this.#decide();
  }

  /** Decides and performs until nothing follows, then looks at the clock. */
  #decide(): void {
    if (this.#deciding || this.#queue.length === 0) return;
    this.#deciding = true;
    try {
      while (this.#queue.length > 0) this.#decideTogether(this.#queue.splice(0));
    } finally {
      this.#deciding = false;
    }
    this.#setTimer();
    this.#loop.afterTurn(() => {
      for (const listener of [...this.#turnListeners]) listener();
    });
  }

  #decideTogether(events: readonly DaemonEvent[]): void {
    const before = this.#state;
    let decided = this.#stepThrough(events);
    const problem = this.#save(before);
    if (problem !== this.#state.unsaved) {
      // Nothing of it is done yet, and deciding is pure: it is decided again, knowing that.
      this.#state = before;
      decided = this.#stepThrough([{ kind: "state-file", problem }, ...events]);
      this.#save(before);
    }
    for (const { update, effects } of decided) {
      this.#decidedUpdate = update;
      for (const effect of effects) this.#performer.perform(effect);
    }
  }

  #stepThrough(events: readonly DaemonEvent[]) {
    const context = this.#context();
    return events.map((event) => {
      const { state, effects } = step(this.#state, event, context);
      this.#state = state;
      return { update: state.update?.id, effects };
    });
  }

  #context(): Context {
    const { unclaimed } = this.#options;
    return {
      now: monotonicNow(),
      fresh: new Set(),
      unclaimedTime: unclaimed.kind === "keep" ? undefined : unclaimed.after,
      get nextUpdate() {
        return randomBytes(8).toString("hex");
      },
    };
  }

  /**
   * Before anything is done of it, what the next daemon would have to know is written down.
   * @returns why it is not
   */
  #save(before: DaemonState): string | undefined {
    const { update, incoming, last } = this.#state;
    const isSame =
      before.update?.id === update?.id &&
      before.update?.commit === update?.commit &&
      before.incoming === incoming &&
      before.last === last;
    if (isSame && before.loaded === this.#state.loaded) return this.#state.unsaved;
    const { settled, finishing, ...decided } = savedDecisions(this.#state, this.#registry);
    // What the daemon before this one was at stays written until it is taken back.
    const own = this.#isTakenBack ? decided : {};
    return this.#write({ loaded: this.#loaded ?? null, settled, finishing, ...own });
  }

  #write(change: Partial<SavedState>): string | undefined {
    this.#saved = { ...this.#saved, ...change };
    return this.#stateFile.write(this.#saved);
  }

  /** As `#write`, for what no decision is about. */
  #note(change: Partial<SavedState>): void {
    const problem = this.#write(change);
    if (problem !== this.#state.unsaved) this.#handle({ kind: "state-file", problem });
  }

  #setTimer(): void {
    const deadline = nextDeadline(this.#state);
    if (deadline === this.#timer?.at) return;
    this.#timer?.wake[Symbol.dispose]();
    this.#timer = undefined;
    if (deadline === undefined) return;
    const wake = this.#loop.wakeAt(deadline, () => {
      this.#timer = undefined;
      this.#handle({ kind: "time" });
    });
    this.#timer = { at: deadline, wake };
  }

  #record(entry: HistoryEntry): void {
    const event = this.#events.add(entry);
    if (event.update !== undefined && event.update === this.#decidedUpdate) {
      // The kernel may be entered before the end of this turn; no client is told of then.
      this.#caller?.item(event, { later: entry.client !== undefined });
    }
    const { what, client, session, detail } = entry;
    const about = [what, client, session].filter((word) => word !== undefined).join(" ");
    const text = detail === undefined ? about : `${about}: ${detail}`;
    if (loud.has(what)) this.#limited.say("warn", what, text);
    else if (told.has(what)) this.#logger.info(text);
    else this.#logger.debug(text);
  }

  #noteClaim(): void {
    this.#claims += 1;
    this.#note({ claimed_at_ms: Date.now() });
  }

  /** An update ended in this kernel: whoever ordered it is told. */
  #end(update: Update, outcome: Outcome, reason: string): void {
    this.#updates.set(outcome, (this.#updates.get(outcome) ?? 0) + 1);
    const barrier = update.readyAt === undefined ? null : update.readyAt - update.acceptedAt;
    this.#caller?.done({
      update: update.id,
      outcome,
      reason,
      clients: summarizeParticipants(update),
      left_out: summarizeLeftOut(update),
      barrier_ms: barrier,
    });
    this.#caller = undefined;
  }

  #makeRegistry(entered: boolean): Registry {
    const { update } = this.#state;
    if (update === undefined) throw new Error("Bug: a registry without an update");
    const wall = (at: number | undefined) =>
      Math.round(Date.now() - (monotonicNow() - (at ?? monotonicNow())));
    const preserved = preservedBy(update, this.#state.given);
    return {
      version: 1,
      update: update.id,
      clients: [...update.participants.values()].filter(({ stage }) => stage === "ready").length,
      accepted_at_ms: wall(update.acceptedAt),
      ready_at_ms: wall(update.readyAt),
      entered_at_ms: entered ? Date.now() : null,
      ...preserved,
    };
  }

  #commanded(): Commanded {
    const daemon = this;
    return {
      get state() {
        daemon.#decide();
        return daemon.#state;
      },
      get sources() {
        return daemon.#sources();
      },
      events: this.#events,
      counters: { updates: this.#updates, claims: this.#claims },
      now: monotonicNow,
      tell: (event) => this.#handle(event),
      get isLoading() {
        return daemon.#isLoading;
      },
      load: (request) => this.#load(request),
      unload: () => this.#unload(),
      begin: (order, way, call) => this.#begin(order, way, call),
      onTurn: (call) => {
        this.#turnListeners.add(call);
        return { [Symbol.dispose]: () => this.#turnListeners.delete(call) };
      },
    };
  }

  #sources(): StatusSources {
    this.#noticeKernel();
    if (this.#state.unsaved !== undefined) this.#note({});
    const { followed } = this.#saved;
    const blackout =
      followed === null
        ? undefined
        : measureBlackout(followed, {
            bootedAt: bootTime(),
            offeredAt: this.#offeredAt(),
            claimedAt: this.#saved.claimed_at_ms ?? undefined,
          });
    const { unclaimed: policy } = this.#options;
    const troubles = this.#troubles();
    return { now: monotonicNow(), loaded: this.#loaded, policy, blackout, troubles };
  }

  /** What hinders now, for whoever asks. */
  #troubles(): string[] {
    const { silence } = this.#holder;
    const { unsaved } = this.#state;
    return [
      ...(unsaved === undefined ? [] : [unsaved]),
      ...(this.#state.device ? [] : [`${NO_DEVICE}: ${DEVICE_MEND}`]),
      ...(silence === undefined ? [] : [silence]),
    ];
  }

  #kernelEvent(): Extract<DaemonEvent, { kind: "kernel" }> {
    return { kind: "kernel", loaded: this.#loaded !== undefined, device: hasDevice() };
  }

  /** Others may load and unload kernels as well. */
  #noticeKernel(): void {
    this.#loaded = currentlyLoaded(this.#loaded);
    const event = this.#kernelEvent();
    const { loaded, device } = this.#state;
    if (event.loaded !== loaded || event.device !== device) this.#handle(event);
  }

  async #load(request: Extract<ControlRequest, { verb: "load" }>): Promise<LoadReport> {
    const { kernel, initrd, command_line: commandLine, force } = request;
    this.#isLoading = true;
    const report = await loadTarget({ kernel, initrd, commandLine, force }).finally(() => {
      this.#isLoading = false;
    });
    if (report.kernel !== null) {
      this.#loaded = report.kernel;
      this.#note({ loaded: report.kernel });
      this.#record({ what: "loaded", detail: `${kernel}, ${report.kernel.version ?? "unknown"}` });
      this.#handle(this.#kernelEvent());
    }
    return report;
  }

  #unload(): ReturnType<typeof unloadTarget> {
    const problem = unloadTarget();
    if (problem !== undefined) return problem;
    this.#loaded = undefined;
    this.#record({ what: "unloaded" });
    this.#handle(this.#kernelEvent());
    return undefined;
  }

  /** @returns why it has not begun: what it would be known by could not be written */
  #begin(asked: KexecOrder, way: EntryWay, call: ControlCall): WireError | undefined {
    this.#way = resolveWay(way === "auto" ? this.#options.by : way);
    this.#caller = call;
    const order = {
      dryRun: asked.dry_run,
      includeBare: asked.include_bare,
      discardUnclaimed: asked.discard_unclaimed,
    };
    this.#handle({ kind: "update", order });
    const isBegun = this.#caller !== call || this.#state.update !== undefined;
    if (isBegun) return undefined;
    this.#caller = undefined;
    return refuseUpdate(this.#state, order);
  }

  /**
   * Takes back an update that is under way, so that nobody's memory stays frozen for a daemon that
   * may not come again. One that enters the kernel is left to the holder.
   */
  async settle(): Promise<void> {
    const { update } = this.#state;
    if (update === undefined || update.commit === "kernel") return;
    const settled = Promise.withResolvers<void>();
    this.#turnListeners.add(() => {
      if (this.#state.update === undefined) settled.resolve();
    });
    this.#loop.wakeAfter(STOP_LIMIT, settled.resolve);
    this.#handle({ kind: "operator-aborts", reason: "luod is stopped" });
    await settled.promise;
  }

  /** Leaves the sessions to the holder. */
  stop(): void {
    this.#notifier.tell("STOPPING=1");
    this.#timer?.wake[Symbol.dispose]();
    this.#watchdog?.[Symbol.dispose]();
    this.#clients?.close();
    this.#control?.[Symbol.dispose]();
    this.#holder[Symbol.dispose]();
    this.#limited[Symbol.dispose]();
    this.#logger.info("stopped; the holder keeps what there is");
  }
}

/** Runs the daemon until SIGTERM or SIGINT. @throws AlreadyRunning, SocketPathError */
export async function runDaemon(options: DaemonOptions): Promise<number> {
  const logger = createLogger("luod");
  ignoreSignals((message) => logger.warn(message));
  using _lock = takeDaemonLock(options.stateDirectory);
  using _kernelLock = takeKernelLock((message) => logger.warn(message));
  using loop = new EventLoop(startWorker);
  const ended = Promise.withResolvers<number>();
  loop.onFailure((failure) => {
    logger.error("stopped by a bug", { failure });
    ended.resolve(ExitCode.bug);
  });
  const daemon = new LiveUpdateDaemon(options, { logger, loop, onRefused: ended.reject });
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.once(signal, () => void daemon.settle().then(() => ended.resolve(ExitCode.done)));
  }
  try {
    return await ended.promise;
  } finally {
    daemon.stop();
  }
}
