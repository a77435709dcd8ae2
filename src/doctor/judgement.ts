/** Turns findings into lines of advice. Pure: no file is read and nothing is called here. */
import { capabilityNumbers } from "../units/linux-names.ts";
import { mendCapability } from "./capability.ts";
import type { CallFeature, Findings, Trial } from "./findings.ts";

/** What one can ask the doctor about. */
export const subjects = ["process", "live-update", "vm", "fleet"] as const;
/** What is examined when it is named: few hosts vet others, and fewer are being vetted. */
export const namedSubjects = ["vetting", "vetting-agent"] as const;
export type Subject = (typeof subjects)[number] | (typeof namedSubjects)[number];

export type Status = "ok" | "warning" | "missing";

/** One line of the doctor's answer, as `--json` has it. */
export interface Advice {
  readonly check: string;
  readonly status: Status;
  readonly found: string;
  /** What needs it, as "<command>: <why>". */
  readonly needed_by: string;
  /** What to change; null when nothing needs to be. */
  readonly mend: string | null;
}

/** A line before it is known whether it asks for anything. */
interface Judged {
  readonly check: string;
  readonly status: Status;
  readonly found: string;
  readonly neededBy: string;
  readonly mend: string;
}

/** Everything that the subjects need, in the order in which it is mended best. */
export function judge(findings: Findings, asked: readonly Subject[]): Advice[] {
  const judged = asked.includes("process") ? judgeProcess(findings) : [];
  return judged.map(({ check, status, found, neededBy, mend }) => ({
    check,
    status,
    found,
    needed_by: neededBy,
    mend: status === "ok" ? null : mend,
  }));
}

/** True when all that was asked for works; warnings do not hinder. */
export function isFit(advice: readonly Advice[]): boolean {
  return advice.every((line) => line.status !== "missing");
}

function judgeProcess(findings: Findings): Judged[] {
  return [
    judgeKernel(findings.kernelRelease),
    judgeProc(findings),
    judgeSockets(findings),
    judgeCalls(findings),
    judgeLibrary(findings),
    ...judgeCallFeatures(findings),
    ...judgeCgroup(findings),
    judgeNamespaces(findings),
    judgeSecurity(findings),
    ...judgeCapabilities(findings),
    ...judgeLimits(findings),
    judgeEnvironment(findings),
  ];
}

function judgeKernel(release: string): Judged {
  return {
    check: "kernel_version",
    status: isAtLeast(release, "5.14") ? "ok" : "missing",
    found: release,
    neededBy: "process: pidfds, cgroup.kill",
    mend: "Boot Linux 5.14 or newer.",
  };
}

function judgeProc({ ownStatus }: Findings): Judged {
  return {
    check: "proc",
    status: ownStatus === undefined ? "missing" : "ok",
    found: ownStatus === undefined ? "no /proc/self/status" : "/proc is mounted",
    neededBy: "process: knowing a process again by its INVOCATION_ID",
    mend: "Mount it: mount -t proc proc /proc",
  };
}

/** Who names other sockets needs these folders not; but nothing here says that one does. */
function judgeSockets({ ownStatus, socketFolders }: Findings): Judged {
  const refused = socketFolders.filter(({ refusal }) => refusal !== undefined);
  const told = refused.map(({ path, refusal }) => `${path} (${refusal})`).join(", ");
  const user = ownStatus === undefined ? "this user" : `user ${ownStatus.user}`;
  const places = refused.map(({ path }) => path).join(" and ");
  const wayIn =
    ownStatus?.user === 0
      ? "Mount /run for writing, as a tmpfs"
      : `Run as root, or have root make ${places} for ${user}`;
  return {
    check: "default_sockets",
    status: refused.length === 0 ? "ok" : "missing",
    found: refused.length === 0 ? "can be made" : `${user} cannot make any in ${told}`,
    neededBy: "process: speaking to each other without --control-socket and --socket",
    mend:
      `${wayIn}; or name other sockets: --control-socket PATH for the orchestrator and each ` +
      "command that asks it, --socket PATH for the agent. Who does so can pass over this line.",
  };
}

function judgeCalls({ callRefusal, security }: Findings): Judged {
  const label = security.label === undefined ? "this process's domain" : security.label;
  const unit = "Remove MemoryDenyWriteExecute= from the unit";
  const mend =
    security.selinux === "enforcing"
      ? `${unit}, and allow execmem for ${label} in the SELinux policy.`
      : `${unit}.`;
  return {
    check: "executable_memory",
    status: callRefusal === undefined ? "ok" : "missing",
    found: callRefusal ?? "libc can be called",
    neededBy: "process: every system call",
    mend,
  };
}

