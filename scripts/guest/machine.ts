/**
 * A whole machine with a kernel of its own in QEMU. It has no network; all that is in it comes with
 * its image or its disks, and all that it says comes over its serial line.
 */
import { accessSync, constants, readFileSync } from "node:fs";
import type { GuestKernel } from "../guest-kernel/kernel-image.ts";

const usualMemoryMebibytes = 1536;
const processors = 2;

export interface GuestMachine {
  readonly kernel: GuestKernel;
  readonly root: GuestRoot;
  /** Become variables of the environment of the guest's first process. */
  readonly variables?: Readonly<Record<string, string>>;
  /** Further words of the kernel's command line. */
  readonly kernelWords?: readonly string[];
  readonly memoryMebibytes?: number;
}

/**
 * What the guest's files are on. An image, made by writeImage, is unpacked into its memory, and is
 * gone with its kernel: whoever enters another one needs it again. Disks, made by writeDisk, last
 * until the guest is switched off; the first is the root.
 */
export type GuestRoot =
  | { readonly image: string }
  | { readonly disks: readonly GuestDisk[]; readonly init: string };

export interface GuestDisk {
  readonly path: string;
  /** "thrown-away": the guest writes to it, and the file on this machine stays as it is. */
  readonly writing: "refused" | "kept" | "thrown-away";
}

/** The command line of QEMU; the guest's serial line is its standard input and output. */
export function machineWords(options: GuestMachine): string[] {
  const settings = Object.entries(options.variables ?? {}).map(
    ([name, value]) => `${name}=${value}`,
  );
  const memory = options.memoryMebibytes ?? usualMemoryMebibytes;
  const root = wordsOfRoot(options.root);
  const commandLine = ["console=ttyS0", "panic=-1", "loglevel=4", ...root.kernel, ...settings];
  return [
    "qemu-system-x86_64",
    ...(hasVirtualization()
      ? ["-accel", "kvm", "-cpu", "host"]
      : ["-accel", "tcg,thread=multi", "-cpu", "max"]),
    ...["-machine", "q35", "-m", `${memory}`, "-smp", `${processors}`],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"],
    ...["-serial", "stdio", "-kernel", options.kernel.path, ...root.machine],
    ...["-append", [...commandLine, ...(options.kernelWords ?? [])].join(" ")],
  ];
}

function wordsOfRoot(root: GuestRoot): { machine: string[]; kernel: string[] } {
  if ("image" in root) return { machine: ["-initrd", root.image], kernel: ["rdinit=/init"] };
  const machine = root.disks.flatMap(({ path, writing }) => {
    const options = { refused: "readonly=on", kept: "cache=unsafe", "thrown-away": "snapshot=on" };
    return ["-drive", `file=${path},format=raw,if=virtio,${options[writing]}`];
  });
  const mode = root.disks[0]?.writing === "refused" ? "ro" : "rw";
  // Bun's random numbers must not wait for an emulated machine to have seen enough.
  machine.push("-device", "virtio-rng-pci");
  return { machine, kernel: ["root=/dev/vda", mode, `init=${root.init}`] };
}

/** /dev/kvm alone says little: one without vmx or svm beneath it runs no ordinary kernel. */
function hasVirtualization(): boolean {
  if (!/\b(vmx|svm)\b/.test(readFileSync("/proc/cpuinfo", "utf8"))) return false;
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
