import { existsSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { monotonicNow } from "../event-loop/clock.ts";
import { EventLoop } from "../event-loop/event-loop.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import { FileRefused } from "../journal/file-refused.ts";
import { ignoreSignals } from "../logging/ignored-signals.ts";
import { createLogger, type Logger } from "../logging/logger.ts";
import {
  type ControlCall,
  ControlServer,
  defaultControlLimits,
} from "../messaging/control-server.ts";
import { makeSocketFolder } from "../messaging/listener.ts";
import { allowUsers } from "../messaging/peer.ts";
import { outwaitPredecessor } from "../messaging/predecessor.ts";
import { ServiceNotifier } from "../messaging/service-notify.ts";
import { ExitCode } from "../units/exit-code.ts";
import { Signal } from "../units/signals.ts";
import { formatDuration, type Milliseconds } from "../units/units.ts";
import { ExecutorRefused } from "./executor.ts";
import { layoutNames, linked } from "./layout.ts";
import { nextStart, restartLimits } from "./lifecycle-restart.ts";
import { followSelf } from "./perform/follow-self.ts";
import { checkVersion } from "./perform/installation.ts";
import { programOf, readLayout } from "./perform/layout-files.ts";
import { endLeftovers, reapOrphans } from "./perform/orphans.ts";
import { requireLasting } from "./perform/persistence.ts";
import { lockSupervision } from "./perform/supervise-lock.ts";
import { type ChildEnding, type ChildPlan, SupervisedChild } from "./perform/supervised-child.ts";
import type { LastWords } from "./protocol.ts";
import {
  type Adoption,
  FOLDER_VARIABLE,
  SUPERVISOR_VARIABLE,
  type SuperviseRequest,
  type SuperviseStatus,
  superviseRequestSchema,
} from "./protocol-supervise.ts";
import { describeChild, SupervisedCandidate } from "./supervised-candidate.ts";

export interface SuperviseOptions {
  /** Of the installation. */
  readonly folder: string;
  readonly controlSocket: string;
  /** Of the canonical agent, after its program. */
  readonly words: readonly string[];
  readonly acceptVolatile: boolean;
  /** A canonical agent that has begun to say that it lives, and is silent for so long, hangs. */
  readonly watchdog: Milliseconds;
  /** Of a supervisor that went on as this one; undefined: nobody did. */
  readonly adoption: Adoption | undefined;
  /** Of our own service manager, where there is one: the next version is to tell it as well. */
  readonly notifySocket: string | undefined;
}

/** From SIGTERM to SIGKILL. */
const STOP_TIME: Milliseconds = 10_000;
/** Longest time of the former version to say which one may run. */
const GUARD_TIME: Milliseconds = 60_000;
/** How often orphans are looked for. */
const REAP_EVERY: Milliseconds = 1_000;

type Canonical =
  /** The former version says which one may run; or nobody is there who could. */
  | { readonly kind: "guarding"; readonly child: SupervisedChild | undefined }
  | { readonly kind: "running"; readonly child: SupervisedChild; readonly program: string }
  | { readonly kind: "waiting" };

/**
 * A parent of the agent where there is no service manager: in a container it is the first process.
 * It starts what `current` leads to, for ever, and runs a candidate beside it. It is small on
 * purpose: which version is right is decided by others, before each start by the version before.
 */
class Supervisor {
  readonly #options: SuperviseOptions;
  readonly #logger: Logger;
  readonly #loop: EventLoop;
  readonly #notifier = new ServiceNotifier();
  readonly #control: ControlServer<SuperviseRequest>;
  /** What is asked before is answered then: until then somebody else's agent may be asking. */
  readonly #started = Promise.withResolvers<void>();
  readonly #stopped = Promise.withResolvers<void>();
  readonly #environment: Readonly<Record<string, string>>;
  readonly #candidate: SupervisedCandidate;
  #canonical: Canonical = { kind: "waiting" };
  #watchdog: Disposable | undefined;
  /** Ends of the canonical agent, in a row, that came before it had run for long. */
  #setbacks = 0;
  #startedAt = monotonicNow();
  #isStopping = false;
  /** How the canonical agent before the present one ended. */
  #formerEnd: LastWords | null = null;
  /** The end of the canonical agent that comes was asked for. */
  #isRestarting = false;

  constructor(options: SuperviseOptions, logger: Logger, loop: EventLoop) {
    this.#options = options;
    this.#logger = logger;
    this.#loop = loop;
    this.#environment = ownEnvironment(options.folder);
    this.#candidate = new SupervisedCandidate(loop, {
      environment: this.#environment,
      notifySocket: `${options.controlSocket}.candidate`,
      say: (message) => logger.info(message),
    });
    this.#control = new ControlServer(loop, {
      path: options.controlSocket,
      policy: allowUsers([process.getuid?.() ?? 0]),
      limits: defaultControlLimits,
      schema: superviseRequestSchema,
      onRequest: (request, call) =>
        void this.#answer(request, call).catch((failure: unknown) => {
          call.refuse({ kind: "refused", message: (failure as Error).message });
        }),
      onTrouble: (message) => logger.warn(message),
    });
  }

  async start(): Promise<void> {
    const { folder, adoption } = this.#options;
    const left = adoption === undefined ? await endLeftovers(this.#loop, folder) : 0;
    if (left > 0) this.#logger.warn(`ended ${left} processes of a supervisor that was killed`);
    this.#logger.info(`supervises ${folder}`);
    this.#reap();
    if (!this.#adopt()) this.#guard();
    this.#started.resolve();
  }

  /** Goes on with the agent that it has started as another version. */
  #adopt(): boolean {
    const { adoption } = this.#options;
    if (adoption?.canonical == null) return false;
    const { process: processId, program } = adoption.canonical;
    const plan = this.#planOf(program, []);
    const child = SupervisedChild.adopt(this.#loop, { processId, plan }, (lines) =>
      this.#hear(lines),
    );
    if (child === undefined) return false;
    this.#logger.info(`goes on with ${program}`, { process: processId });
    this.#watch(child, program);
    this.#notifier.tell("READY=1");
    return true;
  }

  #watch(child: SupervisedChild, program: string): void {
    this.#canonical = { kind: "running", child, program };
    this.#startedAt = monotonicNow();
    void child.ended.then((ended) => this.#onEnd(ended));
  }

  /** Resolves when nobody of ours is left. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#notifier.tell("STOPPING=1");
    const canonical = this.#canonical;
    if (canonical.kind === "waiting" || (canonical.kind === "guarding" && !canonical.child)) {
      this.#stopped.resolve();
    } else if (canonical.child !== undefined) {
      this.#terminate(canonical.child);
    }
    await Promise.all([this.#stopped.promise, this.#candidate.stop("the supervisor stops")]);
    this.#control[Symbol.dispose]();
  }

  /** Before each start: by the PREVIOUS version, because the current one may be what is wrong. */
  #guard(): void {
    if (this.#isStopping) {
      this.#stopped.resolve();
      return;
    }
    const { folder } = this.#options;
    const program = guardOf(folder);
    if (program === undefined) {
      this.#canonical = { kind: "guarding", child: undefined };
      this.#run();
      return;
    }
    const child = this.#spawn(program, ["fleet", "guard", "--folder", folder], () => {});
    if (child === undefined) {
      this.#run();
      return;
    }
    this.#canonical = { kind: "guarding", child };
    const limit = this.#loop.wakeAfter(GUARD_TIME, () => child.signal(Signal.SIGKILL));
    void child.ended.then(({ ending }) => {
      limit[Symbol.dispose]();
      const isFine = ending.kind === "exited" && ending.status === 0;
      if (!isFine) this.#logger.warn(`the guard ${describeChild(ending)}, ignoring`);
      this.#run();
    });
  }

  #run(): void {
    if (this.#isStopping) {
      this.#stopped.resolve();
      return;
    }
    const { folder, words } = this.#options;
    const program = resolveProgram(join(folder, "current", layoutNames.program));
    const child =
      program === undefined
        ? undefined
        : this.#spawn(program, ["fleet", "agent", "--folder", folder, ...words], (lines) =>
            this.#hear(lines),
          );
    if (child === undefined || program === undefined) {
      if (program === undefined)
        this.#logger.error(
          `${folder}/current leads to no program: hostler fleet install makes one`,
        );
      this.#waitAfter({ ran: 0, isWanted: false });
      return;
    }
    this.#logger.info(`runs ${program}`, { process: child.processId });
    this.#watch(child, program);
  }

  #spawn(
    program: string,
    words: readonly string[],
    onNotice: (lines: readonly string[]) => void,
  ): SupervisedChild | undefined {
    try {
      return SupervisedChild.start(this.#loop, this.#planOf(program, words), onNotice);
    } catch (error) {
      this.#logger.error((error as Error).message);
      return undefined;
    }
  }

  #planOf(program: string, words: readonly string[]): ChildPlan {
    const { controlSocket, watchdog } = this.#options;
    return {
      ...{ program, words, output: "own" },
      environment: {
        ...this.#environment,
        [SUPERVISOR_VARIABLE]: controlSocket,
        WATCHDOG_USEC: `${Math.ceil(watchdog * 1_000)}`,
      },
      notifySocket: `${controlSocket}.canonical`,
    };
  }

  #hear(lines: readonly string[]): void {
    if (lines.includes("READY=1")) this.#notifier.tell("READY=1");
    if (!lines.includes("WATCHDOG=1")) return;
    this.#watchdog?.[Symbol.dispose]();
    const { watchdog } = this.#options;
    this.#watchdog = this.#loop.wakeAfter(watchdog, () => {
      if (this.#canonical.kind !== "running") return;
      this.#logger.error(`the agent has not said for ${formatDuration(watchdog)} that it lives`);
      this.#canonical.child.signal(Signal.SIGABRT);
      this.#terminate(this.#canonical.child);
    });
  }

  #onEnd({ ending, log, processorSeconds }: ChildEnding): void {
    this.#formerEnd = {
      ...{ ending: describeChild(ending), log },
      ...{ processor_seconds: processorSeconds, memory_peak_bytes: null },
    };
    this.#watchdog?.[Symbol.dispose]();
    this.#watchdog = undefined;
    if (this.#isStopping) {
      this.#stopped.resolve();
      return;
    }
    this.#logger.warn(`the agent ${describeChild(ending)}`);
    const isWanted = this.#isRestarting;
    this.#isRestarting = false;
    this.#waitAfter({ ran: monotonicNow() - this.#startedAt, isWanted });
  }

  #waitAfter(ended: { readonly ran: Milliseconds; readonly isWanted: boolean }): void {
    const { setbacks, wait } = nextStart(this.#setbacks, ended);
    this.#setbacks = setbacks;
    if (wait > restartLimits.first) {
      this.#logger.info(`waits ${formatDuration(wait)} before the next start`);
    }
    this.#canonical = { kind: "waiting" };
    this.#loop.wakeAfter(wait, () => this.#guard());
  }

  #terminate(child: SupervisedChild): void {
    child.signal(Signal.SIGTERM);
    const limit = this.#loop.wakeAfter(STOP_TIME, () => child.signal(Signal.SIGKILL));
    void child.ended.then(() => limit[Symbol.dispose]());
  }

  #reap(): void {
    const canonical = this.#canonical.kind === "waiting" ? undefined : this.#canonical.child;
    const own = [canonical?.processId, this.#candidate.processId];
    reapOrphans(new Set(own.filter((one) => one !== undefined)));
    this.#loop.wakeAfter(REAP_EVERY, () => this.#reap());
  }

  async #answer(request: SuperviseRequest, call: ControlCall): Promise<void> {
    await this.#started.promise;
    switch (request.verb) {
      case "start-candidate":
        call.done(await this.#candidate.start(request));
        return;
      case "find-candidate":
        call.done(this.#candidate.instance === request.instance);
        return;
      case "candidate-end":
        call.done(await this.#candidate.endOf(request.instance));
        return;
      case "stop-candidate":
        if (this.#candidate.instance === request.instance) await this.#candidate.stop(undefined);
        call.done(await this.#candidate.endOf(request.instance));
        return;
      case "restart-canonical":
        call.done(null);
        this.#isRestarting = this.#canonical.kind === "running";
        if (this.#canonical.kind === "running") this.#terminate(this.#canonical.child);
        return;
      case "canonical-end":
        call.done(this.#formerEnd);
        return;
      case "renew": {
        const argv = this.#planRenewal();
        call.done(null);
        // Whoever asks may not know that another one has asked before it, and was killed.
        if (argv[0] === realpathSync("/proc/self/exe")) return;
        // The answer is on its way before this process is another program, and a signal that came
        // while the file was hashed is heard by this one.
        await this.#loop.letOthers();
        if (!this.#isStopping) this.#renew(argv);
        return;
      }
      case "status":
        call.done(this.#status());
        return;
    }
  }

  /** @throws ExecutorRefused */
  #planRenewal(): readonly [string, ...string[]] {
    const { folder, controlSocket, watchdog, acceptVolatile, words } = this.#options;
    const refuse = (expected: string, received: string) =>
      new ExecutorRefused(
        `Cannot go on as another version: expected ${expected}, received ${received}. ` +
          "Wait until the upgrade is over.",
      );
    if (this.#candidate.instance !== undefined) throw refuse("no candidate", "one that runs");
    const canonical = this.#canonical;
    if (canonical.kind !== "running") throw refuse("an agent that runs", "none");
    const name = linked(readLayout(folder), "current");
    if (name === undefined) throw refuse("a current version that is whole", "none");
    const found = checkVersion(folder, name);
    if (found.kind !== "whole") throw refuse("a current version that is whole", found.received);
    const { process, program } = { process: canonical.child.processId, ...canonical };
    const adoption: Adoption = { format: 1, canonical: { process, program } };
    return [
      programOf(folder, name),
      ...["fleet", "supervise", "--folder", folder, "--control-socket", controlSocket],
      ...["--watchdog", `${watchdog}ms`, "--adopt", JSON.stringify(adoption)],
      ...(acceptVolatile ? ["--volatile"] : []),
      ...["--", ...words],
    ];
  }

  #renew(argv: readonly [string, ...string[]]): void {
    const { notifySocket } = this.#options;
    this.#logger.info(`goes on as ${argv[0]}`);
    try {
      followSelf(argv, {
        ...this.#environment,
        ...(notifySocket === undefined ? {} : { NOTIFY_SOCKET: notifySocket }),
      });
    } catch (error) {
      this.#logger.error((error as Error).message);
    }
  }

  #status(): SuperviseStatus {
    const canonical = this.#canonical;
    const { instance, processId } = this.#candidate;
    return {
      folder: this.#options.folder,
      canonical:
        canonical.kind === "running"
          ? { process: canonical.child.processId, program: canonical.program }
          : null,
      candidate:
        instance === undefined || processId === undefined ? null : { instance, process: processId },
    };
  }
}

/**
 * Who says which version may run: the former one. Where no link leads to a program there is none,
 * and this one does, so that a version that was proven is linked again. undefined: nobody.
 */
function guardOf(folder: string): string | undefined {
  const former = join(folder, "previous", layoutNames.program);
  if (existsSync(former)) return former;
  return existsSync(join(folder, "current", layoutNames.program)) ? undefined : "/proc/self/exe";
}

/** Its own file, not the link: what runs goes on to be it when the link is changed. */
function resolveProgram(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** What children get: with some of ours the compiled file is another program. */
function ownEnvironment(folder: string): Record<string, string> {
  const entries = Object.entries(process.env).filter(
    ([name, value]) => value !== undefined && name !== "BUN_BE_BUN" && name !== "BUN_OPTIONS",
  );
  const own = Object.fromEntries(entries) as Record<string, string>;
  return { ...own, [FOLDER_VARIABLE]: realpathSync(folder) };
}

/** One that was there once is waited for: it may be mended beside us. @throws FileRefused */
function requireInstallation(folder: string): void {
  const { links, versions } = readLayout(folder);
  if (versions.length > 0 || Object.values(links).some(({ kind }) => kind !== "absent")) return;
  if (existsSync(join(folder, layoutNames.journal))) return;
  throw new FileRefused(
    `Cannot supervise ${folder}: expected an installation, received none. ` +
      "Make it: hostler fleet install.",
  );
}

/** Runs until SIGTERM or SIGINT. @throws FileRefused, SocketPathError */
export async function runSupervise(options: SuperviseOptions): Promise<number> {
  requireLasting(options.folder, options.acceptVolatile);
  requireInstallation(options.folder);
  const logger = createLogger("hostler fleet supervise");
  using loop = new EventLoop(startWorker);
  using _lock = lockSupervision(options.folder);
  makeSocketFolder(options.controlSocket);
  await outwaitPredecessor(loop, options.controlSocket);
  const ended = Promise.withResolvers<number>();
  loop.onFailure((failure) => {
    logger.error("stopped by a bug", { failure });
    ended.resolve(ExitCode.bug);
  });
  // It has the control socket, or is refused here, before anybody is ended.
  const supervisor = new Supervisor(options, logger, loop);
  ignoreSignals((message) => logger.warn(message));
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => ended.resolve(ExitCode.done));
  }
  await supervisor.start();
  const code = await ended.promise;
  if (code === ExitCode.done) await supervisor.stop();
  return code;
}
