import type { ArgumentDefinition, Command } from "./definition.ts";
import { aliasesOf, helpFlag } from "./parse.ts";

/** What may stand after a word: what a shell offers there. */
export type Offer =
  | { readonly kind: "nothing" }
  | { readonly kind: "file" }
  | { readonly kind: "process" }
  | { readonly kind: "client" }
  | { readonly kind: "words"; readonly words: readonly string[] };

export interface CompletedFlag {
  /** "-n" and "--lines". */
  readonly spellings: readonly string[];
  readonly description: string;
  /** Undefined when the flag takes no value. */
  readonly value: Offer | undefined;
}

export interface CompletedPositional {
  readonly offer: Offer;
  readonly repeatable: boolean;
}

/** One level of the tree, as a shell needs it. */
export interface CompletionLevel {
  /** "hostler process list" */
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly description: string }[];
  readonly flags: readonly CompletedFlag[];
  /** In their order; the last one may take every further word. */
  readonly positionals: readonly CompletedPositional[];
}

/** All levels, the root first. Imports every command's definition. */
export async function completionLevels(
  command: Command,
  path = command.meta.name,
): Promise<CompletionLevel[]> {
  const children = Object.entries(command.subCommands ?? {});
  const definitions = Object.entries({ ...command.args, help: helpFlag });
  const positionals = definitions.filter(([, { type }]) => type === "positional");
  const level: CompletionLevel = {
    path,
    commands: children.map(([name, { description }]) => ({ name, description })),
    flags: definitions
      .filter(([, { type }]) => type !== "positional")
      .map(([name, definition]) => completedFlag(name, definition)),
    positionals: positionals.map(([, definition]) => ({
      offer: offerOf(definition),
      repeatable: definition.repeatable === true,
    })),
  };
  const below: CompletionLevel[][] = [];
  for (const [name, child] of children) {
    below.push(await completionLevels(await child.load(), `${path} ${name}`));
  }
  return [level, ...below.flat()];
}

function completedFlag(name: string, definition: ArgumentDefinition): CompletedFlag {
  const aliases = aliasesOf(definition).map(
    (alias) => `${alias.length === 1 ? "-" : "--"}${alias}`,
  );
  return {
    spellings: [...aliases, `--${name}`],
    description: definition.description ?? "",
    value: definition.type === "boolean" ? undefined : offerOf(definition),
  };
}

function offerOf(definition: ArgumentDefinition): Offer {
  const { complete } = definition;
  if (complete !== undefined) return { kind: complete };
  const options = "options" in definition ? definition.options : undefined;
  return options === undefined ? { kind: "nothing" } : { kind: "words", words: options };
}
