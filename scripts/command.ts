/** Starts other programs for the scripts, and says in full what went wrong. */
import { ScriptError } from "./terminal.ts";

export interface CommandOptions {
  readonly workingDirectory?: string;
  /** Added to the environment of the script. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Called with every line of both outputs as it comes. */
  readonly onLine?: (line: string) => void;
}

export interface CommandResult {
  readonly exitCode: number;
  /** Both outputs, in the order in which they came. */
  readonly output: string;
}

/** The Bun that runs this script; `bun` itself need not be on PATH. */
export const bunExecutable: string = process.execPath;

/** @returns the exit code and both outputs; a non-zero exit is a value here, not an error. */
export async function tryCommand(
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const child = Bun.spawn([...argv], {
    cwd: options.workingDirectory ?? process.cwd(),
    env: { ...process.env, ...options.environment },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const pieces: string[] = [];
  await Promise.all([
    collect(child.stdout, pieces, options.onLine),
    collect(child.stderr, pieces, options.onLine),
  ]);
  return { exitCode: await child.exited, output: pieces.join("") };
}

/** @throws ScriptError with the command and its whole output when it does not exit with 0. */
export async function runCommand(
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const result = await tryCommand(argv, options);
  if (result.exitCode !== 0) {
    throw new ScriptError(
      `${argv.join(" ")}: exit code ${result.exitCode}\n${result.output.trimEnd()}`,
      { exitCode: 1 },
    );
  }
  return result.output;
}

async function collect(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  pieces: string[],
  onLine: ((line: string) => void) | undefined,
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const text = decoder.decode(bytes, { stream: true });
    pieces.push(text);
    if (onLine === undefined) continue;
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  }
  if (onLine !== undefined && rest !== "") onLine(rest);
}
