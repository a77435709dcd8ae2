import { monotonicNow } from "../event-loop/clock.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { refusalCode } from "../journal/file-refused.ts";
import type { Logger } from "../logging/logger.ts";
import type { ControlCall } from "../messaging/control-server.ts";
import { formatDuration, type Milliseconds } from "../units/units.ts";
import { newInvocation } from "./invocation.ts";
import { reexecutionKillPoint } from "./perform/inheritance.ts";
import { Luggage } from "./perform/luggage.ts";
import {
  become,
  holdBackForNext,
  type NextProgram,
  openProgram,
  ReexecutionRefused,
  tryState,
} from "./perform/next-program.ts";
import { type OrchestratorState, readableVersions, stateForms } from "./protocol-state.ts";

/** So long everything that has begun may take to come to its end. */
const QUIET_LIMIT: Milliseconds = 5_000;
/** After so long of it, connections to agents that do not come to rest are ended. */
const CONNECTION_LIMIT: Milliseconds = 500;
/** So long nothing is decided, at most; then what waits has its turn, and it is tried again. */
const HOLD_LIMIT: Milliseconds = 1_000;
/** How often it is looked whether all has come to its end. */
const LOOK_EVERY: Milliseconds = 1;

/** What becomes another program: the driver, as it is asked for it. */
export interface Handing {
  /** It has been told to stop everything. */
  isStopping(): boolean;
  /** What has begun and has not come to its end, in words; undefined when all has. */
  underWay(): string | undefined;
  /** All that it knows, and what stays open for it. */
  pack(luggage: Luggage): OrchestratorState;
  /** Decides nothing from now on, and begins nothing. */
  hold(): void;
  /** Goes on, with all that came meanwhile. */
  release(): void;
  /** Ends connections to agents that do not come to rest. */
  dropUnsettled(): void;
  /** Written down, so that nobody is left behind: a dry run begins, or is over. */
  noteDryRun(invocation: string, standing: "begins" | "over"): void;
  /** To the service manager: it is about to be another program, or is not after all. */
  tellManager(standing: "begins" | "over"): void;
}

type Encode = (state: OrchestratorState) => string;

/** What a dry run came to, and the form of the state that it was given. */
interface Tried {
  readonly version: string;
  readonly commit: string;
  readonly encode: Encode;
}

export interface ReexecutionRequest {
  readonly program?: string | undefined;
  readonly digest?: string | undefined;
}

/**
 * Has the orchestrator go on as another program: tried first, then everything that has begun comes
 * to its end, then execve(2). What is refused leaves it as it was.
 */
export class Reexecution {
  readonly #loop: EventLoop;
  readonly #logger: Logger;
  readonly #handing: Handing;
  #isUnderWay = false;
  #endDryRun: () => void = () => {};

  constructor(loop: EventLoop, logger: Logger, handing: Handing) {
    this.#loop = loop;
    this.#logger = logger;
    this.#handing = handing;
  }

  /** The orchestrator ends: nobody is left behind. */
  close(): void {
    this.#endDryRun();
  }

  /** Answers only when it is refused; else the next program answers. */
  async begin(request: ReexecutionRequest, call: ControlCall): Promise<void> {
    if (this.#isUnderWay) {
      const message = "Another re-execution is under way";
      call.refuse({ kind: "busy", message, hint: "Wait until it is over" });
      return;
    }
    this.#isUnderWay = true;
    try {
      await this.#run(request);
    } catch (error) {
      this.#refuse(error, call);
    } finally {
      this.#isUnderWay = false;
    }
  }