const mendCallsFirst = "Mend executable_memory, and ask again.";

function judgeLibrary({ library }: Findings): Judged {
  const check = "c_library";
  const neededBy = "process: posix_spawn with a working directory";
  const mend = "Use a system with glibc 2.34 or newer, or hostler's build for musl.";
  if (library === undefined) {
    return { check, status: "warning", found: "not tried", neededBy, mend: mendCallsFirst };
  }
  const { name, version } = library;
  const isFine = name === "musl" || (version !== undefined && isAtLeast(version, "2.34"));
  const found = version === undefined ? name : `${name} ${version}`;
  return { check, status: isFine ? "ok" : "missing", found, neededBy, mend };
}

/** Of each feature that is tried: whether all stops without it, who needs it, what to change. */
const callRules: Readonly<
  Record<CallFeature, { isRequired: boolean; neededBy: string; mend: string }>
> = {
  pidfd_open: {
    isRequired: true,
    neededBy: "process: watching and signalling without process numbers",
    mend: "Boot Linux 5.14 or newer, and allow pidfd_open in the seccomp filter.",
  },
  exit_information: {
    isRequired: false,
    neededBy: "process: the exit status of processes in another partition, when their agent died",
    mend: "Boot Linux 6.15 or newer. Until then the agent tells; after its death it is unknown.",
  },
  process_group_signal: {
    isRequired: false,
    neededBy: "process: stopping a whole process group in another partition",
    mend: "Boot Linux 6.9 or newer. Until then the agent signals the group.",
  },
  peer_process: {
    isRequired: false,
    neededBy: "process: knowing the agent's process for certain",
    mend: "Boot Linux 6.5 or newer. Until then its process number is trusted.",
  },
  close_range: {
    isRequired: true,
    neededBy: "process: no foreign descriptor in a child",
    mend: "Boot Linux 5.11 or newer, and allow close_range in the seccomp filter.",
  },
};

function judgeCallFeatures({ calls, callRefusal }: Findings): Judged[] {
  return (Object.keys(callRules) as CallFeature[]).map((feature) => {
    const { isRequired, neededBy, mend } = callRules[feature];
    const judged = { check: feature, ...judgeTrial(calls[feature], isRequired), neededBy };
    return { ...judged, mend: callRefusal === undefined ? mend : mendCallsFirst };
  });
}

function judgeTrial(trial: Trial, isRequired: boolean): { status: Status; found: string } {
  switch (trial.outcome) {
    case "works":
      return { status: "ok", found: trial.detail };
    case "absent":
      return { status: isRequired ? "missing" : "warning", found: trial.detail };
    case "untried":
      return { status: "warning", found: `not tried: ${trial.detail}` };
  }
}

function judgeCgroup({ cgroup, ownStatus }: Findings): Judged[] {
  const { mount, isHybrid, folder, controllers, kill } = cgroup;
  const wanted = ["cpu", "memory", "pids"];
  const lacking = wanted.filter((controller) => !controllers.includes(controller));
  const delegated = "a delegated cgroup (Delegate=yes in the unit) on Linux 5.14 or newer";
  const isRoot = ownStatus?.user === 0;
  const place = isHybrid ? `${mount}, beside version 1` : mount;
  return [
    {
      check: "cgroup_v2",
      status: mount === undefined ? "warning" : "ok",
      found: mount === undefined ? "not mounted" : `${place}; ours is ${folder ?? "not visible"}`,
      neededBy: "process: killing all that a process has left behind",
      mend: "Mount it: mount -t cgroup2 none /sys/fs/cgroup. Until then process groups are killed.",
    },
    {
      check: "cgroup_kill",
      ...judgeTrial(kill, false),
      neededBy: "process: killing a cgroup at once",
      mend: isRoot
        ? `Run in ${delegated}; in a container /sys/fs/cgroup has to be writable.`
        : `Run as root in ${delegated}.`,
    },
    {
      check: "cgroup_controllers",
      status: lacking.length === 0 ? "ok" : "warning",
      found: controllers.length === 0 ? "none delegated" : controllers.join(" "),
      neededBy: "process: limits on what is put into a cgroup of its own",
      mend: `Delegate ${lacking.join(" ")}: Delegate=yes in the unit, or cgroup.subtree_control.`,
    },
  ];
}

