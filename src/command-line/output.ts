import { readFileSync, writeSync } from "node:fs";
import { ExitCode } from "../units/exit-code.ts";

/** The reader of stdout has gone, as `head` does: there is nothing left to say. */
export class OutputClosed extends Error {
  override readonly name = "OutputClosed";
}

/** The program was started without a stdout: `>&-`. */
class NoOutput extends Error {
  override readonly name = "NoOutput";
  readonly exitCode = ExitCode.refused;
}

/** O_CLOEXEC of x86-64 and arm64, as proc_pid_fdinfo(5) shows it. */
const CLOSE_ON_EXEC = 0o2000000;
let hasOutput: boolean | undefined;

/**
 * Bun opens /dev/null in the place of a stdout that is closed, and what is written there would be
 * lost without a word. Bun's own is close-on-exec, which no descriptor is that came over an exec.
 */
function checkOutput(): boolean {
  try {
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync("/proc/self/fdinfo/1", "utf8"))?.[1];
    return (Number.parseInt(flags ?? "0", 8) & CLOSE_ON_EXEC) === 0;
  } catch {
    // Without /proc nothing tells; whoever has no /proc has more to mend than that.
    return true;
  }
}

/**
 * Writes to stdout; what it returned from has been written.
 * @throws OutputClosed when nobody reads any more; the kernel's error for anything else
 */
export async function printText(text: string): Promise<void> {
  hasOutput ??= checkOutput();
  if (!hasOutput) {
    throw new NoOutput(
      "Cannot write to stdout: expected an open descriptor 1, received a closed one. " +
        "Redirect it to a file, or to /dev/null.",
    );
  }
  let bytes = Buffer.from(text);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(1, bytes));
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === "EPIPE") throw new OutputClosed("stdout is closed", { cause: error });
      if (code !== "EAGAIN") throw new Error("Cannot write to stdout", { cause: error });
      // Somebody made the descriptor non-blocking: Bun waits until it takes more.
      await writeLater(bytes);
      return;
    }
  }
}

/** Writes to stderr. Where nobody reads, the exit code alone remains. */
export function tellText(text: string): void {
  let bytes = Buffer.from(text);
  try {
    while (bytes.length > 0) bytes = bytes.subarray(writeSync(2, bytes));
  } catch {
    // There is no third place to say it.
  }
}

/** Writes a value as JSON, indented, for programs and people. */
export async function printJson(value: unknown): Promise<void> {
  await printText(`${JSON.stringify(value, null, 2)}\n`);
}

/** Writes a value as JSON in one line, for streams. */
export async function printJsonLine(value: unknown): Promise<void> {
  await printText(`${JSON.stringify(value)}\n`);
}

function writeLater(bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => {
      if (error === null || error === undefined) resolve();
      else reject(new OutputClosed("stdout is closed", { cause: error }));
    });
  });
}
