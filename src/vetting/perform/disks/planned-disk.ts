import { fstatSync } from "node:fs";
import { type DiskAccess, diskGeometry, openDisk } from "../../../../ffi/block-device.ts";
import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { errnoMessage, SystemCallError } from "../../../../ffi/system-call-error.ts";
import { readDisks } from "../../../hardware/block-devices.ts";
import type { HostTree } from "../../../hardware/host-tree.ts";
import type { Disk } from "../../../hardware/inventory.ts";
import { Unseen } from "../../../hardware/unseen.ts";
import type { PlannedDisk } from "../../tasks/disk.ts";
import { TaskRefused } from "../task.ts";

/** A disk that is open, and what the kernel says of the very device that is open. */
export interface OpenDisk extends Disposable {
  readonly descriptor: OwnedDescriptor;
  readonly size: number;
  readonly logicalBlock: number;
  readonly readOnly: boolean;
  /** Of the inventory as it is now; undefined: none of its disks has this device's number. */
  readonly disk: Disk | undefined;
  /** How many disks of the host have this disk's serial. */
  readonly ofSerial: number;
}

/** @returns minus the error number where the kernel does not give it */
export function openByName(tree: HostTree, name: string, use: DiskAccess): OpenDisk | number {
  const opened = openDisk(tree.path(`dev/${name}`), use);
  if (typeof opened === "number") return opened;
  try {
    const { size, block, readOnly } = diskGeometry(opened);
    // By the device that is open, and not by its name: a name may be another disk's by now.
    const number = numberOf(opened);
    const disks = readDisks(tree, new Unseen());
    const disk = disks.find((one) => tree.text(`sys/block/${one.name}/dev`).value === number);
    const serial = disk?.serial ?? null;
    return {
      descriptor: opened,
      size,
      logicalBlock: block,
      readOnly,
      disk,
      ofSerial: serial === null ? 0 : disks.filter((one) => one.serial === serial).length,
      [Symbol.dispose]: () => opened.close(),
    };
  } catch (error) {
    opened.close();
    throw error;
  }
}

/** "8:16", as /sys has it: of <sys/sysmacros.h>, whose numbers have 12 and 20 bits. */
function numberOf(descriptor: OwnedDescriptor): string {
  const { rdev } = fstatSync(descriptor.number);
  const major = Math.floor(rdev / 0x100) & 0xfff;
  const minor = (rdev & 0xff) | ((Math.floor(rdev / 0x1000) & 0xfff00) >>> 0);
  return `${major}:${minor}`;
}

/**
 * For whoever reads alone: the planned disk, or a refusal.
 * @throws TaskRefused where it is not there any more, or another one has its name
 */
export function openPlanned(tree: HostTree, planned: PlannedDisk, use: DiskAccess): OpenDisk {
  const opened = openGently(tree, planned.name, use);
  const { disk, size } = opened;
  const serial = disk?.serial ?? null;
  if (disk !== undefined && serial === planned.serial && size === planned.size_bytes) return opened;
  opened[Symbol.dispose]();
  throw new TaskRefused(
    `Expected under ${planned.name} the disk ${planned.serial ?? "without a serial"} of ` +
      `${planned.size_bytes} bytes, found ${serial ?? "one without a serial"} of ${size} bytes: ` +
      "it was changed since the inventory was made",
  );
}

function openGently(tree: HostTree, name: string, use: DiskAccess): OpenDisk {
  let opened: OpenDisk | number;
  try {
    opened = openByName(tree, name, use);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    throw new TaskRefused(`Cannot ask the disk ${name}: ${error.message}`, { cause: error });
  }
  if (typeof opened !== "number") return opened;
  throw new TaskRefused(`Cannot open the disk ${name}: ${errnoMessage(-opened)}`);
}
