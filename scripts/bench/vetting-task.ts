/** Runs a task of hostler's vetting in a child, as an agent does; and which peers there are. */
import { ScriptError } from "../terminal.ts";

/** @returns its report @throws ScriptError with its own words where it has none */
export async function runVettingTask(
  hostler: string,
  order: { readonly task: string; readonly input: unknown },
  environment: Readonly<Record<string, string>> = {},
): Promise<unknown> {
  const child = Bun.spawn([hostler, "--vetting-task"], {
    stdin: "pipe",
    stdout: "pipe",
    env: { ...process.env, ...environment },
  });
  child.stdin.write(`${JSON.stringify(order)}\n`);
  // The end of its input would end it.
  child.stdin.flush();
  const lines = (await new Response(child.stdout).text()).trim().split("\n");
  await child.exited;
  const last = JSON.parse(lines.at(-1) || "null") as { kind: string; report: unknown } | null;
  if (last?.kind === "report") return last.report;
  throw new ScriptError(`The task ${order.task} says ${JSON.stringify(last)}`, { exitCode: 1 });
}

/** By a row's name, the program that it needs; the rows of those that are here. */
export function rowsThatCan<Run>(
  rows: Readonly<Record<string, Run>>,
  needs: Readonly<Record<string, string>>,
): Readonly<Record<string, Run>> {
  const can = ([name]: readonly [string, Run]) => {
    const program = needs[name];
    return program === undefined || Bun.which(program) !== null;
  };
  return Object.fromEntries(Object.entries(rows).filter(can));
}
