/** What hinders virtual machines on a host, over everything that may be found of it. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import type { KvmAnswer } from "../../../ffi/kvm.ts";
import { renderAdvice } from "../../../src/doctor/doctor.ts";
import { type Advice, isFit } from "../../../src/doctor/judgement.ts";
import type { FolderFindings, Opening, VmFindings } from "../../../src/doctor/vm-findings.ts";
import { judgeVm, LEAST_FREE_BYTES } from "../../../src/doctor/vm-judgement.ts";
import { probeVm } from "../../../src/doctor/vm-probes.ts";
import type { HypervisorObservations } from "../../../src/hypervisor/choose.ts";
import type { ObservedNetwork } from "../../../src/network/observation.ts";
import { parseSubnet } from "../../../src/network/subnet.ts";
import { placeOf } from "../../../src/vm/cgroup-place.ts";
import { workerDefaults } from "../../../src/vm/worker-configuration.ts";
import { linkOf, NetworkWorld } from "../../support/network-world.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const opened: Opening = { outcome: "opened" };
const refused = (code: string): Opening => ({ outcome: "refused", code });
const absent = { kind: "absent", reason: "there is none" } as const;
const netAdmin = 1n << 12n;
const workingKvm = {
  kind: "answered",
  apiVersion: 12,
  userMemory: true,
  splitIrqchip: true,
  machineRefusal: undefined,
} as const;

const hypervisors: HypervisorObservations = {
  cloudHypervisor: {
    kind: "found",
    program: { hypervisor: "cloud-hypervisor", path: "/usr/bin/cloud-hypervisor", version: "51.1" },
  },
  qemu: {
    kind: "found",
    program: {
      hypervisor: "qemu",
      path: "/usr/bin/qemu-system-x86_64",
      version: "10.0.2",
      machineTypes: ["pc-q35-10.0"],
      processorModels: ["Nehalem-v1", "kvm64-v1"],
    },
  },
  processor: { vendor: "GenuineIntel", flags: ["vmx"], kvm: workingKvm },
};

function folder(changed: Partial<FolderFindings> = {}): FolderFindings {
  const usual = { path: "/var/lib/procurator/vms", found: "/var/lib", refusal: undefined };
  return { ...usual, freeBytes: LEAST_FREE_BYTES, ...changed };
}

function network(
  changed: Partial<Omit<ObservedNetwork, "settings">> & {
    readonly settings?: Partial<ObservedNetwork["settings"]>;
  } = {},
): Pick<VmFindings, "network"> {
  const usual = new NetworkWorld().observe();
  const settings = { ...usual.settings, ...changed.settings };
  return { network: { outcome: "observed", observed: { ...usual, ...changed, settings } } };
}

function hypervisor(changed: Partial<HypervisorObservations>): Partial<VmFindings> {
  return { hypervisors: { ...hypervisors, ...changed } };
}

function processor(
  changed: Partial<HypervisorObservations["processor"]>,
): Pick<HypervisorObservations, "processor"> {
  return { processor: { ...hypervisors.processor, ...changed } };
}

const free = { outcome: "observed", observed: new NetworkWorld().observe() } as const;

/** A host that lacks nothing. */
const perfect: VmFindings = {
  configuration: workerDefaults,
  ownStatus: { user: 0, effectiveCapabilities: netAdmin },
  hypervisors,
  tun: opened,
  vsock: opened,
  ...network(),
  cgroup: {
    mount: "/sys/fs/cgroup",
    isHybrid: false,
    folder: "/sys/fs/cgroup",
    controllers: ["cpu", "io", "memory", "pids"],
    kill: { outcome: "works", detail: "tried" },
  },
  worker: undefined,
  artifacts: folder(),
  run: folder({ path: "/run/hostler/vm", found: "/run" }),
  firmware: { path: "/usr/share/OVMF/OVMF_CODE_4M.fd", opening: opened },
};

const ask = (changed: Partial<VmFindings>): Advice[] => judgeVm({ ...perfect, ...changed });

/** The lines that are not ok, by what they check. */
function trouble(changed: Partial<VmFindings>): Record<string, string> {
  const lines = ask(changed).filter(({ status }) => status !== "ok");
  return Object.fromEntries(lines.map(({ check, status }) => [check, status]));
}

