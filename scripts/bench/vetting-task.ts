/** Runs a task of hostler's vetting in a child, as an agent does. */
import { ScriptError } from "../terminal.ts";

/** @returns its report @throws ScriptError with its own words where it has none */
export async function runVettingTask(
  hostler: string,
  order: { readonly task: string; readonly input: unknown },
): Promise<unknown> {
  const child = Bun.spawn([hostler, "--vetting-task"], { stdin: "pipe", stdout: "pipe" });
  child.stdin.write(`${JSON.stringify(order)}\n`);
  // The end of its input would end it.
  child.stdin.flush();
  const lines = (await new Response(child.stdout).text()).trim().split("\n");
  await child.exited;
  const last = JSON.parse(lines.at(-1) || "null") as { kind: string; report: unknown } | null;
  if (last?.kind === "report") return last.report;
  throw new ScriptError(`The task ${order.task} says ${JSON.stringify(last)}`, { exitCode: 1 });
}
