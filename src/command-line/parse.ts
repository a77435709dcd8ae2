import { nearest } from "../units/nearest.ts";
import { type Milliseconds, parseDuration } from "../units/units.ts";
import type { ArgumentDefinition, ArgumentDefinitions } from "./definition.ts";
import { UsageError } from "./usage-error.ts";

type Value = string | boolean | readonly string[] | undefined;

/** Every command has it. */
export const helpFlag: ArgumentDefinition = {
  type: "boolean",
  alias: "h",
  description: "Show this help",
};

/**
 * Reads the words of a command by its definition.
 * @returns a value for every argument, or "help"
 * @throws UsageError naming the wrong word
 */
export function parseWords(
  definitions: ArgumentDefinitions,
  words: readonly string[],
): "help" | Readonly<Record<string, Value>> {
  const reader = new WordReader(definitions, words);
  return reader.read();
}

/** Reads word after word; flags may stand anywhere before "--". */
class WordReader {
  readonly #definitions: ArgumentDefinitions;
  readonly #flags: ReadonlyMap<string, string>;
  readonly #words: string[];
  readonly #values = new Map<string, string[]>();
  readonly #positionals: string[] = [];
  readonly #dashed: string | undefined;
  #wantsHelp = false;

  constructor(definitions: ArgumentDefinitions, words: readonly string[]) {
    this.#definitions = { ...definitions, help: helpFlag };
    this.#flags = flagNames(this.#definitions);
    this.#dashed = Object.entries(definitions).find(([, { dashed }]) => dashed === true)?.[0];
    this.#words = [...words];
  }

  read(): "help" | Readonly<Record<string, Value>> {
    let problem: UsageError | undefined;
    while (this.#words.length > 0) {
      try {
        this.#readWord(this.#words.shift() ?? "");
      } catch (error) {
        // Who asks for help beside a mistake gets the help.
        if (!(error instanceof UsageError)) throw error;
        problem ??= error;
      }
    }
    if (this.#wantsHelp) return "help";
    if (problem !== undefined) throw problem;
    this.#assignPositionals();
    return this.#result();
  }

  #readWord(word: string): void {
    if (word === "--") this.#positionals.push(...this.#words.splice(0));
    else if (word.startsWith("--")) this.#readLong(word);
    else if (this.#dashed !== undefined && this.#isDashed(word)) {
      this.#set(this.#dashed, word, word);
    } else if (word.startsWith("-") && word !== "-") this.#readShort(word);
    else this.#positionals.push(word);
  }

