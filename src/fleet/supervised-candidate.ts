import type { EventLoop } from "../event-loop/event-loop.ts";
import type { Ending } from "../units/ending.ts";
import { Signal, signalName } from "../units/signals.ts";
import type { Milliseconds } from "../units/units.ts";
import { type CandidateOutcome, unknownEnding } from "./executor.ts";
import { type ChildEnding, SupervisedChild } from "./perform/supervised-child.ts";
import type { LastWords } from "./protocol.ts";
import { MOST_ENDINGS, type SuperviseRequest } from "./protocol-supervise.ts";

/** From SIGTERM to SIGKILL. */
const STOP_TIME: Milliseconds = 10_000;

type Start = Extract<SuperviseRequest, { readonly verb: "start-candidate" }>;

interface Running {
  readonly instance: string;
  readonly child: SupervisedChild;
  readonly over: Promise<LastWords>;
  isReady: boolean;
  /** Why we end it; undefined: it ends by itself. */
  why: string | undefined;
}

/** The one candidate that runs beside the canonical agent, and what the last ones left. */
export class SupervisedCandidate {
  readonly #loop: EventLoop;
  readonly #place: {
    readonly environment: Readonly<Record<string, string>>;
    readonly notifySocket: string;
    readonly say: (message: string) => void;
  };
  /** By instance, the oldest first. */
  readonly #endings = new Map<string, LastWords>();
  #running: Running | undefined;

  constructor(
    loop: EventLoop,
    place: {
      readonly environment: Readonly<Record<string, string>>;
      readonly notifySocket: string;
      readonly say: (message: string) => void;
    },
  ) {
    this.#loop = loop;
    this.#place = place;
  }

  get instance(): string | undefined {
    return this.#running?.instance;
  }

  get processId(): number | undefined {
    return this.#running?.child.processId;
  }

  /** What is left of another one is ended before. @throws ExecutorRefused */
  async start(request: Start): Promise<CandidateOutcome> {
    await this.stop("another candidate is started");
    const { instance, program, words } = request;
    const ready = Promise.withResolvers<"ready">();
    const { environment, notifySocket, say } = this.#place;
    const child = SupervisedChild.start(
      this.#loop,
      {
        ...{ program, words, notifySocket, output: "kept" },
        environment: { ...environment, ...request.environment },
      },
      (lines) => {
        if (lines.includes("READY=1")) ready.resolve("ready");
      },
    );
    say(`runs the candidate ${program}`);
    const over = child.ended.then((ended) => this.#onEnd(instance, ended));
    const running: Running = { instance, child, over, isReady: false, why: undefined };
    this.#running = running;
    const limits = [
      this.#loop.wakeAfter(request.ready_within_ms, () => {
        if (!running.isReady) this.#end(running, "its time was over");
      }),
      this.#loop.wakeAfter(request.ends_after_ms, () => this.#end(running, "its time was over")),
    ];
    void over.then(() => {
      for (const limit of limits) limit[Symbol.dispose]();
    });
    const first = await Promise.race([ready.promise, over]);
    if (first !== "ready") return { kind: "ended", lastWords: first };
    running.isReady = true;
    return { kind: "ready" };
  }

  /** @param why undefined: it is what was asked for */
  async stop(why: string | undefined): Promise<void> {
    const running = this.#running;
    if (running === undefined) return;
    if (why !== undefined) this.#place.say(`ends the candidate: ${why}`);
    this.#end(running, undefined);
    await running.over;
  }

  /** Resolves when it has ended; at once where nobody knows it. */
  async endOf(instance: string): Promise<LastWords> {
    if (this.#running?.instance === instance) return await this.#running.over;
    return this.#endings.get(instance) ?? unknownEnding;
  }

  #end(running: Running, why: string | undefined): void {
    running.why ??= why;
    running.child.signal(Signal.SIGTERM);
    const limit = this.#loop.wakeAfter(STOP_TIME, () => running.child.signal(Signal.SIGKILL));
    void running.over.then(() => limit[Symbol.dispose]());
  }

  #onEnd(instance: string, { ending, log, processorSeconds }: ChildEnding): LastWords {
    const running = this.#running;
    const isReady = running?.isReady === true;
    const silent = ending.kind === "exited" && ending.status === 0 && !isReady;
    const why = running?.why ?? (silent ? "it never said that it is ready" : undefined);
    const how = describeChild(ending);
    const words: LastWords = {
      ending: why === undefined ? how : `${why}: ${how}`,
      log,
      processor_seconds: processorSeconds,
      memory_peak_bytes: null,
    };
    this.#place.say(`the candidate ${words.ending}`);
    this.#running = undefined;
    this.#endings.delete(instance);
    this.#endings.set(instance, words);
    for (const oldest of this.#endings.keys()) {
      if (this.#endings.size <= MOST_ENDINGS) break;
      this.#endings.delete(oldest);
    }
    return words;
  }
}

/** In the words that a unit's ending is told in. */
export function describeChild(ending: Ending): string {
  if (ending.kind === "exited") return `exited with ${ending.status}`;
  if (ending.kind === "unknown") return `ended, ${ending.reason}`;
  const core = ending.coreDumped ? ", with a core dump" : "";
  return `ended by ${signalName(ending.signal)}${core}`;
}
