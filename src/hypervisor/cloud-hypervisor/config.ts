import { dirname } from "node:path";
import type { Bytes } from "../../units/units.ts";
import {
  type Disk,
  type Finding,
  type MachineFiles,
  MachineRefused,
  type MachineSpecification,
} from "../driver.ts";

/**
 * What cloud-hypervisor is told of a machine: VmConfig of its API (vmm/src/api/openapi).
 * Only keys that we decide are sent: it takes one that it does not know without a word, so that a
 * misspelt one would be a machine that lacks something.
 */
export interface VmConfig {
  readonly cpus: { readonly boot_vcpus: number; readonly max_vcpus: number };
  /** Shared: guest memory is a memfd, which alone can be given to another VMM. */
  readonly memory: { readonly size: Bytes; readonly shared: true };
  readonly payload: {
    readonly kernel?: string;
    readonly initramfs?: string;
    readonly cmdline?: string;
    readonly firmware?: string;
  };
  readonly disks?: readonly DiskConfig[];
  readonly net?: readonly { readonly id: string; readonly tap: string; readonly mac: string }[];
  readonly rng: { readonly src: string };
  readonly serial: { readonly mode: "Socket"; readonly socket: string };
  readonly console: { readonly mode: "Off" };
  readonly vsock?: { readonly cid: number; readonly socket: string };
  readonly pvpanic: true;
  readonly landlock_enable?: true;
  readonly landlock_rules?: readonly LandlockRule[];
}

interface DiskConfig {
  readonly id: string;
  readonly path: string;
  readonly readonly: boolean;
  readonly image_type: "Raw" | "Qcow2";
  /** Whether a name of another file that the file says is followed. */
  readonly backing_files: boolean;
}

/** A path that a confined VMM may still open: "r", "w" or both, and all that is below it. */
export interface LandlockRule {
  readonly path: string;
  readonly access: "r" | "w" | "rw";
}

export interface ConfigOptions {
  /**
   * Confines the VMM's file access to what its configuration names, and to these: files that a
   * disk's own file names, say. undefined confines nothing.
   */
  readonly landlock: readonly LandlockRule[] | undefined;
}

const RANDOM_DEVICE = "/dev/urandom";

/** Virtual processors that it takes: MAX_SUPPORTED_CPUS where the host has as many. */
const MOST_PROCESSORS = 254;
/** Context ids of vsock below it are the hypervisor's and the host's: vsock(7). */
const FIRST_GUEST_CONTEXT = 3;
const LARGEST_CONTEXT = 0xffff_fffe;

/** @throws MachineRefused for what cloud-hypervisor cannot do */
export function vmConfigOf(
  machine: MachineSpecification,
  files: MachineFiles,
  options: ConfigOptions,
): VmConfig {
  checkMachine(machine);
  const { agent, networks } = machine;
  return {
    cpus: { boot_vcpus: machine.processors, max_vcpus: machine.processors },
    memory: { size: machine.memory, shared: true },
    payload: payloadOf(machine),
    ...(machine.disks.length > 0 && { disks: machine.disks.map(diskConfigOf) }),
    ...(networks.length > 0 && {
      net: networks.map(({ id, tap, macAddress }) => ({ id, tap, mac: macAddress })),
    }),
    rng: { src: RANDOM_DEVICE },
    serial: { mode: "Socket", socket: files.console },
    console: { mode: "Off" },
    ...(typeof agent === "object" && { vsock: { cid: agent.vsock, socket: files.agent } }),
    pvpanic: true,
    ...landlockOf(files, options),
  };
}

function payloadOf({ boot }: MachineSpecification): VmConfig["payload"] {
  if (boot.kind === "firmware") return { firmware: boot.code };
  const { kernel, initramfs, commandLine } = boot;
  return { kernel, ...(initramfs !== undefined && { initramfs }), cmdline: commandLine };
}

function diskConfigOf({ id, path, format, readOnly, backing }: Disk): DiskConfig {
  return {
    id,
    path,
    readonly: readOnly,
    // Said, because a raw disk whose type is guessed loses its right to write its first sector.
    image_type: format === "raw" ? "Raw" : "Qcow2",
    backing_files: backing !== undefined,
  };
}

