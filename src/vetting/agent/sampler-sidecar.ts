import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { KernelLine, Reading } from "../../hardware/samples.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { RunningTask, TaskRunner } from "../perform/task-runner.ts";
import type { TaskEnding, TaskLine } from "../protocol-task.ts";
import { SAMPLE_TASK } from "../tasks/sample.ts";

/** It samples as long as its agent runs. */
const NO_DEADLINE: Milliseconds = 10 * 365 * 86_400_000;
const retry = { first: 1_000, longest: 30_000 } as const;
/**
 * How long a stage waits for a reading that it asked for. A reading is files of the kernel's and
 * takes milliseconds; a service processor that dies keeps it for minutes.
 */
export const READING_WITHIN: Milliseconds = 10_000;

export interface SamplerHandlers {
  onReading(reading: Reading): void;
  onKernelLine(line: KernelLine): void;
  onLog(level: "info" | "warn" | "error", text: string): void;
}

/** The child that samples beside all stages; one that dies is started again. */
export class SamplerSidecar implements Disposable {
  readonly #loop: EventLoop;
  readonly #runner: Pick<TaskRunner, "start">;
  readonly #handlers: SamplerHandlers;
  #every: Milliseconds;
  #running: RunningTask | undefined;
  #timer: Disposable | undefined;
  #lastLine: number | null = null;
  #failures = 0;
  #isStopped = false;
  #asked = 0;
  #answered = 0;
  /** It was waited for in vain: until it answers, nobody waits for it again. */
  #isSilent = false;
  /** Resolved and made anew whenever a question is answered. */
  #answer = Promise.withResolvers<void>();

  constructor(
    loop: EventLoop,
    runner: Pick<TaskRunner, "start">,
    options: SamplerHandlers & { readonly every: Milliseconds },
  ) {
    this.#loop = loop;
    this.#runner = runner;
    this.#handlers = options;
    this.#every = options.every;
    this.#start();
  }

  /** From its next start on; the one that runs is ended for it. */
  setEvery(every: Milliseconds): void {
    if (every === this.#every) return;
    this.#every = every;
    this.#running?.cancel();
  }

  /**
   * Has it read now. A sampler that is just being started is asked as soon as it is there.
   * @returns why there is no such reading
   */
  async readNow(
    signal: AbortSignal,
    within: Milliseconds = READING_WITHIN,
  ): Promise<string | undefined> {
    this.#asked += 1;
    const question = this.#asked;
    this.#running?.ask(question);
    if (this.#isSilent) return "not seen: the sampler does not answer";
    const over = Promise.withResolvers<string>();
    const seconds = within / 1_000;
    using _limit = this.#loop.wakeAfter(within, () => {
      this.#isSilent = true;
      over.resolve(`not seen: the sampler did not answer within ${seconds} s`);
    });
    const cancelled = () => over.resolve("not seen: the stage was cancelled");
    signal.addEventListener("abort", cancelled, { once: true });
    if (signal.aborted) cancelled();
    try {
      while (this.#answered < question) {
        const why = await Promise.race([over.promise, this.#answer.promise]);
        if (why !== undefined) return why;
      }
      return undefined;
    } finally {
      signal.removeEventListener("abort", cancelled);
    }
  }

  #start(): void {
    const input = { every_ms: Math.max(10, this.#every), kernel_after: this.#lastLine };
    const running = this.#runner.start(
      { task: SAMPLE_TASK, input },
      { deadline: NO_DEADLINE, onLine: (line) => this.#onLine(line) },
    );
    this.#running = running;
    this.#isSilent = false;
    if (this.#answered < this.#asked) running.ask(this.#asked);
    void running.ended.then((ending) => this.#onEnd(ending));
  }

  #onLine(line: TaskLine): void {
    if (line.kind === "reading") {
      this.#failures = 0;
      this.#handlers.onReading(line.reading);
      if (line.answers !== undefined) this.#onAnswer(line.answers);
    } else if (line.kind === "kernel") {
      this.#lastLine = line.line.sequence;
      this.#handlers.onKernelLine(line.line);
    } else if (line.kind === "log") this.#handlers.onLog(line.level, line.text);
  }

  #onAnswer(question: number): void {
    this.#answered = question;
    this.#isSilent = false;
    const { resolve } = this.#answer;
    this.#answer = Promise.withResolvers<void>();
    resolve();
  }

  #onEnd(ending: TaskEnding): void {
    this.#running = undefined;
    if (this.#isStopped) return;
    if (ending.kind === "cancelled") {
      this.#start();
      return;
    }
    const wait = Math.min(retry.first * 2 ** Math.min(this.#failures, 10), retry.longest);
    this.#failures++;
    const why = "how" in ending ? `${ending.how}: ${ending.lastWords}` : ending.kind;
    this.#handlers.onLog("warn", `the sampler ended, again in ${wait / 1_000} s: ${why}`);
    this.#timer = this.#loop.wakeAfter(wait, () => this.#start());
  }

  [Symbol.dispose](): void {
    this.#isStopped = true;
    this.#timer?.[Symbol.dispose]();
    this.#running?.cancel();
  }
}
