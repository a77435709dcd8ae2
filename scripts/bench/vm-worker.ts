/** What a worker needs for many machines, how it takes them up again, and a VMM's replacement. */
import { readdirSync } from "node:fs";
import { monotonicNanoseconds } from "../../ffi/process.ts";
import type { WorkerClient } from "../../src/vm/client.ts";
import { VmHost } from "../../test/support/vm-worker.ts";
import { waitFor } from "../../test/support/wait-for.ts";
import type { Step } from "../terminal.ts";
import { COUNTER_ADDRESS } from "../test-guest.ts";
import { startSpoken } from "./live-update-programs.ts";
import { fileOf, type Memory, memoryOf } from "./process-status.ts";
import { make, makeImage, numbersAfter, remove, specOf, type VmBench } from "./vm-bench.ts";
import { startLibvirt } from "./vm-libvirt.ts";

/** Of the measures with many machines. */
export const manyMachines = 50;

/**
 * When memory is looked at, and with how many machines, which are made and do not run. What a
 * daemon takes with its first machines is code as well, which a runtime makes while it runs: the
 * second time nothing is new but the machines.
 */
export const memoryTimes = [
  { when: "at its start", machines: 0 },
  { when: "1 machine", machines: 1 },
  { when: "10 machines", machines: 10 },
  { when: `${manyMachines} machines`, machines: manyMachines },
  { when: "none again", machines: 0 },
  { when: `${manyMachines} again`, machines: manyMachines },
] as const;

/** One look at a daemon with so many machines. */
export interface MemoryLook {
  readonly when: string;
  readonly machines: number;
  readonly daemon: Memory;
  /** What holds captured states, and the confiner that waits; undefined for libvirt. */
  readonly holder: Memory | undefined;
  /** Of all VMMs together; undefined for libvirt. */
  readonly vmms: Memory | undefined;
}

export interface WorkerFindings {
  readonly memory: readonly MemoryLook[];
  readonly libvirt: readonly MemoryLook[];
  /** Milliseconds from the start of a worker, whose predecessor was killed. */
  readonly adoption: {
    readonly machines: number;
    /** Until it takes requests. */
    readonly ready: readonly number[];
    /** Until every VMM is watched, and has said how its guest is. */
    readonly adopted: readonly number[];
  };
}

export async function measureWorker(bench: VmBench, step: Step): Promise<WorkerFindings> {
  const memory: MemoryLook[] = [];
  const adoption = { machines: manyMachines, ready: [] as number[], adopted: [] as number[] };
  await using host = await VmHost.make();
  const image = await makeImage(host, "slow");
  await host.start({ binary: bench.files.hostler });
  {
    using client = await host.client();
    let there = 0;
    for (const { when, machines } of memoryTimes) {
      step.say(`memory, ${when}`);
      for (; there < machines; there += 1) {
        await make(client, specOf(nameOf(there), image), "created");
      }
      for (; there > machines; there -= 1) await remove(client, nameOf(there - 1));
      memory.push(await look(host, bench.files.hostler, { when, machines }));
    }
  }
  const rounds = bench.quick ? 3 : 10;
  for (let round = 1; round <= rounds; round += 1) {
    step.say(`adoption, round ${round} of ${rounds}`);
    await adoptOnce(host, bench.files.hostler, adoption);
  }
  const takenUp = { when: `${manyMachines} taken up by a new one`, machines: manyMachines };
  memory.push(await look(host, bench.files.hostler, takenUp));
  step.say("memory of libvirt");
  return { memory, adoption, libvirt: await lookAtLibvirt() };
}

const nameOf = (index: number) => `machine-${index}`;

type MemoryTime = Pick<MemoryLook, "when" | "machines">;

async function look(host: VmHost, file: string, time: MemoryTime): Promise<MemoryLook> {
  const worker = host.workerProcessId;
  const daemon = await memoryAtRest(() => memoryOf([worker]));
  const own = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && name !== `${worker}`);
  const others = own.map(Number).filter((processId) => fileOf(processId) === file);
  return { ...time, daemon, holder: memoryOf(others), vmms: memoryOf(host.vmmProcesses()) };
}

/** Kibibytes by which memory may move and be at rest; milliseconds in which it does not. */
const rest = { movement: 128, time: 2_000, between: 100 } as const;

/** What a process has when it is done with what it did: some collect what they left. */
async function memoryAtRest(take: () => Memory): Promise<Memory> {
  let last = { memory: take(), since: performance.now(), at: performance.now() };
  const probe = () => {
    const now = performance.now();
    if (now - last.at < rest.between) return undefined;
    const memory = take();
    const moved = Math.abs(memory.anonymous - last.memory.anonymous) > rest.movement;
    last = moved ? { memory, since: now, at: now } : { ...last, at: now };
    return now - last.since >= rest.time ? memory : undefined;
  };
  return await waitFor("memory at rest", probe, 60_000);
}

