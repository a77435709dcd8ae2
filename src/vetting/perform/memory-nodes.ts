import { closeSync, openSync, readdirSync, readFileSync, readSync } from "node:fs";
import { parseNumbers } from "../processor-list.ts";

/** NUMA nodes, what is free of each, and where a page lies: as the kernel tells it. */

const PAGE = 4096;
const NODES = "/sys/devices/system/node";

export interface MemoryNode {
  /** The kernel's number. */
  readonly number: number;
  /** Those that are online; empty for memory without processors. */
  readonly processors: readonly number[];
  readonly bytes: number;
}

/** Nodes that have memory. A kernel without NUMA has one, of all that there is. */
export function memoryNodes(): readonly MemoryNode[] {
  const online = readNumbers("/sys/devices/system/cpu/online") ?? [0];
  let names: string[] = [];
  try {
    names = readdirSync(NODES).filter((name) => /^node\d+$/.test(name));
  } catch {
    // Without NUMA there is no such folder.
  }
  const nodes = names
    .map((name) => ({
      number: Number(name.slice("node".length)),
      processors: (readNumbers(`${NODES}/${name}/cpulist`) ?? []).filter((processor) =>
        online.includes(processor),
      ),
      bytes: meminfo(`${NODES}/${name}/meminfo`).get("MemTotal") ?? 0,
    }))
    .filter(({ bytes }) => bytes > 0)
    .sort((one, other) => one.number - other.number);
  if (nodes.length > 1) return nodes;
  // One node is all of the host, also where memory that was plugged in later is not in its total.
  const bytes = meminfo("/proc/meminfo").get("MemTotal") ?? 0;
  return [{ number: nodes[0]?.number ?? 0, processors: online, bytes }];
}

/**
 * Bytes that can be had without taking them from anybody: of the node (its free pages and its
 * clean cache), and of the host as MemAvailable says.
 */
export function availableBytes(
  node: number,
  { isOnly }: { readonly isOnly: boolean },
): { readonly node: number; readonly host: number } {
  const host = meminfo("/proc/meminfo").get("MemAvailable") ?? 0;
  if (isOnly) return { node: host, host };
  const own = meminfo(`${NODES}/node${node}/meminfo`);
  const free = own.get("MemFree");
  if (free === undefined) return { node: host, host };
  const cache = (own.get("FilePages") ?? 0) - (own.get("Shmem") ?? 0);
  const slabs = own.get("SReclaimable") ?? 0;
  return { node: free + Math.max(0, cache) + slabs, host };
}

/** Bytes by name. A line of a node begins "Node 0 MemFree:", one of the host "MemFree:". */
function meminfo(path: string): ReadonlyMap<string, number> {
  const found = new Map<string, number>();
  let text = "";
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return found;
  }
  for (const [, name = "", kibibytes] of text.matchAll(/(\w+):\s+(\d+) kB$/gm)) {
    found.set(name, Number(kibibytes) * 1024);
  }
  return found;
}

function readNumbers(path: string): readonly number[] | undefined {
  try {
    return parseNumbers(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}

/** Processors that are online, by the kernel's numbers. */
export function onlineProcessors(): readonly number[] {
  return readNumbers("/sys/devices/system/cpu/online") ?? [0];
}

/**
 * Where a page of this process lies; undefined where the kernel does not say so (it shows the
 * frame to CAP_SYS_ADMIN alone): Documentation/admin-guide/mm/pagemap.rst.
 */
export function physicalAddress(address: number): bigint | undefined {
  let file: number | undefined;
  try {
    file = openSync("/proc/self/pagemap", "r");
    const entry = new DataView(new ArrayBuffer(8));
    const at = Math.floor(address / PAGE) * 8;
    if (readSync(file, entry, 0, 8, at) !== 8) return undefined;
    const bits = entry.getBigUint64(0, true);
    const isPresent = bits >> 63n === 1n;
    const frame = bits & ((1n << 55n) - 1n);
    if (!isPresent || frame === 0n) return undefined;
    return frame * BigInt(PAGE) + BigInt(address % PAGE);
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
