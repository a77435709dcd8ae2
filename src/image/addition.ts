import { lstatSync, realpathSync, symlinkSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Bytes } from "../units/units.ts";
import { copyFile, makeFolder, Synchronising, synchroniseFolder } from "./copy.ts";
import { below } from "./image-file.ts";
import { fromKernel, ImageRefused, type Mismatch } from "./image-refused.ts";
import { hashOfFiles, type ImageRequest, keyOfFiles, keyOfNar } from "./image-request.ts";
import { passStep } from "./kill-points.ts";
import type { ImageLimits } from "./limits.ts";
import { type FileHashes, manifestNames } from "./manifest.ts";
import { formatHash, NarHasher, parseHash } from "./nar.ts";
import { resolveInTree } from "./resolve.ts";
import {
  configurationName,
  type ImageRecord,
  readConfiguration,
  storedNames,
} from "./stored-image.ts";
import { type OpenedFile, openFile, type TreeVisitor, walkTree } from "./tree.ts";

/** An image on its way into the store. */
export interface Addition {
  readonly request: ImageRequest;
  /** The image's folder, no part of whose path is a link. */
  readonly source: string;
  /** A folder that is new. */
  readonly partial: string;
  /** Where links may lead, but for the image itself. */
  readonly links: string | null;
  readonly limits: ImageLimits;
}

/**
 * Copies an image and verifies the copy, in one reading. All of it is on the disk afterwards.
 * @throws ImageRefused; the kernel's refusals; the signal's reason; what `wanted` throws
 */
export async function copyImage(
  addition: Addition,
): Promise<{ readonly key: string; readonly record: ImageRecord }> {
  const { request, source, limits } = addition;
  const measure = new Measure();
  await walkTree(source, measure, limits);
  const progress = new Progress(measure.bytes, request.onProgress);
  const synchronising = new Synchronising();
  try {
    return await copyAndRecord(addition, { progress, synchronising });
  } finally {
    // Nobody removes files that are on their way to the disk; why it failed is told already.
    await synchronising.all().catch(() => undefined);
  }
}

/** What lasts for the whole of an addition. */
interface Course {
  readonly progress: Progress;
  readonly synchronising: Synchronising;
}

async function copyAndRecord(
  addition: Addition,
  course: Course,
): Promise<{ readonly key: string; readonly record: ImageRecord }> {
  const { partial, links, limits } = addition;
  const copier = new Copier(addition, course);
  await walkTree(addition.source, copier, limits);
  const source = originOf(addition);
  const { key, ...verified } = copier.finish();
  passStep("verified");
  const outside = await copyOutside(addition, course);
  const bytes = course.progress.done;
  const record: ImageRecord = { format: 1, ...verified, source, links, bytes, outside };
  await writeThrough(join(partial, storedNames.record), `${JSON.stringify(record, null, 2)}\n`);
  passStep("recorded");
  await course.synchronising.all();
  await synchroniseFolder(partial);
  passStep("synced");
  return { key, record };
}

const originOf = ({ request, source }: Addition) => request.origin ?? source;

class Measure implements TreeVisitor {
  bytes: Bytes = 0;

  enterFolder(): void {}
  leaveFolder(): void {}
  link(): void {}
  file({ size }: { readonly size: Bytes }): void {
    this.bytes += size;
  }
}

class Progress {
  done: Bytes = 0;
  of: Bytes;
  readonly #tell: (done: Bytes, of: Bytes) => void;

  constructor(of: Bytes, tell: ImageRequest["onProgress"]) {
    this.of = of;
    this.#tell = tell ?? (() => undefined);
  }

  add(count: Bytes): void {
    this.done += count;
    this.#tell(this.done, this.of);
  }
}

class Copier implements TreeVisitor {
  readonly #addition: Addition;
  readonly #course: Course;
  readonly #nar = new NarHasher();
  /** The files that were met, with the hash of each, where each has one to be held against. */
  readonly #files = new Map<string, string>();

  constructor(addition: Addition, course: Course) {
    this.#addition = addition;
    this.#course = course;
  }

