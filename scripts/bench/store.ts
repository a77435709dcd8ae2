/**
 * `run bench store`: the embedded store served over WebSocket, beside NATS, in one run. The method
 * and its rules stand in the report's legend.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import type { Store } from "../../src/store/store.ts";
import { build } from "../build.ts";
import { cacheFolder, ensureDependencies, repositoryRoot } from "../setup.ts";
import { type Step, withStep } from "../terminal.ts";
import { describeHost, type Host } from "./machine.ts";
import { type Memory, memoryOf } from "./process-status.ts";
import { chanceFrom, shuffle } from "./statistics.ts";
import { listStoreRows, type StoreRow, type StoreServerUnderTest } from "./store-programs.ts";

export interface StoreBenchOptions {
  readonly quick: boolean;
  readonly seed: number;
}

/** What was measured of one store. */
export interface StoreFindings {
  readonly name: string;
  readonly acknowledged: string;
  /** Puts a second, one sample a round. */
  readonly alone: readonly number[];
  readonly together: readonly number[];
  /** Milliseconds from the call of put to the event of a watch. */
  readonly heard: readonly number[];
  /** Milliseconds from the call of put until all watchers had told it. */
  readonly one: readonly number[];
  /** Milliseconds from the first call until each watcher had told the put of its own key. */
  readonly each: readonly number[];
  /** Milliseconds until all watchers were connected and synced. */
  readonly connected: readonly number[];
  /** Of the server: idle, and with all watchers. */
  readonly idle: Memory | undefined;
  readonly watched: Memory | undefined;
}

export interface StoreBenchResult {
  readonly host: Host;
  readonly seed: number;
  readonly writers: number;
  readonly watchers: number;
  readonly rows: readonly StoreFindings[];
}

type Writable<T> = {
  -readonly [Name in keyof T]: T[Name] extends readonly number[] ? number[] : T[Name];
};

interface Running {
  readonly row: StoreRow;
  readonly server: StoreServerUnderTest;
  readonly found: Writable<StoreFindings>;
  /** As many connections as there are writers. */
  readonly writers: readonly Store[];
}

const writerCount = 200;
const watcherCount = 2_000;
/** Connections that are begun at once. */
const atOnce = 100;
/** A value as a status has it. */
const value = JSON.stringify({ phase: "Observed", version: "1.2.3", padding: "x".repeat(200) });

interface Plan {
  /** Milliseconds of each measurement of puts. */
  readonly slice: number;
  readonly rounds: number;
  /** Puts of one round that a watch is to hear of. */
  readonly heard: number;
  readonly fanRounds: number;
  readonly fanPuts: number;
}

const whole: Plan = { slice: 1_000, rounds: 5, heard: 100, fanRounds: 2, fanPuts: 3 };
const brief: Plan = { slice: 300, rounds: 3, heard: 50, fanRounds: 1, fanPuts: 3 };

