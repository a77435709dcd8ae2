import { existsSync } from "node:fs";
import { goOnWithOffset, monotonicNow, wallClockOffset } from "../event-loop/clock.ts";
import { EventLoop } from "../event-loop/event-loop.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import { MetricText } from "../http/metrics.ts";
import { readHolder } from "../journal/lock-holder.ts";
import { ignoreSignals } from "../logging/ignored-signals.ts";
import { LimitedLogger } from "../logging/limited-logger.ts";
import { createLogger, type Logger } from "../logging/logger.ts";
import {
  type ControlError,
  ControlServer,
  defaultControlLimits,
} from "../messaging/control-server.ts";
import {
  checkSocketPath,
  isListenedAt,
  listenedAt,
  makeSocketFolder,
} from "../messaging/listener.ts";
import { allowUsers, givesLabels, withoutLabels } from "../messaging/peer.ts";
import { outwaitPredecessor } from "../messaging/predecessor.ts";
import { ServiceNotifier } from "../messaging/service-notify.ts";
import { ExitCode } from "../units/exit-code.ts";
import { signalName } from "../units/signals.ts";
import type { MonotonicTime } from "../units/units.ts";
import { hostlerCommit, hostlerVersion } from "../units/version.ts";
import { answerControl, type Orchestrated } from "./control.ts";
import { describeEntry } from "./event-book.ts";
import { newInvocation } from "./invocation.ts";
import {
  instanceOf,
  isAtRest,
  isUntold,
  type ProcessEffect,
  type ProcessEvent,
  type ProcessState,
  restartsAtOnceFrom,
} from "./lifecycle.ts";
import { type MetricFacts, metricParts } from "./metrics.ts";
import type { MetricsEndpoint } from "./metrics-endpoint.ts";
import {
  type Chance,
  effectsToRepeat,
  initialOrchestration,
  isDown,
  makePlan,
  nextDeadline,
  type OrchestrationEvent,
  type OrchestrationState,
  step,
} from "./orchestration.ts";
import { PartitionBook } from "./partition-book.ts";
import {
  AlreadyRunning,
  CrashJournal,
  lockPath,
  noteMissingFiles,
} from "./perform/crash-journal.ts";
import { ownIdentity, reexecutionKillPoint } from "./perform/inheritance.ts";
import { adoptionKillPoint, Keeping, releaseLeftHolder } from "./perform/keeping.ts";
import { type Luggage, Unpacking } from "./perform/luggage.ts";
import { MetricsListener } from "./perform/metrics-listener.ts";
import { hearSignals } from "./perform/next-program.ts";
import { OwnProgram } from "./perform/own-program.ts";
import { type Inherited, Performer, reloadKillPoint } from "./perform/performer.ts";
import { launchOf, type Survey, type SurveyedProcess, survey } from "./perform/survey.ts";
import { type Measured, measure, UsageMeter } from "./perform/usage-meter.ts";
import { ProcessMeter } from "./process-meter.ts";
import {
  type ControlRequest,
  controlRequestSchema,
  defaultControlSocket,
  PROTOCOL_VERSION,
} from "./protocol.ts";
import { keptLine } from "./protocol-kept.ts";
import {
  type HeldEvent,
  type OrchestratorState,
  STATE_FORMAT,
  STATE_VERSION,
} from "./protocol-state.ts";
import { type Handing, Reexecution } from "./reexecution.ts";
import { type Reloadable, Reloading } from "./reloading.ts";
import type { Configuration } from "./specification.ts";

export interface OrchestratorOptions {
  /** The name that it was called by, for its log. */
  readonly calledAs: "hostler process orchestrator" | "holden-orchestrator";
  readonly configuration: Configuration;
  readonly controlSocket: string;
  /** Where scrapers are waited for; undefined: nowhere. */
  readonly metricsEndpoint?: MetricsEndpoint | undefined;
  /** What `check` would warn of. */
  readonly warnings: readonly string[];
  /** What was read, for the next program to go on with; undefined: the command line's. */
  readonly configurationText?: { readonly file: string; readonly text: string } | undefined;
  /** What the program that this process was before has left. */
  readonly inherited?: OrchestratorState | undefined;
}

/** So long a stopped orchestrator gives a disk to take the last lines. */
const LAST_WRITE = 2_000;

/** Milliseconds that a stopped orchestrator gives an agent to answer for its last checks. */
const LAST_WAIT = 1_000;

/** Of this invocation nothing lives, and nothing can begin to. */
function isEndOfInstance(
  event: ProcessEvent,
): event is Extract<ProcessEvent, { kind: "cleared" | "start-refused" | "not-found" }> {
  return ["cleared", "start-refused", "not-found"].includes(event.kind);
}

