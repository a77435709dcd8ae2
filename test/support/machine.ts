/**
 * Guests: a whole machine with a kernel of its own in QEMU. It has no network; all that is in it
 * comes with its image or its disks, and all that it says comes over its serial line.
 */
import { type GuestMachine, machineWords } from "../../scripts/guest/machine.ts";
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

export interface GuestOptions extends GuestMachine {
  readonly deadlineMilliseconds: number;
}

export interface GuestRun {
  readonly passed: boolean;
  /** All that came over the serial line. */
  readonly lines: readonly string[];
  readonly milliseconds: number;
}

/**
 * Boots the guest and gives what it said once it has switched itself off. Its first process ends
 * with the line "HOSTLER-VERDICT passed" or "HOSTLER-VERDICT failed".
 * @throws DeadlineError, or Error when it ends without a verdict, with the end of what it said
 */
export async function runGuest(options: GuestOptions): Promise<GuestRun> {
  const begin = performance.now();
  await using machine = startProgram(machineWords(options));
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

function linesOf(text: string): string[] {
  return text.replaceAll("\r", "").split("\n");
}

function lastLines(output: { readonly stdout: string; readonly stderr: string }): string {
  return [...linesOf(output.stdout), ...linesOf(output.stderr)].slice(-60).join("\n");
}
