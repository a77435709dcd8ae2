import { libc } from "./c-library.ts";
import {
  KEXEC_FILE_NO_INITRAMFS,
  KEXEC_FILE_UNLOAD,
  LINUX_REBOOT_CMD_HALT,
  LINUX_REBOOT_CMD_KEXEC,
  LINUX_REBOOT_CMD_POWER_OFF,
  LINUX_REBOOT_CMD_RESTART,
  LINUX_REBOOT_MAGIC1,
  LINUX_REBOOT_MAGIC2,
  O_CLOEXEC,
  SYS_kexec_file_load,
  SYS_reboot,
  SYS_sync,
} from "./constants.ts";
import { readInto } from "./descriptor.ts";
import { faultHooks } from "./fault-hooks.ts";
import { askFaultKernel } from "./fault-kernel.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, Errno } from "./system-call-error.ts";

/** What a kexec, or a reboot, leads to. */
export type RebootTarget = "kexec" | "restart" | "power-off" | "halt";

const NO_FILE = -1;

/**
 * Loads a kernel to kexec into, in place of one that was loaded before: kexec_file_load(2), which
 * alone hands over what is preserved. 0, or minus the error number, and then the earlier one is
 * still loaded: EPERM (no CAP_SYS_BOOT, or the host forbids it), EBUSY, ENOEXEC (no kernel image),
 * EINVAL (the command line is too long, or has a zero byte), EKEYREJECTED …
 */
export function loadKernel(options: {
  readonly kernel: OwnedDescriptor;
  readonly initrd: OwnedDescriptor | undefined;
  readonly commandLine: string;
}): number {
  const { kernel, initrd, commandLine } = options;
  if (commandLine.includes("\0")) return -Errno.EINVAL;
  if (faultHooks) {
    const files = initrd === undefined ? [kernel.number] : [kernel.number, initrd.number];
    const answer = askFaultKernel({ call: "load", command_line: commandLine }, files);
    if (answer !== undefined) return answer.result;
  }
  const text = cString(commandLine);
  const initrdNumber = initrd?.number ?? NO_FILE;
  const flags = initrd === undefined ? KEXEC_FILE_NO_INITRAMFS : 0;
  // The length that the kernel wants counts the ending zero.
  return attempt(() =>
    libc.syscall(
      SYS_kexec_file_load,
      kernel.number,
      initrdNumber,
      text.size,
      text.address,
      flags,
      0,
    ),
  );
}

/** Takes the loaded kernel out again: kexec_file_load(2). 0, also when none is; or minus EPERM. */
export function unloadKernel(): number {
  if (faultHooks) {
    const answer = askFaultKernel({ call: "unload" });
    if (answer !== undefined) return answer.result;
  }
  return attempt(() =>
    libc.syscall(SYS_kexec_file_load, NO_FILE, NO_FILE, 0, 0, KEXEC_FILE_UNLOAD, 0),
  );
}

/** Where the kernel tells it; the second until Linux 6.18. */
const loadedFiles = ["/sys/kernel/kexec/loaded", "/sys/kernel/kexec_loaded"];

/** Whether a kernel is loaded; false as well where /sys does not tell. */
export function isKernelLoaded(): boolean {
  if (faultHooks) {
    const answer = askFaultKernel({ call: "loaded" });
    if (answer !== undefined) return answer.result === 1;
  }
  return loadedFiles.map(firstByteOf).find((byte) => byte !== undefined) === "1";
}

function firstByteOf(path: string): string | undefined {
  const name = cString(path);
  const opened = attempt(() => libc.open(name.address, O_CLOEXEC, 0));
  if (opened < 0) return undefined;
  using file = new OwnedDescriptor(opened);
  const memory = new NativeMemory(1);
  return readInto(file, memory) === 1 ? String.fromCharCode(memory.view.getUint8(0)) : undefined;
}

/** Writes to the disks what is only in memory, and waits for that: sync(2). */
export function syncFilesystems(): void {
  if (faultHooks && askFaultKernel({ call: "sync" }) !== undefined) return;
  libc.syscall(SYS_sync, 0, 0, 0, 0, 0, 0);
}

const rebootCommands: Readonly<Record<RebootTarget, number>> = {
  kexec: LINUX_REBOOT_CMD_KEXEC,
  restart: LINUX_REBOOT_CMD_RESTART,
  "power-off": LINUX_REBOOT_CMD_POWER_OFF,
  halt: LINUX_REBOOT_CMD_HALT,
};

/**
 * Ends this kernel now, without a sync and without ending anybody: reboot(2). Returns only when
 * that is refused, with minus the error number: EPERM without CAP_SYS_BOOT; for kexec also EINVAL
 * when nothing is loaded, and whatever a preserved file refused, after which all sessions stand as
 * before and it may be tried again.
 */
export function rebootInto(what: RebootTarget): number {
  if (faultHooks) {
    const answer = askFaultKernel({ call: "reboot", what });
    if (answer !== undefined) return answer.result;
  }
  const command = rebootCommands[what];
  return attempt(() =>
    libc.syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command, 0, 0, 0),
  );
}
