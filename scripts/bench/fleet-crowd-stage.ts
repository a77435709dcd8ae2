/**
 * An operator and its devices, in a network namespace of their own: FOLDER HOSTLER NATS-SERVER
 * DEVICES PROCESSES SECONDS HEARTBEAT, that of a device in the rollout, in milliseconds; says what
 * it found as the last line, in JSON.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AuthorityClient } from "../../src/authority/client.ts";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { HEARTBEAT_EVERY } from "../../src/fleet/protocol.ts";
import { fleetApi, type RolloutSpec } from "../../src/fleet/protocol-operator.ts";
import { identityApi } from "../../src/identity/api.ts";
import { formatToken, parseToken } from "../../src/identity/protocol-token.ts";
import { bunExecutable, runCommand, tryCommand } from "../command.ts";
import { repositoryRoot } from "../setup.ts";
import type { AgentCounts } from "./fleet-agents.ts";
import { type Memory, memoryOf } from "./process-status.ts";
import { quantile } from "./statistics.ts";

/** Devices that stand behind one address, as behind the router of a site. */
const devicesOfSite = 100;
const firstPort = 7_443;
/** Of one passage: whoever is not there by then does not come. */
const longest = 300_000;
/** How often the operator is asked who is there. */
const lookEvery = 2_000;

/** What was seen while something went on. */
export interface Passage {
  /** Until it was over. */
  readonly seconds: number;
  readonly beats: number;
  /** From a heartbeat's writing to its acknowledgement, in milliseconds. */
  readonly median: number;
  readonly p99: number;
  readonly longest: number;
  /** Fewest devices that the operator called alive at one look, and most that it called lost. */
  readonly leastAlive: number;
  readonly mostLost: number;
  /** Of one processor, in percent: of operators and NATS, and of all devices together. */
  readonly operatorLoad: number;
  readonly devicesLoad: number;
  readonly failures: Readonly<Record<string, number>>;
}

export interface CrowdFindings {
  readonly devices: number;
  readonly processes: number;
  readonly operators: number;
  /** The operators' store is in NATS, one server that writes through; else it is embedded. */
  readonly isOverNats: boolean;
  /** Seconds until all were enrolled. */
  readonly enrolled: number;
  readonly connected: Passage;
  readonly steady: Passage;
  readonly restarted: Passage;
  readonly rollout: Passage;
  readonly operatorIdle: Memory;
  readonly operator: Memory;
  readonly devicesMemory: Memory;
}

interface Load {
  readonly processId: number;
  ask(word: string): Promise<unknown>;
  end(): Promise<void>;
}

interface Daemon {
  readonly processId: number;
  end(signal: "SIGTERM" | "SIGKILL"): Promise<void>;
}

const [folder = "", hostler = "", nats = "", ...numbers] = process.argv.slice(2);
const [devices = 0, processes = 1, seconds = 10, heartbeat = HEARTBEAT_EVERY] = numbers.map(Number);

/** Of one operator; over NATS there is one for each process of devices. */
interface Place {
  readonly index: number;
  readonly port: number;
  readonly controlSocket: string;
}
const places: readonly Place[] = Array.from(
  { length: nats === "" ? 1 : processes },
  (_value, index) => ({
    ...{ index, port: firstPort + index },
    controlSocket: join(folder, `control-${index}.sock`),
  }),
);
const loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));

function pass(time: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  loop.wakeAfter(time, resolve);
  return promise;
}

async function makeAddresses(): Promise<string[]> {
  const addresses = Array.from({ length: Math.ceil(devices / devicesOfSite) }, (_value, site) => {
    return `10.77.${Math.floor(site / 250)}.${1 + (site % 250)}`;
  });
  const batch = join(folder, "addresses");
  writeFileSync(batch, addresses.map((one) => `address add ${one}/32 dev lo\n`).join(""));
  await runCommand(["ip", "link", "set", "lo", "up"]);
  await runCommand(["ip", "-batch", batch]);
  return addresses;
}