function line(changed: Partial<VmFindings>, check: string): Advice {
  const found = ask(changed).find((candidate) => candidate.check === check);
  if (found === undefined) throw new Error(`No line about ${check}`);
  return found;
}

/** Of a worker that systemd put into its unit's own group. */
const placeIn = (unit: string) =>
  placeOf("auto", { mount: "/sys/fs/cgroup", own: unit.slice("/sys/fs/cgroup".length) });

const forwardDrop = {
  ...{ family: "ip", table: "filter", name: "FORWARD" },
  base: { type: "filter", hook: "forward", priority: 0, policy: "drop", devices: [] },
} as const;

function routeTo(text: string) {
  const destination = parseSubnet(text);
  if (destination === undefined) throw new Error(text);
  return { destination, index: 1, gateway: undefined, table: 254 };
}

test("a host that lacks nothing has nothing to mend", () => {
  expect(trouble({})).toEqual({});
  expect(ask({}).every(({ mend }) => mend === null)).toBe(true);
  expect(line({}, "hypervisor").found).toBe(
    "cloud-hypervisor 51.1, /usr/bin/cloud-hypervisor: its program is there, and KVM is real",
  );
});

describe("what each lack is", () => {
  const configuration = { ...workerDefaults, firmware: "/srv/firmware.fd" };
  const noFirmware = { path: "/srv/firmware.fd", opening: refused("ENOENT") };
  test.each<[string, Partial<VmFindings>, Record<string, string>, string]>([
    ["no tun", { tun: refused("ENOENT") }, { tun_device: "missing" }, "modprobe tun"],
    ["tun of others", { tun: refused("EACCES") }, { tun_device: "missing" }, "Run as root"],
    [
      "no vsock, which is asked for",
      {
        vsock: refused("ENOENT"),
        configuration: { ...workerDefaults, guestAgent: "vsock" as const },
      },
      { vhost_vsock: "warning" },
      "modprobe vhost_vsock",
    ],
    [
      "no cgroups",
      { cgroup: { ...perfect.cgroup, mount: undefined, controllers: [] } },
      { machine_cgroups: "warning" },
      "mount -t cgroup2",
    ],
    [
      "some controllers",
      { cgroup: { ...perfect.cgroup, controllers: ["memory"] } },
      { machine_cgroups: "warning" },
      "Delegate cpu io pids",
    ],
    [
      "nothing forwarded",
      network({ settings: { forwarding: false } }),
      { ip_forward: "missing" },
      "net.ipv4.ip_forward = 1",
    ],
    [
      "a chain that drops",
      network({ chains: [forwardDrop] }),
      { forward_chains: "missing" },
      "nft insert rule ip filter FORWARD iifname br-procurator accept",
    ],
    [
      "… which bridges call, too",
      network({ chains: [forwardDrop], settings: { bridgeCallsRules: true } }),
      { forward_chains: "missing", bridge_rules: "warning" },
      "net.bridge.bridge-nf-call-iptables = 0",
    ],
    [
      "an overlap",
      network({ routes: [routeTo("10.100.7.0/24")] }),
      { subnet: "missing" },
      "vm_subnet_base",
    ],
    [
      "another's bridge",
      network({ links: [linkOf({ name: "br-procurator", index: 9 })] }),
      { bridge: "missing" },
      "network_bridge",
    ],
    [
      "another worker's bridge",
      { network: { ...free, otherUsers: new Map([["br-procurator", "/var/lib/other"]]) } },
      { bridge: "missing" },
      "another subnet in vm_subnet_base",
    ],
    [
      "a folder of others",
      { artifacts: folder({ refusal: "EACCES" }) },
      { artifacts_folder: "missing" },
      "vm_artifacts_dir",
    ],
    [
      "a folder that is read only",
      { run: folder({ found: "/run", refusal: "EROFS" }) },
      { run_folder: "missing" },
      "Mount what holds /run for writing",
    ],
    [
      "no room",
      { artifacts: folder({ freeBytes: LEAST_FREE_BYTES - 1 }) },
      { artifacts_folder: "warning" },
      "at least 4096 MiB free",
    ],
    [
      "no firmware",
      { firmware: { path: "/usr/share/OVMF", opening: refused("ENOENT") } },
      { firmware: "warning" },
      "ovmf",
    ],
    [
      "not the firmware that is named",
      { configuration, firmware: noFirmware },
      { firmware: "missing" },
      "firmware_path",
    ],
  ])("%s", (_name, changed, expected, mend) => {
    expect(trouble(changed)).toEqual(expected);
    const [last = ""] = Object.keys(expected).slice(-1);
    expect(line(changed, last).mend).toContain(mend);
    expect(isFit(ask(changed))).toBe(!Object.values(expected).includes("missing"));
  });

  test("of the network nothing more is guessed where the kernel does not tell", () => {
    const told = { network: { outcome: "refused", reason: "dump: EPERM" } } as const;
    expect(trouble(told)).toEqual({
      ...{ nftables: "missing", ip_forward: "warning", forward_chains: "warning" },
      ...{ bridge_rules: "warning", subnet: "warning", bridge: "warning" },
    });
    expect(line(told, "nftables")).toMatchObject({ found: "dump: EPERM" });
    expect(line(told, "nftables").mend).toContain("modprobe nf_tables");
    const user = { ownStatus: { user: 1000, effectiveCapabilities: 0n } };
    expect(line({ ...told, ...user }, "nftables").mend).toBe("Mend cap_net_admin, and ask again.");
    expect(line(user, "cap_net_admin")).toMatchObject({
      ...{ status: "missing", found: "not held, user 1000" },
      mend: "Run as root, or with AmbientCapabilities=CAP_NET_ADMIN in the unit.",
    });
  });

  test("routes and bridges are those of the configuration", () => {
    const subnet = { base: "10.7.0.0", prefixLength: 24 };
    const configuration = { ...workerDefaults, subnet, networkBridge: "br-lab" };
    const there = network({ routes: [routeTo("10.100.7.0/24"), routeTo("10.7.0.0/16")] });
    const { found } = line({ configuration, ...there }, "subnet");
    expect(found).toContain("the subnet 10.7.0.0/24 of br-lab overlaps the route to 10.7.0.0/16");
    expect(found).not.toContain("10.100.7.0");
  });
});

