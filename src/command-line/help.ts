import { ExitCode } from "../units/exit-code.ts";
import type { ArgumentDefinition, Command } from "./definition.ts";
import { aliasesOf, helpFlag, placeholder } from "./parse.ts";

const usualExitCodes: Readonly<Record<number, string>> = {
  [ExitCode.done]: "done",
  [ExitCode.usage]: "the command line, or a file that it names, is wrong",
  [ExitCode.bug]: "a bug of hostler",
  [ExitCode.refused]: "the system, or a daemon, refused",
};

/** Columns of a line of help. */
const HELP_WIDTH = 90;

/** The help of a command. @param path the words that call it, such as "hostler process list" */
export function renderHelp(command: Command, path: string): string {
  const { description, examples, exitCodes } = command.meta;
  const codes = Object.entries({ ...usualExitCodes, ...exitCodes });
  const sections = [
    `${description}\n`,
    section("Usage", usageLines(command, path)),
    section("Commands", subCommandLines(command)),
    section("Words", wordLines(command)),
    section("Options", optionLines(command)),
    section("Examples", exampleLines(examples ?? [])),
    section("Exit codes", alignPairs(codes)),
  ];
  return sections.filter((text) => text !== "").join("\n");
}

/** What takes a word, and has commands below it too, is called in two ways. */
function usageLines(command: Command, path: string): string[] {
  const { subCommands, ...itself } = command;
  if (subCommands === undefined || command.run === undefined) return [usage(command, path)];
  const takesWord = Object.values(command.args ?? {}).some(({ type }) => type === "positional");
  return takesWord ? [usage(itself, path), `${path} <command>`] : [usage(command, path)];
}

/** One line that says how a command is called. */
export function usage(command: Command, path: string): string {
  const words = Object.entries(command.args ?? {})
    .filter(([, definition]) => definition.type === "positional")
    .map(([name, definition]) => {
      const word = placeholder(name, definition) + (definition.repeatable === true ? " …" : "");
      return definition.required === false ? `[${word}]` : word;
    });
  const flags = Object.entries(command.args ?? {})
    .filter(([, { type, required }]) => type !== "positional" && required === true)
    .map(([name, definition]) => `--${name} ${valueWord(name, definition)}`);
  const subCommand = command.subCommands === undefined ? [] : ["<command>"];
  return [path, ...subCommand, ...flags, "[options]", ...words].join(" ");
}

function section(title: string, lines: readonly string[]): string {
  if (lines.length === 0) return "";
  return `${title}:\n${lines.map((line) => (line === "" ? "\n" : `  ${line}\n`)).join("")}`;
}

/** A word and what it means, wrapped under itself. */
function alignPairs(pairs: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(0, ...pairs.map(([word]) => word.length)) + 2;
  return pairs.flatMap(([word, meaning]) =>
    wrap(meaning, HELP_WIDTH - width).map(
      (line, index) => (index === 0 ? word : "").padEnd(width) + line,
    ),
  );
}

/** Lines of at most so many columns; a longer word stands alone. */
function wrap(text: string, width: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines.at(-1) ?? "";
    if (last === "") lines[lines.length - 1] = word;
    else if (last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function subCommandLines(command: Command): string[] {
  const pairs = Object.entries(command.subCommands ?? {});
  return alignPairs(pairs.map(([name, { description }]) => [name, description]));
}

function wordLines(command: Command): string[] {
  const words = Object.entries(command.args ?? {}).filter(
    ([, definition]) => definition.type === "positional",
  );
  return alignPairs(
    words.map(([name, definition]) => [placeholder(name, definition), told(definition)]),
  );
}

function optionLines(command: Command): string[] {
  const flags = Object.entries({ ...command.args, help: helpFlag }).filter(
    ([, definition]) => definition.type !== "positional",
  );
  return alignPairs(
    flags.map(([name, definition]) => [spelling(name, definition), told(definition)]),
  );
}

/** "-n, --lines <count>" */
function spelling(name: string, definition: ArgumentDefinition): string {
  const short = aliasesOf(definition).filter((alias) => alias.length === 1);
  const long = aliasesOf(definition).filter((alias) => alias.length > 1);
  const flags = [
    ...short.map((alias) => `-${alias}`),
    `--${name}`,
    ...long.map((alias) => `--${alias}`),
  ];
  if (definition.type === "boolean") return flags.join(", ");
  return `${flags.join(", ")} ${valueWord(name, definition)}`;
}

function valueWord(name: string, definition: ArgumentDefinition): string {
  const options = definition.type === "enum" ? definition.options?.join("|") : undefined;
  return `<${definition.valueHint ?? options ?? name}>`;
}

function told(definition: ArgumentDefinition): string {
  const isNeeded = definition.type !== "positional" && definition.required === true;
  const more = [
    ...(isNeeded ? [" (required)"] : []),
    ...(definition.repeatable === true ? [" (repeatable)"] : []),
  ].join("");
  const usual = typeof definition.default === "string" ? ` (default ${definition.default})` : "";
  return `${definition.description ?? ""}${more}${usual}`;
}

function exampleLines(examples: readonly (readonly [string, string])[]): string[] {
  return examples.flatMap(([command, meaning], index) => [
    ...(index > 0 ? [""] : []),
    `${command}`,
    `    ${meaning}`,
  ]);
}
