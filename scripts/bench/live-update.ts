/**
 * `run bench live-update`: what luod itself adds to an update and to the restoration after it,
 * beside a floor in C. The method and its rules stand in the report's legend.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { monotonicNanoseconds } from "../../ffi/process.ts";
import { build } from "../build.ts";
import { runCommand } from "../command.ts";
import { ensureDependencies, ensureSystemPackages, repositoryRoot } from "../setup.ts";
import { ScriptError, type Step, withStep } from "../terminal.ts";
import {
  type Broker,
  type LiveUpdateFiles,
  type Side,
  type Spoken,
  startBroker,
  startSpoken,
} from "./live-update-programs.ts";
import { describeHost, type Host } from "./machine.ts";
import { type Memory, memoryOf } from "./process-status.ts";
import { chanceFrom, type Rounds, shuffle } from "./statistics.ts";

export interface LiveUpdateBenchOptions {
  readonly quick: boolean;
  readonly seed: number;
}

/** Milliseconds of both sides, by round. */
export type Compared = Readonly<Record<Side, Rounds>>;

export interface LiveUpdateResult {
  readonly host: Host;
  readonly seed: number;
  readonly barriers: readonly {
    readonly clients: number;
    /** The first update of a daemon, and those after it. */
    readonly first: Compared;
    readonly later: Compared;
  }[];
  readonly claims: { readonly single: Compared; readonly together: Compared };
  /** How many claimed at once. */
  readonly claimed: number;
  /** Of 1 GiB: hostler's client beside one of C, both of luod. */
  readonly carrying: { readonly hold: Compared; readonly run: Compared };
  readonly memory: readonly {
    readonly name: string;
    readonly daemon: Memory;
    readonly holder: Memory;
  }[];
}

type Samples = Record<Side, Map<number, number[]>>;

const sides = ["floor", "hostler"] as const;
const sizes = [1, 10, 100, 1_000] as const;
/** Sessions that are claimed after a kexec. */
const claimers = 100;
/** Updates of one broker after its first. */
const laterUpdates = 4;

const noSamples = (): Samples => ({ floor: new Map(), hostler: new Map() });

function note(samples: Samples, at: { side: Side; round: number }, taken: number): void {
  const { side, round } = at;
  samples[side].set(round, [...(samples[side].get(round) ?? []), taken]);
}

/** Measures everything; some five minutes, with `quick` one. */
export async function benchLiveUpdate(options: LiveUpdateBenchOptions): Promise<LiveUpdateResult> {
  await ensureDependencies();
  await ensureSystemPackages(["layouts"], "the bench");
  // As /run is: the state file's way to a disk is no part of the daemon.
  const folder = mkdtempSync("/dev/shm/hostler-");
  try {
    const files = await prepareFiles(folder);
    await using kernel = startSpoken([files.kernel, files.kernelSocket], { from: "stdout" });
    await kernel.said(/^listening/);
    return await measureAll({ files, kernel, chance: chanceFrom(options.seed) }, options);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Bench {
  readonly files: LiveUpdateFiles;
  readonly kernel: Spoken;
  readonly chance: () => number;
}

async function prepareFiles(folder: string): Promise<LiveUpdateFiles> {
  const dist = join(repositoryRoot, "dist");
  const { path } = await build({ folder: dist, name: "hostler-faults", faults: true });
  // A build that somebody makes meanwhile replaces the file in dist.
  const hostler = join(folder, "hostler");
  await runCommand(["cp", path, hostler]);
  const compiled = (name: string) => join(folder, `live-update-${name}`);
  for (const name of ["kernel", "client", "floor"]) {
    const source = join(repositoryRoot, "scripts", "bench", `live-update-${name}.c`);
    await runCommand(["gcc", "-O2", "-o", compiled(name), source]);
  }
  return {
    folder,
    hostler,
    kernel: compiled("kernel"),
    client: compiled("client"),
    floor: compiled("floor"),
    kernelSocket: join(folder, "kernel.socket"),
  };
}

async function measureAll(
  bench: Bench,
  { quick, seed }: LiveUpdateBenchOptions,
): Promise<LiveUpdateResult> {
  const barriers = sizes.map((clients) => ({ clients, first: noSamples(), later: noSamples() }));
  await withStep("barriers", (step) => measureBarriers(bench, barriers, quick ? 5 : 20, step));
  const carrying = { hold: noSamples(), run: noSamples() };
  await withStep("hold and run", () => measureCarrying(bench, carrying, quick ? 2 : 5));
  const memory = await withStep("memory", () => measureMemory(bench));
  const claims = { single: noSamples(), together: noSamples() };
  await withStep("claims", (step) => measureClaims(bench, claims, quick ? 3 : 10, step));
  const host = await describeHost(bench.files.hostler);
  return { host, seed, barriers, claims, claimed: claimers, carrying, memory };
}

interface Barriers {
  readonly clients: number;
  readonly first: Samples;
  readonly later: Samples;
}

async function measureBarriers(
  bench: Bench,
  barriers: readonly Barriers[],
  rounds: number,
  step: Step,
): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    step.say(`round ${round + 1} of ${rounds}`);
    for (const { clients, first, later } of shuffle(barriers, bench.chance)) {
      for (const side of shuffle(sides, bench.chance)) {
        const [one, ...others] = await measureUpdates(bench, side, clients);
        if (one !== undefined) note(first, { side, round }, one);
        for (const taken of others) note(later, { side, round }, taken);
      }
    }
  }
}

