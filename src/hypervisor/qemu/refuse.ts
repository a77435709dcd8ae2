import type { MachineSpecification, NetworkCard } from "../driver.ts";
import { type Disk, type MachineFiles, MachineRefused } from "../driver.ts";

/** What QEMU cannot do, or we do not let it do: said before anything is started. */
export const planLimits = {
  /** What q35 takes without remapping of interrupts. */
  processors: 255,
  /** MiB; the test guest needs 4, Linux more. */
  leastMemory: 4,
  /** MiB: 4 TiB. */
  mostMemory: 4 * 1024 * 1024,
  /** Places on q35's root bus; microvm has 24 for everything. */
  disks: 12,
  cards: 12,
  microvmDevices: 24,
  /** Bytes of a word for a disk or a card: with what is added, a name in QEMU's graph has 31. */
  wordBytes: 16,
  /** Bytes of a path: PATH_MAX less its zero, and sun_path less its zero for a socket. */
  pathBytes: 4095,
  socketBytes: 107,
  /** COMMAND_LINE_SIZE of Linux on x86, less its zero. */
  commandLineBytes: 2047,
} as const;

/** What of a microvm's 24 places is not for disks and cards: chance, balloon, agent. */
const MICROVM_OWN = 3;
const versionedType = /^pc-q35-\d+\.\d+$/;
const MICROVM = "microvm";

export const isMicrovm = (machine: MachineSpecification) => machine.machineType === MICROVM;

function refuse(key: string, expected: string, received: unknown, mend: string): never {
  const text = typeof received === "string" ? received : (JSON.stringify(received) ?? "nothing");
  throw new MachineRefused({ key, expected, received: text.slice(0, 200), mend });
}

const sizeOf = (text: string) => new TextEncoder().encode(text).length;

/** @throws MachineRefused for the first thing that is wrong */
export function refuseUnfit(machine: MachineSpecification, files: MachineFiles): void {
  refuseGeneral(machine);
  refuseBoot(machine);
  refuseDisks(machine);
  refuseNetworks(machine);
  refuseAgent(machine);
  for (const [name, path] of Object.entries(files)) refuseSocket(`files.${name}`, path);
}

function refuseGeneral(machine: MachineSpecification): void {
  const { machineType, processorModel, processors, memory, name } = machine;
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) {
    refuse("name", "1 to 63 of A-Z a-z 0-9 . _ -", name, "name it otherwise");
  }
  if (machineType === undefined || !(versionedType.test(machineType) || isMicrovm(machine))) {
    const mend = 'name a version, as "pc-q35-7.2": what "q35" means changes with QEMU';
    refuse("machine_type", '"pc-q35-N.M" or "microvm"', machineType, mend);
  }
  if (processorModel === undefined || !/^[A-Za-z][A-Za-z0-9._-]{0,63}$/.test(processorModel)) {
    refuse("processor_model", "a model's name", processorModel, 'name one, as "qemu64-v1"');
  }
  if (processorModel === "host" && machine.accelerator !== "kvm") {
    refuse("processor_model", "a model", "host", 'without KVM there is no such: name "qemu64-v1"');
  }
  if (!Number.isInteger(processors) || processors < 1 || processors > planLimits.processors) {
    refuse("processors", `1 to ${planLimits.processors}`, processors, "give it fewer");
  }
  const size = memory / 1024 ** 2;
  const { leastMemory, mostMemory } = planLimits;
  if (!Number.isInteger(size) || size < leastMemory || size > mostMemory) {
    const expected = `whole MiB, ${leastMemory} to ${mostMemory}`;
    refuse("memory", expected, `${memory} bytes`, "give it a size in MiB");
  }
}

function refuseBoot(machine: MachineSpecification): void {
  const { boot } = machine;
  if (boot.kind === "kernel") {
    refusePath("boot.kernel", boot.kernel);
    if (boot.initramfs !== undefined) refusePath("boot.initramfs", boot.initramfs);
    const size = sizeOf(boot.commandLine);
    if (size > planLimits.commandLineBytes || boot.commandLine.includes("\0")) {
      const expected = `at most ${planLimits.commandLineBytes} bytes without a zero`;
      refuse("boot.command_line", expected, `${size} bytes`, "Linux reads no more: shorten it");
    }
    return;
  }
  if (isMicrovm(machine)) {
    const mend = "give it a kernel, or another machine type";
    refuse("boot.firmware", "a kernel for a microvm", boot.code, mend);
  }
  refusePath("boot.firmware", boot.code);
  if (boot.variables === undefined) {
    const mend = "copy the template beside the firmware (OVMF_VARS_4M.fd) for each machine";
    refuse("boot.variables", "a file of its own that can be written", undefined, mend);
  }
  refusePath("boot.variables", boot.variables);
}

