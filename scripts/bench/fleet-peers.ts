/** The same pairs by other programs, where Debian's packages are there. */
import { cpSync, mkdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { type CommandResult, tryCommand } from "../command.ts";
import type { BuildPair } from "./fleet-builds.ts";
import { CountingServer } from "./fleet-server.ts";

export interface PeerFinding {
  readonly name: string;
  /** What comes over the wire; undefined where the program did not do it. */
  readonly bytes: number | undefined;
  /** Seconds of whoever receives, the fetch included. */
  readonly seconds: number;
  /** Whether somebody has to make a file for each pair of versions. */
  readonly needsPair: boolean;
}

/** A program that is away, or takes longer, has an empty row. */
const longest = 600;

type Peer = (pair: BuildPair, folder: string) => Promise<Omit<PeerFinding, "name">>;

const limited = async (...words: readonly string[]): Promise<CommandResult> =>
  await tryCommand(["timeout", `${longest}`, ...words]);

/** @returns seconds, or undefined where it did not end with 0 */
async function timed(...words: readonly string[]): Promise<number | undefined> {
  const begun = performance.now();
  const { exitCode } = await limited(...words);
  return exitCode === 0 ? (performance.now() - begun) / 1_000 : undefined;
}

/** A patch is made of two files, and sent. */
const patches =
  (make: (pair: BuildPair, patch: string) => string[], apply: typeof make): Peer =>
  async (pair, folder) => {
    const patch = join(folder, "patch");
    const made = await timed(...make(pair, patch));
    const applied = made === undefined ? undefined : await timed(...apply(pair, patch));
    const isDone = applied !== undefined && (await isSame(join(folder, "patch.out"), pair.to));
    const bytes = isDone ? statSync(patch).size : undefined;
    return { bytes, seconds: applied ?? Number.NaN, needsPair: true };
  };

async function isSame(one: string, other: string): Promise<boolean> {
  return (await tryCommand(["cmp", "--silent", one, other])).exitCode === 0;
}

const zsync: Peer = async ({ from, to }, folder) => {
  const site = join(folder, "site");
  mkdirSync(site);
  cpSync(to, join(site, "new"));
  await using server = new CountingServer(site);
  await limited("zsyncmake", "-u", `${server.address}new`, "-o", join(site, "new.zsync"), to);
  const out = join(folder, "out");
  const begun = performance.now();
  const words = ["zsync", "-i", from, "-o", out, `${server.address}new.zsync`];
  const { exitCode, output } = await limited(...words);
  const seconds = (performance.now() - begun) / 1_000;
  // It leaves a long answer in its middle and asks for the rest: the server does not know how far.
  const fetched = Number(/^used \d+ local, fetched (\d+)$/m.exec(output)?.[1]);
  const bytes = fetched + statSync(join(site, "new.zsync")).size;
  const isDone = exitCode === 0 && (await isSame(out, to));
  return { bytes: isDone ? bytes : undefined, seconds, needsPair: false };
};

const casync: Peer = async ({ from, to }, folder) => {
  const site = join(folder, "site");
  mkdirSync(site);
  const store = join(site, "store.castr");
  await limited("casync", "make", `--store=${store}`, join(site, "new.caibx"), to);
  await using server = new CountingServer(site);
  const out = join(folder, "out");
  const words = ["casync", "extract", `--store=${server.address}store.castr`, `--seed=${from}`];
  const seconds = await timed(...words, `${server.address}new.caibx`, out);
  const isDone = seconds !== undefined && (await isSame(out, to));
  const bytes = isDone ? server.sent : undefined;
  return { bytes, seconds: seconds ?? Number.NaN, needsPair: false };
};

const rsync: Peer = async ({ from, to }, folder) => {
  const out = join(folder, "out");
  cpSync(from, out);
  const begun = performance.now();
  const words = ["rsync", "--no-whole-file", "--inplace", "--checksum", "--compress", "--stats"];
  const { exitCode, output } = await limited(...words, to, out);
  const seconds = (performance.now() - begun) / 1_000;
  const count = (name: string) =>
    Number(new RegExp(`${name}: ([\\d,]+)`).exec(output)?.[1]?.replaceAll(",", ""));
  const isDone = exitCode === 0 && (await isSame(out, to));
  const bytes = count("Total bytes sent") + count("Total bytes received");
  return { bytes: isDone ? bytes : undefined, seconds, needsPair: false };
};

const peers: Readonly<Record<string, Peer>> = {
  zsync,
  casync,
  "rsync -z, both ways": rsync,
  "zstd -12 --patch-from": patches(
    ({ from, to }, patch) => [
      ...["zstd", "-q", "-f", "-12", "--long=27", `--patch-from=${from}`, to, "-o", patch],
    ],
    ({ from }, patch) => [
      ...["zstd", "-q", "-f", "-d", "--long=27", `--patch-from=${from}`, patch],
      ...["-o", `${patch}.out`],
    ],
  ),
  "xdelta3 -9": patches(
    ({ from, to }, patch) => [
      "xdelta3",
      "-q",
      "-f",
      "-9",
      "-B",
      "536870912",
      "-e",
      "-s",
      from,
      to,
      patch,
    ],
    ({ from }, patch) => [
      "xdelta3",
      "-q",
      "-f",
      "-B",
      "536870912",
      "-d",
      "-s",
      from,
      patch,
      `${patch}.out`,
    ],
  ),
};

export async function measurePeers(
  pair: BuildPair,
  { folder }: { readonly folder: string },
): Promise<PeerFinding[]> {
  const found: PeerFinding[] = [];
  for (const [name, peer] of Object.entries(peers)) {
    const place = join(folder, "peer");
    mkdirSync(place);
    try {
      found.push({ name, ...(await peer(pair, place)) });
    } finally {
      rmSync(place, { recursive: true, force: true });
    }
  }
  return found;
}

/** What the peers are, in the words of their own packages. */
export async function peerVersions(): Promise<Readonly<Record<string, string>>> {
  const names = ["zsync", "casync", "rsync", "zstd", "xdelta3"];
  const found = names.map(async (name) => {
    const { exitCode, output } = await tryCommand(["dpkg-query", "--show", name]);
    return [name, exitCode === 0 ? (output.trim().split("\t")[1] ?? "?") : "not there"] as const;
  });
  return Object.fromEntries(await Promise.all(found));
}
