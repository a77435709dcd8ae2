/**
 * So many agents at one compiled orchestrator. Each beats every 5 s, has a reading of 40 sensors
 * for each second, which it tells five at a time, and tells a line of its log every 2 s. Pages
 * follow what happens meanwhile, and are timed from a change to its event.
 * `bun scripts/bench/vetting-agents.ts [AGENTS] [SECONDS]`
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { HttpClient } from "../../src/http/client.ts";
import { identityApi } from "../../src/identity/api.ts";
import { hostApi, runApi, specApi, vettingStreams } from "../../src/vetting/protocol-api.ts";
import { DurableOrchestrator } from "../../test/support/vetting-orchestrator/daemon.ts";
import { exampleSpec } from "../../test/support/vetting-orchestrator/runs.ts";
import { build } from "../build.ts";
import { ensureDependencies, repositoryRoot } from "../setup.ts";
import { runScript, ScriptError, type Step, withStep } from "../terminal.ts";
import { quantile } from "./statistics.ts";
import { CrowdAgent, type Seat } from "./vetting-crowd.ts";

const BEAT_EVERY = 5_000;
const READING_EVERY = 1_000;
const READINGS_EACH = BEAT_EVERY / READING_EVERY;
const SENSORS = 40;
const LOG_EVERY = 2_000;
const PAGES = 10;
/** Agents that begin at once. */
const HANDS = 32;
/** Times that an agent tries to begin. */
const CLAIMS = 3;
/** Refusals of different words that are told. */
const TOLD_REFUSALS = 5;
const HOUR = 3_600_000;

export interface CrowdFindings {
  readonly agents: number;
  readonly pages: number;
  readonly seconds: number;
  /** Milliseconds from a heartbeat to its answer. */
  readonly beats: readonly number[];
  /** Milliseconds from an operator's change to its event, at each page. */
  readonly updates: readonly number[];
  readonly calls: number;
  readonly refused: number;
  /** Seconds of processor: of the orchestrator, and of the agents' process. */
  readonly busy: { readonly orchestrator: number; readonly agents: number };
  /** Mebibytes of the orchestrator: at the end, and at most. */
  readonly memory: { readonly resident: number; readonly most: number };
}

export interface CrowdPlan {
  /** The compiled file, or words that run another one. */
  readonly hostler: string | readonly string[];
  readonly agents: number;
  readonly seconds: number;
}

class BenchOrchestrator extends DurableOrchestrator {
  readonly #words: readonly string[];

  constructor(words: readonly string[]) {
    super();
    this.#words = words;
  }

  override get argv(): readonly string[] {
    return [
      ...[...this.#words, "vetting", "orchestrator", "--listen", this.address],
      ...["--state-directory", this.state, "--control-socket", this.socket],
    ];
  }

  get processId(): number {
    return this.program?.processId ?? 0;
  }
}

/** Has the agents begin, tell for so many seconds, and end; the orchestrator with them. */
export async function measureCrowd(plan: CrowdPlan, step?: Step): Promise<CrowdFindings> {
  await using orchestrator = new BenchOrchestrator([plan.hostler].flat());
  await orchestrator.start();
  const never = Number.POSITIVE_INFINITY;
  const tally: Tally = { beats: [], calls: 0, refused: [], from: never, end: never };
  await using crowd = new Crowd(tally, plan.agents);
  step?.say("agents begin");
  await crowd.begin(orchestrator);
  const pages = await Pages.open(orchestrator);
  step?.say("agents tell");
  const before = processorSeconds(orchestrator.processId);
  const ownBefore = process.cpuUsage();
  const start = performance.now();
  tally.from = start;
  tally.end = start + plan.seconds * 1_000;
  await Promise.all([crowd.ended(), pages.watch(crowd.first, tally.end)]);
  const seconds = (performance.now() - start) / 1_000;
  const own = process.cpuUsage(ownBefore);
  const memory = memoryOf(orchestrator.processId);
  const busy = processorSeconds(orchestrator.processId) - before;
  pages.close();
  const words = [...new Set(tally.refused)].slice(0, TOLD_REFUSALS);
  for (const refusal of words) console.error(`refused: ${refusal}`);
  return {
    ...{ agents: plan.agents, pages: PAGES, seconds, memory, updates: pages.updates },
    ...{ beats: tally.beats, calls: tally.calls, refused: tally.refused.length },
    busy: { orchestrator: busy, agents: (own.user + own.system) / 1e6 },
  };
}

/** What is counted of calls that began between two moments of `performance.now()`. */
interface Tally {
  readonly beats: number[];
  calls: number;
  /** Why, of each. */
  readonly refused: string[];
  from: number;
  end: number;
}

/**
 * Agents that live from their claim on, as real ones do: one that waited for all others would lose
 * its connections by their idle time, and all would open them anew in the moment of the measure.
 */
class Crowd implements AsyncDisposable {
  readonly #tally: Tally;
  readonly #count: number;
  readonly #agents: CrowdAgent[] = [];
  readonly #living: Promise<void>[] = [];

