import { createHash } from "node:crypto";
import { constants, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { readPieces } from "../image/pieces.ts";
import { writeDurably } from "../journal/append-journal.ts";
import { NamedFileRefused, withFile, withNamedFile } from "../journal/file-refused.ts";
import type { Bytes } from "../units/units.ts";
import { hashBytes, packFrame } from "./frames.ts";
import { headOf } from "./installed.ts";
import { NewFile } from "./new-file.ts";
import {
  type ArtifactBuild,
  artifactLimits,
  type Manifest,
  manifestSchema,
  publishedNames,
} from "./protocol.ts";
import { type BlockEntry, blockMapBytesOf, writeBlockMap } from "./protocol-blocks.ts";
import { lookAtExecutable } from "./protocol-executable.ts";
import { newEnvelope, writeEnvelope } from "./signing-key.ts";

/** Of a release that says nothing else: measured, README.md. */
export const usualBlockBytes: Bytes = 64 * 1024;
export const usualLevel = 19;

/** Blocks that are packed at the same time, each on a thread of its own. */
const atOnce = 8;

export interface MakeRequest {
  /** Executables: each says itself for which architecture and libc it is. */
  readonly files: readonly string[];
  readonly release: Omit<Manifest, "format" | "product" | "builds">;
  /** The folder that is published. */
  readonly folder: string;
  readonly blockBytes?: Bytes;
  readonly level?: number;
  readonly onProgress?: (done: Bytes, of: Bytes) => void;
}

export interface Made {
  /** The manifest's file: nobody has signed it. */
  readonly path: string;
  readonly manifest: Manifest;
}

/**
 * Makes of executables what is published of them: frames, block maps, and a manifest to be signed.
 * @throws NamedFileRefused for a file that is no executable; FileRefused
 */
export async function makeRelease(request: MakeRequest): Promise<Made> {
  const { folder, release, files } = request;
  const looked = files.map(lookAt);
  for (const [index, { target }] of looked.entries()) {
    const before = looked.slice(0, index).find((one) => one.target === target);
    if (before === undefined) continue;
    throw new NamedFileRefused(
      `Cannot use ${files[index]}: expected one file for each architecture and libc, ` +
        `received a second one for ${target}. Leave one of them out.`,
    );
  }
  withFile({ what: "make the release in", path: folder, otherwise: "name another" }, () =>
    mkdirSync(folder, { recursive: true, mode: 0o755 }),
  );
  removeLeftovers(folder);
  const builds: ArtifactBuild[] = [];
  for (const { path, architecture, libc } of looked) {
    const { digest, size, blocks } = await makeBlocks(path, request);
    builds.push({ architecture, libc, digest, size, blocks });
  }
  const manifest = v.parse(manifestSchema, {
    ...{ format: 1, product: "hostler", ...release, builds },
  });
  const path = join(folder, publishedNames.manifest(release.version));
  writeDurably(path, writeEnvelope(newEnvelope(manifest)), 0o644);
  return { path, manifest };
}

/** What was ended in the middle has left its frames: they are large, and are not published. */
function removeLeftovers(folder: string): void {
  for (const name of readdirSync(folder)) {
    const maker = /^(\d+)\.making$/.exec(name)?.[1];
    if (maker === undefined || existsSync(`/proc/${maker}`)) continue;
    rmSync(join(folder, name), { force: true });
  }
}

function lookAt(path: string) {
  const file = { what: "read the executable", path, otherwise: "name another" };
  const found = withNamedFile(file, () => lookAtExecutable(headOf(path)));
  if (found.kind === "executable") {
    return { path, ...found, target: `${found.architecture} with ${found.libc}` };
  }
  throw new NamedFileRefused(
    `Cannot use ${path}: expected an executable for x64 or arm64 with glibc or musl, ` +
      `received ${found.received}. Build it: npx bun@1.4.5 run release.`,
  );
}

/** Writes the frames and the map of one file. */
async function makeBlocks(
  path: string,
  request: MakeRequest,
): Promise<Pick<ArtifactBuild, "digest" | "size" | "blocks">> {
  const { folder, blockBytes = usualBlockBytes, level = usualLevel, onProgress } = request;
  const source = await open(path, constants.O_RDONLY);
  using frames = new NewFile(join(folder, `${process.pid}.making`));
  try {
    const { size } = await source.stat();
    if (size > artifactLimits.artifactBytes) {
      const most = artifactLimits.artifactBytes;
      throw new NamedFileRefused(
        `Cannot use ${path}: expected at most ${most} bytes, received ${size}. Name another.`,
      );
    }
    const mapBytes = blockMapBytesOf(Math.ceil(size / blockBytes));
    if (mapBytes > artifactLimits.blockMapBytes) {
      const most = artifactLimits.blockMapBytes;
      throw new NamedFileRefused(
        `Cannot use ${path}: expected a block map of at most ${most} bytes, ` +
          `received ${mapBytes}. Choose larger blocks.`,
      );
    }
    const hash = createHash("sha256");
    const entries: BlockEntry[] = [];
    const packing: Promise<{ readonly digest: Buffer; readonly frame: Buffer }>[] = [];
    const writeNext = async () => {
      const packed = await packing.shift();
      if (packed === undefined) return;
      const { digest, frame } = packed;
      frames.append(frame);
      entries.push({ digest, frameDigest: hashBytes(frame), frameSize: frame.length });
      onProgress?.(Math.min(entries.length * blockBytes, size), size);
    };
    // One after the other, whichever is packed first.
    let written = Promise.resolve();
    const changed = (received: string) =>
      new NamedFileRefused(`Cannot use ${path}: expected ${size} bytes, received ${received}.`);
    const reading = { size, signal: undefined, pieceSize: blockBytes, changed };
    await readPieces(source.fd, reading, (piece) => {
      hash.update(piece);
      packing.push(packBlock(piece, level));
      if (packing.length < atOnce) return;
      written = written.then(writeNext);
      return written;
    });
    await written;
    while (packing.length > 0) await writeNext();
    const digest = hash.digest("hex");
    frames.place(join(folder, publishedNames.frames(digest)));
    const map = writeBlockMap({ blockBytes, size, entries });
    writeDurably(join(folder, publishedNames.blocks(digest)), map, 0o644);
    const blocks = { digest: hashBytes(map).toString("hex"), size: map.length };
    return { digest, size, blocks };
  } finally {
    await source.close();
  }
}

function packBlock(piece: Uint8Array, level: number) {
  // The memory of a piece is used again.
  const block = Buffer.from(piece);
  const packed = packFrame(block, level).then((frame) => ({ digest: hashBytes(block), frame }));
  // It is waited for in its turn; until then nobody else hears that it failed.
  packed.catch(() => undefined);
  return packed;
}
