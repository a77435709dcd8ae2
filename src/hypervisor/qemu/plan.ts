import { AGENT_PORT } from "../agent-port.ts";
import type {
  Beginning,
  HypervisorProgram,
  MachineFiles,
  MachineSpecification,
  NetworkCard,
  VmmPlan,
} from "../driver.ts";
import { diskArguments, nodeOf } from "./plan-disks.ts";
import { isMicrovm, refuseUnfit } from "./refuse.ts";

/**
 * How QEMU is started for a machine, as data. QEMU's own words are in its manual, qemu-system(1):
 * a comma inside of a value is doubled, and what is said in JSON needs no such thing.
 */

/** The descriptor that has the machine's memory: the first after standard input and output. */
const MEMORY_DESCRIPTOR = 3;

/**
 * The descriptor that has the control socket, in the place of standard input. QEMU serves it by a
 * thread of its own, and the main thread may be told of the first connection as well: it would wait
 * in accept(2) for a second one for ever, were the socket one of QEMU's own making, which blocks.
 */
const CONTROL_DESCRIPTOR = 0;

/** The sandbox: no old system calls, no more rights, no other programs, no other priorities. */
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny" as const;

/**
 * KVM has the local APICs alone, as cloud-hypervisor has it: a kernel may have been built without
 * the others (CONFIG_KVM_IOAPIC), and who has them is part of a machine's state.
 */
const accelerators = { tcg: "tcg,thread=multi", kvm: "kvm,kernel-irqchip=split" } as const;

/** What the serial port's socket is called in QEMU. */
export const CONSOLE_CHANNEL = "console";
/** Under which QEMU tells of the port that leads to the agent. */
export const AGENT_DEVICE = "agent-port";

/**
 * Where the devices stand on q35's root bus. A state can be given to a machine whose devices stand
 * in the same places alone, so they are never numbered anew. 0 and 31 are the chipset's.
 */
const slots = { random: 1, balloon: 2, agent: 3, firstDisk: 4, firstCard: 16 } as const;

/** A value inside of words that are parted by commas. */
export const escapeCommas = (text: string) => text.replaceAll(",", ",,");

/** @throws MachineRefused for what QEMU cannot do, naming key and mend */
export function planQemu(
  machine: MachineSpecification,
  files: MachineFiles,
  program: HypervisorProgram,
  beginning: Beginning,
): VmmPlan {
  refuseUnfit(machine, files);
  const devices = ["/dev/null", "/dev/urandom"];
  if (machine.accelerator === "kvm") devices.push("/dev/kvm");
  if (machine.networks.length > 0) devices.push("/dev/net/tun");
  if (typeof machine.agent === "object") devices.push("/dev/vhost-vsock");
  return {
    program: program.path,
    arguments: [
      ...generalArguments(machine),
      ...socketArguments(files),
      ...bootArguments(machine),
      ...smallDevices(machine),
      ...agentArguments(machine, files),
      ...diskArguments(machine, (index) => device(machine, "virtio-blk", slots.firstDisk + index)),
      ...machine.networks.flatMap((card, index) => [
        ...(beginning === "incoming" ? [] : ["-netdev", tapWords(card)]),
        ...cardArguments(machine, card, index),
      ]),
      ...(beginning === "incoming" ? ["-incoming", "defer"] : []),
      ...(beginning === "incoming" && isMadeAlone(machine) ? ["-preconfig"] : []),
    ],
    descriptors: [
      { number: CONTROL_DESCRIPTOR, role: "listener", path: files.control },
      { number: MEMORY_DESCRIPTOR, role: "memory" },
    ],
    devices,
  };
}

function generalArguments(machine: MachineSpecification): string[] {
  const { name, accelerator, machineType, processorModel, processors, memory } = machine;
  const firmware = machine.boot.kind === "firmware" ? firmwareNodes : "";
  const place = `mem-path=/proc/self/fd/${MEMORY_DESCRIPTOR}`;
  return [
    // Nothing but what is written here, and nothing runs before somebody says so.
    ...["-nodefaults", "-no-user-config", "-S", "-display", "none"],
    ...["-sandbox", sandbox],
    ...["-name", `guest=${escapeCommas(name)}`],
    ...["-accel", accelerators[accelerator]],
    ...["-machine", `${machineType},memory-backend=ram${firmware}`],
    ...["-cpu", `${processorModel}`],
    ...["-smp", `cpus=${processors},maxcpus=${processors}`],
    ...["-m", `size=${memory / 1024 ** 2}M`],
    ...["-object", `memory-backend-file,id=ram,size=${memory},${place},share=on`],
    // The process stays until the worker has seen how the guest ended.
    ...["-action", "shutdown=pause,panic=pause"],
    ...(isMicrovm(machine) ? ["-global", "virtio-mmio.force-legacy=false"] : []),
  ];
}