/**
 * Refuses a control socket that cannot be, before anything is made beside it. The folder of the
 * default one is ours to make; who names another has its folder.
 * @throws SocketPathError, FileRefused
 */
function prepareControlSocket(path: string): void {
  makeDefaultFolder(path);
  checkSocketPath(path);
  // Where there is a lock, it tells best who listens.
  if (!existsSync(lockPath(path)) && isListenedAt(path)) throw listenedAt(path);
}

function makeDefaultFolder(path: string): void {
  if (path === defaultControlSocket) makeSocketFolder(path);
}

/** What an operator reads without asking for more; the rest stands in `events` and with -v. */
const tellings: Readonly<Record<string, "warn" | "info">> = {
  "start-refused": "warn",
  "readiness-timeout": "warn",
  "dependency-failed": "warn",
  unhealthy: "warn",
  degraded: "warn",
  recovered: "info",
  uncertain: "warn",
  failed: "warn",
  "backing-off": "info",
  adopted: "info",
  lost: "warn",
};

/** What an orchestrator begins with. */
interface Beginning {
  readonly journal: CrashJournal;
  /** Undefined where the configuration says that there is to be no holder. */
  readonly keeping: Keeping | undefined;
  /** What one that was killed has left, and is gone on with. */
  readonly survey: Survey;
  readonly inherited: Inherited | undefined;
}