function judgeNamespaces({ namespaces }: Findings): Judged {
  const wanted = ["pid", "mnt", "net", "ipc", "uts"];
  const lacking = wanted.filter((name) => (namespaces[name] ?? 0) === 0);
  const there = Object.keys(namespaces).filter((name) => (namespaces[name] ?? 0) > 0);
  return {
    check: "namespaces",
    status: lacking.length === 0 ? "ok" : "warning",
    found: there.length === 0 ? "none" : there.join(" "),
    neededBy: "process: another partition on this host",
    mend: `Raise user.max_*_namespaces, or use a kernel that has: ${lacking.join(" ")}.`,
  };
}

/** Whether a module hinders shows in executable_memory; here it is named. */
function judgeSecurity({ security }: Findings): Judged {
  const modules = security.modules?.join(" ") ?? "modules not told";
  const label = security.label === undefined ? "" : `; label ${security.label}`;
  return {
    check: "security_modules",
    status: "ok",
    found: `${modules}; SELinux ${security.selinux}${label}`,
    neededBy: "process: --allow-label, where a label guards a partition",
    mend: "",
  };
}

const capabilityUses: Readonly<Record<string, string>> = {
  CAP_KILL: "stopping processes of other users",
  CAP_SETUID: "user =",
  CAP_SETGID: "group = and groups =",
  CAP_SETPCAP: "capabilities =",
  CAP_SYS_PTRACE: "finding processes of other users by their INVOCATION_ID",
  CAP_SYS_NICE: "scheduling ahead of what is watched, so that restarts are not late",
  CAP_SYS_RESOURCE: "limits = above our own",
  CAP_SYS_ADMIN: "entering or making namespaces",
};

function judgeCapabilities({ ownStatus }: Findings): Judged[] {
  return Object.entries(capabilityUses).map(([name, use]) => {
    const held = ((ownStatus?.effectiveCapabilities ?? 0n) >> bitOf(name)) & 1n;
    const user = ownStatus === undefined ? "unknown" : `not held, user ${ownStatus.user}`;
    return {
      check: name.toLowerCase(),
      status: held === 1n ? "ok" : "warning",
      found: held === 1n ? "held" : user,
      neededBy: `process: ${use}`,
      mend: mendCapability(name, ownStatus?.user),
    };
  });
}

function bitOf(capability: string): bigint {
  const number = capabilityNumbers[capability];
  if (number === undefined) throw new Error(`Bug: no number for ${capability}`);
  return BigInt(number);
}

function judgeLimits({ limits }: Findings): Judged[] {
  return [
    {
      ...judgeLimit("open_descriptors", limits.descriptors, 1_024),
      neededBy: "process: a pidfd and two pipes for each process",
      mend: "Raise it: LimitNOFILE=65536 in the unit, or ulimit -n.",
    },
    {
      ...judgeLimit("process_numbers", limits.processNumbers, 4_096),
      neededBy: "process: numbers that are not given again too soon",
      mend: "Raise it: sysctl kernel.pid_max=4194304",
    },
    {
      ...judgeLimit("threads", limits.threads, 1_024),
      neededBy: "process: starting processes",
      mend: "Raise it: sysctl kernel.threads-max=65536",
    },
    {
      ...judgeLimit("waiting_datagrams", limits.datagrams, 10),
      neededBy: "process: readiness by sd_notify",
      mend: "Raise it: sysctl net.unix.max_dgram_qlen=512",
    },
  ];
}

function judgeLimit(
  check: string,
  value: number | undefined,
  least: number,
): Pick<Judged, "check" | "status" | "found"> {
  if (value === undefined) return { check, status: "warning", found: "not told by /proc" };
  const found = Number.isFinite(value) ? String(value) : "unlimited";
  return { check, status: value >= least ? "ok" : "warning", found };
}

function judgeEnvironment({ bunVariables }: Findings): Judged {
  return {
    check: "environment",
    status: bunVariables.length === 0 ? "ok" : "warning",
    found: bunVariables.length === 0 ? "nothing of Bun's" : `${bunVariables.join(" ")} set`,
    neededBy: "process: being hostler; BUN_BE_BUN=1 turns this file into bun",
    mend: "Unset them: UnsetEnvironment=BUN_BE_BUN BUN_OPTIONS in the unit.",
  };
}

/** Compares versions by their first two numbers: "6.12.0-55.el10" is at least "6.9". */
export function isAtLeast(version: string, least: string): boolean {
  const [major = 0, minor = 0] = version.split(/[.\-+]/).map(Number);
  const [leastMajor = 0, leastMinor = 0] = least.split(".").map(Number);
  return major > leastMajor || (major === leastMajor && minor >= leastMinor);
}