  constructor(tally: Tally, count: number) {
    this.#tally = tally;
    this.#count = count;
  }

  get first(): string {
    return this.#agents[0]?.mac ?? "";
  }

  async begin(orchestrator: BenchOrchestrator): Promise<void> {
    await orchestrator.call(specApi.specPut, { spec: exampleSpec.name, content: exampleSpec });
    const url = new URL(orchestrator.url);
    let next = 0;
    const hand = async () => {
      while (next < this.#count) {
        const place = next;
        next += 1;
        const agent = await beginAgent(url, await seatOf(orchestrator, place));
        this.#agents.push(agent);
        this.#living.push(live(agent, { place, of: this.#count }, this.#tally));
      }
    };
    await Promise.all(Array.from({ length: HANDS }, hand));
  }

  async ended(): Promise<void> {
    await Promise.all(this.#living);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#tally.end = 0;
    await this.ended();
    for (const agent of this.#agents) agent[Symbol.dispose]();
  }
}

/** As agents do, which try again: a claim counts for the same process once more. */
async function beginAgent(url: URL, seat: Seat): Promise<CrowdAgent> {
  for (let turn = 1; ; turn += 1) {
    try {
      return await CrowdAgent.begin(url, seat);
    } catch (error) {
      if (turn === CLAIMS) throw error;
      console.error(`${seat.mac} begins again: ${(error as Error).message}`);
    }
  }
}

async function seatOf(orchestrator: BenchOrchestrator, place: number): Promise<Seat> {
  const digits = place.toString(16).padStart(6, "0");
  const mac = `52:54:00:${digits.match(/../g)?.join(":") ?? ""}`;
  const host = { mac, name: `node-${place}`, spec: exampleSpec.name };
  await orchestrator.call(hostApi.hostAdd, host);
  const { run } = await orchestrator.call(runApi.start, { mac, window_ms: HOUR });
  const { token } = await orchestrator.call(runApi.token, { run });
  return { run, mac, token };
}

/** One agent, whose three clocks begin at a moment of its own; what is refused, it gives up. */
async function live(
  agent: CrowdAgent,
  { place, of }: { readonly place: number; readonly of: number },
  tally: Tally,
): Promise<void> {
  const every = async (period: number, act: () => Promise<void>, list?: number[]) => {
    let due = performance.now() + (place * period) / of;
    while (due < tally.end) {
      await until(due);
      const began = performance.now();
      const refusal = await act().then(
        () => undefined,
        (error: Error) => error.message,
      );
      if (began >= tally.from && began < tally.end) {
        if (refusal === undefined) tally.calls += 1;
        else tally.refused.push(refusal);
        if (refusal === undefined) list?.push(performance.now() - began);
      }
      due = Math.max(due + period, performance.now());
    }
  };
  // Lines and readings go over one connection, one after the other.
  let telling: Promise<unknown> = Promise.resolve();
  const orderly = (act: () => Promise<void>) => {
    const told = telling.then(act);
    telling = told.catch(() => undefined);
    return told;
  };
  const line = `line of agent ${place}: all is as it should be, and nothing has happened since`;
  await Promise.all([
    every(BEAT_EVERY, () => agent.beat(), tally.beats),
    every(BEAT_EVERY, () => orderly(() => agent.readings(READINGS_EACH, SENSORS))),
    every(LOG_EVERY, () => orderly(() => agent.log([line]))),
  ]);
}

/** Pages that follow the fleet, and an operator who changes something each second. */
class Pages {
  readonly #orchestrator: BenchOrchestrator;
  readonly #end = new AbortController();
  readonly #following: Promise<void>[] = [];
  /** When windows were opened, by their end as it is told. */
  readonly #began = new Map<string, number>();
  /** When each page heard of it, which may be before the operator has the answer. */
  readonly #heard: { readonly window: string; readonly at: number }[] = [];

  private constructor(orchestrator: BenchOrchestrator) {
    this.#orchestrator = orchestrator;
  }

  static async open(orchestrator: BenchOrchestrator): Promise<Pages> {
    const pages = new Pages(orchestrator);
    const { token } = await orchestrator.call(identityApi.operatorsAdd, {
      name: "bench",
      role: "view",
      special: [],
    });
    const { shown } = await orchestrator.call(identityApi.certificatesList, {});
    const about = { url: orchestrator.url, pins: [shown], token: () => token };
    for (let page = 0; page < PAGES; page += 1) {
      const isUp = Promise.withResolvers<void>();
      pages.#following.push(pages.#follow(new HttpClient(about), isUp.resolve));
      await isUp.promise;
    }
    return pages;
  }

  async #follow(client: HttpClient, onUp: () => void): Promise<void> {
    const { signal } = this.#end;
    const onLink = (state: "up" | { readonly down: Error }) => {
      if (state === "up") onUp();
      else console.error(`a page lost its link: ${state.down.message}`);
    };
    for await (const { data } of client.stream(vettingStreams.events, {}, { signal, onLink })) {
      if (data.kind !== "host" || data.view.window_until === null) continue;
      this.#heard.push({ window: data.view.window_until, at: performance.now() });
    }
  }

  /** Milliseconds from a change to its event, of each change at each page. */
  get updates(): number[] {
    return this.#heard.flatMap(({ window, at }) => {
      const began = this.#began.get(window);
      return began === undefined ? [] : [at - began];
    });
  }

