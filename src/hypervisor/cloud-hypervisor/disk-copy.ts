import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { promisify } from "node:util";
import { nextData } from "../../../ffi/file-holes.ts";
import type { ByteSocket } from "../../messaging/byte-socket.ts";
import type { Bytes } from "../../units/units.ts";
import { type Disk, VmmRefused, VmmUnreachable } from "../driver.ts";
import {
  DISK_BLOCK_BYTES,
  DISK_FRAME_BYTES,
  DISK_LINE_BYTES,
  DISK_SYNCED,
  type DiskFrame,
  decodeDiskFrame,
  encodeDiskFrame,
  renameBacking,
} from "./disk-wire.ts";
import { ByteQueue } from "./migration-wire.ts";

/** A time of change that is so much older than a copy tells by itself that nothing was written. */
const SETTLED_MILLISECONDS = 1_000;

/**
 * A disk on its way to another host: all of it while its guest runs, and what has changed since
 * when that stands still. What a block was is known by its SHA-256.
 */
export class DiskSender implements AsyncDisposable {
  readonly #socket: ByteSocket;
  readonly #file: FileHandle;
  readonly #hashes = new Map<number, string>();
  readonly #buffer = Buffer.alloc(DISK_BLOCK_BYTES);
  #size: Bytes = 0;
  /** When it was last written to before the first pass, in nanoseconds; undefined: no use. */
  #writtenAt: bigint | undefined;
  #synced = Promise.withResolvers<void>();

