import type { TaskEnding, TaskLine } from "../protocol-task.ts";
import { taskLimits } from "../protocol-task.ts";
import type { TaskPlan } from "../stages/stage.ts";
import type { RunningTask, TaskRunner } from "./task-runner.ts";

export interface DoneTask {
  readonly plan: TaskPlan;
  readonly ending: TaskEnding;
}

export interface StageHandlers {
  onLine(plan: TaskPlan, line: TaskLine): void;
}

/** The tasks of one stage: groups one after the other, those of a group side by side. */
export class StageRun {
  readonly done: Promise<readonly DoneTask[]>;
  readonly #runner: Pick<TaskRunner, "start" | "count">;
  readonly #handlers: StageHandlers;
  readonly #plans: readonly TaskPlan[];
  readonly #running = new Map<string, RunningTask>();
  readonly #endings = new Map<string, TaskEnding>();
  /** By task, from 0 to 1. */
  readonly #parts = new Map<string, number>();
  /** Resolved and made anew whenever a task ends. */
  #ended = Promise.withResolvers<void>();
  #isCancelled = false;

  constructor(
    runner: Pick<TaskRunner, "start" | "count">,
    plans: readonly TaskPlan[],
    handlers: StageHandlers,
  ) {
    this.#runner = runner;
    this.#handlers = handlers;
    this.#plans = plans;
    this.done = this.#run();
  }

  /** Of all its tasks, each counting the same; null while none has said anything. */
  get progress(): number | null {
    if (this.#parts.size === 0 || this.#plans.length === 0) return null;
    let sum = 0;
    for (const part of this.#parts.values()) sum += part;
    return Math.min(1, sum / this.#plans.length);
  }

  /** What runs is ended, what has not begun never begins. */
  cancel(): void {
    this.#isCancelled = true;
    for (const task of this.#running.values()) task.cancel();
    this.#wake();
  }

  async #run(): Promise<readonly DoneTask[]> {
    const groups = [...new Set(this.#plans.map(({ group }) => group))].sort((a, b) => a - b);
    for (const group of groups) {
      const waiting = this.#plans.filter((plan) => plan.group === group);
      for (const plan of waiting) {
        // Where nothing of ours runs and there is still no room, the runner says so for each.
        while (this.#runner.count >= taskLimits.children && this.#running.size > 0) {
          await this.#ended.promise;
        }
        if (this.#isCancelled) break;
        this.#start(plan);
      }
      while (this.#running.size > 0) await this.#ended.promise;
    }
    return this.#plans.map((plan) => ({
      plan,
      ending: this.#endings.get(plan.id) ?? { kind: "cancelled" },
    }));
  }

  #start(plan: TaskPlan): void {
    const { id, task, input, deadline } = plan;
    const running = this.#runner.start(
      { task, input },
      { deadline, onLine: (line) => this.#onLine(plan, line) },
    );
    this.#running.set(id, running);
    void running.ended.then((ending) => {
      this.#running.delete(id);
      this.#endings.set(id, ending);
      this.#parts.set(id, 1);
      this.#wake();
    });
  }

  #onLine(plan: TaskPlan, line: TaskLine): void {
    if (line.kind === "progress") {
      this.#parts.set(plan.id, line.total > 0 ? Math.min(1, line.done / line.total) : 0);
    }
    this.#handlers.onLine(plan, line);
  }

  #wake(): void {
    const { resolve } = this.#ended;
    this.#ended = Promise.withResolvers<void>();
    resolve();
  }
}
