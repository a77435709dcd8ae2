import { lstatSync, realpathSync } from "node:fs";
import { join } from "node:path";
import type { Bytes } from "../units/units.ts";
import { writeThrough } from "./addition.ts";
import { copyFile, makeFolder, Synchronising, synchroniseFolder } from "./copy.ts";
import { fromKernel, ImageRefused, type Mismatch } from "./image-refused.ts";
import { hashOfFiles, keyOfFiles } from "./image-request.ts";
import { passStep } from "./kill-points.ts";
import type { ImageLimits } from "./limits.ts";
import type { FileHashes } from "./manifest.ts";
import { formatHash, parseHash } from "./nar.ts";
import { configurationName, type ImageRecord, storedNames } from "./stored-image.ts";
import { type OpenedFile, openFile } from "./tree.ts";

/**
 * An image that is made of single files, wherever they are: each is verified while it is copied,
 * and the vm-config.json beside them is ours.
 */

export interface SingleFile {
  /** Whose key names it, such as "kernelPath". */
  readonly key: string;
  /** Its name in the image. */
  readonly name: string;
  /** Absolute; links are followed once. */
  readonly path: string;
  /** SHA-256 of its contents: "sha256-…=". */
  readonly hash: string;
}

export interface FilesRequest {
  readonly files: readonly SingleFile[];
  /** What vm-config.json is to say: the same for the same names, whoever asks. */
  readonly configuration: string;
  readonly onProgress?: (done: Bytes, of: Bytes) => void;
  readonly signal?: AbortSignal;
}

const hashOfText = (text: string) =>
  formatHash(new Bun.CryptoHasher("sha256").update(text).digest());

function hashesOf({ files, configuration }: FilesRequest): FileHashes {
  const hashes = files.map(({ name, hash }): [string, string] => [name, canonical(hash)]);
  return new Map([...hashes, [configurationName, hashOfText(configuration)]]);
}

/** One spelling for each hash; what is none is refused when its file is looked at. */
function canonical(hash: string): string {
  const digest = parseHash(hash);
  return digest === undefined ? hash : formatHash(digest);
}

/** What such an image is called in the store. */
export const keyOfRequest = (request: FilesRequest): string => keyOfFiles(hashesOf(request));

/**
 * @param partial a folder that is new; all of it is on the disk afterwards
 * @throws ImageRefused with key, expected and received; the signal's reason
 */
export async function copySingleFiles(
  request: FilesRequest,
  { partial, limits }: { readonly partial: string; readonly limits: ImageLimits },
): Promise<{ readonly key: string; readonly record: ImageRecord }> {
  const { files, configuration, signal } = request;
  const tree = join(partial, storedNames.tree);
  for (const name of [storedNames.tree, storedNames.outside]) makeFolder(join(partial, name));
  using opened = new DisposableStack();
  const sources = files.map((file) => ({ file, source: opened.use(openSingle(file)) }));
  const of = sources.reduce((sum, { source }) => sum + source.size, 0);
  const [first] = files;
  if (first === undefined) throw new RangeError("Expected a file");
  if (of > limits.bytes) {
    const expected = `at most ${limits.bytes} bytes in all files`;
    throw refusalOf(first)({ expected, received: `${of} bytes`, mend: "Take smaller ones." });
  }
  const synchronising = new Synchronising();
  let done: Bytes = 0;
  const onBytes = (count: Bytes) => {
    done += count;
    request.onProgress?.(done, of);
  };
  try {
    for (const { file, source } of sources) {
      const { received, onDisk } = await copyOne(file, source, { tree, onBytes, signal });
      await synchronising.add(onDisk);
      if (received !== canonical(file.hash)) {
        const mend = "Fetch the file again; if it is right, say its hash as received.";
        throw refusalOf(file)({ expected: file.hash, received, mend });
      }
    }
    passStep("verified");
    await writeThrough(join(tree, configurationName), configuration);
    const hashes = hashesOf(request);
    const record: ImageRecord = {
      ...{ format: 1, verified: "files", hash: hashOfFiles(hashes), source: first.path },
      ...{ links: null, bytes: of, outside: {} },
    };
    await writeThrough(join(partial, storedNames.record), `${JSON.stringify(record, null, 2)}\n`);
    passStep("recorded");
    await synchronising.all();
    for (const folder of [tree, partial]) await synchroniseFolder(folder);
    passStep("synced");
    return { key: keyOfFiles(hashes), record };
  } finally {
    // Nobody removes files that are on their way to the disk; why it failed is told already.
    await synchronising.all().catch(() => undefined);
  }
}

const refusalOf = ({ key, path }: SingleFile) => {
  return (mismatch: Omit<Mismatch, "file">) =>
    new ImageRefused("use the file", path, { file: key, ...mismatch });
};

function openSingle(file: SingleFile): OpenedFile {
  const refuse = refusalOf(file);
  try {
    const real = realpathSync(file.path);
    const status = lstatSync(real);
    if (!status.isFile()) {
      throw refuse({ expected: "a file", received: "something else", mend: "Look at its name." });
    }
    return openFile(real, { size: status.size, refuse });
  } catch (error) {
    const attempt = { what: "use the file", image: file.path, file: file.key, isReading: true };
    throw fromKernel(error, attempt);
  }
}

async function copyOne(
  file: SingleFile,
  source: OpenedFile,
  to: {
    readonly tree: string;
    readonly onBytes: (count: Bytes) => void;
    readonly signal: AbortSignal | undefined;
  },
): Promise<{ readonly received: string; readonly onDisk: Promise<void> }> {
  const attempt = { what: "store the file", image: file.path, file: file.key, isReading: false };
  const hasher = new Bun.CryptoHasher("sha256");
  const onPiece = (piece: Uint8Array) => {
    hasher.update(piece);
    to.onBytes(piece.length);
  };
  try {
    const target = join(to.tree, file.name);
    const { onDisk } = await copyFile(source, target, { onPiece, signal: to.signal });
    const told = onDisk.catch((error: unknown) => {
      throw fromKernel(error, attempt);
    });
    return { received: formatHash(hasher.digest()), onDisk: told };
  } catch (error) {
    throw fromKernel(error, attempt);
  }
}