test("no vsock is no trouble where nobody asks for it", () => {
  const changed = { vsock: refused("ENOENT") };
  expect(trouble(changed)).toEqual({});
  expect(line(changed, "vhost_vsock").found).toBe(
    '/dev/vhost-vsock: ENOENT; not asked for: guest_agent is "virtio-serial"',
  );
});

describe("the hypervisor", () => {
  const pvm = processor({ flags: [] });

  test("without a real KVM it is QEMU, and that is said loudly", () => {
    const changed = hypervisor(pvm);
    expect(trouble(changed)).toEqual({ kvm: "warning", hypervisor: "warning" });
    expect(line(changed, "kvm").found).toContain("neither vmx nor svm");
    expect(line(changed, "kvm").mend).toContain("nested virtualization");
    const { found } = line(changed, "hypervisor");
    expect(found).toStartWith(
      "qemu 10.0.2, /usr/bin/qemu-system-x86_64, WITHOUT KVM, ten times slower and more: " +
        "QEMU with TCG; cloud-hypervisor: it needs KVM, and",
    );
    expect(isFit(ask(changed))).toBe(true);
  });

  test.each<[KvmAnswer, string, string]>([
    [{ kind: "not-opened", error: "ENOENT" }, "ENOENT", "modprobe kvm_intel"],
    [{ kind: "not-opened", error: "EACCES" }, "EACCES", "group kvm"],
    [{ kind: "not-asked", error: "ENOTTY" }, "is none", "Remove what is at /dev/kvm"],
    [{ ...workingKvm, machineRefusal: "EBUSY" }, "KVM_CREATE_VM", "such as VirtualBox"],
    [{ ...workingKvm, machineRefusal: "ENOMEM" }, "ENOMEM", "dmesg"],
    [{ ...workingKvm, splitIrqchip: false }, "KVM_CAP_SPLIT_IRQCHIP", "Linux from 4.4"],
  ])("a KVM that makes no machines: %j", (kvm, found, mend) => {
    const changed = hypervisor(processor({ kvm }));
    expect(trouble(changed)).toEqual({ kvm: "warning", hypervisor: "warning" });
    expect(line(changed, "kvm").found).toContain(found);
    expect(line(changed, "kvm").mend).toContain(mend);
    expect(line(changed, "hypervisor").found).toContain("WITHOUT KVM");
  });

  test("what is found is not what is asked for, nor like it", () => {
    const artifacts = folder({ freeBytes: LEAST_FREE_BYTES - 1 });
    expect(line({ artifacts }, "artifacts_folder").found).toEndWith(": 4095 MiB free");
    const cgroup = { ...perfect.cgroup, controllers: ["hugetlb"] };
    expect(line({ cgroup }, "machine_cgroups").found).toBe("hugetlb; without cpu io memory pids");
  });

  const unit = "/sys/fs/cgroup/system.slice/hostler-vm-worker.service";
  const parent = `${unit}/machines`;
  const place = { kind: "place", parent, base: unit, obstacle: undefined } as const;
  const controllers = ["cpu", "io", "memory", "pids"];
  const own = { ...perfect.cgroup, controllers: [] };

  test("a worker that runs is looked at, and not whoever asks", () => {
    const worker = { processId: 7, place, controllers };
    expect(trouble({ cgroup: own, worker })).toEqual({});
    expect(line({ worker }, "machine_cgroups").found).toBe(
      `process 7 is the worker: its machines are in ${unit}/machines`,
    );
  });

  test.each([
    ["DelegateSubgroup", { place: placeIn(unit), controllers }, `the worker is in ${unit} itself`],
    ["Delegate", { place, controllers: ["memory"] }, "machines, without cpu io pids"],
  ])("a worker whose unit lacks %s= is told which", (_lack, worker, found) => {
    const advice = line({ worker: { processId: 7, ...worker } }, "machine_cgroups");
    expect(advice.status).toBe("warning");
    expect(advice.found).toContain(found);
    expect(advice.mend).toContain("Delegate=yes and DelegateSubgroup=worker");
  });

  test("nothing that runs machines", () => {
    const changed = hypervisor({ cloudHypervisor: absent, qemu: absent });
    expect(trouble(changed)).toEqual({ hypervisor: "missing" });
    expect(line(changed, "hypervisor").mend).toContain("qemu-system-x86");
  });

  test("cloud-hypervisor alone is asked for, and KVM is not there", () => {
    const configuration = { ...workerDefaults, hypervisor: "cloud-hypervisor" } as const;
    const { status, mend } = line({ configuration, ...hypervisor(pvm) }, "hypervisor");
    expect(status).toBe("missing");
    expect(mend).toBe('Mend kvm, or set hypervisor = "qemu".');
  });
});

test("people read a table, what to mend, and the sum", () => {
  const text = renderAdvice(ask({ tun: refused("ENOENT") }), ["vm"]);
  expect(text).toContain("\nTo mend:\ntun_device: Load the module");
  expect(text).toEndWith(
    "\nThis host lacks 1 of what it needs for what was asked for: vm. Warnings: 0.\n",
  );
});

test("this host is looked at without a change, whatever it has", async () => {
  using place = temporaryFolder();
  writeFileSync(place.file("firmware"), "");
  const findings = await probeVm({
    ...workerDefaults,
    artifactsFolder: place.file("a/b"),
    firmware: place.file("firmware"),
    programs: { cloudHypervisor: "/nonexistent/chv", qemu: "/nonexistent/qemu" },
  });
  expect(findings.artifacts).toMatchObject({ found: place.path, refusal: undefined });
  expect(findings.artifacts.freeBytes).toBeGreaterThan(0);
  expect(findings.firmware.opening).toEqual(opened);
  expect(findings.hypervisors.qemu.kind).toBe("absent");
  const checks = judgeVm(findings).map(({ check }) => check);
  expect(checks).toEqual(ask({}).map(({ check }) => check));
});
