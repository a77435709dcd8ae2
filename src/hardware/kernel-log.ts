import { type KernelLine, sampleLimits } from "./samples.ts";
import { withoutSecrets } from "./secrets.ts";

/** Records of /dev/kmsg, and what of them names a fault of hardware. Pure. */

/**
 * One record: "6,339,5140900,-;NET: Registered protocol family" and, in lines that begin with a
 * space, what it is about (Documentation/ABI/testing/dev-kmsg). undefined: it is none.
 */
export function parseKernelRecord(record: string): KernelLine | undefined {
  const head = /^(\d{1,10}),(\d{1,15}),(\d{1,16}),[^;]*;/.exec(record);
  if (head === null) return undefined;
  const [priority, sequence, microseconds] = head.slice(1, 4).map(Number);
  const text = record.slice(head[0].length).split("\n", 1)[0] ?? "";
  return {
    sequence: sequence ?? 0,
    microseconds: microseconds ?? 0,
    // The facility stands above the three bits of the level.
    level: (priority ?? 0) & 7,
    text: withoutSecrets(withoutEscapes(text)).slice(0, sampleLimits.kernelLine),
  };
}

/** The kernel writes what is not printable, and a backslash, as "\\x1b"; a terminal obeys some. */
function withoutEscapes(text: string): string {
  return text.replace(/\\x(09|5c)/g, (_, code: string) => (code === "09" ? "\t" : "\\"));
}

export interface HardwareFault {
  /** Of the table, stable: "medium-error". */
  readonly fault: string;
  /** What it names: "sda", "0000:03:00.0", "cpu 3"; "host" where it names nothing. */
  readonly component: string;
}

interface FaultPattern {
  readonly fault: string;
  readonly pattern: RegExp;
}

const PCI = "[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7]";
const pattern = (fault: string, source: string): FaultPattern => ({
  fault,
  // A name that the pattern has found stands in its group `of`.
  pattern: new RegExp(source, "i"),
});

/**
 * The first that matches counts. Each is written after the words in the kernel's source; what
 * follows a fault (a reset, a retry), and what a driver says of itself as it starts, counts not.
 */
const faultPatterns: readonly FaultPattern[] = [
  // mm/memory-failure.c, drivers/edac/edac_mc.c
  pattern("memory-failure", "Memory failure: (?<of>0x[0-9a-f]+)"),
  pattern("memory-error", "EDAC (?<of>MC\\d+): \\d+ (CE|UE) "),
  // drivers/pci/pcie/aer.c; hotplug/pciehp_ctrl.c
  pattern("pcie-error", `AER: .*\\berror.*\\b(?:received|from):? (?<of>${PCI})`),
  pattern("pcie-error", `(?<of>${PCI}): PCIe Bus Error: severity=`),
  pattern("pcie-link-down", `(?<of>${PCI}): .*Link Down`),
  // arch/x86/kernel/cpu/mce/core.c, drivers/acpi/apei/ghes.c
  pattern("machine-check", "\\[Hardware Error\\]: (?<of>CPU[ :]\\d+)"),
  pattern("machine-check", "\\[Hardware Error\\]"),
  // block/blk-core.c, fs/buffer.c
  pattern("medium-error", "critical medium error, dev (?<of>[^\\s,]+)"),
  pattern("disk-error", "critical target error, dev (?<of>[^\\s,]+)"),
  pattern("disk-error", "\\bI/O error, dev (?<of>[^\\s,]+)"),
  pattern("disk-error", "protection error, dev (?<of>[^\\s,]+)"),
  pattern("disk-error", "Buffer I/O error on dev(?:ice)? (?<of>[^\\s,]+)"),
  // drivers/nvme/host
  pattern("disk-timeout", "nvme (?<of>nvme\\d+): I/O .*\\btimeout"),
  pattern("disk-timeout", "nvme (?<of>nvme\\d+): (controller is down|Device not ready)"),
  pattern(
    "disk-lost",
    "nvme (?<of>nvme\\d+): (Removing after probe failure|Disabling device after)",
  ),
  pattern("medium-error", "\\b(?<of>nvme\\d+n\\d+): .*\\(sct 0x2 "),
  // drivers/ata/libata-eh.c
  pattern("disk-error", "\\b(?<of>ata\\d+(?:\\.\\d+)?): failed command: "),
  pattern("disk-error", "\\b(?<of>ata\\d+(?:\\.\\d+)?): SError: \\{"),
  pattern("disk-lost", "\\b(?<of>ata\\d+(?:\\.\\d+)?): disabled?( device)?$"),
  // drivers/scsi
  pattern("medium-error", "sd \\S+ \\[(?<of>\\w+)\\].*Sense Key : Medium Error"),
  pattern("disk-error", "sd \\S+ \\[(?<of>\\w+)\\].*Sense Key : Hardware Error"),
  pattern("disk-lost", "sd \\S+ \\[(?<of>\\w+)\\] .*Device offlined"),
  pattern("disk-lost", "sd (?<of>\\S+): (Device offlined|rejecting I/O to (offline|dead) device)"),
  // The drivers of NVIDIA and AMD.
  pattern("gpu-error", "NVRM: Xid \\(PCI:(?<of>[0-9a-f.:]+)\\)"),
  pattern("gpu-error", `NVRM: .*GPU (?:at PCI:)?(?<of>${PCI}).*fallen off the bus`),
  pattern("gpu-error", `amdgpu (?<of>${PCI}): .*(GPU reset begin|ring \\S+ timeout|uncorrectable)`),
  // net/sched/sch_generic.c: the name stands behind it before Linux 6.6, and since then in front.
  pattern("network-timeout", "(?<of>[^\\s:]+): NETDEV WATCHDOG: "),
  pattern("network-timeout", "NETDEV WATCHDOG: (?<of>\\S+) "),
  // kernel/watchdog.c, kernel/rcu, kernel/hung_task.c
  pattern("lockup", "BUG: soft lockup - (?<of>CPU#\\d+)"),
  pattern("lockup", "detected hard LOCKUP on (?<of>cpu \\d+)"),
  pattern("stall", "rcu: INFO: rcu\\w* (self-)?detected (expedited )?stalls?"),
  pattern("hung-task", "INFO: task (?<of>\\S+?):\\d+ blocked for more than"),
  // arch/x86/kernel/cpu/mce/therm_throt.c, drivers/thermal
  pattern("overheated", "(?<of>CPU\\d+): .*temperature (is )?above threshold"),
  pattern("overheated", "(?<of>\\S+): critical temperature reached"),
  // drivers/iommu, arch/x86/kernel/nmi.c
  pattern("iommu-fault", "DMAR: .*Request device \\[(?<of>[0-9a-f:.]+)\\].*fault"),
  pattern("iommu-fault", "AMD-Vi: .*IO_PAGE_FAULT.* device=(?<of>[0-9a-f:.]+)"),
  pattern("unexpected-nmi", "NMI: (IOCK|PCI system) error"),
];

/** undefined: the line names no fault. */
export function faultOf(text: string): HardwareFault | undefined {
  for (const { fault, pattern: words } of faultPatterns) {
    const match = words.exec(text);
    if (match === null) continue;
    const component = match.groups?.["of"] ?? "host";
    return isMadeUp.test(component) ? undefined : { fault, component };
  }
  return undefined;
}

/** Disks that are no hardware: a file, a piece of memory, another host's, or a part of others. */
const isMadeUp = /^(loop|ram|zram|dm-|md|nbd)\d/;

/** All that may be told of. */
export const faultNames: readonly string[] = [...new Set(faultPatterns.map(({ fault }) => fault))];