const brokerFolder = ({ folder }: LiveUpdateFiles) => join(folder, "broker");

/** Updates of a fresh broker, each refused by the kernel, after which all go on. */
async function measureUpdates(bench: Bench, side: Side, clients: number): Promise<number[]> {
  const taken: number[] = [];
  await withBroker(bench, side, async (broker) => {
    await using subscribed = await subscribe(bench, broker, clients);
    for (let index = 0; index <= laterUpdates; index += 1) taken.push(await update(bench, broker));
    await subscribed[Symbol.asyncDispose]();
  });
  return taken;
}

async function withBroker(
  bench: Bench,
  side: Side,
  use: (broker: Broker) => Promise<void>,
): Promise<void> {
  const folder = brokerFolder(bench.files);
  const broker = await startBroker(side, { files: bench.files, folder });
  try {
    await use(broker);
  } finally {
    await broker[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function subscribe(bench: Bench, broker: Broker, clients: number): Promise<Spoken> {
  const words = [bench.files.client, broker.socket, String(clients), "subscribe"];
  const subscribed = startSpoken(words, { from: "stdout" });
  await subscribed.said(/^subscribed/);
  return subscribed;
}

/** @returns milliseconds from the command to the call that would enter the new kernel */
async function update({ kernel }: Bench, broker: Broker): Promise<number> {
  using commander = await broker.connect();
  const begin = monotonicNanoseconds();
  commander.command();
  const [, moment] = await kernel.said(/^reboot (\d+)/);
  await commander.ended();
  return (Number(moment) - begin) / 1_000_000;
}

/** A broker that has lived through a kexec offers sessions; each round's claims are the first. */
async function measureClaims(
  bench: Bench,
  claims: { readonly single: Samples; readonly together: Samples },
  rounds: number,
  step: Step,
): Promise<void> {
  await enterKernel(bench);
  for (let round = 0; round < rounds; round += 1) {
    step.say(`round ${round + 1} of ${rounds}`);
    for (const side of shuffle(sides, bench.chance)) {
      for (const taken of await claim(bench, side, "claim")) {
        note(claims.single, { side, round }, taken);
      }
      for (const taken of await claim(bench, side, "claim-together")) {
        note(claims.together, { side, round }, taken);
      }
    }
  }
}

/** Leaves the registry of an update with the kernel, which answers the reboot no more. */
async function enterKernel(bench: Bench): Promise<void> {
  await bench.kernel.say("enter");
  await bench.kernel.said(/^done/);
  await withBroker(bench, "hostler", async (broker) => {
    await using _subscribed = await subscribe(bench, broker, claimers);
    using commander = await broker.connect();
    commander.command();
    await bench.kernel.said(/^reboot/);
  });
  await bench.kernel.say("refuse");
  await bench.kernel.said(/^done/);
}

async function claim(bench: Bench, side: Side, how: string): Promise<number[]> {
  const taken: number[] = [];
  await withBroker(bench, side, async (broker) => {
    const words = [bench.files.client, broker.socket, String(claimers), how];
    const output = await runCommand(words);
    for (const [, nanoseconds] of output.matchAll(/^took (\d+)$/gm)) {
      taken.push(Number(nanoseconds) / 1_000_000);
    }
  });
  const expected = how === "claim" ? claimers : 1;
  if (taken.length !== expected) {
    throw new ScriptError(`Expected ${expected} claims of ${side}, received ${taken.length}`, {
      exitCode: 1,
    });
  }
  return taken;
}

async function measureMemory(bench: Bench): Promise<LiveUpdateResult["memory"]> {
  const found: LiveUpdateResult["memory"][number][] = [];
  await withBroker(bench, "hostler", async (broker) => {
    const look = (name: string) => {
      const [daemon = 0, holder = 0] = broker.processIds;
      found.push({ name, daemon: memoryOf([daemon]), holder: memoryOf([holder]) });
    };
    look("idle");
    const most = sizes.at(-1) ?? 0;
    await using _subscribed = await subscribe(bench, broker, most);
    look(`${most} clients subscribed`);
    await bench.kernel.say("enter");
    await bench.kernel.said(/^done/);
    using commander = await broker.connect();
    commander.command();
    await bench.kernel.said(/^reboot/);
    look(`their ${most} sessions, as the kernel is entered`);
  });
  await bench.kernel.say("forget");
  await bench.kernel.said(/^done/);
  return found;
}

const gibibyte = 1024 ** 3;

/** The kernel's own part is left out: it keeps the pages, on either side alike. */
async function measureCarrying(
  bench: Bench,
  carrying: { readonly hold: Samples; readonly run: Samples },
  rounds: number,
): Promise<void> {
  const { hostler, client, folder } = bench.files;
  const file = join(folder, "held");
  await runCommand(["dd", "if=/dev/zero", `of=${file}`, "bs=1M", "count=1024", "status=none"]);
  const own = (socket: string, ...words: readonly string[]) =>
    [hostler, "live-update", words[0] ?? "", "--id", "held", "--socket", socket].concat(
      words.slice(1),
    );
  const clients = {
    hold: {
      hostler: (socket: string) => own(socket, "hold", file),
      floor: (socket: string) => [client, socket, file, "hold"],
    },
    run: {
      hostler: (socket: string) => own(socket, "run", "--", client, "-", `${gibibyte}`, "memory"),
      floor: (socket: string) => [client, socket, "1", "subscribe"],
    },
  };
  for (let round = 0; round < rounds; round += 1) {
    for (const how of shuffle(["hold", "run"] as const, bench.chance)) {
      for (const side of shuffle(sides, bench.chance)) {
        const taken = await carry(bench, clients[how][side]);
        note(carrying[how], { side, round }, taken);
      }
    }
  }
  rmSync(file);
}

/** @returns milliseconds from the command to the call that would enter the new kernel */
async function carry(bench: Bench, wordsOf: (socket: string) => string[]): Promise<number> {
  let taken = 0;
  await withBroker(bench, "hostler", async (broker) => {
    const environment = { HOSTLER_LIVE_UPDATE_KERNEL: bench.files.kernelSocket };
    const words = wordsOf(broker.socket);
    await using holder = startSpoken(words, { from: "stdout", environment });
    // What has something in memory says so; who only subscribes is seen by the broker.
    if (words.includes("memory")) await holder.said(/^made/);
    while ((await broker.subscribed()) === 0);
    taken = await update(bench, broker);
  });
  return taken;
}