/** Measures everything; at most five minutes, with `quick` two. */
export async function benchStore({ quick, seed }: StoreBenchOptions): Promise<StoreBenchResult> {
  await ensureDependencies();
  const plan = quick ? brief : whole;
  const chance = chanceFrom(seed);
  // Where the repository is: /tmp may be memory, and fsync(2) nothing then.
  const folder = mkdtempSync(join(cacheFolder("bench"), "store-"));
  try {
    await using stack = new AsyncDisposableStack();
    const loop = stack.use(new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts"))));
    const running: Running[] = [];
    await withStep("servers", async () => {
      for (const row of listStoreRows()) running.push(await start(row, { folder, loop, stack }));
    });
    await withStep("puts", (step) => measurePuts(running, { plan, chance, step }));
    for (const { writers } of running) {
      await Promise.all(writers.map((writer) => writer[Symbol.asyncDispose]()));
    }
    await withStep("watchers", (step) => measureFan(running, { plan, chance, step, loop }));
    const { path } = await build({
      folder: join(repositoryRoot, "dist"),
      name: "hostler",
      faults: false,
    });
    const rows = running.map(({ found }) => found);
    const counts = { writers: writerCount, watchers: watcherCount };
    return { host: await describeHost(path), seed, ...counts, rows };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function start(
  row: StoreRow,
  options: {
    readonly folder: string;
    readonly loop: EventLoop;
    readonly stack: AsyncDisposableStack;
  },
): Promise<Running> {
  const server = options.stack.use(await row.start(options.folder));
  const writers = [await server.connect(options.loop)];
  const idle = memoryOf([server.processId]);
  writers.push(...(await connectAll(server, options.loop, writerCount - 1)));
  const { name, acknowledged } = row;
  const found = {
    name,
    acknowledged,
    alone: [],
    together: [],
    heard: [],
    one: [],
    each: [],
    connected: [],
    idle,
    watched: undefined,
  };
  return { row, server, found, writers };
}

async function connectAll(
  server: StoreServerUnderTest,
  loop: EventLoop,
  count: number,
): Promise<Store[]> {
  const stores: Store[] = [];
  while (stores.length < count) {
    const some = Array.from({ length: Math.min(atOnce, count - stores.length) }, () =>
      server.connect(loop),
    );
    stores.push(...(await Promise.all(some)));
  }
  return stores;
}

const put = (store: Store, key: string) =>
  store.put("facts", key, value, { writeId: crypto.randomUUID() });

/** Writes for so long, from each of the stores. @returns puts a second */
async function writeFor(stores: readonly Store[], slice: number): Promise<number> {
  const begin = performance.now();
  let count = 0;
  const write = async (store: Store, index: number) => {
    for (let turn = 0; performance.now() - begin < slice; turn += 1) {
      await put(store, `writer.${index}.${turn % 16}`);
      count += 1;
    }
  };
  await Promise.all(stores.map(write));
  return (count / (performance.now() - begin)) * 1000;
}

interface Measuring {
  readonly plan: Plan;
  readonly chance: () => number;
  readonly step: Step;
}

async function measurePuts(
  running: readonly Running[],
  { plan, chance, step }: Measuring,
): Promise<void> {
  // The first round warms, and is not counted.
  for (let round = 0; round <= plan.rounds; round += 1) {
    step.say(`round ${round} of ${plan.rounds}`);
    for (const { found, writers } of shuffle(running, chance)) {
      const alone = await writeFor(writers.slice(0, 1), plan.slice);
      const together = await writeFor(writers, plan.slice);
      const heard = await hear(writers, plan.heard);
      if (round === 0) continue;
      found.alone.push(alone);
      found.together.push(together);
      found.heard.push(...heard);
    }
  }
}

/** Milliseconds from a put of one connection to the event of a watch of another. */
async function hear(stores: readonly Store[], count: number): Promise<number[]> {
  const [writer, reader] = stores;
  if (writer === undefined || reader === undefined) return [];
  const end = new AbortController();
  const taken: number[] = [];
  let last: Promise<unknown> = Promise.resolve();
  for await (const event of reader.watch("facts", "heard", { signal: end.signal })) {
    if (event.kind === "entry") {
      const began = begins.get(event.entry.writeId);
      if (began === undefined) continue;
      taken.push(performance.now() - began);
      begins.delete(event.entry.writeId);
    } else if (event.kind !== "synced") continue;
    if (taken.length === count) end.abort();
    else last = putAt(writer, "heard");
  }
  await last;
  return taken;
}

/** When the put of a write id was called. */
const begins = new Map<string, number>();

function putAt(store: Store, key: string): Promise<unknown> {
  const writeId = crypto.randomUUID();
  begins.set(writeId, performance.now());
  return store.put("facts", key, value, { writeId });
}

async function measureFan(
  running: readonly Running[],
  { plan, chance, step, loop }: Measuring & { readonly loop: EventLoop },
): Promise<void> {
  for (let round = 1; round <= plan.fanRounds; round += 1) {
    for (const { row, server, found } of shuffle(running, chance)) {
      step.say(`round ${round} of ${plan.fanRounds}, ${row.name}`);
      const begin = performance.now();
      const stores = await connectAll(server, loop, watcherCount);
      const crowd = await watchAll(stores);
      found.connected.push(performance.now() - begin);
      found.watched = memoryOf([server.processId]);
      const writer = await server.connect(loop);
      // The first of both is not counted: it warms.
      for (let turn = 0; turn <= plan.fanPuts; turn += 1) {
        const one = await crowd.one(writer);
        const each = await crowd.each(writer);
        if (turn === 0) continue;
        found.one.push(one);
        found.each.push(each);
      }
      crowd.end();
      await Promise.all([...stores, writer].map((store) => store[Symbol.asyncDispose]()));
    }
  }
}

/** Watchers, each of one key and of one for all. */
interface Crowd {
  /** One put, until all have told it: milliseconds. */
  one(writer: Store): Promise<number>;
  /** A put for each, until each has told its own. */
  each(writer: Store): Promise<number>;
  end(): void;
}

async function watchAll(stores: readonly Store[]): Promise<Crowd> {
  const stop = new AbortController();
  let missing = stores.length;
  /** What everybody is waited for to tell. */
  let wanted: "synced" | "entry" = "synced";
  let done = Promise.withResolvers<void>();
  const told = () => {
    missing -= 1;
    if (missing === 0) done.resolve();
  };
  const follow = async (store: Store, key: string) => {
    for await (const event of store.watch("facts", key, { signal: stop.signal })) {
      if (event.kind === wanted && missing > 0) told();
    }
  };
  const listen = (key: (index: number) => string) => {
    for (const [index, store] of stores.entries()) {
      follow(store, key(index)).catch((error: unknown) => console.error(error));
    }
  };
  const timed = async (act: () => Promise<unknown>) => {
    missing = stores.length;
    done = Promise.withResolvers();
    const begin = performance.now();
    await Promise.all([act(), done.promise]);
    return performance.now() - begin;
  };
  listen(() => "all");
  await done.promise;
  await timed(async () => listen((index) => `own.${index}`));
  wanted = "entry";
  return {
    one: (writer) => timed(() => put(writer, "all")),
    each: (writer) => timed(() => putOwn(writer, stores.length)),
    end: () => stop.abort(),
  };
}

/** A writer has so many requests open at once; one answered begins the next. */
async function putOwn(writer: Store, count: number): Promise<void> {
  let next = 0;
  const work = async () => {
    while (next < count) await put(writer, `own.${next++}`);
  };
  await Promise.all(Array.from({ length: 500 }, work));
}
