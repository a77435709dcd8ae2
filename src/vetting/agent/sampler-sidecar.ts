import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { KernelLine, Reading } from "../../hardware/samples.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { RunningTask, TaskRunner } from "../perform/task-runner.ts";
import type { TaskEnding, TaskLine } from "../protocol-task.ts";
import { SAMPLE_TASK } from "../tasks/sample.ts";

/** It samples as long as its agent runs. */
const NO_DEADLINE: Milliseconds = 10 * 365 * 86_400_000;
const retry = { first: 1_000, longest: 30_000 } as const;

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

  #start(): void {
    const input = { every_ms: Math.max(10, this.#every), kernel_after: this.#lastLine };
    const running = this.#runner.start(
      { task: SAMPLE_TASK, input },
      { deadline: NO_DEADLINE, onLine: (line) => this.#onLine(line) },
    );
    this.#running = running;
    void running.ended.then((ending) => this.#onEnd(ending));
  }

  #onLine(line: TaskLine): void {
    if (line.kind === "reading") {
      this.#failures = 0;
      this.#handlers.onReading(line.reading);
    } else if (line.kind === "kernel") {
      this.#lastLine = line.line.sequence;
      this.#handlers.onKernelLine(line.line);
    } else if (line.kind === "log") this.#handlers.onLog(line.level, line.text);
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
