import { constants, mkdirSync, statfsSync, statSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { readPieces } from "../image/pieces.ts";
import { refusalCode, withFile } from "../journal/file-refused.ts";
import { formatBytes } from "../units/bytes.ts";
import type { Bytes } from "../units/units.ts";
import { ArtifactRefused } from "./artifact-refused.ts";
import { hashBytes } from "./frames.ts";
import { installedNames } from "./installed.ts";
import type { Block, BlockMap } from "./protocol-blocks.ts";

/** What stays free on the file system: for the journals of whoever lives there too. */
export const leastRoom: Bytes = 32 * 1024 * 1024;

/**
 * Looks before anything is fetched: a file system that is full in the middle would be full for all
 * the others too.
 * @param folder of the version; what is there of it already needs no more room
 * @throws ArtifactRefused, FileRefused
 */
export function checkRoom(folder: string, size: Bytes): void {
  const file = { what: "keep a version in", path: folder, otherwise: "name another folder" };
  withFile(file, () => {
    mkdirSync(folder, { recursive: true, mode: 0o755 });
    const { bavail, bsize } = statfsSync(folder);
    const status = statSync(join(folder, installedNames.partial), { throwIfNoEntry: false });
    const wanted = size + leastRoom - (status?.blocks ?? 0) * 512;
    const free = bavail * bsize;
    if (free < wanted) throw noRoom(folder, `${formatBytes(free)} free`, formatBytes(wanted));
  });
}

const noRoom = (folder: string, received: string, wanted: string) =>
  new ArtifactRefused(`keep a version in ${folder}`, {
    refusal: "disk-full",
    expected: `${wanted} on its file system`,
    received,
    mend: "Make room there; df says how much there is",
  });

/** The file of a version while it is not whole. What is in it is what its hash says, or nothing. */
export class PartialFile implements AsyncDisposable {
  readonly path: string;
  readonly #folder: string;
  readonly #file: FileHandle;
  readonly #size: Bytes;

  private constructor(file: FileHandle, folder: string, size: Bytes) {
    this.#file = file;
    this.#folder = folder;
    this.#size = size;
    this.path = join(folder, installedNames.partial);
  }

  /** The one that is there, or a new one. @throws the kernel's refusals */
  static async open(folder: string, size: Bytes): Promise<PartialFile> {
    const path = join(folder, installedNames.partial);
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    const partial = new PartialFile(await open(path, flags, 0o600), folder, size);
    try {
      // A longer one is of nobody's; a shorter one has holes now.
      await partial.#file.truncate(size);
      return partial;
    } catch (error) {
      await partial[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Keeps what is right in it, and takes what is the same from other files.
   * @param options.bases those that are not there are left out
   * @returns the indexes of blocks that are missing, rising
   */
  async fill(
    map: BlockMap,
    options: {
      readonly bases: readonly string[];
      readonly signal: AbortSignal;
      readonly onBlock: (block: Block) => void;
    },
  ): Promise<number[]> {
    const { bases, signal, onBlock } = options;
    const wanted = new Wanted(map);
    await this.#eachBlock(this.#file.fd, this.#size, map, signal, (bytes, position) => {
      const block = wanted.takeAt(bytes, position / map.blockBytes);
      if (block !== undefined) onBlock(block);
    });
    // What was placed and has no proof yet, or a bad one, may be right for the most part.
    for (const base of [join(this.#folder, installedNames.file), ...bases]) {
      if (wanted.isEmpty) break;
      const file = await openBase(base);
      if (file === undefined) continue;
      try {
        const { size } = await file.stat();
        await this.#eachBlock(file.fd, size, map, signal, async (bytes) => {
          for (const block of wanted.takeAll(bytes)) {
            await this.write(bytes, block.position);
            onBlock(block);
          }
        });
      } finally {
        await file.close();
      }
    }
    return wanted.indexes;
  }

  async #eachBlock(
    descriptor: number,
    size: Bytes,
    map: BlockMap,
    signal: AbortSignal,
    use: (bytes: Uint8Array, position: Bytes) => Promise<void> | void,
  ): Promise<void> {
    // A base that somebody cuts short meanwhile has no more blocks for us, and no less.
    const end = new Error("the file is shorter than it was");
    const reading = { size, signal, pieceSize: map.blockBytes, changed: () => end };
    try {
      await readPieces(descriptor, reading, use);
    } catch (error) {
      if (error !== end) throw error;
    }
  }

  /** @throws ArtifactRefused when there is no room; the kernel's refusals */
  async write(bytes: Uint8Array, position: Bytes): Promise<void> {
    try {
      let done = 0;
      while (done < bytes.length) {
        const rest = bytes.length - done;
        done += (await this.#file.write(bytes, done, rest, position + done)).bytesWritten;
      }
    } catch (error) {
      const code = refusalCode(error);
      if (code !== "ENOSPC" && code !== "EDQUOT") throw error;
      throw noRoom(this.#folder, "none left", formatBytes(this.#size));
    }
  }

  /** All of it is on the disk when this returns. */
  async finish(): Promise<void> {
    await this.#file.chmod(0o755);
    await this.#file.sync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

async function openBase(path: string): Promise<FileHandle | undefined> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    if ((await file.stat()).isFile()) return file;
    await file.close();
    return undefined;
  } catch (error) {
    // Less to take from, and nothing worse.
    if (refusalCode(error) === undefined) throw error;
    return undefined;
  }
}

/** Blocks that are missing, by their digests. */
class Wanted {
  readonly #map: BlockMap;
  readonly #missing: Set<number>;
  readonly #byDigest = new Map<string, number[]>();

  constructor(map: BlockMap) {
    this.#map = map;
    this.#missing = new Set(map.blocks.keys());
    for (const [index, { digest }] of map.blocks.entries()) {
      const key = Buffer.from(digest).toString("latin1");
      this.#byDigest.set(key, [...(this.#byDigest.get(key) ?? []), index]);
    }
  }

  get isEmpty(): boolean {
    return this.#missing.size === 0;
  }

  get indexes(): number[] {
    return [...this.#missing].sort((one, other) => one - other);
  }

  /** The block at this place, where these are its bytes. */
  takeAt(bytes: Uint8Array, index: number): Block | undefined {
    const block = this.#map.blocks[index];
    if (block === undefined || !hashBytes(bytes).equals(block.digest)) return undefined;
    this.#missing.delete(index);
    return block;
  }

  /** The blocks that have these bytes. */
  takeAll(bytes: Uint8Array): Block[] {
    const indexes = this.#byDigest.get(hashBytes(bytes).toString("latin1")) ?? [];
    return indexes.flatMap((index) => {
      const block = this.#map.blocks[index];
      return block !== undefined && this.#missing.delete(index) ? [block] : [];
    });
  }
}
