import { ExitCode } from "../units/exit-code.ts";
import type { ArgumentDefinition, Command } from "./definition.ts";
import { aliasesOf, helpFlag, placeholder } from "./parse.ts";
import { alignColumns } from "./table.ts";

const usualExitCodes: Readonly<Record<number, string>> = {
  [ExitCode.done]: "done",
  [ExitCode.usage]: "the command line, or a file that it names, is wrong",
  [ExitCode.bug]: "a bug of hostler",
  [ExitCode.refused]: "the system, or a daemon, refused",
};

/** The help of a command. @param path the words that call it, such as "hostler process list" */
export function renderHelp(command: Command, path: string): string {
  const { description, examples, exitCodes } = command.meta;
  const codes = Object.entries({ ...usualExitCodes, ...exitCodes });
  const sections = [
    `${description}\n`,
    section("Usage", [usage(command, path)]),
    section("Commands", subCommandLines(command)),
    section("Words", wordLines(command)),
    section("Options", optionLines(command)),
    section("Examples", exampleLines(examples ?? [])),
    section("Exit codes", alignColumns(codes.map(([code, meaning]) => [code, meaning]))),
  ];
  return sections.filter((text) => text !== "").join("\n");
}

/** One line that says how a command is called. */
export function usage(command: Command, path: string): string {
  const words = Object.entries(command.args ?? {})
    .filter(([, definition]) => definition.type === "positional")
    .map(([name, definition]) => {
      const word = placeholder(name, definition) + (definition.repeatable === true ? " …" : "");
      return definition.required === false ? `[${word}]` : word;
    });
  const subCommand = command.subCommands === undefined ? [] : ["<command>"];
  return [path, ...subCommand, "[options]", ...words].join(" ");
}

function section(title: string, lines: readonly string[]): string {
  if (lines.length === 0) return "";
  return `${title}:\n${lines.map((line) => (line === "" ? "\n" : `  ${line}\n`)).join("")}`;
}

function subCommandLines(command: Command): string[] {
  const rows = Object.entries(command.subCommands ?? {}).map(([name, { description }]) => [
    name,
    description,
  ]);
  return alignColumns(rows);
}

function wordLines(command: Command): string[] {
  const rows = Object.entries(command.args ?? {})
    .filter(([, definition]) => definition.type === "positional")
    .map(([name, definition]) => [placeholder(name, definition), definition.description ?? ""]);
  return alignColumns(rows);
}

function optionLines(command: Command): string[] {
  const flags = Object.entries({ ...command.args, help: helpFlag }).filter(
    ([, definition]) => definition.type !== "positional",
  );
  return alignColumns(
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
  const options = definition.type === "enum" ? definition.options?.join("|") : undefined;
  return `${flags.join(", ")} <${definition.valueHint ?? options ?? name}>`;
}

function told(definition: ArgumentDefinition): string {
  const more = definition.repeatable === true ? " (repeatable)" : "";
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