/** The last worker is killed; the next one's history begins with what it took up. */
async function adoptOnce(
  host: VmHost,
  binary: string,
  into: { readonly ready: number[]; readonly adopted: number[] },
): Promise<void> {
  await host.kill();
  const begin = monotonicNanoseconds();
  await host.start({ binary });
  into.ready.push((monotonicNanoseconds() - begin) / 1_000_000);
  using client = await host.client();
  into.adopted.push((await lastAttached(client)) / 1_000 - begin / 1_000_000);
}

/** @returns CLOCK_MONOTONIC in microseconds, of the last machine's answer */
async function lastAttached(client: WorkerClient): Promise<number> {
  const attached = new Set<string>();
  for await (const { what, name, monotonic_us } of client.events({ follow: true })) {
    if (what === "attached") attached.add(name);
    if (attached.size === manyMachines) return monotonic_us;
  }
  throw new Error("Bug: events that are followed have an end");
}

/** A host of its own: nothing of hostler's machines is there. */
async function lookAtLibvirt(): Promise<MemoryLook[]> {
  await using host = await VmHost.make();
  const libvirt = await startLibvirt(host);
  if (typeof libvirt === "string") return [];
  await using running = libvirt;
  const looks: MemoryLook[] = [];
  let there = 0;
  // Its starts take long, and it makes no code while it runs: no second time.
  for (const { when, machines } of memoryTimes.slice(0, 4)) {
    for (; there < machines; there += 1) {
      await running.prepare(`m${there}`);
      await running.start(`m${there}`, { paused: true });
    }
    const daemon = await memoryAtRest(() => running.memory());
    looks.push({ when, machines, daemon, holder: undefined, vmms: undefined });
  }
  return looks;
}

/** Milliseconds between two numbers of a guest that counts without end. */
export interface ReplacementFindings {
  /** The longest, while its VMM is replaced under it. */
  readonly pauses: readonly number[];
  /** The longest in as much time without a replacement. */
  readonly undisturbed: readonly number[];
  /** The mean, in all that time. */
  readonly usual: readonly number[];
}

export async function measureReplacements(
  bench: VmBench,
  step: Step,
): Promise<ReplacementFindings> {
  const found = { pauses: [] as number[], undisturbed: [] as number[], usual: [] as number[] };
  await using host = await VmHost.make();
  const image = await makeImage(host, "fast");
  await host.start({ binary: bench.files.hostler });
  using client = await host.client();
  await make(client, specOf("machine", image), "running");
  const rounds = bench.quick ? 5 : 20;
  for (let round = 1; round <= rounds; round += 1) {
    step.say(`round ${round} of ${rounds}`);
    const begin = performance.now();
    const replaced = await watchCounter(bench, host, {
      act: () => replace(client, "machine"),
    });
    const time = performance.now() - begin;
    const undisturbed = await watchCounter(bench, host, { for: time });
    found.pauses.push(replaced.longest);
    found.undisturbed.push(undisturbed.longest);
    found.usual.push(undisturbed.usual);
  }
  return found;
}

/** Returns when another process has the machine, and it runs. */
async function replace(client: WorkerClient, name: string): Promise<void> {
  const { pid: before } = (await client.show(name)).summary;
  await client.change("replace-vmm", name);
  await waitFor("another VMM", async () => {
    const { pid, phase } = (await client.show(name)).summary;
    return phase === "running" && pid !== null && pid !== before;
  });
}

/**
 * Looks while something is done, or for so many milliseconds.
 * @returns milliseconds between two numbers: the longest and the mean
 */
async function watchCounter(
  { files }: VmBench,
  host: VmHost,
  until: { readonly act: () => Promise<void> } | { readonly for: number },
) {
  const limit = "for" in until ? Math.ceil(until.for * 1_000_000) : 0;
  const words = [String(host.vmm), `${COUNTER_ADDRESS}`, `${limit}`];
  await using watch = startSpoken([files.floor, "counter", ...words], { from: "stdout" });
  await watch.said(/^ready$/);
  if ("act" in until) {
    await until.act();
    await watch.say("enough");
  }
  const [line] = await watch.said(/^took .*/);
  const [longest = Number.NaN, usual = Number.NaN] = numbersAfter("took", line);
  return { longest: longest / 1_000_000, usual: usual / 1_000_000 };
}
