import {
  closeSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  realpathSync,
  statSync,
} from "node:fs";
import { basename, join } from "node:path";
import { inventoryLimits } from "./inventory.ts";

/** A value, or why there is none: "ENOENT", "EIO", "not a number: x". */
export type Answer<Value> =
  | { readonly value: Value; readonly reason?: undefined }
  | { readonly value: null; readonly reason: string };

export const treeLimits = {
  /** Bytes of a file that is text: /proc/cpuinfo has 1.5 KB a processor. */
  text: 4 * 1024 ** 2,
  /** Bytes of a file that is not: the whole of an SMBIOS table. */
  bytes: 1024 ** 2,
  /** Names in one folder. */
  names: 65_536,
} as const;

/**
 * The files by which a kernel tells of its host: those below `/`, or a folder that a test has
 * written. Nothing throws because a file is missing or refuses; the answer says why. It blocks as
 * long as the kernel does, so that it belongs into a process that may block.
 */
export class HostTree {
  readonly #root: string;

  constructor(root = "/") {
    this.#root = realpathSync(root);
  }

  /** Where it really stands, for what takes a path: another file system's mount, an `open`. */
  path(path: string): string {
    return join(this.#root, path);
  }

  /** Whether this is the host itself, and not a folder. */
  get isHost(): boolean {
    return this.#root === "/";
  }

  /** The first bytes of a file. */
  bytes(path: string, most: number = treeLimits.bytes): Answer<Uint8Array> {
    try {
      return { value: readSome(this.path(path), most) };
    } catch (error) {
      return { value: null, reason: reasonOf(error) };
    }
  }

  /** A file's text, without what is white around it, and nothing in it that a terminal obeys. */
  text(path: string): Answer<string> {
    const read = this.bytes(path, treeLimits.text);
    return read.value === null ? read : { value: tidyText(decode(read.value)) };
  }

  /** A text that an inventory can hold; what is empty says nothing. */
  word(path: string): Answer<string> {
    const read = this.text(path);
    if (read.value === null) return read;
    const value = read.value.replace(/\s+/g, " ").slice(0, inventoryLimits.text);
    return value === "" ? { value: null, reason: "it is empty" } : { value };
  }

  /** A whole number in decimal or, with 0x before it, in hexadecimal. */
  number(path: string): Answer<number> {
    const read = this.text(path);
    return read.value === null ? read : parseNumber(read.value);
  }

  /** The names in a folder, those with numbers by their numbers; none where there is no folder. */
  names(path: string): string[] {
    try {
      return readdirSync(this.path(path)).slice(0, treeLimits.names).sort(byNumber);
    } catch {
      return [];
    }
  }

  has(path: string): boolean {
    try {
      return statSync(this.path(path), { throwIfNoEntry: false }) !== undefined;
    } catch {
      // ENOTDIR, for one: what is asked for as a folder is a file.
      return false;
    }
  }

  /** The last name in what a link leads to: of `device/driver` the driver. */
  target(path: string): string | null {
    try {
      return basename(readlinkSync(this.path(path)));
    } catch {
      return null;
    }
  }

  /** Where all links of a path lead, from the root: "sys/devices/pci0000:00/…". */
  place(path: string): string | null {
    try {
      const real = realpathSync(this.path(path));
      return real.startsWith(this.#root) ? real.slice(this.#root.length).replace(/^\//, "") : null;
    } catch {
      return null;
    }
  }
}

function readSome(path: string, most: number): Uint8Array {
  const file = openSync(path, "r");
  try {
    let held = new Uint8Array(Math.min(most, 4_096));
    let length = 0;
    for (;;) {
      const read = readSync(file, held, length, held.length - length, null);
      length += read;
      if (read === 0 || length === most) return held.subarray(0, length);
      if (length < held.length) continue;
      const larger = new Uint8Array(Math.min(most, held.length * 4));
      larger.set(held);
      held = larger;
    }
  } finally {
    closeSync(file);
  }
}

const decoder = new TextDecoder();
const decode = (bytes: Uint8Array): string => decoder.decode(bytes);

// What the file system refuses always has a code.
export function reasonOf(error: unknown): string {
  const { code } = error as { readonly code?: unknown };
  return typeof code === "string" ? code : String(error);
}

/** Without control characters other than line ends and tabs, and without white space around it. */
export function tidyText(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "").trim();
}

export function parseNumber(text: string): Answer<number> {
  const value = /^(-?\d+|0x[0-9a-f]+)$/i.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value)) return { value };
  return { value: null, reason: `not a number: ${JSON.stringify(text.slice(0, 40))}` };
}

const collator = new Intl.Collator("en", { numeric: true });
const byNumber = (one: string, other: string): number => collator.compare(one, other);
