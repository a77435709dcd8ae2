/**
 * The command line for the next kernel, from what was asked for. Words are as the kernel takes
 * them apart: at white space, but not inside of double quotes (lib/cmdline.c, next_arg). What
 * follows the word "--" is for init.
 */

/** What a boot loader puts before the rest, of its own image: kexec-tools leaves it out as well. */
const loadersWords = ["BOOT_IMAGE=", "initrd="];

export interface Composed {
  readonly commandLine: string;
  /** Words of the current system's that were left out. */
  readonly stripped: readonly string[];
}

/** @param base the current system's command line, or the one that was given */
export function composeCommandLine(asked: {
  readonly base: string;
  readonly isReused: boolean;
  readonly append: string;
}): Composed {
  const { kernel, init } = split(asked.base);
  const stripped = asked.isReused ? kernel.filter(isLoaders) : [];
  const kept = asked.isReused ? kernel.filter((word) => !isLoaders(word)) : kernel;
  const added = split(asked.append);
  const forInit = [...init, ...added.init];
  const words = [...kept, ...added.kernel, ...(forInit.length === 0 ? [] : ["--", ...forInit])];
  return { commandLine: words.join(" "), stripped };
}

const isLoaders = (word: string) => loadersWords.some((beginning) => word.startsWith(beginning));

/** The words for the kernel, and those behind "--", which are for init. */
function split(text: string): { readonly kernel: string[]; readonly init: string[] } {
  const words: string[] = text.match(/(?:"[^"]*(?:"|$)|[^\s"])+/g) ?? [];
  const end = words.indexOf("--");
  if (end < 0) return { kernel: words, init: [] };
  return { kernel: words.slice(0, end), init: words.slice(end + 1) };
}
