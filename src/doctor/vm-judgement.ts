/** Turns what was found of a host for virtual machines into advice. Pure, as judgement.ts is. */
import { type Choice, chooseHypervisor, kvmRefusal, noWish } from "../hypervisor/choose.ts";
import { judgeNetwork, type NetworkFinding } from "../network/judge.ts";
import { formatBytes } from "../units/bytes.ts";
import { capabilityNumbers } from "../units/linux-names.ts";
import type { Bytes } from "../units/units.ts";
import { WORKER_SUBGROUP } from "../vm/cgroup-place.ts";
import { mendCapability } from "./capability.ts";
import type { Advice, Status } from "./judgement.ts";
import type { FolderFindings, Opening, VmFindings } from "./vm-findings.ts";

const MEBIBYTE: Bytes = 1024 ** 2;
/** Below this an image and its machine's disk are likely to find no room. */
export const LEAST_FREE_BYTES: Bytes = 4 * 1024 ** 3;

/** All that running machines needs here, in the order in which it is mended. */
export function judgeVm(findings: VmFindings): Advice[] {
  return [
    judgeKvm(findings),
    judgeHypervisor(findings),
    judgeTun(findings),
    judgeCapability(findings),
    judgeNftables(findings),
    ...judgeHostNetwork(findings),
    judgeVsock(findings),
    judgeControllers(findings),
    judgeArtifacts(findings),
    judgeRunFolder(findings),
    judgeFirmware(findings),
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
  return { check, status, found, needed_by: `vm: ${why}`, mend: status === "ok" ? null : mend };
}

function judgeKvm({ hypervisors }: VmFindings): Advice {
  const refusal = kvmRefusal(hypervisors.processor);
  return advise({
    check: "kvm",
    status: refusal === undefined ? "ok" : "warning",
    found: refusal ?? "/dev/kvm makes machines, and the processor has vmx or svm",
    why: "machines at the processor's own speed, and cloud-hypervisor at all",
    mend: mendKvm(hypervisors.processor),
  });
}

function mendKvm({ flags, kvm }: VmFindings["hypervisors"]["processor"]): string {
  if (!flags.includes("vmx") && !flags.includes("svm")) {
    return (
      "Switch VT-x or AMD-V on in this host's firmware; where this host is itself a virtual " +
      "machine, have its hypervisor allow nested virtualization."
    );
  }
  switch (kvm.kind) {
    case "not-opened":
      return kvm.error === "EACCES" || kvm.error === "EPERM"
        ? "Run as root, or as a user of the group kvm; in a container, pass /dev/kvm in."
        : "Load the module: modprobe kvm_intel, or kvm_amd; in a container, pass /dev/kvm in.";
    case "not-asked":
      return "Remove what is at /dev/kvm, and load the module: modprobe kvm_intel, or kvm_amd.";
    case "answered":
      return kvm.machineRefusal === "EBUSY"
        ? "Stop the other hypervisor that has the processor, such as VirtualBox."
        : "See dmesg | grep -i kvm for the reason; Linux from 4.4 on has what is lacking.";
  }
}

/** As the worker chooses for a new machine. */
function chooseFor({ configuration, hypervisors }: VmFindings): Choice {
  const { hypervisor } = configuration;
  const asked = hypervisor === "auto" ? undefined : hypervisor;
  return chooseHypervisor(hypervisors, { ...noWish, hypervisor: asked });
}

/** Loud about TCG: everything works with it, so nobody would look for the reason elsewhere. */
function judgeHypervisor(findings: VmFindings): Advice {
  const choice = chooseFor(findings);
  const common = { check: "hypervisor", why: "a process that runs each machine" };
  if (choice.kind === "refused") {
    const isKvmAlone =
      findings.configuration.hypervisor === "cloud-hypervisor" &&
      findings.hypervisors.cloudHypervisor.kind === "found";
    const mend = isKvmAlone
      ? 'Mend kvm, or set hypervisor = "qemu".'
      : "Install QEMU (Debian: qemu-system-x86) or cloud-hypervisor, or name the program by " +
        "qemu_path or cloud_hypervisor_path in the worker's configuration.";
    return advise({ ...common, status: "missing", found: choice.reason, mend });
  }
  const { program, reason, warning } = choice;
  const loud = warning === undefined ? "" : ", WITHOUT KVM, ten times slower and more";
  return advise({
    ...common,
    status: warning === undefined ? "ok" : "warning",
    found: `${program.hypervisor} ${program.version}, ${program.path}${loud}: ${reason}`,
    mend: "Mend kvm.",
  });
}

function judgeTun({ tun }: VmFindings): Advice {
  return advise({
    check: "tun_device",
    status: tun.outcome === "opened" ? "ok" : "missing",
    found: openingText("/dev/net/tun", tun),
    why: "a network card for each machine",
    mend: isDenied(tun)
      ? "Run as root; in a container, pass /dev/net/tun in with leave to read and write it."
      : "Load the module: modprobe tun; in a container, pass /dev/net/tun in.",
  });
}

function openingText(path: string, opening: Opening): string {
  return opening.outcome === "opened" ? `${path} opens` : `${path}: ${opening.code}`;
}

const isDenied = (opening: Opening) =>
  opening.outcome === "refused" && ["EACCES", "EPERM"].includes(opening.code);

function holdsNetAdmin({ ownStatus }: VmFindings): boolean {
  const bit = BigInt(capabilityNumbers["CAP_NET_ADMIN"] ?? 0);
  return (((ownStatus?.effectiveCapabilities ?? 0n) >> bit) & 1n) === 1n;
}

function judgeCapability(findings: VmFindings): Advice {
  const { ownStatus } = findings;
  const user = ownStatus === undefined ? "unknown" : `not held, user ${ownStatus.user}`;
  return advise({
    check: "cap_net_admin",
    status: holdsNetAdmin(findings) ? "ok" : "missing",
    found: holdsNetAdmin(findings) ? "held" : user,
    why: "making bridge, TAPs and rules",
    mend: mendCapability("CAP_NET_ADMIN", ownStatus?.user),
  });
}

/** Netfilter tells nobody without the capability, so that reading proves more than it seems. */
function judgeNftables(findings: VmFindings): Advice {
  const { network } = findings;
  const common = { check: "nftables", why: "NAT, and rules that keep machines apart" };
  if (network.outcome === "observed") {
    const { tableNames, chains } = network.observed;
    const found = `read over netlink: ${tableNames.length} tables, ${chains.length} chains`;
    return advise({ ...common, status: "ok", found, mend: "" });
  }
  return advise({
    ...common,
    status: "missing",
    found: network.reason,
    mend: holdsNetAdmin(findings)
      ? "Load the module: modprobe nf_tables; in a container, its host has to."
      : "Mend cap_net_admin, and ask again.",
  });
}

interface NetworkCheck {
  readonly check: string;
  readonly names: readonly NetworkFinding["name"][];
  readonly fine: string;
  readonly why: string;
}

/** Lines in which what was judged of the network stands; "no-tun" has one of its own. */
function networkChecks({ configuration }: VmFindings): readonly NetworkCheck[] {
  const { networkBridge } = configuration;
  return [
    {
      check: "ip_forward",
      names: ["no-forwarding", "no-ipv6-forwarding"],
      fine: "net.ipv4.ip_forward is 1",
      why: "machines that reach more than this host",
    },
    {
      check: "forward_chains",
      names: ["forward-drop", "firewalld", "legacy-iptables"],
      fine: "no chain that is seen drops what is forwarded",
      why: "the host's own rules, past which all machines' packets go",
    },
    {
      check: "bridge_rules",
      names: ["bridge-calls-rules"],
      fine: "those rules do not part machines of one bridge",
      why: "machines that reach each other",
    },
    {
      check: "subnet",
      names: ["subnet-overlap"],
      fine: `no route overlaps ${subnetText(configuration)}`,
      why: "addresses that are nobody else's",
    },
    {
      check: "bridge",
      names: ["bridge-taken"],
      fine: `${networkBridge} is free, or this worker's`,
      why: "the network of the machines",
    },
  ];
}

const subnetText = ({ subnet }: VmFindings["configuration"]) =>
  `${subnet.base}/${subnet.prefixLength}`;

function judgeHostNetwork(findings: VmFindings): Advice[] {
  const { network, configuration } = findings;
  const checks = networkChecks(findings);
  if (network.outcome === "refused") {
    return checks.map(({ check, why }) => {
      const mend = "Mend nftables, and ask again.";
      return advise({ check, status: "warning", found: "not told", why, mend });
    });
  }
  const bridge = configuration.networkBridge;
  const first = { bridge, subnet: subnetText(configuration), ipv6: "drop" } as const;
  const others = configuration.networks.map(({ specification }) => specification);
  const judged = [first, ...others].map((one) => {
    return { ...one, otherUser: network.otherUsers?.get(one.bridge) };
  });
  const all = judgeNetwork(network.observed, judged);
  return checks.map(({ check, names, fine, why }) => {
    const own = all.filter(({ name }) => names.includes(name));
    return advise({
      check,
      status: statusOf(own),
      found: own.length === 0 ? fine : own.map(({ found }) => found).join("; "),
      why,
      mend: own.map(({ mend }) => `${mend.charAt(0).toUpperCase()}${mend.slice(1)}.`).join(" "),
    });
  });
}

function statusOf(findings: readonly NetworkFinding[]): Status {
  if (findings.length === 0) return "ok";
  return findings.some(({ severity }) => severity === "broken") ? "missing" : "warning";
}

/** Who does not ask for it needs none: virtio-serial is the usual way to an agent. */
function judgeVsock({ vsock, configuration }: VmFindings): Advice {
  const isAsked = configuration.guestAgent === "vsock";
  const found = openingText("/dev/vhost-vsock", vsock);
  return advise({
    check: "vhost_vsock",
    status: vsock.outcome === "opened" || !isAsked ? "ok" : "warning",
    found: isAsked ? found : `${found}; not asked for: guest_agent is "virtio-serial"`,
    why: "the guest agent over AF_VSOCK",
    mend:
      "Load the module: modprobe vhost_vsock. Until then QEMU's machines have a virtio-serial " +
      "port for their agent.",
  });
}

/** What our unit says, so that the worker has a cgroup of its own beside its machines'. */
const unitMend =
  `Have Delegate=yes and DelegateSubgroup=${WORKER_SUBGROUP} (systemd 254) in the worker's unit, ` +
  "as hostler install --role vm-worker writes it, and restart that: its machines run on.";

const hybridMend =
  "Have no controller under cgroup version 1: boot with systemd.unified_cgroup_hierarchy=1.";

/** Of the worker that runs, where one does: this command is in another cgroup. */
function judgeControllers({ cgroup, worker }: VmFindings): Advice {
  const check = "machine_cgroups";
  const why = "limits on what a machine's process takes of this host";
  const wanted = ["cpu", "io", "memory", "pids"];
  if (worker?.place.kind === "place") {
    const { place, processId, controllers } = worker;
    const missing = wanted.filter((controller) => !controllers.includes(controller));
    const without = missing.length === 0 ? "" : `, without ${missing.join(" ")}`;
    const isFit = place.obstacle === undefined && missing.length === 0;
    const where = place.obstacle ?? `its machines are in ${place.parent}${without}`;
    const found = `process ${processId} is the worker: ${where}`;
    // Version 1 has them: no unit can give them.
    const isElsewhere = place.obstacle === undefined && cgroup.isHybrid;
    const mend = isElsewhere ? hybridMend : unitMend;
    return advise({ check, status: isFit ? "ok" : "warning", found, why, mend });
  }
  const lacking = wanted.filter((controller) => !cgroup.controllers.includes(controller));
  const has = cgroup.controllers.length === 0 ? "none delegated" : cgroup.controllers.join(" ");
  // One that limits nothing here, hugetlb say, would read as if it were enough.
  const told = lacking.length === 0 ? has : `${has}; without ${lacking.join(" ")}`;
  return advise({
    check,
    status: lacking.length === 0 ? "ok" : "warning",
    found: cgroup.mount === undefined ? "cgroup v2 is not mounted" : told,
    why,
    mend:
      cgroup.mount === undefined
        ? "Mount it: mount -t cgroup2 none /sys/fs/cgroup, with no controller under version 1."
        : `Delegate ${lacking.join(" ")}: Delegate=yes in the unit, or cgroup.subtree_control.`,
  });
}

function judgeArtifacts({ artifacts }: VmFindings): Advice {
  const { freeBytes } = artifacts;
  const check = "artifacts_folder";
  const why = "images, and the disks of each machine";
  const isFull = freeBytes !== undefined && freeBytes < LEAST_FREE_BYTES;
  if (artifacts.refusal !== undefined || !isFull) return judgeFolder(artifacts, { check, why });
  const found = folderText({ ...artifacts, freeBytes: undefined });
  // A little less would be rounded to as much as is asked for.
  const free = Math.floor(freeBytes / MEBIBYTE);
  return advise({
    check,
    status: "warning",
    found: `${found}: ${free} MiB free`,
    why,
    mend:
      `Have at least ${LEAST_FREE_BYTES / MEBIBYTE} MiB free there, or name a folder with more ` +
      "room by vm_artifacts_dir.",
  });
}

function judgeRunFolder({ run }: VmFindings): Advice {
  return judgeFolder(run, { check: "run_folder", why: "sockets of the machines" });
}

function judgeFolder(
  folder: FolderFindings,
  { check, why }: { readonly check: string; readonly why: string },
): Advice {
  const key = check === "run_folder" ? "run_dir" : "vm_artifacts_dir";
  const { refusal, found } = folder;
  const isReadOnly = refusal === "EROFS";
  return advise({
    check,
    status: refusal === undefined ? "ok" : "missing",
    found: folderText(folder),
    why,
    mend:
      `${isReadOnly ? `Mount what holds ${found} for writing` : "Run as root"}, or name ` +
      `another folder by ${key} in the worker's configuration.`,
  });
}

function folderText({ path, found, refusal, freeBytes }: FolderFindings): string {
  const place = path === found ? path : `${path}, to be made in ${found}`;
  if (refusal !== undefined) return `${place}: ${refusal}`;
  return freeBytes === undefined ? place : `${place}: ${formatBytes(freeBytes)} free`;
}

/** One that the configuration names is meant to be there; Debian's is for some images alone. */
function judgeFirmware({ firmware, configuration }: VmFindings): Advice {
  const { path, opening } = firmware;
  const isNamed = configuration.firmware !== undefined;
  const absent = isNamed ? "missing" : "warning";
  return advise({
    check: "firmware",
    status: opening.outcome === "opened" ? "ok" : absent,
    found: openingText(path, opening),
    why: "stock images, which bring no kernel of their own",
    mend: isNamed
      ? "Name firmware that is there by firmware_path, or take the key away."
      : "Install it (Debian: ovmf), or name another by firmware_path.",
  });
}
