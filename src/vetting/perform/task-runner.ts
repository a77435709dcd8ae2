import { faultVariables } from "../../../ffi/fault-hooks.ts";
import { SystemCallError } from "../../../ffi/system-call-error.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds, ProcessId } from "../../units/units.ts";
import { type TaskEnding, type TaskLine, type TaskOrder, taskLimits } from "../protocol-task.ts";
import { type OwnProgram, type TaskParts, TaskProcess, usualTimes } from "./task-process.ts";
import { TaskRecords } from "./task-records.ts";

export interface RunningTask {
  readonly ended: Promise<TaskEnding>;
  /** Has it stop; its end is told by `ended`. */
  cancel(): void;
  /** One that waits to be sent is replaced; a child that ends is asked nothing more. */
  ask(question: number): void;
}

/** A child that SIGKILL did not end. */
export interface StuckTask {
  readonly processId: ProcessId;
  readonly task: string;
}

export interface TaskRunnerOptions {
  readonly loop: EventLoop;
  /** In memory, of the agent alone: which children there are. */
  readonly folder: string;
  readonly own?: OwnProgram;
  readonly environment?: readonly string[];
  readonly grace?: Milliseconds;
  readonly stuckAfter?: Milliseconds;
}

/**
 * Children of the same file that touch hardware, so that the agent does not. Nothing here waits:
 * a child that cannot be ended is told as such, stays counted, and the agent goes on.
 */
export class TaskRunner {
  readonly records: TaskRecords;
  readonly #parts: TaskParts;
  readonly #running = new Map<ProcessId, Entry>();

  constructor(options: TaskRunnerOptions) {
    const { loop, folder } = options;
    this.records = new TaskRecords(folder);
    this.#parts = {
      ...usualTimes,
      ...(options.grace !== undefined && { grace: options.grace }),
      ...(options.stuckAfter !== undefined && { stuckAfter: options.stuckAfter }),
      loop,
      own: options.own ?? ownProgram(),
      environment: options.environment ?? usualEnvironment(),
      records: this.records,
    };
  }

  /** How many there are, with those that are stuck. */
  get count(): number {
    return this.#running.size;
  }

  get stuck(): readonly StuckTask[] {
    return [...this.#running]
      .filter(([, { isStuck }]) => isStuck)
      .map(([processId, { task }]) => ({ processId, task }));
  }

  /** Has all of them stop, and waits for the ends that come. */
  async endAll(): Promise<void> {
    const all = [...this.#running.values()];
    for (const { child } of all) child.cancel();
    await Promise.all(all.map(({ ended }) => ended.promise));
  }

  /** Starts a child. One too many, or one that the machine refuses, has ended at once. */
  start(
    order: TaskOrder,
    options: { readonly deadline: Milliseconds; readonly onLine: (line: TaskLine) => void },
  ): RunningTask {
    const ended = Promise.withResolvers<TaskEnding>();
    if (this.#running.size >= taskLimits.children) {
      const [all, stuck] = [this.#running.size, this.stuck.length];
      const message = `${all} children are there already, ${stuck} of them stuck in the kernel`;
      ended.resolve({ kind: "failure", message });
      return { ended: ended.promise, ...nobody };
    }
    try {
      const child = new TaskProcess(this.#parts, order, {
        ...options,
        onEnd: (ending) => {
          const entry = this.#running.get(child.processId);
          if (entry !== undefined) entry.isStuck = ending.kind === "stuck";
          ended.resolve(ending);
        },
        onGone: () => this.#running.delete(child.processId),
      });
      this.#running.set(child.processId, { task: order.task, isStuck: false, child, ended });
      return {
        ended: ended.promise,
        cancel: () => child.cancel(),
        ask: (question) => child.ask(question),
      };
    } catch (failure) {
      if (!(failure instanceof SystemCallError)) throw failure;
      ended.resolve({ kind: "died", how: `cannot be started: ${failure.message}`, lastWords: "" });
      return { ended: ended.promise, ...nobody };
    }
  }
}

/** A child that there never was. */
const nobody = { cancel: () => {}, ask: () => {} } as const;

interface Entry {
  readonly task: string;
  readonly child: TaskProcess;
  readonly ended: PromiseWithResolvers<TaskEnding>;
  isStuck: boolean;
}

/** When run from source: Bun, and the entry file. */
export function ownProgram(): OwnProgram {
  const isCompiled = Bun.main.startsWith("/$bunfs/");
  const words = isCompiled ? [process.execPath] : [process.execPath, Bun.main];
  // Whatever stands at its path by now, it is this version whose lines are understood.
  return { path: "/proc/self/exe", words };
}

/** Tools are looked for where they are in a live image, which sets no PATH. */
function usualEnvironment(): string[] {
  const path = process.env["PATH"] || "/usr/sbin:/usr/bin:/sbin:/bin";
  return [`PATH=${path}`, "LC_ALL=C", ...faultVariables()];
}
