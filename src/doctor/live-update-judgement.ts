/** Turns what was found of live update into advice. Pure, as judgement.ts is. */
import {
  isBuiltIn,
  isReleaseAtLeast,
  kernelSwitch,
  parseKernelCommandLine,
} from "../units/linux-kernel.ts";
import { capabilityNumbers } from "../units/linux-names.ts";
import type { Advice, Status } from "./judgement.ts";
import type { HolderSearch, LiveUpdateFindings } from "./live-update-findings.ts";

/** Every cause for which live update does not work here, in the order in which it is mended. */
export function judgeLiveUpdate(findings: LiveUpdateFindings): Advice[] {
  const causes = [
    judgeVersion(findings),
    ...wantedOptions.map((wanted) => judgeOption(findings, wanted)),
    judgeHandover(findings),
    judgeLiveUpdateSwitch(findings),
  ];
  return [
    ...causes,
    judgeNode(findings, causes),
    judgeOpening(findings),
    judgeAllowed(findings),
    judgeLimit(findings),
    judgeLockdown(findings),
    judgeCapability(findings),
    judgeNamespace(findings),
    judgeInit(findings),
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
  const needed_by = `live-update: ${why}`;
  return { check, status, found, needed_by, mend: status === "ok" ? null : mend };
}

/** The device is the proof of what makes it, whatever versions and files say. */
function hasDevice({ device }: LiveUpdateFindings): boolean {
  return typeof device.minor === "number" || device.opening.outcome === "opened";
}

function judgeVersion(findings: LiveUpdateFindings): Advice {
  const { kernelRelease } = findings;
  const isFine = hasDevice(findings) || isReleaseAtLeast(kernelRelease, "6.19");
  return advise({
    check: "kernel_has_live_update",
    status: isFine ? "ok" : "missing",
    found: kernelRelease,
    why: "the kernel's Live Update Orchestrator",
    mend: "Boot Linux 6.19 or newer.",
  });
}

interface WantedOption {
  readonly option: string;
  /** Whether the device's presence proves it. */
  readonly isProven: boolean;
  /** The first kernel that has the option. */
  readonly since: string;
  readonly why: string;
  readonly mend: string;
}

const wantedOptions: readonly WantedOption[] = [
  {
    option: "CONFIG_KEXEC_FILE",
    isProven: true,
    since: "3.17",
    why: "loading the next kernel",
    mend: "Boot a kernel that was built with CONFIG_KEXEC_FILE=y.",
  },
  {
    option: "CONFIG_KEXEC_HANDOVER",
    isProven: true,
    since: "6.16",
    why: "memory that the next kernel leaves alone",
    mend: "Boot a kernel that was built with CONFIG_KEXEC_HANDOVER=y.",
  },
  {
    option: "CONFIG_LIVEUPDATE",
    isProven: true,
    since: "6.19",
    why: "/dev/liveupdate",
    mend: "Boot a kernel that was built with CONFIG_LIVEUPDATE=y.",
  },
  {
    option: "CONFIG_LIVEUPDATE_MEMFD",
    isProven: false,
    since: "7.2",
    why: "preserving memfds",
    mend: "Boot a kernel that was built with CONFIG_LIVEUPDATE_MEMFD=y.",
  },
];

function judgeOption(findings: LiveUpdateFindings, wanted: WantedOption): Advice {
  const { configuration, kernelRelease } = findings;
  const { option, why } = wanted;
  const common = { check: option.toLowerCase(), why };
  if (wanted.isProven && hasDevice(findings)) {
    return advise({ ...common, status: "ok", found: "the device is there", mend: "" });
  }
  // Until the option came, it was a part of CONFIG_LIVEUPDATE.
  if (option === "CONFIG_LIVEUPDATE_MEMFD" && !isReleaseAtLeast(kernelRelease, wanted.since)) {
    const found = `no option of its own before ${wanted.since}`;
    return advise({ ...common, status: "ok", found, mend: "" });
  }
  if (configuration === undefined) {
    const found = `unknown: no /proc/config.gz, no /boot/config-${kernelRelease}`;
    const mend = `${wanted.mend} Whether this one was, it does not tell (CONFIG_IKCONFIG_PROC).`;
    return advise({ ...common, status: "warning", found, mend });
  }
  const { options, source } = configuration;
  if (isBuiltIn(options, option)) {
    return advise({ ...common, status: "ok", found: `y, in ${source}`, mend: "" });
  }
  const isDeferred = isBuiltIn(options, "CONFIG_DEFERRED_STRUCT_PAGE_INIT");
  const isExcluded = option === "CONFIG_KEXEC_HANDOVER" && isDeferred;
  const excluded =
    " It excludes CONFIG_DEFERRED_STRUCT_PAGE_INIT, which this kernel has, as Debian's stock " +
    "kernels do: that one must be off.";
  const found = `${options.get(option) ?? "n"}, in ${source}`;
  const mend = `${wanted.mend}${isExcluded ? excluded : ""}`;
  return advise({ ...common, status: "missing", found, mend });
}

const whereItIsSet =
  "on the kernel's command line (GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub), " +
  "and reboot.";

function judgeHandover(findings: LiveUpdateFindings): Advice {
  const options = findings.configuration?.options;
  const option = "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT";
  const isDefault = options === undefined ? undefined : isBuiltIn(options, option);
  return judgeSwitch(findings, { name: "kho", isDefault, why: "kexec handover at run time" });
}

function judgeLiveUpdateSwitch(findings: LiveUpdateFindings): Advice {
  const why = "the device at run time";
  return judgeSwitch(findings, { name: "liveupdate", isDefault: false, why });
}

function judgeSwitch(
  findings: LiveUpdateFindings,
  asked: {
    readonly name: string;
    /** Undefined where the configuration is not known. */
    readonly isDefault: boolean | undefined;
    readonly why: string;
  },
): Advice {
  const { name, isDefault, why } = asked;
  const common = { check: `${name}_on`, why };
  if (hasDevice(findings)) {
    return advise({ ...common, status: "ok", found: "the device is there", mend: "" });
  }
  const { commandLine } = findings;
  const mend = `Set ${name}=on ${whereItIsSet}`;
  if (commandLine === undefined) {
    const found = "unknown: no /proc/cmdline";
    return advise({ ...common, status: "warning", found, mend });
  }
  const setting = kernelSwitch(parseKernelCommandLine(commandLine), name);
  if (setting === true) return advise({ ...common, status: "ok", found: `${name}=on`, mend });
  if (setting === false) {
    const found = `${name}=off`;
    return advise({ ...common, status: "missing", found, mend });
  }
  if (isDefault === true) {
    const found = "on by default (CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT)";
    return advise({ ...common, status: "ok", found, mend });
  }
  const found = `${name}=on is not on the command line`;
  if (isDefault === false) return advise({ ...common, status: "missing", found, mend });
  const unknown = `${found}; whether it is on by default is unknown`;
  return advise({ ...common, status: "warning", found: unknown, mend });
}

/** @param causes what a device may lack for; when it is none of these, the kernel's log knows */
function judgeNode(findings: LiveUpdateFindings, causes: readonly Advice[]): Advice {
  const { node, minor } = findings.device;
  const common = { check: "device_node", why: "making and retrieving sessions" };
  const missing = (found: string, mend: string) =>
    advise({ ...common, status: "missing", found, mend });
  if (typeof minor !== "number") {
    const isExplained = causes.some(({ status }) => status !== "ok");
    const found = minor === undefined ? "no /proc/misc" : "the kernel has made no device";
    const mend = isExplained ? "Mend what stands above, and ask again." : mendOfLog(findings);
    return missing(found, mend);
  }
  const make = `mknod -m 600 /dev/liveupdate c 10 ${minor}`;
  if (node.kind === "absent") {
    const mend = `Mount devtmpfs at /dev, or hand the device to this container, or: ${make}`;
    return missing(`no /dev/liveupdate; the kernel has it as 10:${minor}`, mend);
  }
  const anew = `Remove it, and make it anew: ${make}`;
  if (node.kind === "no device") return missing("/dev/liveupdate is no device", anew);
  const number = `${node.major}:${node.minor}`;
  if (number !== `10:${minor}`) {
    return missing(`/dev/liveupdate is another device (${number}, not 10:${minor})`, anew);
  }
  const mode = node.mode.toString(8).padStart(4, "0");
  const isPrivate = node.user === 0 && (node.mode & 0o177) === 0;
  const mend =
    "Let nobody but root open it: chown root:root /dev/liveupdate; chmod 600 /dev/liveupdate. " +
    "Whoever opens it can take every session.";
  const found = `${number}, mode ${mode}, user ${node.user}`;
  return advise({ ...common, status: isPrivate ? "ok" : "warning", found, mend });
}

/** Handover keeps memory free for the next kernel's boot, and is off where it gets none. */
function mendOfLog({ kernelMessages = [] }: LiveUpdateFindings): string {
  if (kernelMessages.length === 0) return seeLog;
  const said = `The kernel says: ${kernelMessages.join(" / ")}.`;
  if (!kernelMessages.some((text) => text.includes("scratch"))) return said;
  return `${said} Give the machine more memory, or set kho_scratch=16M,256M,0 ${whereItIsSet}`;
}

const seeLog = "The kernel's log may say why: dmesg | grep -iE 'kho|luo|liveupdate'.";

function judgeOpening(findings: LiveUpdateFindings): Advice {
  const { opening } = findings.device;
  const common = { check: "device_open", why: "making and retrieving sessions" };
  const missing = (found: string, mend: string) =>
    advise({ ...common, status: "missing", found, mend });
  if (opening.outcome === "opened") {
    return advise({ ...common, status: "ok", found: "opened, and closed again", mend: "" });
  }
  if (opening.outcome === "untried") {
    return missing("not tried", "Mend device_node, and ask again.");
  }
  switch (opening.code) {
    case "EBUSY":
      return missing(
        `EBUSY: ${describeHolders(opening.holders)}`,
        "End what holds it, or have it open the device for a call alone, as luod does.",
      );
    case "EIO":
      return missing(
        "EIO: at boot the kernel could not read what its predecessor left",
        "Reboot: until then there is no live update, and what was preserved is lost. " +
          mendOfLog(findings),
      );
    case "EACCES":
    case "EPERM":
      return missing(
        opening.code,
        "Run as root; in a unit with DevicePolicy= also DeviceAllow=/dev/liveupdate rw.",
      );
    default:
      return missing(opening.code, mendOfLog(findings));
  }
}

/** Named at most; the rest is counted. */
const holdersNamed = 5;

function describeHolders(search: HolderSearch | undefined): string {
  const holders = search?.holders ?? [];
  if (holders.length === 0) {
    const isComplete = search?.isComplete === true;
    return isComplete ? "held by a process that is not in this /proc" : "held; not seen by whom";
  }
  const names = holders.slice(0, holdersNamed).map(({ process, name }) => `${process} (${name})`);
  const more = holders.length - names.length;
  return `held by ${names.join(", ")}${more === 0 ? "" : ` and ${more} more`}`;
}

const kexecWhy = "loading the next kernel";
const untilReboot = "Take the setting out of /etc/sysctl.d, and reboot: nothing else undoes it.";

function judgeAllowed({ kexec }: LiveUpdateFindings): Advice {
  const common = { check: "kexec_load_disabled", why: kexecWhy };
  if (kexec.isLoadDisabled === undefined) {
    const found = "unknown: no /proc/sys/kernel/kexec_load_disabled";
    const mend = "See config_kexec_file: a kernel without kexec has no such setting.";
    return advise({ ...common, status: "warning", found, mend });
  }
  const status = kexec.isLoadDisabled ? "missing" : "ok";
  return advise({ ...common, status, found: kexec.isLoadDisabled ? "1" : "0", mend: untilReboot });
}

function judgeLimit({ kexec }: LiveUpdateFindings): Advice {
  const { loadLimit } = kexec;
  const common = { check: "kexec_load_limit_reboot", why: kexecWhy };
  if (loadLimit === undefined || loadLimit < 0) {
    const found = loadLimit === undefined ? "no such setting" : "no limit";
    return advise({ ...common, status: "ok", found, mend: "" });
  }
  if (loadLimit === 0) {
    return advise({ ...common, status: "missing", found: "used up", mend: untilReboot });
  }
  const mend = `Each load and each unload takes one. ${untilReboot}`;
  return advise({ ...common, status: "warning", found: `${loadLimit} more times`, mend });
}

function judgeLockdown({ kexec }: LiveUpdateFindings): Advice {
  const { lockdown } = kexec;
  const isLocked = lockdown !== undefined && lockdown !== "none";
  return advise({
    check: "lockdown",
    status: isLocked ? "warning" : "ok",
    found: lockdown ?? "not told",
    why: kexecWhy,
    mend:
      "Load kernels alone that are signed by a key of this host, or take lockdown= off the " +
      "command line (Secure Boot may set it).",
  });
}

function judgeCapability({ ownStatus }: LiveUpdateFindings): Advice {
  const bit = BigInt(capabilityNumbers["CAP_SYS_BOOT"] ?? 0);
  const isHeld = (((ownStatus?.effectiveCapabilities ?? 0n) >> bit) & 1n) === 1n;
  return advise({
    check: "cap_sys_boot",
    status: isHeld ? "ok" : "missing",
    found: isHeld ? "held" : `not held, user ${ownStatus?.user ?? "unknown"}`,
    why: "kexec_file_load(2), reboot(2)",
    mend: "Run as root outside of containers, or with AmbientCapabilities=CAP_SYS_BOOT in a unit.",
  });
}

function judgeNamespace({ isInitialPidNamespace }: LiveUpdateFindings): Advice {
  const unknown = isInitialPidNamespace === undefined;
  const found = isInitialPidNamespace === true ? "the host's" : "a container's";
  const missing = unknown ? "warning" : "missing";
  return advise({
    check: "pid_namespace",
    status: isInitialPidNamespace === true ? "ok" : missing,
    found: unknown ? "unknown: no /proc/self/ns/pid" : found,
    why: "reboot(2) into the next kernel",
    mend: "Run on the host itself: in a PID namespace reboot(2) knows no kexec.",
  });
}

/** systemd's NEWS: SurviveFinalKillSignal= came with 255, FD stores in live updates with 261. */
function judgeInit({ init }: LiveUpdateFindings): Advice {
  const common = { check: "init_system", why: "what survives until the kexec" };
  const { name, systemdVersion: version } = init;
  if (name !== "systemd") {
    const found = name === undefined ? "PID 1 is not seen" : `PID 1 is ${name}`;
    return advise({ ...common, status: "ok", found, mend: "" });
  }
  if (version === undefined) {
    const mend = "Ask as root: the version is told by PID 1's memory map.";
    return advise({ ...common, status: "warning", found: "systemd of unknown version", mend });
  }
  const stores =
    version >= 261 ? "FD stores of units survive" : "FD stores of units do not survive before 261";
  const mend =
    "Take systemd 255 or newer, or have luod reboot by itself: before 255 luod and its holder " +
    "are killed before the kexec (SurviveFinalKillSignal=).";
  const status = version >= 255 ? "ok" : "warning";
  return advise({ ...common, status, found: `systemd ${version}: ${stores}`, mend });
}
