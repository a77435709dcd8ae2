/** Turns what was found of a host that vets, or is vetted, into advice. Pure. */
import { formatBytes } from "../units/bytes.ts";
import { capabilityNumbers } from "../units/linux-names.ts";
import type { Bytes } from "../units/units.ts";
import { mendCapability } from "./capability.ts";
import type { OwnStatus } from "./findings.ts";
import type { Advice, Status } from "./judgement.ts";
import type { LiveImageFindings, OrchestratorFindings } from "./vetting-findings.ts";

/** Below this a few hundred runs with their logs fill the disk. */
export const LEAST_ROOM: Bytes = 4 * 1024 ** 3;
/** Before this nobody has built hostler: the clock was never set. 2026-01-01. */
export const EARLIEST_CLOCK = Date.UTC(2026, 0, 1);

/** What an orchestrator needs here, in the order in which it is mended. */
export function judgeOrchestrator(findings: OrchestratorFindings): Advice[] {
  return [
    judgeClock(findings.clock, "orchestrator"),
    judgeState(findings),
    judgeListen(findings),
    ...judgeBoot(findings),
  ];
}

/** What an agent needs in the live image. */
export function judgeLiveImage(findings: LiveImageFindings): Advice[] {
  return [
    judgeClock(findings.clock, "agent"),
    judgeRun(findings),
    ...(["CAP_SYS_RAWIO", "CAP_SYS_ADMIN", "CAP_NET_ADMIN"] as const).map((name) =>
      judgeCapability(findings.ownStatus, name),
    ),
    judgeDisks(findings),
    judgeKernelLog(findings),
    judgePstore(findings),
    judgeMachineChecks(findings),
    judgeMemoryControllers(findings),
    judgeServiceProcessor(findings),
  ];
}

function advise(line: {
  readonly check: string;
  readonly status: Status;
  readonly found: string;
  readonly why: string;
  readonly mend: string;
}): Advice {
  const { check, status, found, why, mend } = line;
  return {
    ...{ check, status, found },
    ...{ needed_by: `vetting ${why}`, mend: status === "ok" ? null : mend },
  };
}

const fitOrWarning = (isFit: boolean): Status => (isFit ? "ok" : "warning");

function judgeClock(clock: number, who: string): Advice {
  return advise({
    check: "clock",
    status: clock < EARLIEST_CLOCK ? "warning" : "ok",
    found: `it is ${new Date(clock).toISOString().slice(0, 19)} UTC`,
    why: `${who}: times that people read; nothing is decided by them`,
    mend: "Set it: chronyd -q, or date -s; the live image takes it from the real-time clock.",
  });
}

function judgeState({ state }: OrchestratorFindings): Advice {
  const { path, found, refusal, freeBytes } = state;
  const isFull = freeBytes !== undefined && freeBytes < LEAST_ROOM;
  const room = freeBytes === undefined ? "room unknown" : `${formatBytes(freeBytes)} free`;
  const isRefused = refusal !== undefined;
  return advise({
    check: "state_directory",
    status: isRefused ? "missing" : fitOrWarning(!isFull),
    found: isRefused ? `${found}: ${refusal}` : `${path}: ${room}`,
    why: "orchestrator: vetting.db, the authority's store, the audit log",
    mend: isRefused
      ? "Run as root, or give another --state-directory."
      : `Have ${formatBytes(LEAST_ROOM)} free there, or lower its bounds with --retain.`,
  });
}

const listenMends: Readonly<Record<string, string>> = {
  EADDRINUSE: "Stop who listens there (ss -ltnp says who), or give another --listen.",
  EADDRNOTAVAIL: "Give an address of this host: ip address show lists them.",
  EACCES: "Give a port from 1024 on, or run as root.",
};

function judgeListen({ place, listenRefusal: refusal }: OrchestratorFindings): Advice {
  return advise({
    check: "listen",
    status: refusal === undefined ? "ok" : "missing",
    found: refusal === undefined ? `${place.listen} is free` : `${place.listen}: ${refusal}`,
    why: "orchestrator: HTTPS for hosts and people",
    mend: listenMends[refusal ?? ""] ?? "Give another --listen ADDRESS:PORT.",
  });
}

function judgeBoot({ place, boot, ownStatus }: OrchestratorFindings): Advice[] {
  if (boot === undefined) return [];
  const { addresses, files } = boot;
  const name = place.bootInterface ?? "";
  const list = addresses?.join(", ") ?? "";
  const about = addresses === undefined ? "there is no such interface" : list || "no IPv4 address";
  const bad = files.filter(({ size }) => typeof size === "string" || size === 0);
  const told = files.map(({ path, size }) => {
    const words = typeof size === "string" ? size : formatBytes(size);
    return `${path}: ${words}`;
  });
  return [
    advise({
      check: "boot_interface",
      status: addresses === undefined || addresses.length === 0 ? "missing" : "ok",
      found: `${name}: ${about}`,
      why: "orchestrator: where --listen-boot answers",
      mend:
        "Name one of ip link show, and give it an address: ip address add ADDRESS/24 dev " +
        `${name}.`,
    }),
    advise({
      check: "boot_files",
      status: bad.length === 0 ? "ok" : "missing",
      found: told.join("; "),
      why: "orchestrator: the live image that hosts boot",
      mend: "Make it with images/live, and name its folder by --boot-dir.",
    }),
    judgeCapability(ownStatus, "CAP_NET_BIND_SERVICE", "orchestrator: ports 67 and 69"),
    judgeCapability(ownStatus, "CAP_NET_RAW", "orchestrator: proxyDHCP at one interface"),
  ];
}

