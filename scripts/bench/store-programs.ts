/** The servers of the store's bench, each with its clients. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import { NatsStore } from "../../src/store/nats/nats-store.ts";
import type { Store } from "../../src/store/store.ts";
import { storePath } from "../../src/store/wire/protocol.ts";
import { RemoteStore } from "../../src/store/wire/remote-store.ts";
import { bunExecutable } from "../command.ts";
import { fetchNatsServer, type NatsRelease, natsReleases } from "../nats-server.ts";
import { repositoryRoot } from "../setup.ts";
import { ScriptError } from "../terminal.ts";
import { benchBuckets } from "./store-buckets.ts";

/** A store under measurement. */
export interface StoreRow {
  readonly name: string;
  /** When a write is acknowledged, for the table. */
  readonly acknowledged: string;
  start(folder: string): Promise<StoreServerUnderTest>;
}

export interface StoreServerUnderTest extends AsyncDisposable {
  readonly processId: number;
  /** A client with a connection of its own, which stands. */
  connect(loop: EventLoop): Promise<Store>;
}

/** What is measured: embedded, and NATS as it is by default and as it is durable. */
export function listStoreRows(): StoreRow[] {
  const [oldest, , newest] = natsReleases;
  return [
    { name: "hostler, embedded", acknowledged: "after fsync", start: startEmbedded },
    natsRow(newest, true),
    natsRow(newest, false),
    natsRow(oldest, false),
  ];
}

function natsRow(release: NatsRelease, syncs: boolean): StoreRow {
  const kind = syncs ? "sync_interval: always" : "default";
  return {
    name: `nats-server ${release.version}, ${kind}`,
    acknowledged: syncs ? "after fsync" : "up to 2 min before fsync",
    start: (folder) => startNats(release, { folder, syncs }),
  };
}

/** Its first line that matches; the rest is thrown away, so that the program is never held up. */
async function spawnUntil(argv: readonly string[], pattern: RegExp) {
  const child = Bun.spawn([...argv], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const found = Promise.withResolvers<RegExpExecArray>();
  let said = "";
  const read = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const bytes of stream) {
      if (said.length > 65_536) continue;
      said += decoder.decode(bytes, { stream: true });
      const match = pattern.exec(said);
      if (match !== null) found.resolve(match);
    }
  };
  Promise.all([read(child.stdout), read(child.stderr)]).then(
    () => found.reject(new ScriptError(`${argv.join(" ")} ended:\n${said}`, { exitCode: 1 })),
    (error: unknown) => found.reject(error),
  );
  return { child, match: await found.promise };
}

async function startEmbedded(folder: string): Promise<StoreServerUnderTest> {
  const program = join(repositoryRoot, "scripts", "bench", "store-server.ts");
  const words = [bunExecutable, program, join(folder, "embedded")];
  const { child, match } = await spawnUntil(words, /^port (\d+)$/m);
  const address = `ws://127.0.0.1:${match[1]}${storePath}`;
  return {
    processId: child.pid,
    connect: async (loop) => {
      const store = new RemoteStore(loop, { address });
      await standing(store);
      return store;
    },
    [Symbol.asyncDispose]: () => end(child),
  };
}

const ready = /Listening for client connections on (\S+)[\s\S]*Server is ready/;

async function startNats(
  release: NatsRelease,
  { folder, syncs }: { readonly folder: string; readonly syncs: boolean },
): Promise<StoreServerUnderTest> {
  const program = await fetchNatsServer(release);
  const place = join(folder, `nats-${release.suite}-${syncs}`);
  mkdirSync(place);
  const configuration = join(place, "nats-server.conf");
  const sync = syncs ? ", sync_interval: always" : "";
  const lines = [
    "listen: 127.0.0.1:-1",
    `jetstream { store_dir: "${place}", max_mem: 64M, max_file: 1G${sync} }`,
  ];
  writeFileSync(configuration, `${lines.join("\n")}\n`);
  const words = [program, "--config", configuration];
  const { child, match } = await spawnUntil(words, ready);
  const address = `nats://${match[1]}`;
  // The first makes the bucket, and the others use it.
  let role: "owner" | "user" = "owner";
  const connect = async (loop: EventLoop) => {
    const store = new NatsStore(loop, {
      servers: [address],
      credentials: { kind: "none" },
      buckets: benchBuckets,
      role,
      proof: { kind: "operator" },
      deadline: 30_000,
    });
    await store.ready();
    role = "user";
    return store;
  };
  return {
    processId: child.pid,
    connect,
    [Symbol.asyncDispose]: () => end(child),
  };
}

async function standing(store: Store): Promise<void> {
  const signal = new AbortController();
  for await (const state of store.link(signal.signal)) {
    if (state === "up") signal.abort();
  }
}

async function end(child: { kill(signal: number): void; readonly exited: Promise<unknown> }) {
  child.kill(9);
  await child.exited;
}