function landlockOf(
  files: MachineFiles,
  { landlock }: ConfigOptions,
): Pick<VmConfig, "landlock_enable" | "landlock_rules"> {
  if (landlock === undefined) return {};
  // A guest that reboots has its console's socket made anew, when the VMM is confined already.
  const runFolder: LandlockRule = { path: dirname(files.console), access: "rw" };
  return { landlock_enable: true, landlock_rules: [runFolder, ...landlock] };
}

/** @throws MachineRefused, for the first of what it cannot do */
export function checkMachine(machine: MachineSpecification): void {
  for (const finding of [
    ...kindFindings(machine),
    ...bootFindings(machine),
    ...deviceFindings(machine),
  ]) {
    if (finding !== undefined) throw new MachineRefused(finding);
  }
}

type MaybeFinding = Finding | undefined;

function kindFindings(machine: MachineSpecification): MaybeFinding[] {
  const { accelerator, machineType, processorModel, processors } = machine;
  const isWhole = Number.isInteger(processors) && processors >= 1;
  return [
    accelerator === "kvm"
      ? undefined
      : {
          key: "accelerator",
          expected: '"kvm", which alone cloud-hypervisor runs on',
          received: JSON.stringify(accelerator),
          mend: "choose qemu as hypervisor, or a host with KVM",
        },
    machineType === undefined ? undefined : onlyOne("machineType", machineType),
    processorModel === undefined ? undefined : onlyOne("processorModel", processorModel),
    isWhole && processors <= MOST_PROCESSORS
      ? undefined
      : {
          key: "processors",
          expected: `a whole number from 1 to ${MOST_PROCESSORS}`,
          received: String(processors),
          mend: "give the machine fewer processors",
        },
  ];
}

const onlyOne = (key: string, received: string): Finding => ({
  key,
  expected: "nothing: cloud-hypervisor has only one",
  received: JSON.stringify(received),
  mend: "leave it out, or choose qemu as hypervisor",
});

function bootFindings({ boot }: MachineSpecification): MaybeFinding[] {
  if (boot.kind !== "firmware" || boot.variables === undefined) return [];
  return [
    {
      key: "boot.variables",
      expected: "nothing: cloud-hypervisor's firmware keeps its variables in memory alone",
      received: JSON.stringify(boot.variables),
      mend: "leave it out, or choose qemu as hypervisor",
    },
  ];
}

function deviceFindings({ agent, disks, networks }: MachineSpecification): MaybeFinding[] {
  return [
    ...identifierFindings({ disks, networks }),
    ...disks.map(backingFinding),
    agentFinding(agent),
  ];
}

/** It has one name space for all devices of a machine. */
function identifierFindings(
  devices: Pick<MachineSpecification, "disks" | "networks">,
): MaybeFinding[] {
  const seen = new Set<string>();
  return (["disks", "networks"] as const).flatMap((kind) =>
    devices[kind].map(({ id }, index) => {
      const isTaken = seen.has(id);
      seen.add(id);
      if (!isTaken && /^[a-z0-9-]+$/.test(id)) return undefined;
      return {
        key: `${kind}.${index}.id`,
        expected: isTaken ? "an id that no other disk or card has" : "a word of [a-z0-9-]",
        received: JSON.stringify(id),
        mend: "choose another id",
      };
    }),
  );
}

function backingFinding({ format, backing }: Disk, index: number): MaybeFinding {
  if (backing === undefined || format === "qcow2") return undefined;
  return {
    key: `disks.${index}.backing`,
    expected: "a qcow2 file, which alone is written over another one",
    received: `${format} over ${JSON.stringify(backing.path)}`,
    mend: "make the overlay as qcow2",
  };
}

function agentFinding(agent: MachineSpecification["agent"]): MaybeFinding {
  if (agent === undefined) return undefined;
  if (agent === "virtio-serial") {
    return {
      key: "agent",
      expected: "a vsock context id: cloud-hypervisor has no virtio-serial with ports",
      received: JSON.stringify(agent),
      mend: "give the agent a context id, which needs no device of the host here",
    };
  }
  const { vsock } = agent;
  const isFine =
    Number.isInteger(vsock) && vsock >= FIRST_GUEST_CONTEXT && vsock <= LARGEST_CONTEXT;
  if (isFine) return undefined;
  return {
    key: "agent.vsock",
    expected: `a whole number from ${FIRST_GUEST_CONTEXT} to ${LARGEST_CONTEXT}`,
    received: String(vsock),
    mend: "choose another context id",
  };
}