  /** "-9", "-hup": one dash, and no flag of one letter. */
  #isDashed(word: string): boolean {
    return /^-\w/.test(word) && !this.#flags.has(word);
  }

  #readLong(word: string): void {
    const equals = word.indexOf("=");
    const flag = equals < 0 ? word : word.slice(0, equals);
    const name = this.#nameOf(flag);
    const given = equals < 0 ? undefined : word.slice(equals + 1);
    if (this.#isBoolean(name)) {
      if (given !== undefined) throw new UsageError(`${flag} takes no value, received ${given}`);
      this.#set(name, flag, "");
    } else {
      this.#set(name, flag, given ?? this.#takeValue(flag));
    }
  }

  #readShort(word: string): void {
    for (let index = 1; index < word.length; index += 1) {
      const flag = `-${word[index]}`;
      const name = this.#nameOf(flag);
      if (this.#isBoolean(name)) {
        this.#set(name, flag, "");
        continue;
      }
      const rest = word.slice(index + 1).replace(/^=/, "");
      this.#set(name, flag, rest === "" ? this.#takeValue(flag) : rest);
      return;
    }
  }

  #takeValue(flag: string): string {
    const next = this.#words[0];
    if (next === undefined || next.startsWith("--")) {
      throw new UsageError(`Expected a value after ${flag}, received ${next ?? "nothing"}`);
    }
    this.#words.shift();
    return next;
  }

  #nameOf(flag: string): string {
    const name = this.#flags.get(flag);
    if (name !== undefined) return name;
    const suggestion = nearest(flag, this.#flags.keys());
    const mend = suggestion === undefined ? "" : ` Did you mean ${suggestion}?`;
    throw new UsageError(`Unknown flag ${flag}.${mend}`);
  }

  #isBoolean(name: string): boolean {
    return this.#definitions[name]?.type === "boolean";
  }

  #set(name: string, flag: string, value: string): void {
    if (name === "help") this.#wantsHelp = true;
    const definition = this.#definitions[name];
    const before = this.#values.get(name);
    if (before === undefined) this.#values.set(name, [value]);
    else if (definition?.repeatable === true) before.push(value);
    else if (!this.#isBoolean(name)) throw new UsageError(this.#twice(name, flag));
    if (definition?.type === "enum") checkOption(flag, definition.options ?? [], value);
  }

  #twice(name: string, flag: string): string {
    return name === this.#dashed
      ? `Expected one <${name}>, received ${flag} as well`
      : `${flag} is given twice`;
  }

  #assignPositionals(): void {
    const rest = [...this.#positionals];
    for (const [name, definition] of Object.entries(this.#definitions)) {
      if (definition.type !== "positional" || this.#values.has(name)) continue;
      const words = definition.repeatable === true ? rest.splice(0) : rest.splice(0, 1);
      if (words.length > 0) this.#values.set(name, words);
      else if (definition.required !== false) {
        throw new UsageError(`Expected ${placeholder(name, definition)}, received nothing`);
      }
    }
    if (rest.length > 0) throw new UsageError(`Expected no further word, received ${rest[0]}`);
  }

  #result(): Readonly<Record<string, Value>> {
    const entries = Object.entries(this.#definitions).map(([name, definition]) => {
      const values = this.#values.get(name);
      if (definition.type === "boolean") return [name, values !== undefined] as const;
      const value = values?.[0] ?? definition.default;
      if (value === undefined && definition.type !== "positional" && definition.required === true) {
        throw new UsageError(`Expected the flag --${name}, which is required`);
      }
      if (definition.repeatable === true) return [name, values ?? []] as const;
      return [name, value] as const;
    });
    return Object.fromEntries(entries);
  }
}

/** "<name>" for a positional word. */
export function placeholder(name: string, definition: ArgumentDefinition): string {
  return `<${definition.valueHint ?? name}>`;
}

/** Every spelling of every flag, with the name of its definition. */
function flagNames(definitions: ArgumentDefinitions): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const [name, definition] of Object.entries(definitions)) {
    if (definition.type === "positional") continue;
    names.set(`--${name}`, name);
    for (const alias of aliasesOf(definition)) {
      names.set(alias.length === 1 ? `-${alias}` : `--${alias}`, name);
    }
  }
  return names;
}

export function aliasesOf(definition: ArgumentDefinition): readonly string[] {
  if (!("alias" in definition) || definition.alias === undefined) return [];
  return typeof definition.alias === "string" ? [definition.alias] : definition.alias;
}

function checkOption(flag: string, options: readonly string[], value: string): void {
  if (options.includes(value)) return;
  const suggestion = nearest(value, options);
  const mend = suggestion === undefined ? "" : `. Did you mean ${suggestion}?`;
  throw new UsageError(`Expected ${options.join(" or ")} after ${flag}, received ${value}${mend}`);
}

/** Reads a whole number, such as a count or an id. @throws UsageError */
export function wholeNumber(
  text: string,
  range: { readonly name: string; readonly least: number; readonly most: number },
): number {
  const { name, least, most } = range;
  const number = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (number >= least && number <= most) return number;
  throw new UsageError(
    `Expected a whole number from ${least} to ${most} after ${name}, received ${text}`,
  );
}

/**
 * Reads a duration, such as "30s"; without a range one that is longer than nothing, up to a day.
 * @throws UsageError
 */
export function durationArgument(
  name: string,
  text: string,
  range: { readonly least?: Milliseconds; readonly most?: Milliseconds } = {},
): Milliseconds {
  const { least = Number.MIN_VALUE, most = LONGEST_WAIT } = range;
  const duration = parseDuration(text);
  if (duration !== undefined && duration >= least && duration <= most) return duration;
  const example = "a duration such as 500ms, 30s or 2min";
  const bound = least === Number.MIN_VALUE ? "more than 0" : `at least ${least}ms`;
  const shortest = least === 0 ? "" : `${bound} and `;
  throw new UsageError(
    `Expected ${example} after ${name}, ${shortest}at most ${most / 3_600_000}h, received ${text}`,
  );
}

const LONGEST_WAIT: Milliseconds = 24 * 3_600_000;
