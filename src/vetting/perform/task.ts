import type * as v from "valibot";
import type { TaskLine } from "../protocol-task.ts";

/**
 * One thing that a child does. It may block: nobody but its own agent waits for it, and that one
 * waits with a deadline. What it cannot do it throws as a TaskRefused.
 */
export interface Task<
  Input extends v.GenericSchema = v.GenericSchema,
  Report extends v.GenericSchema = v.GenericSchema,
> {
  readonly name: string;
  readonly input: Input;
  readonly report: Report;
  run(
    input: v.InferOutput<Input>,
    context: TaskContext,
  ): Promise<v.InferInput<Report>> | v.InferInput<Report>;
}

export interface TaskContext {
  /** Aborted when the agent wants it to end, or is gone. */
  readonly signal: AbortSignal;
  /** Each number that is asked after the order; those before this call are asked at once. */
  onQuestion(listener: (question: number) => void): void;
  /** Written before it returns; a task tells progress a few times a second at most. */
  tell(line: Exclude<TaskLine, { readonly kind: "report" | "failure" }>): void;
}

/** The machine refuses, as it may: the stage says so, and the file has no fault. */
export class TaskRefused extends Error {
  override readonly name = "TaskRefused";
}

/** A task whose `run` knows the types of its schemas. */
export function defineTask<Input extends v.GenericSchema, Report extends v.GenericSchema>(
  task: Task<Input, Report>,
): Task {
  return task as unknown as Task;
}