function socketArguments(files: MachineFiles): string[] {
  return [
    ...["-chardev", `socket,id=control,fd=${CONTROL_DESCRIPTOR},server=on,wait=off`],
    ...["-mon", "chardev=control,mode=control"],
    ...["-chardev", listener(CONSOLE_CHANNEL, files.console)],
    ...["-serial", `chardev:${CONSOLE_CHANNEL}`],
  ];
}

function listener(id: string, path: string): string {
  return `socket,id=${id},path=${escapeCommas(path)},server=on,wait=off`;
}

const firmwareNodes = ",pflash0=firmware-code,pflash1=firmware-variables";

function bootArguments({ boot }: MachineSpecification): string[] {
  if (boot.kind === "kernel") {
    const { kernel, initramfs, commandLine } = boot;
    return [
      ...["-kernel", kernel],
      ...(initramfs === undefined ? [] : ["-initrd", initramfs]),
      ...(commandLine === "" ? [] : ["-append", commandLine]),
    ];
  }
  const code = { driver: "file", "node-name": "firmware-code", filename: boot.code };
  const variables = {
    driver: "file",
    "node-name": "firmware-variables",
    filename: boot.variables,
    locking: "on",
  };
  return [
    ...["-blockdev", JSON.stringify({ ...code, "read-only": true })],
    ...["-blockdev", JSON.stringify(variables)],
  ];
}

/** Chance, a balloon, and a way for the guest to say that it panicked. */
function smallDevices(machine: MachineSpecification): string[] {
  return [
    ...["-object", "rng-random,id=random,filename=/dev/urandom"],
    ...["-device", `${device(machine, "virtio-rng", slots.random)},rng=random`],
    ...["-device", `${device(machine, "virtio-balloon", slots.balloon)},id=balloon`],
    ...["-device", "pvpanic"],
  ];
}

function agentArguments(machine: MachineSpecification, files: MachineFiles): string[] {
  const { agent } = machine;
  if (agent === undefined) return [];
  if (typeof agent === "object") {
    return ["-device", `${device(machine, "vhost-vsock", slots.agent)},guest-cid=${agent.vsock}`];
  }
  const bus = device(machine, "virtio-serial", slots.agent);
  // Of a port without an id QEMU does not tell that its guest has closed it.
  const agentPort = `id=${AGENT_DEVICE},name=${AGENT_PORT}`;
  return [
    ...["-device", `${bus},id=channels,max_ports=2`],
    ...["-chardev", listener("agent", files.agent)],
    ...["-device", `virtserialport,bus=channels.0,nr=1,chardev=agent,${agentPort}`],
  ];
}

/**
 * A TAP is one VMM's alone, and what QEMU does with it when it opens it would reach the guest that
 * still uses it; a context id of vhost-vsock is one VMM's alone from the making of its device on.
 * So a VMM that waits for such a machine has the TAPs of its cards last, over QMP, and then makes
 * its machine; one without either is made at once.
 */
export const isMadeAlone = ({ networks, agent }: MachineSpecification): boolean =>
  networks.length > 0 || typeof agent === "object";

/** A card's side of the host, as `netdev_add` has it. */
export const tapOf = (card: NetworkCard) => ({
  type: "tap",
  id: nodeOf("card", card.id),
  ifname: card.tap,
  script: "no",
  downscript: "no",
  vhost: false,
});

const tapWords = (card: NetworkCard) => {
  const { id, ifname } = tapOf(card);
  return `tap,id=${id},ifname=${ifname},script=no,downscript=no,vhost=off`;
};

function cardArguments(machine: MachineSpecification, card: NetworkCard, index: number): string[] {
  const node = nodeOf("card", card.id);
  // Without an image for booting over the network: it is no part of the state then.
  const rom = isMicrovm(machine) ? "" : ",romfile=";
  const kind = device(machine, "virtio-net", slots.firstCard + index);
  return ["-device", `${kind},id=${node}-device,netdev=${node},mac=${card.macAddress}${rom}`];
}

/** A device in its place: q35 has a bus of PCI, microvm slots that it gives out in order. */
function device(machine: MachineSpecification, kind: string, slot: number): string {
  if (isMicrovm(machine)) return `${kind}-device`;
  return `${kind}-pci,bus=pcie.0,addr=0x${slot.toString(16)}`;
}
