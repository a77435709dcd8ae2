import { Errno } from "../../../../ffi/error-numbers.ts";
import { errnoMessage, SystemCallError } from "../../../../ffi/system-call-error.ts";
import { bootReasons, usesOf } from "../../../hardware/disk/disk-uses.ts";
import { partitionNames } from "../../../hardware/disk/partition-tables.ts";
import { findSignatures, type ReadDisk } from "../../../hardware/disk/signatures.ts";
import type { HostTree } from "../../../hardware/host-tree.ts";
import { diskTaskLimits } from "../../tasks/disk.ts";
import type { ClosedInterlock, Interlock, VerifyInput } from "../../tasks/verify.ts";
import { DiskReader } from "./disk-reader.ts";
import { type OpenDisk, openByName } from "./planned-disk.ts";

/** A disk that may be written, held alone; or each reason why not. */
export type Unlocked =
  | { readonly kind: "open"; readonly disk: OpenDisk; readonly overwritten: readonly string[] }
  | { readonly kind: "refused"; readonly closed: readonly ClosedInterlock[] };

/**
 * Opens the disk for itself alone, and only then looks at every interlock, by the device that is
 * open: nobody can mount it from here on, and what is written later is what was looked at.
 */
export function unlock(input: VerifyInput, tree: HostTree): Unlocked {
  const { name } = input.disk;
  const opened = tryOpen(tree, name);
  if ("interlock" in opened) return { kind: "refused", closed: [opened, ...claimedBy(tree, name)] };
  using reader = new DiskReader(opened);
  const signatures = findSignatures(reader.read, opened.size);
  const closed = [
    ...identityLocks(opened, input),
    ...usesOf(tree, opened.disk?.name ?? name).map(({ kind, reason }) => lock(kind, reason)),
    ...bootLocks(opened, tree, reader.read),
    ...(input.allowed === "wipe" ? [] : signatureLocks(signatures)),
  ];
  if (closed.length === 0) {
    return { kind: "open", disk: opened, overwritten: signatures.map(cut).slice(0, 64) };
  }
  opened[Symbol.dispose]();
  return { kind: "refused", closed: closed.slice(0, 64) };
}

const cut = (text: string): string => text.slice(0, diskTaskLimits.text);
const lock = (interlock: Interlock, reason: string): ClosedInterlock => ({
  interlock,
  reason: cut(reason),
});

function tryOpen(tree: HostTree, name: string): OpenDisk | ClosedInterlock {
  try {
    const opened = openByName(tree, name, "exclusive");
    if (typeof opened !== "number") return opened;
    const interlock = openRefusals[-opened] ?? "unknown";
    return lock(interlock, `the kernel does not give ${name}: ${errnoMessage(-opened)}`);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return lock("unknown", `${name} cannot be asked: ${error.message}`);
  }
}

const openRefusals: Readonly<Record<number, Interlock>> = {
  [Errno.EBUSY]: "claimed",
  [Errno.EROFS]: "read-only",
  [Errno.EACCES]: "read-only",
};

/** Who has it, where the kernel says only that somebody has. */
function claimedBy(tree: HostTree, name: string): ClosedInterlock[] {
  return usesOf(tree, name).map(({ kind, reason }) => lock(kind, reason));
}

function identityLocks(opened: OpenDisk, { disk }: VerifyInput): ClosedInterlock[] {
  const closed: ClosedInterlock[] = [];
  const serial = opened.disk?.serial ?? null;
  if (opened.disk === undefined) {
    closed.push(lock("serial", `${disk.name} is no disk of the inventory`));
  } else if (serial !== disk.serial || opened.disk.name !== disk.name) {
    const found = serial ?? "one without a serial";
    closed.push(lock("serial", `${disk.name} is to be ${disk.serial}, and is ${found}`));
  }
  if (opened.ofSerial > 1) {
    closed.push(lock("ambiguous", `${opened.ofSerial} disks have the serial ${serial}`));
  }
  if (opened.size !== disk.size_bytes) {
    const reason = `it is to have ${disk.size_bytes} bytes, and has ${opened.size}`;
    closed.push(lock("size", reason));
  }
  if (opened.readOnly || opened.disk?.read_only === true) {
    closed.push(lock("read-only", "the disk is read-only"));
  }
  return closed;
}

function bootLocks(
  { disk, size, logicalBlock }: OpenDisk,
  tree: HostTree,
  read: ReadDisk,
): ClosedInterlock[] {
  const partitions = partitionNames(read, size, logicalBlock);
  const reasons = bootReasons(tree, disk?.name ?? "", partitions);
  return reasons.map((reason) => lock("boot-disk", `this host was booted from it: ${reason}`));
}

function signatureLocks(signatures: readonly string[]): ClosedInterlock[] {
  return signatures.map((signature) =>
    lock(
      "signature",
      `it holds ${signature}. Whoever gives that up asks for a wipe of this serial`,
    ),
  );
}
