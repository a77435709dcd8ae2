/** What the program "probe" of programs/partition.c prints, taken apart. */

export interface ProbeReport {
  /** Descriptor number to what it is, as /proc/self/fd names it. */
  readonly descriptors: ReadonlyMap<number, string>;
  /** Signals whose action is not the default. */
  readonly signals: readonly number[];
  /** The signal mask, in hexadecimal. */
  readonly mask: string;
  readonly files: { readonly soft: number; readonly hard: number };
  readonly scheduler: number;
  readonly nice: number;
  readonly session: number;
  readonly group: number;
  readonly processId: number;
  readonly umask: string;
  readonly folder: string;
  readonly words: readonly string[];
  readonly variables: readonly string[];
  /** A line of /proc/self/status, such as "CapEff". */
  status(name: string): string;
}

const fromHexadecimal = (text: string) => Buffer.from(text, "hex").toString("utf8");

export function parseProbe(lines: readonly string[]): ProbeReport {
  const of = (name: string) =>
    lines.filter((line) => line.startsWith(`${name} `)).map((line) => line.slice(name.length + 1));
  const one = (name: string) => of(name)[0] ?? "";
  const pairs = of("descriptor").map((line): [number, string] => {
    const space = line.indexOf(" ");
    return [Number(line.slice(0, space)), line.slice(space + 1)];
  });
  const [soft = Number.NaN, hard = Number.NaN] = one("files").split(" ").map(Number);
  const numbers = /^(\d+) group (\d+) process (\d+)$/.exec(one("session"));
  return {
    descriptors: new Map(pairs),
    signals: of("signal").map(Number),
    mask: one("mask"),
    files: { soft, hard },
    scheduler: Number(one("scheduler")),
    nice: Number(one("nice")),
    session: Number(numbers?.[1]),
    group: Number(numbers?.[2]),
    processId: Number(numbers?.[3]),
    umask: one("umask"),
    folder: one("folder"),
    words: of("word").map(fromHexadecimal),
    variables: of("variable").map(fromHexadecimal),
    status: (name) =>
      of("status")
        .find((line) => line.startsWith(`${name}:`))
        ?.slice(name.length + 1)
        .trim() ?? "",
  };
}
