/** What the scripts say while they work: one moving line on a terminal, whole lines elsewhere. */
import { type ParseArgsConfig, parseArgs } from "node:util";

/** Without a terminal, the time between two lines that say the same step still goes on. */
const reminderMilliseconds = 20_000;
/** On a terminal, the time between two pictures of the moving line. */
const redrawMilliseconds = 200;

/** A failure that the reader can mend: printed without a stack. */
export class ScriptError extends Error {
  /** 1: something was found wrong. 100: usage or set-up. 111: the system refused. */
  readonly exitCode: number;

  constructor(message: string, options: { exitCode: number; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.name = "ScriptError";
    this.exitCode = options.exitCode;
  }
}

/** Runs a script's main function and turns its outcome into the exit code. */
export async function runScript(main: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await main();
  } catch (error) {
    if (error instanceof ScriptError) {
      console.error(error.message);
      process.exitCode = error.exitCode;
      return;
    }
    console.error(error);
    process.exitCode = 101;
  }
}

/**
 * Reads the words given to a script.
 * @param usage printed when they are wrong
 * @throws ScriptError (100) naming the wrong word
 */
export function readWords<const Config extends ParseArgsConfig>(usage: string, config: Config) {
  try {
    return parseArgs({ args: Bun.argv.slice(2), ...config });
  } catch (error) {
    const [reason] = (error instanceof Error ? error.message : String(error)).split(". To specify");
    throw new ScriptError(`${reason}\n${usage}`, { exitCode: 100, cause: error });
  }
}

/** A step that is under way; `say` tells how far it is. */
export interface Step {
  say(detail: string): void;
}

/** Says that a step begins, that it still goes on, and how long it took. */
export async function withStep<T>(title: string, work: (step: Step) => Promise<T>): Promise<T> {
  const begin = performance.now();
  const onTerminal = process.stdout.isTTY === true;
  let detail = "";
  const draw = () => {
    const line = `${title} … ${formatSeconds(performance.now() - begin)} ${detail}`.trimEnd();
    // A terminal that was never given a size says 0.
    const width = process.stdout.columns || 80;
    if (onTerminal) process.stdout.write(`\r\u001b[2K${line.slice(0, width)}`);
    else console.log(line);
  };
  if (!onTerminal) console.log(`${title} …`);
  const timer = setInterval(draw, onTerminal ? redrawMilliseconds : reminderMilliseconds);
  try {
    const result = await work({
      say: (text) => {
        detail = text;
      },
    });
    if (onTerminal) process.stdout.write("\r\u001b[2K");
    console.log(`${title}: done in ${formatSeconds(performance.now() - begin)}`);
    return result;
  } finally {
    clearInterval(timer);
  }
}

/** @param milliseconds a duration @returns it in seconds, as "1.2 s" */
export function formatSeconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

/** @param bytes a size @returns it in mebibytes, as "104.1 MiB" */
export function formatMebibytes(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** Rows as text in columns; the first row is the heading, numbers belong to the right. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  const isNumber = (cell: string) => /^[0-9]/.test(cell);
  return rows
    .map((row) =>
      row
        .map((cell, column) => {
          const width = widths[column] ?? 0;
          return isNumber(cell) ? cell.padStart(width) : cell.padEnd(width);
        })
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
