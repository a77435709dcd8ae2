import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { ExitCode } from "../units/exit-code.ts";
import type { Bytes } from "../units/units.ts";
import { ipxeFiles, type Platform, platforms } from "./lifecycle-choice.ts";
import { LARGEST_FILE, PIECE } from "./limits.ts";
import { whyNotFor } from "./protocol-program.ts";

/**
 * The files that are handed out, each opened once, by a name that a client says and that is no
 * path. What is read later is held to what was hashed: size, and times of change.
 */

/** Network boot cannot start. */
export class NetworkBootRefused extends Error {
  override readonly name = "NetworkBootRefused";
  readonly exitCode = ExitCode.refused;
}

export const KERNEL = "vmlinuz";
export const INITRAMFS = "initramfs";

export class BootFile implements Disposable {
  readonly name: string;
  readonly path: string;
  readonly size: Bytes;
  /** In hexadecimal digits. */
  readonly sha256: string;
  readonly #descriptor: number;
  readonly #changed: number;

  private constructor(options: {
    readonly name: string;
    readonly path: string;
    readonly size: Bytes;
    readonly sha256: string;
    readonly descriptor: number;
    readonly changed: number;
  }) {
    this.name = options.name;
    this.path = options.path;
    this.size = options.size;
    this.sha256 = options.sha256;
    this.#descriptor = options.descriptor;
    this.#changed = options.changed;
  }

  /**
   * Opens and hashes it.
   * @param letOthers awaited between pieces
   * @throws NetworkBootRefused for what is no regular file, too large, or cannot be read
   */
  static async open(name: string, path: string, letOthers: () => Promise<void>): Promise<BootFile> {
    const descriptor = openRegular(path);
    try {
      const { size, ctimeMs: changed } = fstatSync(descriptor);
      const hasher = new Bun.CryptoHasher("sha256");
      const piece = new Uint8Array(PIECE);
      for (let at = 0; at < size; await letOthers()) {
        const count = readSync(descriptor, piece, 0, PIECE, at);
        if (count === 0) throw new NetworkBootRefused(`${path} became shorter while it was read.`);
        hasher.update(piece.subarray(0, count));
        at += count;
      }
      return new BootFile({ name, path, size, sha256: hasher.digest("hex"), descriptor, changed });
    } catch (error) {
      closeSync(descriptor);
      if (error instanceof NetworkBootRefused) throw error;
      throw new NetworkBootRefused(`Cannot read ${path}.`, { cause: error });
    }
  }

  /** Whether it is still what was hashed. What replaces it by renaming is another file. */
  isUnchanged(): boolean {
    const { size, ctimeMs } = fstatSync(this.#descriptor);
    return size === this.size && ctimeMs === this.#changed;
  }

  /**
   * @returns bytes read, fewer than asked for at the end alone
   * @throws Error when it cannot be read
   */
  read(into: Uint8Array, position: number): number {
    let done = 0;
    while (done < into.length) {
      const length = into.length - done;
      const count = readSync(this.#descriptor, into, done, length, position + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }
}

function openRegular(path: string): number {
  let descriptor: number;
  try {
    // A pipe would be waited for.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (cause) {
    throw new NetworkBootRefused(`Cannot open ${path}.`, { cause });
  }
  const found = fstatSync(descriptor);
  if (found.isFile() && found.size > 0 && found.size <= LARGEST_FILE) return descriptor;
  closeSync(descriptor);
  const what = found.isFile() ? `${found.size} bytes` : "something else";
  throw new NetworkBootRefused(
    `Cannot hand out ${path}: expected a regular file of 1 to ${LARGEST_FILE} bytes, ` +
      `found ${what}.`,
  );
}

export interface BootFolders {
  /** It holds the live image, and programs of iPXE that come before those of the other folder. */
  readonly bootFolder: string;
  /** Debian's package ipxe has them in /usr/lib/ipxe. */
  readonly ipxeFolder: string;
}

/** All that is handed out. */
export class BootFiles implements Disposable {
  readonly byName: ReadonlyMap<string, BootFile>;
  readonly programs: Readonly<Partial<Record<Platform, string>>>;

  private constructor(
    files: readonly BootFile[],
    programs: Readonly<Partial<Record<Platform, string>>>,
  ) {
    this.byName = new Map(files.map((file) => [file.name, file]));
    this.programs = programs;
  }

  /**
   * @throws NetworkBootRefused without kernel, initramfs, or the programs for BIOS and UEFI of
   *   x86-64, and for a program that is made for another machine than its name says
   */
  static async open(folders: BootFolders, letOthers: () => Promise<void>): Promise<BootFiles> {
    using owned = new DisposableStack();
    const files: BootFile[] = [];
    const add = async (name: string, path: string) => {
      const file = owned.use(await BootFile.open(name, path, letOthers));
      files.push(file);
      return file;
    };
    for (const name of [KERNEL, INITRAMFS]) {
      const path = join(folders.bootFolder, name);
      if (!isThere(path)) {
        throw new NetworkBootRefused(
          `${path} is not there: expected the live image's ${KERNEL} and ${INITRAMFS}. ` +
            "Make it with images/live, and name its folder with --boot-dir.",
        );
      }
      await add(name, path);
    }
    const programs: Partial<Record<Platform, string>> = {};
    for (const platform of platforms) {
      const path = findProgram(platform, folders);
      if (path === undefined) continue;
      const name = path.slice(path.lastIndexOf("/") + 1);
      const file = await add(name, path);
      checkProgram(file, platform);
      programs[platform] = name;
    }
    owned.move();
    return new BootFiles(files, programs);
  }

  [Symbol.dispose](): void {
    for (const file of this.byName.values()) file[Symbol.dispose]();
  }
}

function findProgram(
  platform: Platform,
  { bootFolder, ipxeFolder }: BootFolders,
): string | undefined {
  const names = ipxeFiles[platform];
  const paths = [bootFolder, ipxeFolder].flatMap((folder) =>
    names.map((name) => join(folder, name)),
  );
  const found = paths.find(isThere);
  const isNeeded = platform === "bios" || platform === "uefi-x64";
  if (found !== undefined || !isNeeded) return found;
  throw new NetworkBootRefused(
    `Neither ${bootFolder} nor ${ipxeFolder} has ${names.join(" or ")}, iPXE for ${platform}. ` +
      "Install Debian's package ipxe, name its folder with --ipxe-dir, or put the file into that " +
      "of --boot-dir.",
  );
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Firmware that loads a program for another processor says no more than "unsupported". */
function checkProgram(file: BootFile, platform: Platform): void {
  const head = new Uint8Array(4_096);
  const read = file.read(head, 0);
  const reason = whyNotFor(head.subarray(0, read), platform);
  if (reason !== undefined)
    throw new NetworkBootRefused(`${file.path} is not for ${platform}: ${reason}.`);
}
