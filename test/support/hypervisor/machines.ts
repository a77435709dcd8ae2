/** Machines for tests, and where their VMM keeps its sockets. */
import type {
  HypervisorProgram,
  MachineFiles,
  MachineSpecification,
} from "../../../src/hypervisor/driver.ts";

/** A machine of the test guest on q35. */
export function testMachine(changes: Partial<MachineSpecification> = {}): MachineSpecification {
  return {
    name: "first",
    processors: 1,
    memory: 64 * 1024 ** 2,
    accelerator: "tcg",
    machineType: "pc-q35-7.2",
    processorModel: "qemu64-v1",
    boot: { kind: "kernel", kernel: "/guest.elf", initramfs: undefined, commandLine: "" },
    disks: [],
    networks: [],
    agent: undefined,
    ...changes,
  };
}

export function filesIn(folder: string): MachineFiles {
  return {
    control: `${folder}/control`,
    console: `${folder}/console`,
    agent: `${folder}/agent`,
    events: `${folder}/events`,
  };
}

export const testProgram: HypervisorProgram = {
  hypervisor: "qemu",
  path: "/usr/bin/qemu-system-x86_64",
  version: "7.2.22",
};
