import { describeError, escapeControls } from "../logging/format.ts";
import { ExitCode } from "../units/exit-code.ts";
import { nearest } from "../units/nearest.ts";
import type { ArgumentDefinitions, Arguments, Command } from "./definition.ts";
import { renderHelp } from "./help.ts";
import { OutputClosed, printText, tellText } from "./output.ts";
import { parseWords } from "./parse.ts";
import { UsageError } from "./usage-error.ts";

/** A command that was found, and the words that are left for it. */
export interface Found {
  readonly command: Command;
  readonly path: string;
  readonly words: readonly string[];
}

/**
 * Runs the command that the words name, and tells what went wrong on stderr, once.
 * @param name how the tree was called, for its messages
 * @returns the exit code; never throws
 */
export async function runTree(
  root: Command,
  name: string,
  words: readonly string[],
): Promise<number> {
  let path = name;
  try {
    const found = await findCommand({ command: root, path: name, words });
    path = found.path;
    return await runFound(found);
  } catch (error) {
    return report(error, path);
  }
}

/** Goes down the tree; only the modules on the way are imported. */
export async function findCommand(found: Found): Promise<Found> {
  const { command, path, words } = found;
  const [word, ...rest] = words;
  if (command.subCommands === undefined || word === undefined || word.startsWith("-")) return found;
  const next = Object.hasOwn(command.subCommands, word) ? command.subCommands[word] : undefined;
  // A command may take a word as well as have others below it: "report 12", "report verify".
  if (next === undefined && takesWord(command)) return found;
  if (next === undefined) throw unknownCommand(command, path, word);
  return findCommand({ command: await next.load(), path: `${path} ${word}`, words: rest });
}

const takesWord = ({ run, args = {} }: Command) =>
  run !== undefined && Object.values(args).some(({ type }) => type === "positional");

function unknownCommand(command: Command, path: string, word: string): UsageError {
  const suggestion = isFlag(command, word)
    ? `--${word}`
    : nearest(word, Object.keys(command.subCommands ?? {}));
  const mend = suggestion === undefined ? `See ${path} --help.` : `Did you mean ${suggestion}?`;
  return new UsageError(`Unknown command ${word}. ${mend}`, { path });
}

/** "help" and "version" are flags here; other programs have them as commands. */
function isFlag({ args = {} }: Command, word: string): boolean {
  return word === "help" || (Object.hasOwn(args, word) && args[word]?.type !== "positional");
}

async function runFound({ command, path, words }: Found): Promise<number> {
  const args = parseWords(command.args ?? {}, words);
  if (args === "help") {
    await printText(renderHelp(command, path));
    return ExitCode.done;
  }
  if (command.run === undefined) {
    throw new UsageError(`Expected a command after ${path}. See ${path} --help.`);
  }
  return await command.run(args as Arguments<ArgumentDefinitions>);
}

/** Says what went wrong; @returns the exit code that it means. */
function report(error: unknown, called: string): number {
  if (error instanceof OutputClosed) return ExitCode.done;
  const path = (error instanceof UsageError ? error.path : undefined) ?? called;
  const code = exitCodeOf(error);
  const lines = describeError(error).split("\n").map(escapeControls);
  if (code === ExitCode.usage && !lines.some((line) => line.includes("--help"))) {
    lines.push(`See ${path} --help.`);
  }
  if (code === ExitCode.bug) {
    const stack = error instanceof Error ? (error.stack ?? "") : "";
    lines.push(...stack.split("\n").map(escapeControls));
    lines.push("This is a bug of hostler; please report it with these lines.");
  }
  tellText(lines.map((line) => `${path}: ${line}\n`).join(""));
  return code;
}

/**
 * Errors that are expected carry what they mean: an exit code of their own, or the system call
 * that was refused. Everything else is a bug.
 */
function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return ExitCode.usage;
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const { exitCode, call, syscall } = cause as unknown as Readonly<Record<string, unknown>>;
    if (typeof exitCode === "number") return exitCode;
    if (typeof call === "string" || typeof syscall === "string") return ExitCode.refused;
  }
  return ExitCode.bug;
}