const natsPorts = { clients: 4_222, monitoring: 8_222 } as const;

/** One server, which writes through before it acknowledges. */
async function startNats(): Promise<Daemon> {
  const configuration = join(folder, "nats-server.conf");
  const kept = `store_dir: "${join(folder, "nats")}", max_mem: 2G, max_file: 8G`;
  const lines = [
    ...[`listen: 127.0.0.1:${natsPorts.clients}`, `http: 127.0.0.1:${natsPorts.monitoring}`],
    ...["max_payload: 4MB", `jetstream { ${kept}, sync_interval: always }`],
  ];
  writeFileSync(configuration, `${lines.join("\n")}\n`);
  return await startDaemon([nats, "--config", configuration], /Server is ready/);
}

function startOperators(): Promise<Daemon[]> {
  return Promise.all(places.map(startOperator));
}

async function startOperator({ index, port, controlSocket }: Place): Promise<Daemon> {
  const words = [
    ...[hostler, "fleet", "operator", "--listen", `0.0.0.0:${port}`],
    ...["--address", `https://10.77.0.1:${port}`, "--control-socket", controlSocket],
    ...["--state-directory", join(folder, `operator-${index}`)],
  ];
  if (nats === "") return await startDaemon(words, /listening at/);
  const file = join(folder, `operator-${index}.toml`);
  const lines = [
    ...["[store]", `servers = ["nats://127.0.0.1:${natsPorts.clients}"]`],
    ...[`name = "host-${index}"`, `monitoring = "http://127.0.0.1:${natsPorts.monitoring}"`],
  ];
  writeFileSync(file, `${lines.join("\n")}\n`);
  return await startDaemon([...words, "--config", file], /listening at/);
}

