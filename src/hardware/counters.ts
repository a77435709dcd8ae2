import type { Answer, HostTree } from "./host-tree.ts";
import { NETWORK_FOLDER, physicalCards } from "./network-cards.ts";
import { PCI_FOLDER } from "./pci-devices.ts";
import { CPU_FOLDER, readThreads, type Threads } from "./processors.ts";
import { type CounterSource, sampleLimits } from "./samples.ts";

/** A counter, or why it tells nothing: whoever reads again and again says what went missing. */
export interface CounterReading {
  readonly source: CounterSource;
  readonly component: string;
  readonly answer: Answer<number>;
}

/** All that count up where hardware errs: of the kernel's files. */
export function readCounters(tree: HostTree, threads = readThreads(tree)): CounterReading[] {
  return [
    ...readMachineChecks(tree),
    ...readMemoryErrors(tree),
    ...readThrottling(tree, threads),
    ...readCardCounters(tree),
    ...readPcieErrors(tree),
  ].slice(0, sampleLimits.counters);
}

/**
 * Of /proc/interrupts, those that a processor is sent when its hardware errs: machine checks
 * (MCE), deferred errors (DFR) and thresholds of corrected ones (THR).
 */
function readMachineChecks(tree: HostTree): CounterReading[] {
  const text = tree.text("proc/interrupts").value;
  if (text === null) return [];
  return parseInterrupts(text, ["MCE", "DFR", "THR"]).map(({ name, count }) => ({
    source: "machine-check",
    component: `interrupt ${name}`,
    answer: { value: count },
  }));
}

/** Lines "MCE:   0   0   Machine check exceptions": the sum over all processors. */
export function parseInterrupts(
  text: string,
  names: readonly string[],
): { readonly name: string; readonly count: number }[] {
  return text.split("\n").flatMap((line) => {
    const match = /^\s*([A-Z]+):((?:\s+\d+)+)/.exec(line);
    const name = match?.[1];
    if (name === undefined || !names.includes(name)) return [];
    const counts = (match?.[2] ?? "").trim().split(/\s+/).map(Number);
    return [{ name, count: counts.reduce((sum, count) => sum + count, 0) }];
  });
}

const MEMORY = "sys/devices/system/edac/mc";

/** EDAC: of each module, and what a controller could not say which module it was of. */
function readMemoryErrors(tree: HostTree): CounterReading[] {
  return tree.names(MEMORY).flatMap((controller): CounterReading[] => {
    if (!/^mc\d+$/.test(controller)) return [];
    const at = `${MEMORY}/${controller}`;
    const both = (component: string, corrected: string, uncorrected: string) => [
      reading("memory-corrected", component, tree.number(corrected)),
      reading("memory-uncorrected", component, tree.number(uncorrected)),
    ];
    const modules = tree.names(at).filter((name) => /^(dimm|rank)\d+$/.test(name));
    const ofModules = modules.flatMap((name) => {
      const counters = `${at}/${name}/dimm`;
      return both(`${controller}/${name}`, `${counters}_ce_count`, `${counters}_ue_count`);
    });
    if (modules.length === 0) return both(controller, `${at}/ce_count`, `${at}/ue_count`);
    const nobodys = `${controller}/unknown module`;
    return [...ofModules, ...both(nobodys, `${at}/ce_noinfo_count`, `${at}/ue_noinfo_count`)];
  });
}

function readThrottling(tree: HostTree, threads: Threads): CounterReading[] {
  const packages = new Set<number>();
  return threads.online.flatMap((thread): CounterReading[] => {
    const at = `${CPU_FOLDER}/cpu${thread}`;
    const own = tree.number(`${at}/thermal_throttle/core_throttle_count`);
    if (own.reason === "ENOENT") return [];
    const counters = [reading("throttle", `cpu${thread}`, own)];
    const number = threads.packageOf(thread);
    if (!packages.has(number)) {
      packages.add(number);
      const count = tree.number(`${at}/thermal_throttle/package_throttle_count`);
      if (count.reason !== "ENOENT") counters.push(reading("throttle", `package${number}`, count));
    }
    return counters;
  });
}

/**
 * rx_errors and tx_errors are sums of all kinds of bad packets (sysfs-class-net-statistics). What
 * was dropped for want of memory, or because nobody wanted it, is no error of the card.
 */
function readCardCounters(tree: HostTree): CounterReading[] {
  return physicalCards(tree).flatMap((name) => {
    const at = `${NETWORK_FOLDER}/${name}`;
    const received = tree.number(`${at}/statistics/rx_errors`);
    const sent = tree.number(`${at}/statistics/tx_errors`);
    const errors =
      received.value === null || sent.value === null
        ? { value: null, reason: received.reason ?? sent.reason ?? "ENOENT" }
        : { value: received.value + sent.value };
    return [
      reading("carrier", name, tree.number(`${at}/carrier_changes`)),
      reading("network-errors", name, errors),
    ];
  });
}

const severities: readonly (readonly [CounterSource, string])[] = [
  ["pcie-correctable", "aer_dev_correctable"],
  ["pcie-nonfatal", "aer_dev_nonfatal"],
  ["pcie-fatal", "aer_dev_fatal"],
];

/** Advanced Error Reporting, of each device that has it: sysfs-bus-pci-devices-aer_stats. */
function readPcieErrors(tree: HostTree): CounterReading[] {
  return tree.names(PCI_FOLDER).flatMap((address) =>
    severities.flatMap(([source, file]) => {
      const text = tree.text(`${PCI_FOLDER}/${address}/${file}`);
      if (text.reason === "ENOENT") return [];
      return [reading(source, address, text.value === null ? text : parseErrorTotal(text.value))];
    }),
  );
}

/** The line "TOTAL_ERR_COR 3"; kernels that have none are summed up. */
export function parseErrorTotal(text: string): Answer<number> {
  let sum = 0;
  for (const line of text.split("\n")) {
    const match = /^(\S+) (\d{1,15})$/.exec(line.trim());
    if (match === null) continue;
    if (match[1]?.startsWith("TOTAL_ERR_") === true) return { value: Number(match[2]) };
    sum += Number(match[2]);
  }
  return { value: sum };
}

function reading(source: CounterSource, component: string, answer: Answer<number>): CounterReading {
  // A counter that a driver shows as negative tells nothing.
  const isCount = answer.value === null || answer.value >= 0;
  return { source, component, answer: isCount ? answer : { value: null, reason: "below zero" } };
}
