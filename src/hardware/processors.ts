import type { HostTree } from "./host-tree.ts";
import { type Inventory, inventoryLimits } from "./inventory.ts";
import type { SocketRecord } from "./smbios-records.ts";
import type { Unseen } from "./unseen.ts";

type Processor = Inventory["processors"][number];

export const CPU_FOLDER = "sys/devices/system/cpu";

/** One that is plugged in, as the kernel counts it. */
interface Package {
  readonly number: number;
  readonly cores: number;
  readonly threads: number;
  readonly vendor: string | null;
  readonly model: string | null;
  readonly microcode: string | null;
  readonly mostMhz: number | null;
}

/**
 * The kernel says what a processor is and how much of it works, SMBIOS what its socket is called.
 * They are put together in their order where both count the same; else the kernel's stand alone,
 * and what SMBIOS says more is told in `unseen`.
 */
export function readProcessors(
  tree: HostTree,
  sockets: readonly SocketRecord[],
  unseen: Unseen,
): Processor[] {
  const packages = readPackages(tree);
  if (packages.length === 0)
    unseen.add("processors", `nothing in /${CPU_FOLDER} and /proc/cpuinfo`);
  for (const { socket, disabled } of sockets) {
    if (disabled !== null) unseen.add(`processors[${socket ?? "?"}]`, disabled);
  }
  const inUse = sockets.filter((socket) => socket.disabled === null);
  const agree = inUse.length === packages.length;
  if (!agree && inUse.length > 0) {
    const counts = `SMBIOS has ${inUse.length} processors, the kernel ${packages.length}`;
    unseen.add("processors.socket", counts);
  }
  return packages.slice(0, inventoryLimits.processors).map((found, index) => {
    const socket = agree ? inUse[index] : undefined;
    const name = socket?.socket ?? null;
    const isUnique = inUse.filter((one) => one.socket === name).length === 1;
    return {
      socket: name !== null && isUnique ? name : String(found.number),
      vendor: found.vendor ?? socket?.vendor ?? null,
      model: found.model ?? socket?.model ?? null,
      cores: found.cores,
      threads: found.threads,
      microcode: found.microcode,
      most_mhz: found.mostMhz ?? socket?.mostMhz ?? null,
    };
  });
}

/** By physical_package_id; where there is no topology, one package of all that cpuinfo has. */
function readPackages(tree: HostTree): Package[] {
  const information = parseCpuInformation(tree.text("proc/cpuinfo").value ?? "");
  const packages = new Map<number, { cores: Set<string>; threads: number[] }>();
  const threads = readThreads(tree);
  for (const thread of threads.online) {
    const at = `${CPU_FOLDER}/cpu${thread}/topology`;
    const number = threads.packageOf(thread);
    const own = packages.get(number) ?? { cores: new Set(), threads: [] };
    const die = tree.number(`${at}/die_id`).value ?? 0;
    const core = tree.number(`${at}/core_id`).value ?? thread;
    own.cores.add(`${die}/${core}`);
    own.threads.push(thread);
    packages.set(number, own);
  }
  return [...packages]
    .sort(([one], [other]) => one - other)
    .map(([number, { cores, threads }]) => {
      const first = threads[0] ?? 0;
      const words = information.get(first) ?? information.values().next().value;
      const mostKhz = tree.number(`${CPU_FOLDER}/cpu${first}/cpufreq/cpuinfo_max_freq`).value;
      return {
        number,
        cores: cores.size,
        threads: threads.length,
        vendor: word(words, "vendor_id"),
        model: word(words, "model name"),
        microcode:
          tree.word(`${CPU_FOLDER}/cpu${first}/microcode/version`).value ??
          word(words, "microcode"),
        mostMhz: mostKhz === null ? null : Math.round(mostKhz / 1_000),
      };
    });
}

/** Logical processors that work, and the package of each, which is read once, when it is asked. */
export interface Threads {
  readonly online: readonly number[];
  packageOf(thread: number): number;
}

export function readThreads(tree: HostTree): Threads {
  const packages = new Map<number, number>();
  const packageOf = (thread: number): number => {
    const known = packages.get(thread);
    if (known !== undefined) return known;
    const id = tree.number(`${CPU_FOLDER}/cpu${thread}/topology/physical_package_id`).value ?? 0;
    // -1 where the firmware of an arm64 does not tell.
    const number = Math.max(0, id);
    packages.set(thread, number);
    return number;
  };
  return { online: onlineThreads(tree), packageOf };
}

/** Logical processors that work: /sys/devices/system/cpu/online, else those of /proc/cpuinfo. */
export function onlineThreads(tree: HostTree): number[] {
  const online = parseRanges(tree.text(`${CPU_FOLDER}/online`).value ?? "");
  if (online.length > 0) return online;
  return [...parseCpuInformation(tree.text("proc/cpuinfo").value ?? "").keys()];
}

/** The most logical processors that are counted; Linux has at most 8,192. */
const MOST_THREADS = 8_192;

/** "0-3,8" as numbers; what is no such list is none. */
export function parseRanges(text: string): number[] {
  const numbers: number[] = [];
  for (const part of text.split(",")) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim());
    if (match === null) continue;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    for (let at = first; at <= last && numbers.length < MOST_THREADS; at += 1) numbers.push(at);
  }
  return numbers;
}

/** /proc/cpuinfo: paragraphs of "name : value", each of one logical processor. */
export function parseCpuInformation(text: string): Map<number, ReadonlyMap<string, string>> {
  const processors = new Map<number, ReadonlyMap<string, string>>();
  for (const paragraph of text.split(/\n\s*\n/)) {
    const words = new Map<string, string>();
    for (const line of paragraph.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) words.set(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
    }
    const number = words.get("processor");
    if (number !== undefined && /^\d{1,5}$/.test(number)) processors.set(Number(number), words);
  }
  return processors;
}

function word(words: ReadonlyMap<string, string> | undefined, key: string): string | null {
  const text = words?.get(key)?.replace(/\s+/g, " ").slice(0, inventoryLimits.text);
  return text === undefined || text === "" ? null : text;
}
