/**
 * What is wished of a kernel: lines of a Kconfig file, each either CONFIG_X=value or
 * "# CONFIG_X is not set". Kconfig drops a wish silently when what it depends on is missing.
 */

export interface Wish {
  readonly name: string;
  /** undefined: it has to be off. */
  readonly value: string | undefined;
}

/** What stands below a line with this is for our own build, and asked of no ready-made kernel. */
const mark = "---- Choices of our own build";

export interface Fragment {
  /** All of it, for our own build. */
  readonly wishes: readonly Wish[];
  /** What a ready-made kernel has to fulfil. */
  readonly requirements: readonly Wish[];
}

export function parseFragment(text: string): Fragment {
  const [above = ""] = text.split(mark);
  return { wishes: parseWishes(text), requirements: parseWishes(above) };
}

function parseWishes(text: string): Wish[] {
  const pattern = /^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$/gm;
  return [...text.matchAll(pattern)].map(([, name, value, off = ""]) =>
    name === undefined ? { name: off, value: undefined } : { name, value },
  );
}

/** @returns the names of what a kernel with these options does not fulfil, with what it has */
export function unfulfilled(
  wishes: readonly Wish[],
  options: ReadonlyMap<string, string>,
): string[] {
  return wishes
    .filter(({ name, value }) => options.get(name) !== value)
    .map(({ name }) => (options.has(name) ? `${name} (it is ${options.get(name)})` : name));
}
