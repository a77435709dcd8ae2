import { createHash } from "node:crypto";
import { describeError } from "../logging/format.ts";
import type { Bytes } from "../units/units.ts";
import { ArtifactRefused } from "./artifact-refused.ts";
import { hashBytes, unpackFrame } from "./frames.ts";
import { type ArtifactBuild, type Manifest, publishedNames } from "./protocol.ts";
import { type BlockMap, readBlockMap } from "./protocol-blocks.ts";
import { readWhole, type Source } from "./source.ts";

/**
 * Reads all that a manifest names, as a device would: each frame, each block, the whole of each
 * file. Nothing is kept.
 * @throws ArtifactRefused for the first that is not as it was signed
 */
export async function checkRelease(
  source: Source,
  manifest: Manifest,
  options: {
    readonly signal: AbortSignal;
    readonly onProgress?: (done: Bytes, of: Bytes) => void;
  },
): Promise<void> {
  for (const build of manifest.builds) {
    const map = await readMapOf(source, build, options.signal);
    await checkFrames(source, { build, map }, options);
  }
}

const refuseBytes = (name: string, expected: string, received: string) =>
  new ArtifactRefused(`use ${name}`, {
    ...{ refusal: "wrong-bytes", expected, received },
    mend: "Copy the release once more from where it was built, whole",
  });

/** @throws ArtifactRefused */
export async function readMapOf(
  source: Source,
  build: ArtifactBuild,
  signal: AbortSignal,
): Promise<BlockMap> {
  const name = publishedNames.blocks(build.digest);
  const read = await readWhole(source, name, { most: build.blocks.size, signal });
  if (read.kind !== "bytes") {
    throw refuseBytes(`${source.address}${name}`, "the block map", whyOf(read));
  }
  const digest = hashBytes(read.bytes).toString("hex");
  if (digest !== build.blocks.digest) {
    throw refuseBytes(`${source.address}${name}`, `SHA-256 ${build.blocks.digest}`, digest);
  }
  const map = readBlockMap(read.bytes, build.size);
  if ("blocks" in map) return map;
  throw refuseBytes(`${source.address}${name}`, map.expected, map.received);
}

const whyOf = (event: { readonly kind: string; readonly why?: string }) =>
  event.why ?? "a server that asks for patience";

async function checkFrames(
  source: Source,
  { build, map }: { readonly build: ArtifactBuild; readonly map: BlockMap },
  options: Parameters<typeof checkRelease>[2],
): Promise<void> {
  const { signal, onProgress } = options;
  const name = publishedNames.frames(build.digest);
  const where = `${source.address}${name}`;
  const opened = await source.open(name, undefined, signal);
  if (opened.kind !== "body") throw refuseBytes(where, "the frames", whyOf(opened));
  const hash = createHash("sha256");
  let index = 0;
  let held = Buffer.alloc(0);
  try {
    for await (const piece of opened.bytes) {
      held = Buffer.concat([held, piece]);
      for (;;) {
        const block = map.blocks[index];
        if (block === undefined || held.length < block.frameSize) break;
        const bytes = unpackFrame(block, held.subarray(0, block.frameSize));
        if (bytes === undefined) throw refuseBytes(where, `block ${index} as signed`, "another");
        hash.update(bytes);
        held = held.subarray(block.frameSize);
        index += 1;
        onProgress?.(block.position + block.size, build.size);
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof ArtifactRefused) throw error;
    throw refuseBytes(where, "the frames", describeError(error));
  }
  if (index < map.blocks.length || held.length > 0) {
    throw refuseBytes(
      where,
      `${map.frameBytes} bytes`,
      index < map.blocks.length ? "fewer" : "more",
    );
  }
  const digest = hash.digest("hex");
  if (digest !== build.digest) throw refuseBytes(where, `SHA-256 ${build.digest}`, digest);
}