  /** What the kernel refuses, such as one more descriptor, leaves all as it was as well. */
  #refuse(error: unknown, call: ControlCall): void {
    if (error instanceof ReexecutionRefused) {
      const { kind, message, expected, received, hint } = error;
      this.#logger.warn(message);
      call.refuse({ kind, message, expected, received, hint });
      return;
    }
    if (refusalCode(error) === undefined) throw error;
    const message = `Cannot go on as another program: ${(error as Error).message}`;
    this.#logger.warn(message);
    call.refuse({ kind: "system", message, hint: "The orchestrator goes on as it was" });
  }

  async #run(request: ReexecutionRequest): Promise<void> {
    using program = await openProgram(request);
    const { version, commit, encode } = await this.#try(program);
    reexecutionKillPoint("reexecute:tried");
    this.#logger.info(`going on as ${program.path}, version ${version} (${commit})`);
    this.#handing.tellManager("begins");
    try {
      await this.#comeToRest();
      reexecutionKillPoint("reexecute:held");
      this.#become(program, encode);
    } finally {
      // It is still this program: it was refused.
      this.#handing.release();
      this.#handing.tellManager("over");
    }
  }

  /**
   * With what it knows now, while it goes on: what changes meanwhile changes no form. A program
   * that reads the version before alone is given that one, and what it does not know is lost.
   */
  async #try(program: NextProgram): Promise<Tried> {
    this.#refuseStopping();
    for (const encode of stateForms) {
      const answer = await this.#tryForm(program, encode);
      if (answer !== "of-former-version") return { ...answer, encode };
    }
    throw new ReexecutionRefused("dry-run", {
      expected: `${program.path} to read a state of version ${readableVersions.join(" or ")}`,
      received: "one that reads neither",
      hint: "The orchestrator goes on as it was. Name another file, or restart it instead",
    });
  }

  async #tryForm(program: NextProgram, encode: Encode): ReturnType<typeof tryState> {
    const encoded = encode(this.#handing.pack(new Luggage()));
    const invocation = newInvocation();
    this.#handing.noteDryRun(invocation, "begins");
    try {
      const onStarted = (end: () => void) => {
        this.#endDryRun = end;
      };
      return await tryState(this.#loop, program, { encoded, invocation, onStarted });
    } finally {
      this.#endDryRun = () => {};
      this.#handing.noteDryRun(invocation, "over");
    }
  }

  #refuseStopping(): void {
    if (!this.#handing.isStopping()) return;
    throw new ReexecutionRefused("busy", {
      expected: "an orchestrator that goes on",
      received: "one that is stopping everything",
      hint: "Start it again when it has ended",
    });
  }

  /** Holds decisions until nothing is under way; those that it needs are let through in between. */
  async #comeToRest(): Promise<void> {
    const begun = monotonicNow();
    for (;;) {
      const held = monotonicNow();
      this.#handing.hold();
      do {
        // All that this turn has brought is done then, signals as well.
        await this.#loop.letOthers();
        this.#refuseStopping();
        if (this.#handing.underWay() === undefined) return;
        if (monotonicNow() - begun > CONNECTION_LIMIT) this.#handing.dropUnsettled();
        await this.#pass(LOOK_EVERY);
      } while (monotonicNow() - held < HOLD_LIMIT);
      const what = this.#handing.underWay();
      this.#handing.release();
      if (monotonicNow() - begun >= QUIET_LIMIT && what !== undefined) {
        throw new ReexecutionRefused("not-quiet", {
          expected: `all that has begun to come to its end within ${formatDuration(QUIET_LIMIT)}`,
          received: what,
          hint: "Try it again; hostler process list shows who is starting",
        });
      }
      await this.#pass(LOOK_EVERY);
    }
  }

  #pass(wait: Milliseconds): Promise<void> {
    return new Promise((resolve) => {
      this.#loop.wakeAfter(wait, resolve);
    });
  }

  /** From the first look to the exec in one go: nothing comes between. */
  #become(program: NextProgram, encode: Encode): never {
    holdBackForNext();
    const luggage = new Luggage();
    const encoded = encode(this.#handing.pack(luggage));
    reexecutionKillPoint("reexecute:packed");
    const reason = become(program, { encoded, luggage });
    throw new ReexecutionRefused("execve", {
      expected: `the kernel to run ${program.path}`,
      received: reason,
      hint: "The orchestrator goes on as it was. Look at the file",
    });
  }
}
