import { libc } from "./c-library.ts";
import {
  BLKGETSIZE64,
  BLKROGET,
  BLKSSZGET,
  O_CLOEXEC,
  O_DIRECT,
  O_EXCL,
  O_NONBLOCK,
  O_RDWR,
} from "./constants.ts";
import { control } from "./descriptor.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, SystemCallError } from "./system-call-error.ts";

export type DiskAccess =
  /** Commands alone, such as SMART's: it opens where no medium can be read. */
  | "commands"
  /** Reads past the page cache. */
  | "read"
  /**
   * Reads and writes past the page cache, for one user: O_EXCL gives a disk that is mounted, or a
   * part of something, to nobody (EBUSY), and nobody can mount it as long as this is open.
   */
  | "exclusive";

const flags: Readonly<Record<DiskAccess, number>> = {
  commands: O_NONBLOCK,
  read: O_DIRECT,
  exclusive: O_RDWR | O_DIRECT | O_EXCL,
};

/** A disk: open(2). Minus the error number where it is refused. It may block for minutes. */
export function openDisk(path: string, use: DiskAccess): OwnedDescriptor | number {
  const name = cString(path);
  const number = attempt(() => libc.open(name.address, flags[use] | O_CLOEXEC, 0));
  return number < 0 ? number : new OwnedDescriptor(number);
}

export interface DiskGeometry {
  readonly size: number;
  /** Bytes of a logical block: what reads and writes are multiples of. */
  readonly block: number;
  readonly readOnly: boolean;
}

/** @throws SystemCallError (ENOTTY: it is no disk) */
export function diskGeometry(disk: OwnedDescriptor): DiskGeometry {
  const answer = new NativeMemory(8);
  const ask = (request: number): void => {
    const result = control(disk, request, answer);
    if (result < 0) throw new SystemCallError("ioctl", -result);
  };
  ask(BLKGETSIZE64);
  const size = answer.getUnsigned64(0);
  ask(BLKSSZGET);
  const block = answer.view.getUint32(0, true);
  ask(BLKROGET);
  return { size, block, readOnly: answer.view.getUint32(0, true) !== 0 };
}
