/** Lines of a daemon's log of one kind: those that were said, and those that were counted. */
export function countLines(log: string, kind: RegExp): number {
  let count = 0;
  for (const line of log.split("\n")) {
    if (!kind.test(line)) continue;
    const held = /… (\d+) more like it/.exec(line)?.[1];
    count += held === undefined ? 1 : Number(held);
  }
  return count;
}