  /** Every second a change, each of another length, so that its event is known. */
  async watch(mac: string, end: number): Promise<void> {
    for (let second = 0; performance.now() + 1_000 < end; second += 1) {
      await until(performance.now() + 1_000);
      const began = performance.now();
      const { window_until: told } = await this.#orchestrator.call(hostApi.hostWindow, {
        ...{ mac, for_ms: HOUR + second * 1_000 },
      });
      if (told !== null) this.#began.set(told, began);
    }
  }

  close(): void {
    this.#end.abort();
  }
}

async function until(moment: number): Promise<void> {
  const rest = moment - performance.now();
  if (rest <= 0) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  AbortSignal.timeout(Math.ceil(rest)).addEventListener("abort", () => resolve());
  await promise;
}

/** Of user and system: proc_pid_stat(5), in hundredths of a second. */
function processorSeconds(processId: number): number {
  const text = readFileSync(`/proc/${processId}/stat`, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function memoryOf(processId: number): CrowdFindings["memory"] {
  const text = readFileSync(`/proc/${processId}/status`, "latin1");
  const mebibytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) / 1_024;
  return { resident: mebibytes("VmRSS"), most: mebibytes("VmHWM") };
}

/** One line for people. */
export function describeCrowd(found: CrowdFindings): string {
  const part = (samples: readonly number[], share: number) => quantile(samples, share).toFixed(1);
  const share = (seconds: number) => `${((seconds / found.seconds) * 100).toFixed(0)} %`;
  return [
    `${found.agents} agents, ${(found.calls / found.seconds).toFixed(0)} calls/s, ` +
      `${found.refused} refused`,
    `heartbeats: p50 ${part(found.beats, 0.5)} ms, p99 ${part(found.beats, 0.99)} ms, most ` +
      `${part(found.beats, 1)} ms, of ${found.beats.length}`,
    `${found.pages} pages: an update after p50 ${part(found.updates, 0.5)} ms, p99 ` +
      `${part(found.updates, 0.99)} ms, of ${found.updates.length}`,
    `orchestrator: ${share(found.busy.orchestrator)} of a core, ` +
      `${found.memory.resident.toFixed(0)} MiB (at most ${found.memory.most.toFixed(0)}); ` +
      `agents: ${share(found.busy.agents)} of a core`,
  ].join("\n");
}

async function main(): Promise<number> {
  const [agents = 1_000, seconds = 30, ...more] = process.argv.slice(2).map(Number);
  if (more.length > 0 || !Number.isInteger(agents) || !Number.isFinite(seconds)) {
    const usage = "Usage: bun scripts/bench/vetting-agents.ts [AGENTS] [SECONDS]";
    throw new ScriptError(usage, { exitCode: 100 });
  }
  await ensureDependencies();
  const dist = join(repositoryRoot, "dist");
  const { path: hostler } = await build({ folder: dist, name: "hostler", faults: false });
  const found = await withStep(`${agents} agents`, (step) =>
    measureCrowd({ hostler, agents, seconds }, step),
  );
  console.log(describeCrowd(found));
  return 0;
}

if (import.meta.main) await runScript(main);
