import type { Task } from "../task.ts";

/** Tasks by their names, each imported when it is asked for. */
export type TaskRegistry = Readonly<Record<string, () => Promise<Task>>>;

export const tasks: TaskRegistry = {};
