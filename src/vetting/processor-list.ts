/** Numbers that one list of the kernel's may name: CONFIG_NR_CPUS is 8192 at most. */
export const MOST_NUMBERS = 8_192;

/**
 * "0-3,8" as numbers: Documentation/admin-guide/cputopology.rst. undefined for what is no such
 * list, or names more than MOST_NUMBERS. Pure.
 */
export function parseNumbers(text: string): readonly number[] | undefined {
  const list = text.trim();
  if (list === "") return [];
  const numbers: number[] = [];
  for (const part of list.split(",")) {
    const match = /^(\d{1,7})(?:-(\d{1,7}))?$/.exec(part);
    if (match === null) return undefined;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (last < first || numbers.length + last - first >= MOST_NUMBERS) return undefined;
    for (let number = first; number <= last; number += 1) numbers.push(number);
  }
  return numbers;
}