async function startDaemon(words: readonly string[], isReady: RegExp): Promise<Daemon> {
  const child = Bun.spawn([...words], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const ready = Promise.withResolvers<void>();
  const read = async () => {
    const decoder = new TextDecoder();
    let said = "";
    for await (const bytes of child.stderr) {
      const text = decoder.decode(bytes, { stream: true });
      said = (said + text).slice(-4_096);
      if (isReady.test(said)) ready.resolve();
    }
    ready.reject(new Error(`${words.join(" ")} ended: ${said}`));
  };
  read().catch((error: unknown) => ready.reject(error));
  await ready.promise;
  return {
    processId: child.pid,
    end: async (signal) => {
      child.kill(signal);
      await child.exited;
    },
  };
}

/** Each has the same number of folders, in which a token lies. */
function startLoad(place: string): Load {
  const program = join(repositoryRoot, "scripts", "bench", "fleet-agents.ts");
  const child = Bun.spawn([bunExecutable, program, place], {
    ...{ stdin: "pipe", stdout: "pipe", stderr: "inherit" },
  });
  const waiting = new Map<string, PromiseWithResolvers<unknown>>();
  const read = async () => {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const bytes of child.stdout) {
      const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const text of lines) {
        const { line, answer } = JSON.parse(text) as { line: string; answer: unknown };
        waiting.get(line)?.resolve(answer);
      }
    }
    for (const one of waiting.values()) one.reject(new Error("The devices' process ended"));
  };
  void read();
  return {
    processId: child.pid,
    ask: async (word) => {
      const answer = Promise.withResolvers<unknown>();
      waiting.set(word, answer);
      child.stdin.write(`${word}\n`);
      await child.stdin.flush();
      using _late = loop.wakeAfter(longest, () =>
        answer.reject(new Error(`${word} takes too long`)),
      );
      return await answer.promise;
    },
    end: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

/** A folder with a token for each device, at its site's address, shared out to processes. */
async function makeDevices(addresses: readonly string[]): Promise<string[]> {
  const folders = Array.from({ length: processes }, (_value, index) => join(folder, `${index}`));
  const clients = await Promise.all(places.map(({ controlSocket }) => connect(controlSocket)));
  const waiting = Array.from({ length: devices }, (_value, index) => index);
  const work = async () => {
    for (let index = waiting.pop(); index !== undefined; index = waiting.pop()) {
      const host = `device-${index}`;
      const process = index % processes;
      const { port } = places[process % places.length] as Place;
      const client = clients[process % places.length] as AuthorityClient;
      const { text } = await client.call(identityApi.tokensCreate, { host });
      const parsed = parseToken(text);
      if (parsed.kind !== "token") throw new Error("No token came");
      const address = addresses[Math.floor(index / devicesOfSite)];
      const place = join(folders[process] as string, host);
      mkdirSync(place, { recursive: true, mode: 0o700 });
      const token = formatToken({ ...parsed.token, address: `https://${address}:${port}` });
      writeFileSync(join(place, "token"), token);
    }
  };
  await Promise.all(Array.from({ length: 64 }, work));
  for (const client of clients) client[Symbol.dispose]();
  return folders;
}

const connect = (path: string) => AuthorityClient.connect({ kind: "control", path });

/** What the operator that acts says of its fleet, and where it is asked. */
async function askActing(): Promise<{ readonly gauges: string; readonly controlSocket: string }> {
  const late = performance.now() + longest;
  for (;;) {
    for (const { controlSocket } of places) {
      const words = [hostler, "fleet", "metrics", "--control-socket", controlSocket];
      const { exitCode, output } = await tryCommand(words);
      if (exitCode === 0) return { gauges: output, controlSocket };
      if (performance.now() > late) throw new Error(`No operator acts: ${output}`);
    }
    await pass(100);
  }
}

/** Clock ticks of a process, of all its threads: proc_pid_stat(5), utime and stime. */
function ticksOf(processId: number): number {
  const text = readFileSync(`/proc/${processId}/stat`, "latin1");
  const words = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return Number(words[14 - 3]) + Number(words[15 - 3]);
}

const ticksPerSecond = 100;

class Crowd {
  readonly loads: readonly Load[];
  operators: readonly Daemon[];
  /** What the operators stand on. */
  readonly base: readonly Daemon[];

  constructor(
    loads: readonly Load[],
    {
      operators,
      base,
    }: { readonly operators: readonly Daemon[]; readonly base: readonly Daemon[] },
  ) {
    this.loads = loads;
    this.operators = operators;
    this.base = base;
  }

  /** Of the operators, and of what they stand on. */
  get processIds(): number[] {
    return [...this.operators, ...this.base].map(({ processId }) => processId);
  }

  async ask(word: string): Promise<unknown[]> {
    return await Promise.all(this.loads.map((load) => load.ask(word)));
  }

  /** @param isLooking false while nobody has connected yet */
  async pass(work: () => Promise<void>, isLooking = true): Promise<Passage> {
    await this.ask("forget");
    const loads = this.loads.map(({ processId }) => processId);
    const before = new Map([...loads, ...this.processIds].map((one) => [one, ticksOf(one)]));
    const begun = performance.now();
    const seen = { leastAlive: devices, mostLost: 0, isOver: false };
    const looking = isLooking ? this.#look(seen) : Promise.resolve();
    await work();
    const taken = (performance.now() - begun) / 1_000;
    seen.isOver = true;
    await looking;
    const told = (await this.ask("tell")) as AgentCounts[];
    const beats = told.flatMap((one) => one.beats);
    const failures: Record<string, number> = {};
    for (const [words, count] of told.flatMap((one) => Object.entries(one.failures))) {
      failures[words] = (failures[words] ?? 0) + count;
    }
    // A process that was started meanwhile has begun at nothing.
    const spent = (processIds: readonly number[]) =>
      processIds.reduce((sum, one) => sum + ticksOf(one) - (before.get(one) ?? 0), 0);
    const load = (processIds: readonly number[]) =>
      Math.round((100 * spent(processIds)) / ticksPerSecond / taken);
    return {
      ...{ seconds: taken, beats: beats.length, median: quantile(beats, 0.5) },
      ...{
        p99: quantile(beats, 0.99),
        longest: beats.reduce((most, one) => Math.max(most, one), 0),
      },
      ...{ leastAlive: isLooking ? seen.leastAlive : Number.NaN, mostLost: seen.mostLost },
      ...{ operatorLoad: load(this.processIds), devicesLoad: load(loads) },
      failures,
    };
  }

  async #look(seen: { leastAlive: number; mostLost: number; isOver: boolean }): Promise<void> {
    while (!seen.isOver) {
      const { gauges } = await askActing();
      const gaugeOf = (name: string) =>
        Number(new RegExp(`^${name} (\\d+)`, "m").exec(gauges)?.[1]);
      seen.leastAlive = Math.min(seen.leastAlive, gaugeOf("hostler_fleet_devices_alive"));
      seen.mostLost = Math.max(seen.mostLost, gaugeOf("hostler_fleet_devices_lost"));
      await pass(lookEvery);
    }
  }
}