  private constructor(socket: ByteSocket, file: FileHandle) {
    this.#socket = socket;
    this.#file = file;
    socket.listen((bytes) => {
      if (bytes.length === 1 && bytes[0] === DISK_SYNCED) this.#synced.resolve();
      else this.#synced.reject(new VmmRefused("The other host answered a disk with other bytes"));
    });
    void socket.closed.then((reason) => this.#synced.reject(lost(reason)));
    this.#synced.promise.catch(() => undefined);
  }

  static async open({ id, path }: Disk, socket: ByteSocket): Promise<DiskSender> {
    const { O_RDONLY, O_NOFOLLOW } = constants;
    const sender = new DiskSender(socket, await open(path, O_RDONLY | O_NOFOLLOW));
    socket.write(Buffer.from(`${JSON.stringify({ disk: id })}\n`));
    return sender;
  }

  /** All that it has now. @throws VmmUnreachable; the signal's reason; Error (EIO …) */
  async sendAll(signal: AbortSignal, onBytes: (count: Bytes) => void): Promise<void> {
    const begun = BigInt(Date.now() - SETTLED_MILLISECONDS) * 1_000_000n;
    const { mtimeNs, size } = await this.#file.stat({ bigint: true });
    if (mtimeNs < begun) this.#writtenAt = mtimeNs;
    this.#size = Number(size);
    await this.#frame({ kind: "empty", length: 0, offset: this.#size });
    for (let block = this.#nextBlock(0); block !== undefined; block = this.#nextBlock(block + 1)) {
      signal.throwIfAborted();
      onBytes(await this.#sendBlock(block));
    }
    // So that the last of it does not wait for all of it.
    await this.#sync("sync");
  }

  /** Returns when the other host has all of it on its disk. */
  async #sync(kind: "sync" | "end"): Promise<void> {
    this.#synced = Promise.withResolvers();
    this.#synced.promise.catch(() => undefined);
    await this.#frame({ kind, length: 0, offset: 0 });
    await this.#synced.promise;
  }

  /** What has changed since, with the guest at rest; returns when the other host has all of it. */
  async sendRest(signal: AbortSignal): Promise<void> {
    const { mtimeNs, size } = await this.#file.stat({ bigint: true });
    if (mtimeNs !== this.#writtenAt || Number(size) !== this.#size) {
      if (Number(size) !== this.#size) {
        this.#size = Number(size);
        await this.#frame({ kind: "size", length: 0, offset: this.#size });
      }
      const blocks = new Set(this.#hashes.keys());
      let block = this.#nextBlock(0);
      for (; block !== undefined; block = this.#nextBlock(block + 1)) blocks.add(block);
      for (const one of blocks) {
        signal.throwIfAborted();
        if (one * DISK_BLOCK_BYTES < this.#size) await this.#sendBlock(one);
      }
    }
    await this.#sync("end");
  }

  /** The number of the first block from this one on that has data. */
  #nextBlock(least: number): number | undefined {
    const offset = least * DISK_BLOCK_BYTES;
    if (offset >= this.#size) return undefined;
    const data = nextData(this.#file.fd, offset);
    return data === undefined ? undefined : Math.floor(data.begin / DISK_BLOCK_BYTES);
  }

  /** Where it is not what was sent before. @returns bytes that were looked at */
  async #sendBlock(block: number): Promise<Bytes> {
    const offset = block * DISK_BLOCK_BYTES;
    const length = Math.min(DISK_BLOCK_BYTES, this.#size - offset);
    const { bytesRead } = await this.#file.read(this.#buffer, 0, length, offset);
    const bytes = this.#buffer.subarray(0, bytesRead);
    const hash = createHash("sha256").update(bytes).digest("base64");
    if (this.#hashes.get(block) === hash) return bytesRead;
    this.#hashes.set(block, hash);
    await this.#frame({ kind: "data", length: bytesRead, offset }, bytes);
    return bytesRead;
  }

  async #frame(frame: DiskFrame, bytes?: Uint8Array): Promise<void> {
    if (!this.#socket.isOpen) throw lost(this.#socket.end ?? "it is closed");
    const header = encodeDiskFrame(frame);
    this.#socket.write(bytes === undefined ? header : Buffer.concat([header, bytes]));
    await this.#socket.drained();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.terminate("the disk was sent");
    await this.#file.close();
  }
}

const lost = (reason: string) =>
  new VmmUnreachable(`The connection of a disk to the other host ended: ${reason}`);

/** Takes disks of a machine that comes, each over a connection of its own. */
export class DiskReceiver implements Disposable {
  readonly #disks: ReadonlyMap<string, Disk>;
  readonly #sockets = new Set<ByteSocket>();
  /** Those of which all has come. */
  readonly #ended = new Set<string>();
  readonly #taken = new Set<string>();
  readonly #onRefused: (reason: string) => void;

  /** @param onRefused a disk does not come any more */
  constructor(disks: readonly Disk[], onRefused: (reason: string) => void) {
    this.#disks = new Map(disks.map((disk) => [disk.id, disk]));
    this.#onRefused = onRefused;
  }

  take(socket: ByteSocket): void {
    this.#sockets.add(socket);
    const queue = new ByteQueue();
    let coming: ComingDisk | undefined;
    const refuse = (error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      socket.terminate(reason);
      this.#onRefused(reason);
    };
    socket.listen((bytes) => {
      try {
        queue.push(bytes);
        coming ??= this.#begin(queue);
        const asked = coming?.take(queue);
        if (coming !== undefined && asked !== undefined) {
          this.#answer(coming, asked, socket).catch(refuse);
        }
      } catch (error) {
        refuse(error);
      }
    });
    void socket.closed.then((reason) => {
      coming?.[Symbol.dispose]();
      if (coming === undefined || !this.#ended.has(coming.id)) {
        this.#onRefused(`a disk did not come whole: ${reason}`);
      }
    });
  }

  async #answer(coming: ComingDisk, asked: "sync" | "end", socket: ByteSocket): Promise<void> {
    if (asked === "end") coming.rename();
    await coming.sync();
    if (asked === "end") this.#ended.add(coming.id);
    socket.write(Uint8Array.of(DISK_SYNCED));
  }

  /** The disk of the first line; undefined while that has not come. */
  #begin(queue: ByteQueue): ComingDisk | undefined {
    const line = queue.takeLine(DISK_LINE_BYTES);
    if (line === undefined) return undefined;
    const [, id = ""] = /^\{"disk":"([a-z0-9-]{1,16})"\}$/.exec(line) ?? [];
    const disk = this.#disks.get(id);
    if (disk === undefined || this.#taken.has(id)) {
      throw new VmmRefused(`expected a disk that has not come, received ${JSON.stringify(id)}`);
    }
    this.#taken.add(id);
    return new ComingDisk(disk);
  }

  /** @throws VmmRefused when not all of them have come */
  end(): void {
    const missing = [...this.#disks.keys()].filter((id) => !this.#ended.has(id));
    if (missing.length > 0) {
      throw new VmmRefused(`expected all disks, and did not receive ${missing.join(", ")} whole`);
    }
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.terminate("the disks are here");
  }
}

/** One of them, as it is written. */
class ComingDisk implements Disposable {
  readonly id: string;
  readonly #disk: Disk;
  readonly #file: number;
  #isOpen = true;
  #frame: DiskFrame | undefined;

  /** @throws Error (ENOENT …) */
  constructor(disk: Disk) {
    this.id = disk.id;
    this.#disk = disk;
    this.#file = openSync(disk.path, constants.O_RDWR | constants.O_NOFOLLOW);
    if (!fstatSync(this.#file).isFile()) {
      this[Symbol.dispose]();
      throw new VmmRefused(`${disk.path}: expected a file`);
    }
  }

  /** @returns what is to be answered @throws VmmRefused, Error (ENOSPC …) */
  take(queue: ByteQueue): "sync" | "end" | undefined {
    for (;;) {
      this.#frame ??= this.#next(queue);
      if (this.#frame === undefined) return undefined;
      const { kind, length, offset } = this.#frame;
      const bytes = queue.take(length);
      if (bytes === undefined) return undefined;
      this.#frame = undefined;
      if (kind === "data") this.#write(bytes, offset);
      else if (kind === "size") ftruncateSync(this.#file, offset);
      else if (kind === "empty") {
        ftruncateSync(this.#file, 0);
        ftruncateSync(this.#file, offset);
      } else return kind;
    }
  }

  #next(queue: ByteQueue): DiskFrame | undefined {
    const header = queue.take(DISK_FRAME_BYTES);
    if (header === undefined) return undefined;
    const frame = decodeDiskFrame(header);
    if (typeof frame === "string") throw new VmmRefused(`disk ${this.id}: ${frame}`);
    return frame;
  }

  #write(bytes: Uint8Array, offset: Bytes): void {
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(this.#file, bytes, done, bytes.length - done, offset + done);
    }
  }

  /** What is below it stands elsewhere here. */
  rename(): void {
    const { format, backing } = this.#disk;
    if (format === "qcow2" && backing !== undefined) {
      const header = Buffer.alloc(64 * 1024);
      const count = readSync(this.#file, header, 0, header.length, 0);
      const pieces = renameBacking(header.subarray(0, count), backing.path);
      if (typeof pieces === "string") throw new VmmRefused(`disk ${this.id}: ${pieces}`);
      for (const { offset, bytes } of pieces) this.#write(bytes, offset);
    }
  }

  /** In another thread: it may take long. */
  async sync(): Promise<void> {
    await promisify(fsync)(this.#file);
  }

  [Symbol.dispose](): void {
    if (this.#isOpen) closeSync(this.#file);
    this.#isOpen = false;
  }
}
