import type { ArgDef, CommandMeta } from "citty";

/**
 * Commands as data, in citty's shape. The runner is ours: citty's evaluates every subcommand's
 * module for an unknown word, takes unknown flags, and exits with 1 for every error.
 */

/** A flag or a positional word, as citty describes it. */
export type ArgumentDefinition = ArgDef & {
  /** It may be given several times, and is a list. */
  readonly repeatable?: boolean;
  /** It may have a dash before it, as the signals of kill(1): -9, -KILL. At most one of them. */
  readonly dashed?: boolean;
  /** What a shell offers for it. */
  readonly complete?: "process" | "client" | "file";
};

export type ArgumentDefinitions = Readonly<Record<string, ArgumentDefinition>>;

/** What a command is given, by the definition of its arguments. */
export type Arguments<T extends ArgumentDefinitions> = {
  readonly [Name in keyof T]: Argument<T[Name]>;
};

type Argument<D extends ArgumentDefinition> = D extends { readonly type: "boolean" }
  ? boolean
  : D extends { readonly repeatable: true }
    ? readonly string[]
    : D extends { readonly type: "enum"; readonly options: infer Options }
      ? Optional<D, Options extends readonly (infer Option)[] ? Option : never>
      : Optional<D, string>;

type Optional<D extends ArgumentDefinition, Value> = D extends { readonly default: string }
  ? Value
  : D extends { readonly required: true }
    ? Value
    : D extends { readonly type: "positional" }
      ? D extends { readonly required: false }
        ? Value | undefined
        : Value
      : Value | undefined;

export interface CommandDescription extends CommandMeta {
  /** Each with what it does. */
  readonly examples?: readonly (readonly [command: string, meaning: string])[];
  /** Exit codes with a meaning of their own, beside the usual ones. */
  readonly exitCodes?: Readonly<Record<number, string>>;
}

/** One command. Its module has no side effects; the work is imported inside `run`. */
export interface Command<T extends ArgumentDefinitions = ArgumentDefinitions> {
  readonly meta: CommandDescription & { readonly name: string; readonly description: string };
  readonly args?: T;
  readonly subCommands?: Readonly<Record<string, SubCommand>>;
  /** @returns the exit code */
  run?(args: Arguments<T>): Promise<number>;
}

/** What a level of the tree knows of the next without importing it. */
export interface SubCommand {
  readonly description: string;
  readonly load: () => Promise<Command> | Command;
}

/** Makes a command whose `run` knows the types of its arguments. */
export function defineCommand<const T extends ArgumentDefinitions>(
  definition: Command<T>,
): Command {
  return definition as unknown as Command;
}

/** A level of the tree: commands that are there already, by their names. */
export function subCommandsOf(
  ...commands: readonly Command[]
): Readonly<Record<string, SubCommand>> {
  return Object.fromEntries(
    commands.map((command) => [
      command.meta.name,
      { description: command.meta.description, load: () => command },
    ]),
  );
}