  enterFolder(entry: Parameters<TreeVisitor["enterFolder"]>[0]): void {
    makeFolder(this.#placeOf(entry.path));
    this.#nar.enterFolder(entry);
  }

  async leaveFolder(entry: Parameters<TreeVisitor["leaveFolder"]>[0]): Promise<void> {
    this.#nar.leaveFolder(entry);
    await this.#course.synchronising.add(synchroniseFolder(this.#placeOf(entry.path)));
  }

  link(entry: Parameters<TreeVisitor["link"]>[0]): void {
    if (this.#hashes !== undefined) {
      throw this.#refusal({
        file: entry.path,
        expected: "files alone, because a manifest has no hash of a link",
        received: "a symbolic link",
        mend: "Put the file in its place, or give the hash of the whole image.",
      });
    }
    symlinkSync(Buffer.from(entry.target), this.#placeOf(entry.path));
    this.#nar.link(entry);
  }

  async file(entry: Parameters<TreeVisitor["file"]>[0]): Promise<void> {
    using opened = entry.open();
    const { size, isExecutable } = opened;
    const hashes = this.#hashes;
    const { path } = entry;
    if (hashes === undefined) {
      this.#nar.beginFile({ name: entry.name, size, isExecutable });
      await this.#copy(opened, path, (piece) => this.#nar.contents(piece));
      this.#nar.endFile({ name: entry.name, size });
      return;
    }
    const isManifest = manifestNames.includes(path) && !hashes.has(path);
    if (!isManifest && !hashes.has(path)) throw this.#refusal(notListed(path));
    const hash = new Bun.CryptoHasher("sha256");
    await this.#copy(opened, path, (piece) => hash.update(piece));
    if (isManifest) return;
    const received = formatHash(hash.digest());
    checkHash(this.#addition, { file: path, expected: hashes.get(path) as string, received });
    this.#files.set(path, received);
  }

  /** @throws ImageRefused when the image is not what it has to be */
  finish(): { readonly key: string } & Pick<ImageRecord, "verified" | "hash"> {
    const { expected } = this.#addition.request;
    if (expected.kind === "files") {
      for (const name of expected.files.keys()) {
        if (this.#files.has(name) || name.startsWith("/")) continue;
        const mend = "Complete the image, or its manifest.";
        throw this.#refusal({ file: name, expected: "a file", received: "nothing", mend });
      }
      const key = keyOfFiles(expected.files);
      return { key, verified: "files", hash: hashOfFiles(expected.files) };
    }
    const hash = this.#nar.digest();
    const key = keyOfNar(parseHash(hash) as Uint8Array);
    if (expected.kind === "any") return { key, verified: "nothing", hash };
    checkHash(this.#addition, { file: undefined, expected: expected.hash, received: hash });
    return { key, verified: "nar", hash };
  }

  async #copy(opened: OpenedFile, path: string, hash: (piece: Uint8Array) => unknown) {
    const to = { file: path, target: this.#placeOf(path), hash };
    await copyNamed(this.#addition, this.#course, opened, to);
  }

  get #hashes(): FileHashes | undefined {
    const { expected } = this.#addition.request;
    return expected.kind === "files" ? expected.files : undefined;
  }

  #placeOf(path: string): string {
    return join(this.#addition.partial, storedNames.tree, path);
  }

  #refusal(mismatch: Mismatch): ImageRefused {
    return new ImageRefused("use the image", this.#addition.source, mismatch);
  }
}

const notListed = (file: string): Mismatch => ({
  file,
  expected: "its hash in the manifest",
  received: "none",
  mend: "Add it there, or take the file out of the image.",
});

/** Copies a file, and tells of which one the kernel refused something. */
async function copyNamed(
  { request, source }: Addition,
  { progress, synchronising }: Course,
  opened: OpenedFile,
  to: {
    readonly file: string;
    readonly target: string;
    readonly hash: (piece: Uint8Array) => unknown;
  },
): Promise<void> {
  const { file, target, hash } = to;
  const onPiece = (piece: Uint8Array) => {
    hash(piece);
    progress.add(piece.length);
  };
  const told = (error: unknown) =>
    fromKernel(error, { what: "store the image", image: source, file, isReading: false });
  try {
    const { onDisk } = await copyFile(opened, target, { onPiece, signal: request.signal });
    await synchronising.add(
      onDisk.catch((error: unknown) => {
        throw told(error);
      }),
    );
  } catch (error) {
    throw told(error);
  }
}

function checkHash(
  { source }: Addition,
  found: { file: string | undefined; expected: string; received: string },
): void {
  const { expected, received } = found;
  const isSame = Buffer.compare(
    parseHash(expected) ?? new Uint8Array(),
    parseHash(received) ?? new Uint8Array(1),
  );
  if (isSame === 0) return;
  const mend = "Fetch the image again; if it is right, say its hash as received.";
  throw new ImageRefused("use the image", source, { ...found, mend });
}

/** Copies what the machine needs of /nix/store, whose packages nobody changes. */
async function copyOutside(addition: Addition, course: Course): Promise<ImageRecord["outside"]> {
  const { request, partial, links } = addition;
  const source = originOf(addition);
  const tree = join(partial, storedNames.tree);
  const place = { source, outside: links ?? undefined };
  const copied: ImageRecord["outside"] = {};
  makeFolder(join(partial, storedNames.outside));
  for (const { key, file } of request.wanted(readConfiguration(tree, source), source)) {
    const found = file.kind === "inside" ? resolveInTree(tree, file.name, place) : file;
    if ("expected" in found) {
      const mend = `Look at what the image's ${configurationName} names.`;
      throw new ImageRefused("use the image", source, { file: key, ...found, mend });
    }
    if (found.kind === "inside" || Object.hasOwn(copied, found.path)) continue;
    const name = `${Object.keys(copied).length}-${basename(found.path)}`.slice(0, 100);
    const into = { key, path: found.path, name };
    copied[found.path] = { name, ...(await copyOneOutside(addition, into, course)) };
  }
  await course.synchronising.add(synchroniseFolder(join(partial, storedNames.outside)));
  return copied;
}

async function copyOneOutside(
  addition: Addition,
  { key, path, name }: { readonly key: string; readonly path: string; readonly name: string },
  course: Course,
): Promise<{ readonly size: Bytes; readonly hash: string }> {
  const { source, partial, links, limits, request } = addition;
  const { progress } = course;
  const refuse = (mismatch: Omit<Mismatch, "file">) =>
    new ImageRefused("use the image", source, { file: key, ...mismatch });
  const refuseAs = (expected: string, received: string) =>
    refuse({ expected, received, mend: `Look at what the image's ${configurationName} names.` });
  const real = realOf(path);
  if (real === undefined) throw refuseAs("a file", `nothing at ${path}`);
  const status = lstatSync(real);
  if (links === null || below(links, real) === undefined || !status.isFile()) {
    throw refuseAs(`a file in the image, or in ${nixStoreOf(links)}`, path);
  }
  progress.of += status.size;
  if (progress.of > limits.bytes) {
    throw refuseAs(`at most ${limits.bytes} bytes in all files`, `${progress.of} bytes`);
  }
  using opened = openFile(real, { size: status.size, refuse });
  const hasher = new Bun.CryptoHasher("sha256");
  await copyNamed(addition, course, opened, {
    file: key,
    target: join(partial, storedNames.outside, name),
    hash: (piece) => hasher.update(piece),
  });
  const hash = formatHash(hasher.digest());
  const { expected } = request;
  if (expected.kind === "files") {
    const listed = expected.files.get(path);
    if (listed === undefined) throw new ImageRefused("use the image", source, notListed(path));
    checkHash(addition, { file: path, expected: listed, received: hash });
  }
  return { size: status.size, hash };
}

const nixStoreOf = (links: string | null) => links ?? "no other folder";

function realOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** A file of an image that is ours, which is on the disk afterwards. */
export async function writeThrough(path: string, text: string): Promise<void> {
  await using file = await open(path, "wx", 0o444);
  await file.writeFile(text);
  await file.sync();
}
