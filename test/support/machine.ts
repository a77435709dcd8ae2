/**
 * Guests: a whole machine with a kernel of its own in QEMU. It has no network; all that is in it
 * comes with its image or its disks, and all that it says comes over its serial line.
 */
import { accessSync, constants, readFileSync } from "node:fs";
import type { GuestKernel } from "../../scripts/guest-kernel/kernel-image.ts";
import { startProgram } from "./program.ts";
import { type Feature, feature, file, program } from "./skips.ts";

/** What a suite with guests needs of this machine. */
export const guestFeatures: readonly Feature[] = [
  feature("not an x86-64 machine", () => process.arch === "x64"),
  program("qemu-system-x86_64", "qemu-system-x86"),
  file("/bin/busybox", "busybox-static"),
];

/** What every guest needs built into its kernel; modules do not come along. */
const usualOptions = [
  "CONFIG_BLK_DEV_INITRD",
  "CONFIG_BINFMT_ELF",
  "CONFIG_BINFMT_SCRIPT",
  "CONFIG_SERIAL_8250_CONSOLE",
  "CONFIG_DEVTMPFS",
  "CONFIG_TMPFS",
  "CONFIG_UNIX",
  "CONFIG_EPOLL",
  "CONFIG_FUTEX",
  "CONFIG_PROC_FS",
];

/**
 * That the kernel has what a suite needs.
 * @param options beyond what every guest needs, such as CONFIG_PID_NS
 */
export function kernelOptions(
  kernel: GuestKernel | undefined,
  options: readonly string[],
): Feature {
  const missing = [...usualOptions, ...options].filter(
    (name) => kernel?.options !== undefined && kernel.options.get(name) !== "y",
  );
  return feature(`a kernel without ${missing.join(", ")}`, () => missing.length === 0);
}

export interface GuestOptions {
  readonly kernel: GuestKernel;
  readonly root: GuestRoot;
  /** Become variables of the environment of the guest's first process. */
  readonly variables?: Readonly<Record<string, string>>;
  /** Further words of the kernel's command line. */
  readonly kernelWords?: readonly string[];
  readonly memoryMebibytes?: number;
  readonly deadlineMilliseconds: number;
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

export interface GuestRun {
  readonly passed: boolean;
  /** All that came over the serial line. */
  readonly lines: readonly string[];
  readonly milliseconds: number;
}

const usualMemoryMebibytes = 1536;
const processors = 2;

/**
 * Boots the guest and gives what it said once it has switched itself off. Its first process ends
 * with the line "HOSTLER-VERDICT passed" or "HOSTLER-VERDICT failed".
 * @throws DeadlineError, or Error when it ends without a verdict, with the end of what it said
 */
export async function runGuest(options: GuestOptions): Promise<GuestRun> {
  const begin = performance.now();
  await using machine = startProgram(words(options));
  const verdict = await machine
    .said(/^HOSTLER-VERDICT (passed|failed)/m, options.deadlineMilliseconds)
    .catch((error: unknown) => {
      throw new Error(`The guest gave no verdict. Its last words:\n${lastLines(machine.output)}`, {
        cause: error,
      });
    });
  await machine.ended();
  return {
    passed: verdict[1] === "passed",
    lines: linesOf(machine.output.stdout),
    milliseconds: performance.now() - begin,
  };
}

function words(options: GuestOptions): string[] {
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

function linesOf(text: string): string[] {
  return text.replaceAll("\r", "").split("\n");
}

function lastLines(output: { readonly stdout: string; readonly stderr: string }): string {
  return [...linesOf(output.stdout), ...linesOf(output.stderr)].slice(-60).join("\n");
}
