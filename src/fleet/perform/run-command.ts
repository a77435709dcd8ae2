import type { Milliseconds } from "../../units/units.ts";
import type { CommandAnswer } from "../executor.ts";

/** Characters that are kept of what a command says. */
const MOST_OUTPUT = 256 * 1024;
const MOST_SAID = 500;

/**
 * Runs a command of the host's to its end; one that takes longer is killed.
 * @param environment the whole of it; without one, our own
 */
export async function runCommand(
  argv: readonly string[],
  limit: Milliseconds,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<CommandAnswer> {
  try {
    const child = Bun.spawn([...argv], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      timeout: limit,
      killSignal: "SIGKILL",
      env: environment,
    });
    const [output, said, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    const answer = {
      code,
      output: output.slice(-MOST_OUTPUT),
      said: said.trim().slice(-MOST_SAID),
    };
    if (child.signalCode === null) return answer;
    const signal = `${child.signalCode}`;
    return { ...answer, code: -1, said: `its end by ${signal}`, signal };
  } catch (error) {
    return { code: -1, output: "", said: (error as Error).message };
  }
}