const capabilityUses = {
  CAP_SYS_RAWIO: "agent: SMART of SATA and SAS disks",
  CAP_SYS_ADMIN: "agent: SMART of NVMe disks, pstore, physical addresses of wrong words",
  CAP_NET_ADMIN: "agent: cards that are down are brought up",
} as const;

function judgeCapability(
  ownStatus: OwnStatus | undefined,
  name: string,
  why: string = capabilityUses[name as keyof typeof capabilityUses],
): Advice {
  const number = BigInt(capabilityNumbers[name] ?? 0);
  const has = ownStatus !== undefined && (ownStatus.effectiveCapabilities & (1n << number)) !== 0n;
  return advise({
    check: name.toLowerCase(),
    status: has ? "ok" : "missing",
    found: `${has ? "yes" : "no"}${ownStatus === undefined ? ": /proc is not mounted" : ""}`,
    why,
    mend: mendCapability(name, ownStatus?.user),
  });
}

const inMemory = ["tmpfs", "ramfs", "rootfs"];

function judgeRun({ mounts: { run } }: LiveImageFindings): Advice {
  return advise({
    check: "run_folder",
    status: run !== undefined && inMemory.includes(run) ? "ok" : "missing",
    found: run === undefined ? "nothing is mounted at /run" : `/run is ${run}`,
    why: "agent: what it keeps must not be on a disk that is tested",
    mend: "mount -t tmpfs tmpfs /run",
  });
}

function judgeDisks({ disks }: LiveImageFindings): Advice {
  const refused = disks.flatMap(({ name, opening }) =>
    opening.outcome === "opened" ? [] : [`/dev/${name}: ${opening.code}`],
  );
  const about = { check: "disks", why: "agent: SMART and Storage" };
  if (disks.length === 0) {
    const mend = "Load the controller's driver: lspci -k says which one that is.";
    return advise({ ...about, status: "warning", found: "none", mend });
  }
  const names = disks.map(({ name }) => name).join(", ");
  return advise({
    ...about,
    status: refused.length === 0 ? "ok" : "missing",
    found: refused.length === 0 ? `${names} open` : refused.join("; "),
    mend: "Run as root with devtmpfs at /dev: mount -t devtmpfs devtmpfs /dev.",
  });
}

function judgeKernelLog({ kernelLog }: LiveImageFindings): Advice {
  const isOpen = kernelLog.outcome === "opened";
  return advise({
    check: "kernel_log",
    status: fitOrWarning(isOpen),
    found: isOpen ? "/dev/kmsg opens" : `/dev/kmsg: ${kernelLog.code}`,
    why: "agent: errors of disks, memory and PCIe that the kernel tells there alone",
    mend: "Run as root, or set kernel.dmesg_restrict to 0; in a container, pass /dev/kmsg in.",
  });
}

function judgePstore({ mounts: { pstore } }: LiveImageFindings): Advice {
  return advise({
    check: "pstore",
    status: fitOrWarning(pstore === "pstore"),
    found: pstore === "pstore" ? "mounted" : "not mounted",
    why: "agent: the last words of a kernel that died in a stage",
    mend: "mount -t pstore pstore /sys/fs/pstore; firmware has to have ERST or EFI variables.",
  });
}

function judgeMachineChecks({ hasMachineChecks }: LiveImageFindings): Advice {
  return advise({
    check: "machine_checks",
    status: fitOrWarning(hasMachineChecks),
    found: hasMachineChecks ? "the kernel has them" : "/sys/devices/system/machinecheck is absent",
    why: "agent: errors that the processor has corrected, or not",
    mend: "Boot a kernel with CONFIG_X86_MCE, without mce=off.",
  });
}

function judgeMemoryControllers({ memoryControllers: found }: LiveImageFindings): Advice {
  return advise({
    check: "memory_errors",
    status: fitOrWarning(found.length > 0),
    found: found.length > 0 ? found.join(", ") : "no memory controller is watched (EDAC)",
    why: "agent: corrected errors of memory, and of which module",
    mend:
      "Load the driver: modprobe amd64_edac, skx_edac, i10nm_edac or ghes_edac; without ECC " +
      "there is none.",
  });
}

function judgeServiceProcessor({ serviceProcessor }: LiveImageFindings): Advice {
  const isOpen = serviceProcessor.outcome === "opened";
  return advise({
    check: "service_processor",
    status: fitOrWarning(isOpen),
    found: isOpen ? "/dev/ipmi0 opens" : `/dev/ipmi0: ${serviceProcessor.code}`,
    why: "agent: state of power supplies; a host without one has none",
    mend: "modprobe ipmi_si ipmi_devintf, where the host has a service processor.",
  });
}
