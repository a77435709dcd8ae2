import { libc } from "./c-library.ts";
import { O_CLOEXEC, O_NONBLOCK } from "./constants.ts";
import { readInto } from "./descriptor.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { check, Errno, SystemCallError } from "./system-call-error.ts";

/** What one reading of the kernel's log gives. */
export type KernelRecord =
  | { readonly kind: "record"; readonly text: string }
  /** The kernel wrote over what was not read yet: the next reading goes on behind it. */
  | { readonly kind: "lost" }
  /** There is no more now; the descriptor is readable when there is. */
  | { readonly kind: "none" };

/**
 * The kernel's log, from the oldest record that it has: Documentation/ABI/testing/dev-kmsg. Its
 * descriptor can be watched.
 */
export class KernelLog implements Disposable {
  readonly descriptor: OwnedDescriptor;
  /** The kernel makes records of at most 1,024 bytes, each four times as long where escaped. */
  readonly #memory = new NativeMemory(8_192);

  /** @throws SystemCallError (EPERM, EACCES: kernel.dmesg_restrict; ENOENT: no such device) */
  constructor(path = "/dev/kmsg") {
    const name = cString(path);
    const flags = O_NONBLOCK | O_CLOEXEC;
    this.descriptor = new OwnedDescriptor(check("open", libc.open(name.address, flags, 0), path));
  }

  /** Does not wait. @throws SystemCallError (EINVAL: a record is longer than any that is made) */
  read(): KernelRecord {
    const result = readInto(this.descriptor, this.#memory);
    if (result > 0) {
      const bytes = this.#memory.bytes.subarray(0, result);
      return { kind: "record", text: new TextDecoder().decode(bytes) };
    }
    if (result === 0 || result === -Errno.EAGAIN) return { kind: "none" };
    if (result === -Errno.EPIPE) return { kind: "lost" };
    throw new SystemCallError("read", -result, "the kernel's log");
  }

  [Symbol.dispose](): void {
    this.descriptor.close();
  }
}
