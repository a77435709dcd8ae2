import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  type Stats,
} from "node:fs";
import type { Bytes } from "../units/units.ts";
import { fromKernel, ImageRefused, type Mismatch } from "./image-refused.ts";
import type { ImageLimits } from "./limits.ts";

/** What is in a folder, in the order of a NAR: by the bytes of the names, a folder as it is met. */

export interface TreeEntry {
  /** In its folder; undefined for the root. */
  readonly name: Uint8Array | undefined;
  /** From the root, for people and for programs; "" for the root. */
  readonly path: string;
}

/** A regular file that stays the same one, whatever happens to its name. */
export interface OpenedFile extends Disposable {
  readonly descriptor: number;
  readonly size: Bytes;
  /** Its owner may execute it. */
  readonly isExecutable: boolean;
  /** The error of one who finds that it is not as long as `size` any more. */
  readonly changed: (received: string) => Error;
}

export interface TreeVisitor {
  enterFolder(entry: TreeEntry): void;
  leaveFolder(entry: TreeEntry): Promise<void> | void;
  file(entry: TreeEntry & { readonly size: Bytes; open(): OpenedFile }): Promise<void> | void;
  link(entry: TreeEntry & { readonly target: Uint8Array }): void;
}

/**
 * Visits everything. Each folder and file is opened once, by its name in a folder that is open: a
 * name that leads elsewhere in the middle of this leads nobody astray. No link is followed.
 * @throws ImageRefused for other kinds of files, for names that are no text, above the limits
 */
export async function walkTree(
  root: string,
  visitor: TreeVisitor,
  limits: ImageLimits,
): Promise<void> {
  await new Walk(root, visitor, limits).visit({ name: undefined, path: "" }, root, 0);
}

class Walk {
  readonly #root: string;
  readonly #visitor: TreeVisitor;
  readonly #limits: ImageLimits;
  #entries = 0;
  #bytes: Bytes = 0;

  constructor(root: string, visitor: TreeVisitor, limits: ImageLimits) {
    this.#root = root;
    this.#visitor = visitor;
    this.#limits = limits;
  }

  /** @param place a path by which the kernel finds it now */
  async visit(entry: TreeEntry, place: string, depth: number): Promise<void> {
    const status = this.#ask(entry, () => lstatSync(place));
    this.#count(entry);
    if (status.isSymbolicLink()) {
      const target = this.#ask(entry, () => readlinkSync(place, { encoding: "buffer" }));
      this.#visitor.link({ ...entry, target });
    } else if (status.isDirectory()) {
      await this.#visitFolder(entry, place, depth);
    } else if (status.isFile()) {
      this.#measure(entry, status.size);
      const open = () => this.#open(entry, place, status.size);
      await this.#visitor.file({ ...entry, size: status.size, open });
    } else {
      throw this.#refusal(entry, {
        expected: "files, folders and symbolic links",
        received: kindOf(status),
        mend: "Take it out of the image.",
      });
    }
  }

  async #visitFolder(entry: TreeEntry, place: string, depth: number): Promise<void> {
    if (depth > this.#limits.depth) {
      const expected = `folders at most ${this.#limits.depth} deep`;
      throw this.#refusal(entry, { expected, received: "one more", mend: "Make it flatter." });
    }
    const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
    const flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
    const descriptor = this.#ask(entry, () => openSync(place, flags));
    try {
      this.#visitor.enterFolder(entry);
      // What proc_pid_fd(5) shows leads to this folder itself, as openat(2) would.
      const opened = `/proc/self/fd/${descriptor}`;
      const names = this.#ask(entry, () => readdirSync(opened, { encoding: "buffer" }));
      if (this.#entries + names.length > this.#limits.entries) throw this.#tooMany(entry);
      for (const bytes of names.toSorted(Buffer.compare)) {
        const name = this.#textOf(entry, bytes);
        const path = entry.path === "" ? name : `${entry.path}/${name}`;
        await this.visit({ name: bytes, path }, `${opened}/${name}`, depth + 1);
      }
      await this.#visitor.leaveFolder(entry);
    } finally {
      closeSync(descriptor);
    }
  }

  #open(entry: TreeEntry, place: string, size: Bytes): OpenedFile {
    const refuse = (mismatch: Finding) => this.#refusal(entry, mismatch);
    return this.#ask(entry, () => openFile(place, { size, refuse }));
  }

  #count(entry: TreeEntry): void {
    this.#entries += 1;
    if (this.#entries > this.#limits.entries) throw this.#tooMany(entry);
  }

  #tooMany(entry: TreeEntry): ImageRefused {
    const expected = `at most ${this.#limits.entries} files, folders and links`;
    return this.#refusal(entry, {
      expected,
      received: "more",
      mend: "Take some out of the image.",
    });
  }

  #measure(entry: TreeEntry, size: Bytes): void {
    this.#bytes += size;
    if (this.#bytes <= this.#limits.bytes) return;
    throw this.#refusal(entry, {
      expected: `at most ${this.#limits.bytes} bytes in all files`,
      received: `${this.#bytes} bytes up to this one`,
      mend: "Take something out of the image.",
    });
  }

  #textOf(entry: TreeEntry, bytes: Buffer): string {
    const name = bytes.toString("utf8");
    if (Buffer.from(name).equals(bytes)) return name;
    throw this.#refusal(entry, {
      expected: "names in UTF-8",
      received: `the name with the bytes ${bytes.toString("hex")}`,
      mend: "Rename it.",
    });
  }

  #ask<T>(entry: TreeEntry, act: () => T): T {
    try {
      return act();
    } catch (error) {
      throw fromKernel(error, { what: "read the image", isReading: true, ...this.#placeOf(entry) });
    }
  }

  #refusal(entry: TreeEntry, mismatch: Finding): ImageRefused {
    const { image, file } = this.#placeOf(entry);
    return new ImageRefused("read the image", image, { file, ...mismatch });
  }

  #placeOf(entry: TreeEntry) {
    return { image: this.#root, file: entry.path === "" ? undefined : entry.path };
  }
}

type Finding = Omit<Mismatch, "file">;

/**
 * Opens a regular file, and nothing that could block.
 * @param size how long it was when it was looked at
 * @throws what `refuse` makes of another kind of file, or a longer one; the kernel's refusals
 */
export function openFile(
  path: string,
  { size, refuse }: { readonly size: Bytes; readonly refuse: (mismatch: Finding) => Error },
): OpenedFile {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const descriptor = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  const close = () => closeSync(descriptor);
  const mend = "Make sure that nobody writes there, and try again.";
  const changed = (received: string) =>
    refuse({ expected: `${size} bytes as before`, received, mend });
  const status = fstatSync(descriptor);
  if (!status.isFile() || status.size !== size) {
    close();
    if (status.isFile()) throw changed(`${status.size} bytes`);
    throw refuse({ expected: "a file as before", received: kindOf(status), mend });
  }
  const isExecutable = (status.mode & constants.S_IXUSR) !== 0;
  return { descriptor, size, isExecutable, changed, [Symbol.dispose]: close };
}

function kindOf(status: Stats): string {
  if (status.isFIFO()) return "a FIFO";
  if (status.isSocket()) return "a socket";
  if (status.isCharacterDevice() || status.isBlockDevice()) return "a device";
  if (status.isDirectory()) return "a folder";
  return status.isSymbolicLink() ? "a symbolic link" : "another kind of file";
}