const spec: RolloutSpec = {
  version: "1.1.0",
  builds: [{ architecture: "x64", libc: "glibc", digest: "b".repeat(64) }],
  // As long as a real one, which every marker has in it.
  manifest: JSON.stringify({ format: 1, signed: "x".repeat(3_500), signatures: [] }),
  sources: ["https://files.example/hostler"],
  rate: null,
  limits: {
    ...{ staging_ms: 600_000, commit_ms: 300_000, canonical_ms: 300_000 },
    ...(heartbeat !== HEARTBEAT_EVERY && { heartbeat_ms: heartbeat }),
  },
  select: { devices: null, labels: {} },
  waves: [],
  soak_ms: 0,
  max_unavailable: { by: "percent", percent: 100 },
  failures_percent: 0,
  windows: [],
};

async function rollOut(client: AuthorityClient): Promise<void> {
  const late = performance.now() + longest;
  await client.call(fleetApi.create, { name: "bench", spec });
  for (;;) {
    const { rollout } = await client.call(fleetApi.rollout, { rollout: "bench" });
    if (rollout.counts.failed > 0) throw new Error(`It failed: ${JSON.stringify(rollout)}`);
    if (rollout.phase === "complete") return;
    if (performance.now() > late) throw new Error(`It takes too long: ${JSON.stringify(rollout)}`);
    await pass(1_000);
  }
}

async function main(): Promise<CrowdFindings> {
  const addresses = await makeAddresses();
  const base = nats === "" ? [] : [await startNats()];
  const operators = await startOperators();
  await askActing();
  const folders = await makeDevices(addresses);
  const crowd = new Crowd(folders.map(startLoad), { operators, base });
  const operatorIdle = memoryOf(crowd.processIds);
  const begun = performance.now();
  await crowd.ask("enrol");
  const enrolled = (performance.now() - begun) / 1_000;
  const connected = await crowd.pass(async () => void (await crowd.ask("go")), false);
  const steady = await crowd.pass(() => pass(seconds * 1_000));
  const memory = {
    operator: memoryOf(crowd.processIds),
    devicesMemory: memoryOf(crowd.loads.map(({ processId }) => processId)),
  };
  const restarted = await crowd.pass(async () => {
    await Promise.all(crowd.operators.map((one) => one.end("SIGKILL")));
    await crowd.ask("forget");
    crowd.operators = await startOperators();
    await crowd.ask("heard");
  }, false);
  const client = await connect((await askActing()).controlSocket);
  const rollout = await crowd.pass(() => rollOut(client));
  client[Symbol.dispose]();
  await Promise.all(crowd.loads.map((load) => load.end()));
  for (const one of [...crowd.operators, ...base]) await one.end("SIGTERM");
  const found = { devices, processes, operators: operators.length, isOverNats: nats !== "" };
  return { ...found, enrolled, connected, steady, restarted, rollout, operatorIdle, ...memory };
}

if (import.meta.main) {
  console.log(JSON.stringify(await main()));
  loop[Symbol.dispose]();
}
