import {
  chmodSync,
  closeSync,
  constants,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { imageLimits } from "../../image/limits.ts";
import { readPieces } from "../../image/pieces.ts";
import { type TreeEntry, type TreeVisitor, walkTree } from "../../image/tree.ts";
import type { ByteSocket } from "../../messaging/byte-socket.ts";
import type { Bytes } from "../../units/units.ts";
import {
  type ImageEntry,
  imageEntrySchema,
  migrationLimits,
  readLine,
  refuseImagePath,
} from "../protocol-migration.ts";
import { MigrationRefused } from "./migration-dial.ts";

/**
 * Sends all of an image: entries in the order of its tree, each file's bytes after its line.
 * @throws MigrationRefused when the other side is gone; the signal's reason; the kernel's refusals
 */
export async function sendImage(
  socket: ByteSocket,
  tree: string,
  { signal, onBytes }: { readonly signal: AbortSignal; readonly onBytes: (count: Bytes) => void },
): Promise<void> {
  const write = async (bytes: Uint8Array) => {
    signal.throwIfAborted();
    if (!socket.write(bytes)) await socket.drained();
    signal.throwIfAborted();
    if (socket.end !== undefined) {
      throw new MigrationRefused(`The other host took no more of the image: ${socket.end}`);
    }
  };
  const say = (entry: ImageEntry) => write(Buffer.from(`${JSON.stringify(entry)}\n`));
  // Whoever reads no more, behind a link that is cut, is not waited for.
  const callOff = () => socket.terminate("it was given up");
  signal.addEventListener("abort", callOff);
  using _called = { [Symbol.dispose]: () => signal.removeEventListener("abort", callOff) };
  let pending: Promise<void> = Promise.resolve();
  const links: { readonly path: string; readonly target: string }[] = [];
  const visitor: TreeVisitor = {
    enterFolder: ({ path }: TreeEntry) => {
      pending = pending.then(() => say({ kind: "folder", path }));
    },
    leaveFolder: () => pending,
    link: ({ path, target }) => {
      links.push({ path, target: Buffer.from(target).toString("base64") });
    },
    file: async (entry) => {
      await pending;
      using opened = entry.open();
      const { size, isExecutable, changed, descriptor } = opened;
      await say({ kind: "file", path: entry.path, size, executable: isExecutable });
      await readPieces(descriptor, { size, signal, changed }, async (piece) => {
        await write(piece);
        onBytes(piece.length);
      });
    },
  };
  await walkTree(tree, visitor, imageLimits);
  for (const link of links) await say({ kind: "link", ...link });
  await say({ kind: "end" });
}

/**
 * Puts what comes into a new folder. Nothing of it is verified but where it goes: that is the image
 * store's to do.
 * @throws MigrationRefused for what is none; the kernel's refusals. The folder is the caller's.
 */
export async function receiveImage(
  socket: ByteSocket,
  folder: string,
  most: { readonly bytes: Bytes; readonly entries?: number },
): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(dirname(folder), { recursive: true, mode: 0o700 });
  const taker = new ImageTaker(folder, most);
  const over = Promise.withResolvers<void>();
  socket.listen((bytes) => {
    try {
      if (taker.take(bytes)) over.resolve();
    } catch (error) {
      over.reject(error);
      socket.terminate("it sent no image");
    }
  });
  void socket.closed.then((reason) =>
    over.reject(new MigrationRefused(`The image did not come to its end: ${reason}`)),
  );
  try {
    await over.promise;
  } finally {
    taker.close();
  }
}

/** Makes files and folders of bytes as they come. */
class ImageTaker {
  readonly #folder: string;
  readonly #most: number;
  #left: Bytes;
  #entries = 0;
  #line: Uint8Array = new Uint8Array(0);
  #file: { readonly descriptor: number; readonly executable: boolean; left: Bytes } | undefined;
  #isOver = false;
  #hasLinks = false;

  constructor(folder: string, most: { readonly bytes: Bytes; readonly entries?: number }) {
    this.#folder = folder;
    this.#left = most.bytes;
    this.#most = most.entries ?? migrationLimits.imageEntries;
  }

  /** @returns whether that was all */
  take(bytes: Uint8Array): boolean {
    let rest = bytes;
    while (rest.length > 0 && !this.#isOver) {
      rest = this.#file === undefined ? this.#takeLine(rest) : this.#takeContents(rest);
    }
    return this.#isOver;
  }

  #takeLine(bytes: Uint8Array): Uint8Array {
    const newline = 10;
    const end = bytes.indexOf(newline);
    const part = end < 0 ? bytes : bytes.subarray(0, end);
    // A target of a link, in base64, and a path: each has a limit of its own.
    const most = 4 * migrationLimits.imagePathBytes;
    if (this.#line.length + part.length > most) {
      throw new MigrationRefused(`Expected an entry of at most ${most} bytes`);
    }
    this.#line = Buffer.concat([this.#line, part]);
    if (end < 0) return bytes.subarray(bytes.length);
    const read = readLine(imageEntrySchema, new TextDecoder().decode(this.#line));
    this.#line = new Uint8Array(0);
    if (read.kind === "refused") throw new MigrationRefused(`An entry: ${read.reason}`);
    this.#make(read.value);
    return bytes.subarray(end + 1);
  }

  #make(entry: ImageEntry): void {
    if (entry.kind === "end") {
      this.#isOver = true;
      return;
    }
    this.#entries += 1;
    if (this.#entries > this.#most) {
      throw new MigrationRefused(`Expected at most ${this.#most} entries`);
    }
    const refusal = refuseImagePath(entry.path);
    if (refusal !== undefined) throw new MigrationRefused(`An entry: ${refusal}`);
    // One before a file could lead that elsewhere.
    this.#hasLinks ||= entry.kind === "link";
    if (this.#hasLinks && entry.kind !== "link") {
      throw new MigrationRefused("Expected links after all files and folders");
    }
    const path = join(this.#folder, entry.path);
    if (entry.kind === "folder") mkdirSync(path, { mode: 0o700 });
    else if (entry.kind === "link") symlinkSync(Buffer.from(entry.target, "base64"), path);
    else this.#beginFile(path, entry);
  }

  #beginFile(path: string, entry: Extract<ImageEntry, { kind: "file" }>): void {
    const { size, executable } = entry;
    if (size > this.#left) {
      throw new MigrationRefused(`Expected at most ${this.#left} more bytes, received ${size}`);
    }
    this.#left -= size;
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
    const descriptor = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    if (executable) chmodSync(path, 0o700);
    this.#file = { descriptor, executable, left: size };
    if (size === 0) this.close();
  }

  #takeContents(bytes: Uint8Array): Uint8Array {
    const file = this.#file;
    if (file === undefined) throw new Error("Bug: contents of no file");
    const part = bytes.subarray(0, file.left);
    for (let at = 0; at < part.length; ) at += writeSync(file.descriptor, part, at);
    file.left -= part.length;
    if (file.left === 0) this.close();
    return bytes.subarray(part.length);
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file.descriptor);
    this.#file = undefined;
  }
}
