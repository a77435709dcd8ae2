import type { Bytes } from "../units/units.ts";
import { imageLimits } from "./limits.ts";
import { readPieces } from "./pieces.ts";
import { type TreeVisitor, walkTree } from "./tree.ts";

/**
 * The SHA-256 of a path's NAR serialisation, which `nix hash path` prints: "The Purely Functional
 * Software Deployment Model", figure 5.2. Names, contents, links and whether a file can be executed
 * are in it; times, owners and all other modes are not. Memory does not grow with what is hashed.
 */
export class NarHasher implements TreeVisitor {
  readonly #hash = new Bun.CryptoHasher("sha256");
  readonly #onBytes: (count: Bytes) => void;
  readonly #signal: AbortSignal | undefined;

  /** @param onBytes called with how many more bytes of files went in */
  constructor(onBytes: (count: Bytes) => void = () => undefined, signal?: AbortSignal) {
    this.#onBytes = onBytes;
    this.#signal = signal;
    this.#text("nix-archive-1");
  }

  enterFolder({ name }: { readonly name: Uint8Array | undefined }): void {
    this.#open(name);
    this.#text("type", "directory");
  }

  leaveFolder({ name }: { readonly name: Uint8Array | undefined }): void {
    this.#close(name);
  }

  async file(entry: Parameters<TreeVisitor["file"]>[0]): Promise<void> {
    using opened = entry.open();
    const { size, isExecutable } = opened;
    this.beginFile({ name: entry.name, size, isExecutable });
    const options = { size, signal: this.#signal, changed: opened.changed };
    await readPieces(opened.descriptor, options, (piece) => this.contents(piece));
    this.endFile({ name: entry.name, size });
  }

  link({ name, target }: { readonly name: Uint8Array | undefined; target: Uint8Array }): void {
    this.#open(name);
    this.#text("type", "symlink", "target");
    this.#bytes(target);
    this.#close(name);
  }

  /** Exactly `size` bytes go into `contents` afterwards. */
  beginFile(file: {
    readonly name: Uint8Array | undefined;
    readonly size: Bytes;
    readonly isExecutable: boolean;
  }): void {
    this.#open(file.name);
    this.#text("type", "regular");
    if (file.isExecutable) this.#text("executable", "");
    this.#text("contents");
    this.#hash.update(lengthOf(file.size));
  }

  contents(piece: Uint8Array): void {
    this.#hash.update(piece);
    this.#onBytes(piece.length);
  }

  endFile({ name, size }: { readonly name: Uint8Array | undefined; readonly size: Bytes }): void {
    this.#hash.update(padding(size));
    this.#close(name);
  }

  /** As Nix writes it: "sha256-…=". */
  digest(): string {
    return formatHash(this.#hash.digest());
  }

  #open(name: Uint8Array | undefined): void {
    if (name !== undefined) {
      this.#text("entry", "(", "name");
      this.#bytes(name);
      this.#text("node");
    }
    this.#text("(");
  }

  #close(name: Uint8Array | undefined): void {
    this.#text(")");
    if (name !== undefined) this.#text(")");
  }

  #text(...words: readonly string[]): void {
    for (const word of words) this.#bytes(Buffer.from(word));
  }

  #bytes(bytes: Uint8Array): void {
    this.#hash.update(lengthOf(bytes.length));
    this.#hash.update(bytes);
    this.#hash.update(padding(bytes.length));
  }
}

/**
 * Hashes a file, a link or a folder.
 * @returns "sha256-…=", as `nix hash path` prints it
 * @throws ImageRefused for what is no file, link or folder, for too much, or when it changes
 */
export async function hashPath(
  path: string,
  options: {
    readonly onBytes?: (count: Bytes) => void;
    readonly signal?: AbortSignal;
  } = {},
): Promise<string> {
  const hasher = new NarHasher(options.onBytes, options.signal);
  await walkTree(path, hasher, imageLimits);
  return hasher.digest();
}

/** 64 bits, little-endian. */
function lengthOf(length: Bytes): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(length));
  return bytes;
}

const zeros = new Uint8Array(8);

/** Everything begins at a multiple of 8 bytes. */
const padding = (length: Bytes) => zeros.subarray(0, (8 - (length % 8)) % 8);

const encodedHash = /^sha256-([A-Za-z0-9+/]{43}=)$/;

/** SHA-256 as Subresource Integrity has it: "sha256-", and base64 with its padding. */
export function formatHash(digest: Uint8Array): string {
  return `sha256-${Buffer.from(digest).toString("base64")}`;
}

/** The 32 bytes of "sha256-…="; undefined for anything else, and for bits that are left over. */
export function parseHash(text: string): Uint8Array | undefined {
  const [, encoded] = encodedHash.exec(text) ?? [];
  if (encoded === undefined) return undefined;
  const bytes = Buffer.from(encoded, "base64");
  return bytes.length === 32 && formatHash(bytes) === text ? bytes : undefined;
}
