import type { Milliseconds } from "../../units/units.ts";

/** Characters of a tool's output that are kept: the first ones. */
export const MOST_TOOL_OUTPUT = 4 * 1024 ** 2;

export type ToolAnswer =
  | {
      readonly kind: "ended";
      readonly code: number;
      readonly output: string;
      readonly said: string;
    }
  | { readonly kind: "failed"; readonly reason: string };

/** Where a tool is, by PATH; null: it is not installed, and our own engine does it. */
export const findTool = (name: string): string | null => Bun.which(name);

/**
 * Runs a tool of the host's to its end, in the language that its parser knows; one that takes
 * longer is killed, and so it is when the agent wants it to end.
 */
export async function runTool(
  words: readonly string[],
  { limit, signal }: { readonly limit: Milliseconds; readonly signal: AbortSignal },
): Promise<ToolAnswer> {
  const line = words.join(" ");
  try {
    const child = Bun.spawn([...words], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      timeout: limit,
      signal,
      maxBuffer: MOST_TOOL_OUTPUT,
      killSignal: "SIGKILL",
      env: { ...process.env, LC_ALL: "C" },
    });
    const [output, said, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    if (child.signalCode === null) {
      return { kind: "ended", code, output, said: said.trim().slice(-500) };
    }
    const bounds = `${limit / 1_000} s or ${MOST_TOOL_OUTPUT} bytes`;
    return { kind: "failed", reason: `${line}: ended by ${child.signalCode}, or over ${bounds}` };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { kind: "failed", reason: `${line}: cannot be started: ${why}` };
  }
}
