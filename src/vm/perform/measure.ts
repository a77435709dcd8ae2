import { readFileSync } from "node:fs";
import type { MachineCounters } from "../../hypervisor/driver.ts";
import type { LinkCounters } from "../../network/rtnetlink.ts";
import type { VmMetrics } from "../protocol.ts";
import type { Machine } from "./machine.ts";

/** USER_HZ of every Linux that Bun runs on: time(7), sysconf(_SC_CLK_TCK). */
const ticksPerSecond = 100;

/** What one machine has used; null where nobody can tell. */
export async function measureMachine(
  machine: Machine,
  links: ReadonlyMap<string, LinkCounters>,
  time: string,
): Promise<VmMetrics> {
  const { processId, attached, record } = machine;
  const cards = record.allocation.cards.flatMap(({ network, tap }) => {
    const counted = links.get(tap);
    if (counted === undefined) return [];
    // What the machine receives is what its TAP sends.
    const { sentBytes, receivedBytes } = counted;
    return [{ network, tap, received_bytes: sentBytes, sent_bytes: receivedBytes }];
  });
  const disks = await attached?.connection.counters().catch(() => undefined);
  const used = machine.cgroupUse();
  const seconds = secondsOf(machine, used);
  return {
    name: machine.name,
    cpu_percent: machine.processorPercent(seconds),
    cpu_seconds: seconds ?? null,
    memory_bytes: processId === undefined ? null : residentBytes(processId),
    cgroup_memory_bytes: used?.memory ?? null,
    cpu_throttled_seconds: used?.throttledSeconds ?? null,
    oom_kills: used?.outOfMemoryKills ?? null,
    network_received_bytes: sumOfCards(cards, "received_bytes"),
    network_sent_bytes: sumOfCards(cards, "sent_bytes"),
    cards,
    disk_read_bytes: sum(disks, "readBytes"),
    disk_written_bytes: sum(disks, "writtenBytes"),
    healthy: healthyOf(machine),
    time,
  };
}

/** A reading of the worker's own, which percentages are counted from. */
export function noteProcessor(machine: Machine): void {
  machine.noteProcessor(secondsOf(machine, machine.cgroupUse()));
}

function secondsOf(
  { processId }: Machine,
  used: ReturnType<Machine["cgroupUse"]>,
): number | undefined {
  const own = () => (processId === undefined ? undefined : processorSeconds(processId));
  return used?.processorSeconds ?? own();
}

function healthyOf({ health }: Machine): 0 | 1 | null {
  const state = health.view?.state;
  if (state === "healthy") return 1;
  return state === "unhealthy" ? 0 : null;
}

function sumOfCards(cards: VmMetrics["cards"], key: "received_bytes" | "sent_bytes") {
  return cards.length === 0 ? null : cards.reduce((all, card) => all + card[key], 0);
}

function sum(counters: MachineCounters | undefined, key: "readBytes" | "writtenBytes") {
  return counters === undefined ? null : counters.disks.reduce((all, disk) => all + disk[key], 0);
}

/** User and system time of all threads: proc_pid_stat(5), fields 14 and 15. */
function processorSeconds(processId: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${processId}/stat`, "latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  } catch {
    return undefined;
  }
}

/** proc_pid_status(5), VmRSS: with the guest's memory, which is shared. */
function residentBytes(processId: number): number | null {
  try {
    const text = readFileSync(`/proc/${processId}/status`, "latin1");
    const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(text)?.[1];
    return kibibytes === undefined ? null : Number(kibibytes) * 1024;
  } catch {
    return null;
  }
}
