import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { link, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import type { Bytes, Milliseconds } from "../units/units.ts";
import { synchroniseFolder } from "./copy.ts";
import { fromKernel, ImageRefused } from "./image-refused.ts";
import { imageLimits } from "./limits.ts";
import { type DiskFormat, diskHeaderBytes, makeOverlay, parseDiskHeader } from "./qcow2.ts";
import { makeSeedDisk, type SeedFiles } from "./seed-disk.ts";

/** The disks of a machine, in its own folder: what it writes to, and what it is told at boot. */

/** Who may open a disk; undefined: this user. */
export interface DiskOwner {
  readonly user: number;
  readonly group: number;
}

/** What a stored image's disk is. */
export interface BaseDisk {
  readonly path: string;
  readonly format: DiskFormat;
  /** As a machine sees it: a multiple of 512. */
  readonly virtualSize: Bytes;
}

/**
 * Looks at a disk of a stored image, to which nobody writes: what is found stays true.
 * @param file its path in the store, and the key that names it
 * @param format as vm-config.json says; undefined where the first bytes tell
 * @throws ImageRefused for a qcow2 that needs another file, and for what is not what was said
 */
export function lookAtDisk(
  file: { readonly path: string; readonly key: string },
  format: DiskFormat | undefined,
): BaseDisk {
  const { path, key } = file;
  const mend = "Convert it by qemu-img convert.";
  const refuse = (expected: string, received: string) =>
    new ImageRefused("use the image", path, { file: key, expected, received, mend });
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { size } = fstatSync(descriptor);
    const begin = new Uint8Array(diskHeaderBytes);
    const count = readSync(descriptor, begin, 0, begin.length, 0);
    const header = parseDiskHeader(begin.subarray(0, count));
    if (header.kind === "qcow2" && format !== "raw") {
      return { path, format: "qcow2", virtualSize: inSectors(header.virtualSize) };
    }
    if (header.kind === "refused" && format !== "raw") {
      throw refuse(header.expected, header.received);
    }
    if (format === "qcow2") throw refuse("a qcow2 image, as image_type says", "another file");
    if (size === 0) throw refuse("a disk", "an empty file");
    return { path, format: "raw", virtualSize: inSectors(size) };
  } finally {
    closeSync(descriptor);
  }
}

const inSectors = (size: Bytes) => Math.max(512, Math.ceil(size / 512) * 512);

/**
 * Makes the disk that a machine writes to in the place of its image's. It takes no room but for
 * what the machine writes. The file is there as a whole or not at all.
 * @param virtualSize as the machine sees it; undefined: as large as the image's
 * @throws ImageRefused when there is one already, when it would cut off the image's, or the kernel
 *   refuses
 */
export async function createOverlay(
  path: string,
  base: BaseDisk,
  options: { readonly virtualSize: Bytes | undefined; readonly owner: DiskOwner | undefined },
): Promise<void> {
  const virtualSize = inSectors(options.virtualSize ?? base.virtualSize);
  if (virtualSize < base.virtualSize) {
    throw new ImageRefused("make the disk", path, {
      file: undefined,
      expected: `at least the image's ${base.virtualSize} bytes`,
      received: `${virtualSize} bytes`,
      mend: "Give it more.",
    });
  }
  const overlay = makeOverlay({ backing: base.path, backingFormat: base.format, virtualSize });
  await writeDisk(path, overlay, { owner: options.owner, mode: 0o600, otherwise: "refuse" });
}

/** Makes an empty raw disk, in the place of an older one. Only what is written to it takes room. */
export async function createEphemeralDisk(
  path: string,
  size: Bytes,
  owner: DiskOwner | undefined,
): Promise<void> {
  const disk = { bytes: new Uint8Array(), size: inSectors(size) };
  await writeDisk(path, disk, { owner, mode: 0o600, otherwise: "replace" });
}

/**
 * Copies a firmware's variables for one machine, where it has none yet: what a guest writes there
 * is its own.
 * @param template the host's, which nobody has written to
 * @throws ImageRefused when there is no template, or one that is too long
 */
export async function createVariables(
  path: string,
  template: string,
  owner: DiskOwner | undefined,
): Promise<void> {
  const { firmwareBytes } = imageLimits;
  const refuse = (received: string) =>
    new ImageRefused("make the firmware's variables", path, {
      file: template,
      expected: `a file of 1 to ${firmwareBytes} bytes`,
      received,
      mend:
        "Install the firmware (Debian: ovmf), or name another by firmware_path and " +
        "firmware_variables_path in the configuration.",
    });
  const status = statSync(template, { throwIfNoEntry: false });
  if (status?.isFile() !== true) throw refuse("none");
  const { size } = status;
  if (size === 0 || size > firmwareBytes) throw refuse(`${size} bytes`);
  const bytes = await readFile(template);
  await writeDisk(path, { bytes, size }, { owner, mode: 0o600, otherwise: "refuse" });
}

/** Makes the disk that tells cloud-init who it is, in the place of an older one. */
export async function createSeedDisk(
  path: string,
  seed: SeedFiles,
  options: { readonly time: Milliseconds; readonly owner: DiskOwner | undefined },
): Promise<void> {
  const bytes = makeSeedDisk(seed, options.time);
  const disk = { bytes, size: bytes.length };
  await writeDisk(path, disk, { owner: options.owner, mode: 0o400, otherwise: "replace" });
}

interface Writing {
  readonly owner: DiskOwner | undefined;
  readonly mode: number;
  /** What to do with a disk that is there. */
  readonly otherwise: "refuse" | "replace";
}

async function writeDisk(
  path: string,
  disk: { readonly bytes: Uint8Array; readonly size: Bytes },
  { owner, mode, otherwise }: Writing,
): Promise<void> {
  const partial = `${path}.partial`;
  try {
    await rm(partial, { force: true });
    await writeWhole(partial, disk, { owner, mode });
    if (otherwise === "replace") await rename(partial, path);
    else await link(partial, path);
    await rm(partial, { force: true });
    await synchroniseFolder(dirname(path));
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined);
    throw refusalOf(path, error);
  }
}

async function writeWhole(
  partial: string,
  disk: { readonly bytes: Uint8Array; readonly size: Bytes },
  { owner, mode }: Pick<Writing, "owner" | "mode">,
): Promise<void> {
  await using file = await open(partial, "wx", 0o600);
  await file.truncate(disk.size);
  for (let done = 0; done < disk.bytes.length; ) {
    const rest = disk.bytes.subarray(done);
    done += (await file.write(rest, 0, rest.length, done)).bytesWritten;
  }
  await file.chmod(mode);
  if (owner !== undefined) await file.chown(owner.user, owner.group);
  await file.sync();
}

function refusalOf(path: string, error: unknown): unknown {
  const { code } = error as { readonly code?: unknown };
  if (code === "EEXIST") {
    return new ImageRefused("make the disk", path, {
      file: undefined,
      expected: "nothing there",
      received: "a disk, which the machine may have written to",
      mend: "Remove it first, if nobody needs what is on it.",
    });
  }
  return fromKernel(error, {
    what: "make the disk",
    image: path,
    file: undefined,
    isReading: false,
  });
}
