/**
 * So many agents at one compiled orchestrator: heartbeats every 10 s, readings every 5 s, lines
 * every 2 s, as the live image sends them. Prints latencies of heartbeats, and what the
 * orchestrator took. `bun scripts/bench/vetting-agents.ts [AGENTS] [SECONDS]`
 */
import { readFileSync } from "node:fs";
import { vettingApi } from "../../src/vetting/protocol-api.ts";
import {
  DurableOrchestrator,
  type WireAgent,
} from "../../test/support/vetting-orchestrator/daemon.ts";

const [agents = 1_000, seconds = 30] = process.argv.slice(2).map(Number);

function processorSeconds(process: number): number {
  const text = readFileSync(`/proc/${process}/stat`, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function residentMebibytes(process: number): number {
  const text = readFileSync(`/proc/${process}/status`, "latin1");
  return Number(/VmRSS:\s+(\d+)/.exec(text)?.[1] ?? 0) / 1_024;
}

/** Each agent has moments of its own at which it speaks. */
async function until(moment: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const rest = Math.max(1, moment - performance.now());
  AbortSignal.timeout(rest).addEventListener("abort", () => resolve());
  await promise;
}

const latencies: number[] = [];
let failures = 0;
let calls = 0;

async function timed(list: number[] | undefined, act: () => Promise<unknown>): Promise<void> {
  const began = performance.now();
  try {
    await act();
    calls += 1;
    list?.push(performance.now() - began);
  } catch (error) {
    failures += 1;
    if (failures <= 3) console.error(`refused: ${(error as Error).message}`);
  }
}

/** One agent, whose calls begin at a moment of its own. */
async function live(agent: WireAgent, place: number, end: number): Promise<void> {
  let sequence = 1;
  await until(performance.now() + (place * 2_000) / agents);
  for (let second = 0; performance.now() < end; second += 2) {
    const due = performance.now() + 2_000;
    const lines = [`line ${sequence} of agent ${place}: all is as it should be`];
    await timed(undefined, () => agent.log(sequence, lines));
    sequence += 1;
    if (second % 4 === 0) await timed(undefined, () => agent.readings(sequence, 40));
    if (second % 10 === 0) await timed(latencies, () => agent.beat());
    await until(due);
  }
}

async function main(): Promise<void> {
  await using orchestrator = new DurableOrchestrator();
  await orchestrator.start();
  const own = orchestrator.program?.processId ?? 0;
  const all: WireAgent[] = [];
  const began = performance.now();
  for (let place = 0; place < agents; place += 1) {
    const digits = place.toString(16).padStart(6, "0");
    const mac = `52:54:00:${digits.match(/../g)?.join(":") ?? ""}`;
    const run = await orchestrator.prepare({ mac, name: `node-${place}` });
    const agent = await orchestrator.agent(run, await orchestrator.mint(run));
    agent.mac = mac;
    await agent.claim();
    await agent.attempt("Inventory");
    all.push(agent);
  }
  const made = (performance.now() - began) / 1_000;
  console.log(`${agents} agents claimed in ${made.toFixed(1)} s`);
  const before = processorSeconds(own);
  const start = performance.now();
  await Promise.all(all.map((agent, place) => live(agent, place, start + seconds * 1_000)));
  const lasted = (performance.now() - start) / 1_000;
  const busy = ((processorSeconds(own) - before) / lasted) * 100;
  const sorted = latencies.toSorted((left, right) => left - right);
  const part = (share: number) => (sorted[Math.floor(share * sorted.length)] ?? 0).toFixed(1);
  const views = performance.now();
  const { total } = await orchestrator.call(vettingApi.runs, { open: "true" });
  console.log(
    `heartbeats: p50 ${part(0.5)} ms, p99 ${part(0.99)} ms, most ${part(0.9999)} ms; ` +
      `${(calls / lasted).toFixed(0)} calls/s, ${failures} refused`,
  );
  console.log(
    `orchestrator: ${busy.toFixed(0)} % of a core, ${residentMebibytes(own).toFixed(0)} MiB; ` +
      `list of ${total} runs ${(performance.now() - views).toFixed(0)} ms`,
  );
}

await main();