function refuseDisks(machine: MachineSpecification): void {
  const { disks, networks } = machine;
  if (disks.length > planLimits.disks) {
    refuse("disks", `at most ${planLimits.disks}`, disks.length, "join some of them");
  }
  const devices = disks.length + networks.length + MICROVM_OWN;
  if (isMicrovm(machine) && devices > planLimits.microvmDevices) {
    const most = planLimits.microvmDevices - MICROVM_OWN;
    const received = disks.length + networks.length;
    refuse("disks", `at most ${most} with the networks`, received, "take another machine type");
  }
  refuseTwice("disks", disks);
  for (const disk of disks) refuseDisk(disk);
}

function refuseDisk(disk: Disk): void {
  const key = `disks.${disk.id}`;
  refuseWord("disks.id", disk.id);
  refusePath(`${key}.path`, disk.path);
  if (disk.backing === undefined) return;
  refusePath(`${key}.backing.path`, disk.backing.path);
  if (disk.format !== "qcow2") {
    const mend = "a raw disk has nothing below it: make it qcow2";
    refuse(`${key}.format`, '"qcow2" with a backing file', disk.format, mend);
  }
  if (disk.backing.path === disk.path) {
    refuse(`${key}.backing.path`, "another file than the disk", disk.path, "name what is below it");
  }
}

function refuseNetworks({ networks }: MachineSpecification): void {
  if (networks.length > planLimits.cards) {
    refuse("networks", `at most ${planLimits.cards}`, networks.length, "take VLANs on fewer cards");
  }
  refuseTwice("networks", networks);
  for (const card of networks) refuseCard(card);
}

function refuseCard({ id, tap, macAddress }: NetworkCard): void {
  refuseWord("networks.id", id);
  // IFNAMSIZ is 16 with its zero: include/uapi/linux/if.h.
  if (!/^[A-Za-z0-9._-]{1,15}$/.test(tap) || tap === "." || tap === "..") {
    refuse(`networks.${id}.tap`, "1 to 15 of A-Z a-z 0-9 . _ -", tap, "name the device otherwise");
  }
  if (!/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/.test(macAddress)) {
    const mend = "take one that begins with 52:54:00";
    refuse(`networks.${id}.mac`, "a lower-case address of one station", macAddress, mend);
  }
}

function refuseAgent({ agent }: MachineSpecification): void {
  if (typeof agent !== "object") return;
  // 0 to 2 are the hypervisor, the machine itself and the host; the last means any: vsock(7).
  const { vsock } = agent;
  if (!Number.isInteger(vsock) || vsock < 3 || vsock >= 0xffff_ffff) {
    refuse("agent.vsock", "3 to 4294967294", vsock, "give the machine another context id");
  }
}

function refuseWord(key: string, word: string): void {
  const { wordBytes } = planLimits;
  if (/^[a-z0-9-]+$/.test(word) && word.length <= wordBytes) return;
  refuse(key, `1 to ${wordBytes} of a-z 0-9 -`, word, "name it otherwise");
}

function refuseTwice(key: string, things: readonly { readonly id: string }[]): void {
  const ids = things.map(({ id }) => id);
  const twice = ids.find((id, index) => ids.indexOf(id) !== index);
  if (twice !== undefined) refuse(`${key}.id`, "each once", twice, "name one of them otherwise");
}

function refusePath(key: string, path: string): void {
  const { pathBytes } = planLimits;
  // "json:" and "nbd:" would begin something else than a file: a slash never does.
  if (path.startsWith("/") && !path.includes("\0") && sizeOf(path) <= pathBytes) return;
  refuse(key, `an absolute path of at most ${pathBytes} bytes`, path, "name the file from /");
}

function refuseSocket(key: string, path: string): void {
  const { socketBytes } = planLimits;
  if (path.startsWith("/") && !path.includes("\0") && sizeOf(path) <= socketBytes) return;
  const mend = "put the machines' folder at a shorter path";
  refuse(key, `an absolute path of at most ${socketBytes} bytes`, path, mend);
}

/**
 * Models that mean whatever this processor, or this QEMU, offers. What a named one without a
 * version means is said by the version of the machine type.
 */
const unboundModels = ["host", "max", "base"];

/** @returns why the machine's state fits the same build of QEMU alone */
export function boundToBuild(machine: MachineSpecification): string[] {
  const { machineType = "", processorModel = "" } = machine;
  const reasons: string[] = [];
  if (!versionedType.test(machineType)) {
    reasons.push(`machine_type "${machineType}" has no version: name one, as "pc-q35-7.2"`);
  }
  if (unboundModels.includes(processorModel)) {
    const meaning = "is what this QEMU and this processor offer";
    reasons.push(`processor_model "${processorModel}" ${meaning}: name a model`);
  }
  return reasons;
}