/** The driver: waits, decides by `step`, and has what was decided performed. */
class Orchestrator {
  readonly #logger: Logger;
  /** For what a peer can cause as often as it likes. */
  readonly #limited: LimitedLogger;
  readonly #loop: EventLoop;
  readonly #performer: Performer;
  readonly #journal: CrashJournal;
  #configuration: Configuration;
  #configurationText: OrchestratorOptions["configurationText"];
  #plan: ReturnType<typeof makePlan>;
  readonly #notifier = new ServiceNotifier();
  readonly #program = new OwnProgram();
  readonly #turnListeners = new Set<() => void>();
  readonly #queue: OrchestrationEvent[] = [];
  readonly #chance: Chance = {
    random: () => Math.random(),
    invocation: (name) => this.#performer.standbyOf(name) ?? newInvocation(),
  };
  readonly #down = Promise.withResolvers<void>();
  #control: ControlServer<ControlRequest> | undefined;
  #state: ReturnType<typeof initialOrchestration>;
  #deciding = false;
  #timer: { readonly at: number; readonly wake: Disposable } | undefined;
  #announced = false;
  #told = 0;
  #watchdog: Disposable | undefined;
  #lastWait: Disposable | undefined;
  /** Partitions whose agents have not been reached yet. */
  readonly #unsearched: Set<string>;
  readonly #connected = new Set<string>();
  readonly #partitions: PartitionBook;
  readonly #meter: ProcessMeter;
  readonly #usage: UsageMeter;
  #metrics: MetricsListener | undefined;
  readonly #options: OrchestratorOptions;
  readonly #inherited: Inherited | undefined;
  readonly #keeping: Keeping | undefined;
  readonly #survey: Survey;
  /** The states that stand in the journal that the holder keeps. */
  readonly #written = new Map<string, ProcessState>();
  readonly #launches = new Map<string, string>();
  readonly #reexecution: Reexecution;
  readonly #reloading: Reloading;
  /** Nothing is decided: this is about to be another program. */
  #isHeld = false;
  /** Searches for what a killed predecessor left that have not come to their ends. */
  #searching = 0;
  #isOpen = false;
  /** It was told to stop everything before it could tell anybody. */
  #stopWhenOpen: "graceful" | "hurried" | undefined;

  constructor(
    options: OrchestratorOptions,
    { logger, loop }: { readonly logger: Logger; readonly loop: EventLoop },
    beginning: Beginning,
  ) {
    this.#options = options;
    this.#logger = logger;
    this.#inherited = beginning.inherited;
    this.#keeping = beginning.keeping;
    this.#survey = beginning.survey;
    const { state } = beginning.inherited ?? {};
    this.#limited = new LimitedLogger(logger, {
      now: monotonicNow,
      wakeAfter: (delay, call) => loop.wakeAfter(delay, call),
    });
    this.#loop = loop;
    this.#configuration = options.configuration;
    this.#configurationText = options.configurationText;
    this.#plan = makePlan(options.configuration);
    this.#state = state === undefined ? this.#firstState() : orchestrationOf(state);
    const partitions = options.configuration.partitions.map(({ name }) => name);
    this.#unsearched = new Set(state?.unsearched ?? partitions);
    this.#partitions = new PartitionBook(options.configuration, monotonicNow());
    if (state !== undefined) this.#partitions.restore(state.standings);
    if (state?.wallOffset !== undefined) goOnWithOffset(state.wallOffset);
    this.#meter = new ProcessMeter([...this.#state.processes.keys()], monotonicNow());
    if (state !== undefined) this.#meter.restore(state.metrics.meters);
    this.#usage = new UsageMeter(loop, () => this.#measured());
    this.#journal = beginning.journal;
    this.#reexecution = new Reexecution(loop, logger, this.#handing());
    this.#reloading = new Reloading(this.#reloadable(), logger);
    this.#performer = new Performer(loop, options.configuration, {
      inherited: this.#inherited,
      keeping: this.#keeping,
      survey: this.#survey,
      journal: this.#journal,
      hello: {
        kind: "hello",
        protocol: PROTOCOL_VERSION,
        role: "orchestrator",
        version: hostlerVersion,
        instance: this.#program.instance,
      },
      handlers: {
        onEvent: (name, event) => this.#handle({ kind: "process", name, event }),
        onReachable: (name, { reachable, detail, agent }) => {
          if (reachable) this.#partitions.connected(name, agent, monotonicNow());
          else this.#partitions.away(name, detail, monotonicNow());
          const kind = `partition ${name} ${reachable ? "is connected" : "is away"}`;
          this.#limited.say("info", kind, `${kind}: ${detail}`);
          this.#onReachable(name, reachable);
        },
        onMissed: (name, reason) => this.#partitions.missed(name, reason),
        onQuiet: () => this.#endIfDown(),
        onTrouble: (message) => this.#limited.warn(message),
        onChanged: (message) => this.#logger.info(message),
        onLines: () => this.#announce(),
        instanceOf: (name) => {
          const state = this.#state.processes.get(name);
          return state === undefined ? undefined : instanceOf(state);
        },
        isWanted: (name) => this.#state.processes.get(name)?.wanted === true,
        isUntold: (name, invocation) => {
          const state = this.#state.processes.get(name);
          return state !== undefined && isUntold(state, invocation);
        },
        restartsAtOnceFrom: (name) => {
          const state = this.#state.processes.get(name);
          const specification = this.#plan.specifications.get(name);
          if (state === undefined || specification === undefined) return undefined;
          return restartsAtOnceFrom(state, specification);
        },
      },
    });
  }

  /** As one that was killed has left it, where that is gone on with. */
  #firstState(): ReturnType<typeof initialOrchestration> {
    const initial = initialOrchestration(this.#plan);
    const processes = new Map(initial.processes);
    for (const [name, { adoption }] of this.#survey) {
      if (adoption.state !== undefined) processes.set(name, adoption.state);
    }
    return { ...initial, processes };
  }

  #listen(): ControlServer<ControlRequest> {
    const options = this.#options;
    const listener = this.#inherited?.state.control.listener;
    return new ControlServer(this.#loop, {
      inherited: listener && this.#inherited?.unpacking.takeListener(listener),
      path: options.controlSocket,
      policy: allowUsers([process.geteuid?.() ?? 0]),
      limits: defaultControlLimits,
      schema: controlRequestSchema,
      onRequest: (request, call) => answerControl(this.#view(), request, call),
      onTrouble: (message) => this.#limited.warn(message),
      onRemoved: () => {
        makeDefaultFolder(options.controlSocket);
        // Without its folder there is no lock either; the refusal of the socket tells it best.
        checkSocketPath(options.controlSocket);
        this.#journal.restore();
      },
    });
  }

  #listenForScrapers(): MetricsListener | undefined {
    const endpoint = this.#options.metricsEndpoint;
    if (endpoint === undefined) return undefined;
    const listener = this.#inherited?.state.metrics.listener;
    return new MetricsListener(this.#loop, {
      endpoint,
      render: () => this.#renderMetrics(),
      onTrouble: (message) => this.#limited.warn(message),
      inherited: listener && this.#inherited?.unpacking.takeListener(listener),
    });
  }

  /** What runs now, for whoever measures it. */
  #measured(): readonly Measured[] {
    return [...this.#state.processes].flatMap(([name, state]) => {
      const instance = instanceOf(state);
      if (instance === undefined) return [];
      const { invocation, processId } = instance;
      return [{ name, processId, cgroup: this.#performer.cgroupOf(name, invocation) }];
    });
  }

  async #metricFacts(): Promise<MetricFacts> {
    const usage = await this.#usage.take();
    return {
      state: this.#state,
      now: monotonicNow(),
      usage,
      meterOf: (name) => this.#meter.of(name),
      logOf: (name) => this.#performer.logOf(name),
      logFileOf: (name) => this.#performer.logFileOf(name),
      partitions: this.#partitions.entries.map(({ specification, standing }) => ({
        name: specification.name,
        isConnected: standing.state === "connected",
      })),
      newestEvent: this.#performer.events.newest,
      own: measure({ processId: process.pid, cgroup: undefined }),
      program: { version: hostlerVersion, commit: hostlerCommit },
    };
  }

  /** Others have their turn between the parts. */
  async #renderMetrics(): Promise<readonly string[]> {
    const text = new MetricText();
    const parts: string[] = [];
    for (const part of metricParts(await this.#metricFacts())) {
      parts.push(text.of(part));
      await this.#loop.letOthers();
    }
    return parts;
  }

  /**
   * Takes its control socket, ends what a killed predecessor left and cannot be gone on with, then
   * goes on with the rest, and starts what it should.
   */
  start(): void {
    this.#control = this.#listen();
    this.#metrics = this.#listenForScrapers();
    this.#journal.keepFiles(this.#loop);
    if (this.#inherited !== undefined) {
      this.#goOn(this.#inherited, this.#control);
      return;
    }
    this.#endLeftovers(() => {
      this.#isOpen = true;
      this.#performer.open();
      this.#adopt();
      this.#notifier.tell("READY=1");
      this.#keepWatchdog();
      this.#keep();
      if (this.#stopWhenOpen !== undefined) this.stop(this.#stopWhenOpen === "hurried");
    });
  }

  get #goesOnWithSomebody(): boolean {
    return [...this.#survey.values()].some(({ instances }) => instances.size > 0);
  }

  /** Goes on with what a killed predecessor left, then starts the rest. */
  #adopt(): void {
    this.#performer.adopt();
    adoptionKillPoint("adoption:watched");
    const again = effectsToRepeat(this.#plan, this.#state).filter(
      ({ effect }) => effect.kind !== "find",
    );
    for (const [name, surveyed] of this.#survey) this.#tellAdoption(name, surveyed);
    for (const { name, effect } of again) this.#perform(name, effect);
    for (const [name, { adoption }] of this.#survey) {
      for (const event of adoption.events) this.#handle({ kind: "process", name, event });
    }
    const goOn = [...this.#survey].flatMap(([name, { adoption }]) =>
      adoption.state === undefined ? [] : [name],
    );
    this.#handle({ kind: "boot", goOn });
    this.#handle({ kind: "time" });
    adoptionKillPoint("adoption:told");
  }

  /** One that is found by an event is told by what comes of that, as is a death. */
  #tellAdoption(name: string, { adoption, instances }: SurveyedProcess): void {
    const { state } = adoption;
    const instance = state === undefined ? undefined : instanceOf(state);
    for (const verdict of adoption.verdicts) {
      const { invocation } = verdict;
      if (verdict.kind === "end" || verdict.kind === "lost") {
        const { reason } = verdict;
        const entry = { what: "lost", invocation, reason } as const;
        this.#perform(name, { kind: "record", entry });
      } else if (verdict.kind === "adopt" && invocation === instance?.invocation) {
        if (instances.get(invocation)?.life === "dead") continue;
        const { processId } = instance;
        const entry = { what: "adopted", invocation, processId } as const;
        this.#perform(name, { kind: "record", entry });
      }
    }
  }

  /** From now on the holder has what the one after this one needs. */
  #keep(): void {
    this.#keeping?.journal(() => this.#unwritten());
    this.#keeping?.begin();
  }

  *#unwritten(): Generator<readonly [name: string, line: string]> {
    // Who is killed while it stops everything has stopped nothing that an operator wants stopped.
    if (this.#state.shutdown !== "no") return;
    for (const [name, state] of this.#state.processes) {
      if (this.#written.get(name) === state) continue;
      const specification = this.#plan.specifications.get(name);
      if (specification === undefined) continue;
      this.#written.set(name, state);
      const notify = this.#performer.notifyNameOf(name);
      const launch = this.#launches.get(name) ?? launchOf(specification);
      this.#launches.set(name, launch);
      yield [name, keptLine({ name, launch, notify, state })];
    }
  }

  /** Goes on where the program before this one was, and answers whoever asked for it. */
  #goOn({ state, unpacking }: Inherited, control: ControlServer<ControlRequest>): void {
    const clients = state.control.clients.map(({ socket, requests }) => ({
      socket: unpacking.take(socket),
      requests,
    }));
    this.#isOpen = true;
    this.#told = state.events.newest;
    for (const { name, standing } of state.standings) {
      if (standing.state === "connected") this.#connected.add(name);
    }
    this.#performer.open();
    const again = effectsToRepeat(this.#plan, this.#state);
    for (const { name, effect } of again) this.#perform(name, effect);
    for (const event of state.held) this.#handle(event);
    this.#handle({ kind: "time" });
    for (const [name, { awaitedEndings }] of this.#state.processes) {
      this.#performer.awaitEndings(name, awaitedEndings);
    }
    this.#notifier.tell("READY=1", `MAINPID=${process.pid}`);
    this.#keepWatchdog();
    this.#keeping?.goOn();
    this.#keep();
    reexecutionKillPoint("reexecute:unpacked");
    const { version, commit } = state.program;
    this.#logger.info(
      `version ${hostlerVersion} (${hostlerCommit}) goes on with what version ${version} ` +
        `(${commit}) did, ${state.children.length} children among it`,
    );
    for (const client of clients) control.goOn(client);
    reexecutionKillPoint("reexecute:told");
  }

  #handing(): Handing {
    const isStopping = () => this.#state.shutdown !== "no";
    return {
      isStopping,
      underWay: () => {
        const isSearching = !this.#isOpen || this.#searching > 0;
        if (isSearching) return "the search for what was left running";
        return this.#reloading.underWay ?? this.#performer.underWay;
      },
      pack: (luggage) => this.#pack(luggage),
      hold: () => {
        this.#isHeld = true;
        this.#keeping?.pause();
        this.#performer.pause();
      },
      release: () => this.#release(),
      dropUnsettled: () => this.#performer.dropUnsettled(),
      noteDryRun: (invocation, standing) => {
        if (standing === "begins") this.#journal.starting(invocation, "a dry run");
        else this.#journal.ended(invocation);
      },
      tellManager: (standing) => this.#tellManager(standing),
    };
  }

  #tellManager(standing: "begins" | "over"): void {
    if (!this.#isOpen || this.#state.shutdown !== "no") return;
    const microseconds = Math.round(monotonicNow() * 1_000);
    if (standing === "over") this.#notifier.tell("READY=1");
    else this.#notifier.tell("RELOADING=1", `MONOTONIC_USEC=${microseconds}`);
  }

  #reloadable(): Reloadable {
    const configuration = () => this.#configuration;
    const state = () => this.#state;
    const performer = () => this.#performer;
    return {
      file: this.#options.configurationText?.file,
      get configuration() {
        return configuration();
      },
      get state() {
        return state();
      },
      get performer() {
        return performer();
      },
      controlSocket: this.#options.controlSocket,
      obstacle: () => this.#obstacleOfReload(),
      handle: (event) => this.#handle(event),
      goBy: (next, others) => this.#goBy(next, others),
      watchAgain: (name) => this.#watchAgain(name),
      onStep: reloadKillPoint,
      wakeAfter: (delay, call) => this.#loop.wakeAfter(delay, call),
      fail: (failure) => this.#loop.fail(failure),
      tellManager: (standing) => this.#tellManager(standing),
      applied: (text) => {
        const file = this.#configurationText?.file;
        if (file !== undefined) this.#configurationText = { file, text };
      },
    };
  }

  /** What it is looked at by is another check. */
  #watchAgain(name: string): void {
    const process = this.#state.processes.get(name);
    if (process?.phase === "running") {
      this.#perform(name, { kind: "watch-readiness", instance: process.instance });
    } else if (process?.phase === "ready") {
      const { invocation } = process.instance;
      this.#perform(name, { kind: "forget-liveness", invocation });
      this.#perform(name, { kind: "watch-liveness", instance: process.instance });
    }
  }

  #obstacleOfReload(): ControlError | undefined {
    if (this.#state.shutdown !== "no" || this.#stopWhenOpen !== undefined) {
      return { kind: "shutdown", message: "The orchestrator is stopping" };
    }
    const isSearching = !this.#isOpen || this.#searching > 0;
    if (!isSearching && !this.#isHeld) return undefined;
    const what = isSearching ? "looks for what was left running" : "is about to be another program";
    const message = `The orchestrator ${what}`;
    return { kind: "busy", message, hint: "Try it again in a moment" };
  }

  /** Another configuration is what it goes by; names that both have go on as they are. */
  #goBy(next: Configuration, others: readonly string[]): void {
    const now = monotonicNow();
    this.#configuration = next;
    this.#plan = makePlan(next);
    this.#meter.renew([...this.#plan.specifications.keys()], now);
    this.#partitions.renew(next, now);
    for (const name of others) {
      this.#launches.delete(name);
      this.#written.delete(name);
    }
    const reached = new Set(next.partitions.map(({ name }) => name));
    for (const names of [this.#connected, this.#unsearched]) {
      for (const name of names) if (!reached.has(name)) names.delete(name);
    }
    this.#handle({ kind: "renewed", names: others });
  }

  /** Reads its file again, as SIGHUP asks for it. */
  reload(): void {
    this.#reloading.beginBySignal();
  }

  #release(): void {
    hearSignals();
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#keeping?.resume();
    this.#performer.resume();
    for (const { name, effect } of effectsToRepeat(this.#plan, this.#state)) {
      const isWatch = effect.kind === "watch-readiness" || effect.kind === "watch-liveness";
      if (isWatch) this.#perform(name, effect);
    }
    this.#handle({ kind: "time" });
  }

  #pack(luggage: Luggage): OrchestratorState {
    const listener = this.#control?.listener;
    return {
      format: STATE_FORMAT,
      version: STATE_VERSION,
      owner: ownIdentity(),
      program: { version: hostlerVersion, commit: hostlerCommit },
      configuration: this.#configurationText,
      wallOffset: wallClockOffset(),
      control: {
        listener: luggage.packListener(listener),
        clients: (this.#control?.carried ?? []).map(({ socket, requests }) => ({
          socket: luggage.pack(socket),
          requests: requests as ControlRequest[],
        })),
      },
      processes: [...this.#state.processes].map(([name, state]) => ({ name, state })),
      reachable: [...this.#state.reachable],
      unsearched: [...this.#unsearched],
      held: this.#queue.filter(isHeldEvent),
      standings: this.#partitions.save(),
      metrics: {
        listener: luggage.packListener(this.#metrics?.carried),
        meters: this.#meter.save(),
      },
      ...this.#performer.pack(luggage),
    };
  }

  #endLeftovers(onEnd: () => void): void {
    this.#searching += 1;
    const onDone = () => {
      this.#searching -= 1;
      onEnd();
    };
    const isLast = this.#unsearched.size === 0;
    this.#journal.endLeftovers(this.#loop, { isLast }, (found) => {
      for (const name of found) {
        this.#logger.warn(`${name}: ended what an orchestrator that was killed had left running`);
      }
      this.#performer.endLeftGroups(this.#journal.left, onDone);
    });
  }

  /** A partition takes no request before what may be left in it has been looked for once more. */
  #onReachable(name: string, reachable: boolean): void {
    if (reachable) this.#connected.add(name);
    else this.#connected.delete(name);
    if (!reachable || !this.#unsearched.delete(name)) {
      this.#handle({ kind: "partition", name, reachable });
      return;
    }
    this.#endLeftovers(() => {
      if (this.#connected.has(name)) this.#handle({ kind: "partition", name, reachable });
    });
  }

  /** Opens the files of lines, where no program before this one has. @throws FileRefused */
  async openLogs(): Promise<void> {
    if (this.#inherited === undefined) await this.#performer.openLogs();
  }

  /** What waits for the files of lines is written, where that does not take long. */
  async finishLogs(): Promise<void> {
    const over = Promise.withResolvers<void>();
    using _limit = this.#loop.wakeAfter(LAST_WRITE, () => over.resolve());
    await Promise.race([this.#performer.finishLogs(), over.promise]);
  }

  get whenDown(): Promise<void> {
    return this.#down.promise;
  }

  stop(hurry: boolean): void {
    if (!this.#isOpen && this.#goesOnWithSomebody) {
      // Nobody of them could be told yet.
      this.#stopWhenOpen = hurry ? "hurried" : (this.#stopWhenOpen ?? "graceful");
      return;
    }
    this.#reloading.abandon();
    this.#notifier.tell("STOPPING=1");
    this.#logger.info(hurry ? "stopping at once" : "stopping in reverse order");
    this.#handle({ kind: "shutdown", hurry });
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

  /** One turn: decide and perform until nothing follows, then look at the clock. */
  #handle(event: OrchestrationEvent): void {
    this.#queue.push(event);
    // Who is to stop everything becomes no other program.
    if (this.#isHeld && event.kind === "shutdown") this.#release();
    if (this.#deciding || this.#isHeld) return;
    this.#deciding = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        const before = this.#state;
        const now = monotonicNow();
        const outcome = step(this.#plan, before, next, { now, chance: this.#chance });
        this.#state = outcome.state;
        for (const { name, effect } of outcome.effects) this.#perform(name, effect);
        // After the restart, which is what takes part in the time that is counted.
        for (const name of outcome.changed) {
          this.#count(name, before, now);
          const state = this.#state.processes.get(name);
          if (state !== undefined && isAtRest(state)) this.#performer.releaseParked(name);
        }
        if (next.kind === "process" && isEndOfInstance(next.event)) {
          this.#performer.forget(next.event.invocation);
        }
      }
    } finally {
      this.#deciding = false;
    }
    this.#setTimer();
    this.#keeping?.flushLater();
    this.#announce();
    this.#endIfDown();
    this.#reloading.advance();
  }

  #count(name: string, former: OrchestrationState, now: MonotonicTime): void {
    const before = former.processes.get(name);
    const after = this.#state.processes.get(name);
    if (before !== undefined && after !== undefined) this.#meter.note(name, { before, after, now });
  }

  /** With everything stopped, waits a little for an agent that still owes the start of a check. */
  #endIfDown(): void {
    if (!isDown(this.#state)) return;
    if (this.#performer.isQuiet) this.#down.resolve();
    else this.#lastWait ??= this.#loop.wakeAfter(LAST_WAIT, () => this.#down.resolve());
  }

  #perform(name: string, effect: ProcessEffect): void {
    this.#performer.perform(name, effect);
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

  /** Tells listeners and the log after the turn, once, when nothing urgent is left. */
  #announce(): void {
    if (this.#announced) return;
    this.#announced = true;
    this.#loop.afterTurn(() => {
      this.#announced = false;
      this.#logEvents();
      for (const listener of [...this.#turnListeners]) listener();
    });
  }

  #logEvents(): void {
    for (const { sequence, name, entry } of this.#performer.events.after(this.#told)) {
      this.#told = sequence;
      const detail = describeEntry(entry, signalName);
      const process = "processId" in entry ? ` (process ${entry.processId})` : "";
      const level = tellings[entry.what] ?? "debug";
      const kind = `${name}: ${entry.what}`;
      const message = `${kind}${process}${detail === undefined ? "" : `: ${detail}`}`;
      // Who asked for more is told each; an agent that refuses or is silent decides how many.
      if (level === "debug") this.#logger.debug(message);
      else this.#limited.say(level, kind, message);
    }
  }

  #view(): Orchestrated {
    const performer = this.#performer;
    const current = () => this.#state;
    const plan = () => this.#plan;
    return {
      get plan() {
        return plan();
      },
      get state() {
        return current();
      },
      now: monotonicNow,
      get newestEvent() {
        return performer.events.newest;
      },
      eventsAfter: (sequence) => performer.events.after(sequence),
      partitions: () => this.#partitions.entries,
      historyOf: (name) => performer.events.historyOf(name),
      logOf: (name) => performer.logOf(name),
      about: async () => {
        const { processId, kept } = this.#keeping?.standing ?? {};
        const holder =
          processId === undefined ? null : { process_id: processId, kept: kept ?? null };
        return { ...(await this.#program.about()), holder };
      },
      logFileOf: (name) => performer.logFileOf(name),
      parkedOf: (name) => performer.parkedOf(name),
      metrics: async () => metricParts(await this.#metricFacts()),
      usage: () => this.#usage.take(),
      letOthers: () => this.#loop.letOthers(),
      fail: (failure) => this.#loop.fail(failure),
      reexecute: (request, call) => {
        this.#reexecution.begin(request, call).catch((failure) => this.#loop.fail(failure));
      },
      reload: (request, listener) => {
        this.#reloading.begin(request, listener).catch((failure) => this.#loop.fail(failure));
      },
      tell: (names, event) => this.#handle({ kind: "wish", names, event }),
      signal: (name, signal) => {
        const state = this.#state.processes.get(name);
        const instance = state === undefined ? undefined : instanceOf(state);
        if (instance === undefined) return false;
        performer.perform(name, { kind: "signal", instance, signal });
        return true;
      },
      onTurn: (call) => {
        this.#turnListeners.add(call);
        return { [Symbol.dispose]: () => this.#turnListeners.delete(call) };
      },
      wakeAfter: (delay, call) => this.#loop.wakeAfter(delay, call),
    };
  }

  /** All is stopped, so that there is nothing to keep. */
  async release(): Promise<void> {
    await this.#keeping?.release();
  }

  close(): void {
    this.#keeping?.[Symbol.dispose]();
    this.#timer?.wake[Symbol.dispose]();
    this.#watchdog?.[Symbol.dispose]();
    this.#lastWait?.[Symbol.dispose]();
    this.#control?.[Symbol.dispose]();
    this.#metrics?.[Symbol.dispose]();
    this.#reexecution.close();
    this.#performer.close();
    this.#limited[Symbol.dispose]();
    this.#journal.close();
  }
}

/** Events that another program can take up; the others come by themselves. */
function isHeldEvent(event: OrchestrationEvent): event is HeldEvent {
  return !["boot", "shutdown", "time", "renew", "renewed"].includes(event.kind);
}

/** Where the program before this one was. */
function orchestrationOf(state: OrchestratorState): ReturnType<typeof initialOrchestration> {
  return {
    processes: new Map(state.processes.map(({ name, state: process }) => [name, process])),
    reachable: new Set(state.reachable),
    shutdown: "no",
    renewing: new Map(),
  };
}

/** What is refused leaves no file that it made. */
function makeOrLeaveNothing<T>(
  files: { removeMade(): void },
  make: () => T,
  close: () => void = () => {},
): T {
  try {
    return make();
  } catch (error) {
    // Of a lock and a journal that another made meanwhile nothing is ours.
    if (!(error instanceof AlreadyRunning)) files.removeMade();
    close();
    throw error;
  }
}

/** @throws AlreadyRunning, FileRefused, SocketPathError, WrongLuggage */
function openJournal(
  { controlSocket }: OrchestratorOptions,
  logger: Logger,
  inherited: Inherited | undefined,
): CrashJournal {
  const onTrouble = (message: string) => logger.warn(message);
  if (inherited === undefined) {
    prepareControlSocket(controlSocket);
    return new CrashJournal(controlSocket, onTrouble);
  }
  const { journal } = inherited.state;
  const lock = inherited.unpacking.take(journal.lock);
  return new CrashJournal(controlSocket, onTrouble, { journal, lock });
}

/** What there is to begin with: with the lock in hand, so that nobody else has the same. */
async function lookBack(
  options: OrchestratorOptions,
  { logger, loop }: { readonly logger: Logger; readonly loop: EventLoop },
  given: { readonly journal: CrashJournal; readonly inherited: Inherited | undefined },
): Promise<Beginning> {
  const { configuration, controlSocket } = options;
  const { journal } = given;
  const onTrouble = (message: string) => logger.warn(message);
  const nothing: Beginning = { ...given, keeping: undefined, survey: new Map() };
  if (!configuration.holder) {
    if (given.inherited === undefined) {
      releaseLeftHolder(loop, { controlSocket, onTrouble }).catch((error) => loop.fail(error));
    }
    return nothing;
  }
  const keeping = new Keeping(loop, { controlSocket, onTrouble });
  if (given.inherited !== undefined) return { ...nothing, keeping };
  await keeping.fetch();
  adoptionKillPoint("adoption:fetched");
  const found = await survey(loop, configuration, { keeping, journal, onTrouble });
  journal.adopt(
    new Map(
      [...found].flatMap(([name, { adoption }]) =>
        adoption.verdicts.flatMap(({ kind, invocation }) =>
          kind === "adopt" ? [[invocation, name] as const] : [],
        ),
      ),
    ),
  );
  adoptionKillPoint("adoption:decided");
  return { ...nothing, keeping, survey: found };
}

/** Hears SIGTERM and SIGINT at once; whoever is to be told, hears of those before as well. */
function hearStops(): { tell(stop: (hurry: boolean) => void): void } {
  let count = 0;
  let stop: ((hurry: boolean) => void) | undefined;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      count += 1;
      stop?.(count > 1);
    });
  }
  return {
    tell: (onStop) => {
      stop = onStop;
      if (count > 0) onStop(count > 1);
    },
  };
}

function fail(error: unknown): never {
  throw error;
}

/** Runs the orchestrator until everything is stopped after SIGTERM or SIGINT. */
export async function runOrchestrator(options: OrchestratorOptions): Promise<number> {
  const logger = createLogger(options.calledAs);
  for (const warning of options.warnings) logger.warn(warning);
  for (const { name, allowLabels } of options.configuration.partitions) {
    if (allowLabels.length === 0 || givesLabels()) continue;
    logger.warn(`partition ${name}: allow_label: ${withoutLabels}`);
  }
  let onHangUp: (() => void) | undefined;
  // Without a file there is nothing to read.
  const reload = options.configurationText && (() => onHangUp?.());
  ignoreSignals((message) => logger.warn(message), reload);
  using loop = new EventLoop(startWorker);
  const { controlSocket } = options;
  const inherited = options.inherited && {
    state: options.inherited,
    unpacking: new Unpacking(),
  };
  if (inherited === undefined) {
    await outwaitPredecessor(loop, controlSocket, readHolder(lockPath(controlSocket)));
  }
  const failed = Promise.withResolvers<number>();
  loop.onFailure((failure) => {
    logger.error("stopped by a bug", { failure });
    failed.resolve(ExitCode.bug);
  });
  const stopping = hearStops();
  const files = noteMissingFiles(controlSocket);
  const journal = makeOrLeaveNothing(files, () => openJournal(options, logger, inherited));
  const beginning = await lookBack(options, { logger, loop }, { journal, inherited });
  const make = () => new Orchestrator(options, { logger, loop }, beginning);
  const orchestrator = makeOrLeaveNothing(files, make);
  const start = () => orchestrator.start();
  const close = () => orchestrator.close();
  await orchestrator.openLogs().catch((error) => {
    makeOrLeaveNothing(files, () => fail(error), close);
  });
  makeOrLeaveNothing(files, start, close);
  stopping.tell((hurry) => orchestrator.stop(hurry));
  onHangUp = () => orchestrator.reload();
  // Those that came while it became this program wait for it.
  hearSignals();
  const down = orchestrator.whenDown.then(async () => {
    await orchestrator.release();
    return ExitCode.done;
  });
  const code = await Promise.race([down, failed.promise]);
  await orchestrator.finishLogs();
  orchestrator.close();
  return code;
}
