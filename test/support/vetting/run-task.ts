/** Runs a task in a child, as an agent does, and gives what it came to. */
import * as v from "valibot";
import {
  type TaskLine,
  type TaskOrder,
  taskLineSchema,
} from "../../../src/vetting/protocol-task.ts";
import { withDeadline } from "../wait-for.ts";

export interface RanTask {
  readonly lines: readonly TaskLine[];
  /** Its last line; undefined where it died without one. */
  readonly last: TaskLine | undefined;
  readonly exitCode: number | null;
  readonly stderr: string;
}

export interface StartedTask {
  readonly processId: number;
  readonly ended: Promise<RanTask>;
  /** The end of its input: it is to stop. */
  stop(): void;
}

/** @param words that start our file, in whatever namespace: "--vetting-task" is said after them */
export function startTask(
  words: readonly string[],
  order: TaskOrder,
  options: {
    readonly environment?: Record<string, string>;
    readonly onLine?: (line: TaskLine) => void;
  } = {},
): StartedTask {
  const child = Bun.spawn([...words, "--vetting-task"], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    env: { PATH: process.env["PATH"] ?? "", ...options.environment },
  });
  child.stdin.write(`${JSON.stringify(order)}\n`);
  child.stdin.flush();
  const lines: TaskLine[] = [];
  const read = async () => {
    const decoder = new TextDecoder();
    let text = "";
    for await (const bytes of child.stdout) {
      const parts = (text + decoder.decode(bytes, { stream: true })).split("\n");
      text = parts.pop() ?? "";
      for (const part of parts) {
        const line = v.parse(taskLineSchema, JSON.parse(part));
        lines.push(line);
        options.onLine?.(line);
      }
    }
  };
  const end = async (): Promise<RanTask> => {
    const [, stderr] = await Promise.all([read(), new Response(child.stderr).text()]);
    return { lines, last: lines.at(-1), exitCode: await child.exited, stderr };
  };
  return {
    processId: child.pid,
    ended: withDeadline(`the end of the task ${order.task}`, end(), 60_000),
    stop: () => void child.stdin.end(),
  };
}

/** The report of a task, as its schema has it; its own words where it has none. */
export async function reportOfTask<Schema extends v.GenericSchema>(
  task: StartedTask,
  schema: Schema,
): Promise<v.InferOutput<Schema>> {
  const { last, stderr, exitCode } = await task.ended;
  if (last?.kind === "report") return v.parse(schema, last.report);
  throw new Error(`Expected a report, received ${JSON.stringify(last)}; ${exitCode}; ${stderr}`);
}
