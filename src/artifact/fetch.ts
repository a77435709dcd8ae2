import { describeError } from "../logging/format.ts";
import type { Bytes, Milliseconds } from "../units/units.ts";
import { ArtifactRefused } from "./artifact-refused.ts";
import { hashBytes, unpackFrame } from "./frames.ts";
import { findVersion, type InstalledVersion, placeVersion, versionFolder } from "./installed.ts";
import { passStep } from "./kill-points.ts";
import {
  beginSources,
  nextSource,
  type SourceEvent,
  type SourceState,
  stepSource,
  waitForRate,
} from "./lifecycle-sources.ts";
import { checkRoom, PartialFile } from "./partial-file.ts";
import { type ArtifactBuild, publishedNames } from "./protocol.ts";
import {
  type Block,
  type BlockMap,
  type FrameRange,
  nextRange,
  readBlockMap,
} from "./protocol-blocks.ts";
import { type FetchClock, readWhole, type Source, systemClock } from "./source.ts";

/** How far a fetch is, in bytes. */
export interface FetchProgress {
  /** Of the file, that are there. */
  readonly bytes: Bytes;
  readonly of: Bytes;
  /** That came over the wire, and of these the ones that were of no use, or came once more. */
  readonly fetched: Bytes;
  readonly again: Bytes;
}

export interface FetchRequest {
  readonly version: string;
  readonly build: ArtifactBuild;
  /** The signed manifest: kept beside the file. */
  readonly manifest: string;
  /** Tried in order. */
  readonly sources: readonly Source[];
  /** The folder of all versions. */
  readonly versions: string;
  /** Files whose blocks may be the same: the one that runs, and other versions. */
  readonly bases: readonly string[];
  /** Bytes a second; null for no limit. */
  readonly rate: number | null;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: FetchProgress) => void;
  /** Told before it waits for a source. */
  readonly onWait?: (time: Milliseconds, why: string) => void;
  readonly clock?: FetchClock;
}

export interface Fetched extends InstalledVersion {
  readonly progress: FetchProgress;
}

/** Bytes that are asked for at once: so much is in memory, and is lost with a connection. */
const rangeBytes: Bytes = 4 * 1024 * 1024;
/** With a rate, a request is for what comes in so long. */
const rangeSeconds = 2;

/**
 * Brings a version to this host: what is missing of it, block by block. What is there already is
 * used: of an earlier attempt, of the file that runs, of other versions. Each frame is hashed
 * before it is unpacked, each block after it, and the whole file once more as it was written.
 *
 *     versions/1.5.0-0123456789ab/   hostler, manifest.json, and verified, which is written last
 *
 * One at a time: whoever calls has the folder to itself.
 * @throws ArtifactRefused with what stands in the way; the signal's reason. What has come stays,
 *   and the next attempt goes on from there.
 */
export async function fetchVersion(request: FetchRequest): Promise<Fetched> {
  const { versions, version, build } = request;
  const folder = versionFolder(versions, { version, digest: build.digest });
  const there = await findVersion(folder, build.digest);
  const whole = { bytes: build.size, of: build.size, fetched: 0, again: 0 };
  if (there !== undefined) return { ...there, progress: whole };
  return await new Fetching(request, folder).run();
}

class Fetching {
  readonly #request: FetchRequest;
  readonly #folder: string;
  readonly #clock: FetchClock;
  readonly #begun: number;
  #sources: SourceState[];
  #bytes: Bytes = 0;
  #fetched: Bytes = 0;
  #again: Bytes = 0;

  constructor(request: FetchRequest, folder: string) {
    this.#request = request;
    this.#folder = folder;
    this.#clock = request.clock ?? systemClock;
    this.#begun = this.#clock.now();
    this.#sources = [...beginSources(request.sources.length)];
  }

  async run(): Promise<Fetched> {
    const { build, bases, signal, version, manifest } = this.#request;
    const map = await this.#fetchMap();
    checkRoom(this.#folder, build.size);
    await using partial = await PartialFile.open(this.#folder, build.size);
    passStep("begun");
    const missing = await partial.fill(map, {
      ...{ bases, signal },
      onBlock: (block) => this.#have(block.size),
    });
    passStep("base-read");
    await this.#fetchBlocks(map, partial, missing);
    await partial.finish();
    passStep("synced");
    const placed = await placeVersion({
      ...{ folder: this.#folder, partial: partial.path, build, version, manifest },
    });
    return { ...placed, progress: this.#progress };
  }

  /** Whatever source has the map: its digest is in the manifest. */
  async #fetchMap(): Promise<BlockMap> {
    const { build, signal } = this.#request;
    const { digest, size } = build.blocks;
    const name = publishedNames.blocks(build.digest);
    for (;;) {
      const { source, index } = await this.#nextSource();
      const read = await readWhole(source, name, { most: size, signal });
      if (read.kind !== "bytes") {
        this.#tell(index, read);
        continue;
      }
      this.#fetched += read.bytes.length;
      if (hashBytes(read.bytes).toString("hex") === digest) {
        this.#tell(index, { kind: "progressed" });
        return this.#readMap(read.bytes);
      }
      this.#again += read.bytes.length;
      const why = `${source.address}${name}: expected SHA-256 ${digest}, received another`;
      this.#tell(index, { kind: "wrong", why });
    }
  }

  #readMap(bytes: Uint8Array): BlockMap {
    const map = readBlockMap(bytes, this.#request.build.size);
    if ("blocks" in map) return map;
    throw new ArtifactRefused(`use the block map of ${this.#request.version}`, {
      ...{ refusal: "map-malformed", ...map },
      mend: "It is as it was signed: build the release anew, and publish it as a new version",
    });
  }

  async #fetchBlocks(map: BlockMap, partial: PartialFile, missing: number[]): Promise<void> {
    const { rate } = this.#request;
    const most = rate === null ? rangeBytes : Math.min(rangeBytes, rate * rangeSeconds);
    for (;;) {
      const range = nextRange(map, missing, most);
      if (range === undefined) return;
      const { source, index } = await this.#nextSource();
      const event = await this.#fetchRange({ map, range, partial, missing, source, index });
      this.#tell(index, event);
      await this.#keepRate();
    }
  }

  /** @throws the signal's reason */
  async #keepRate(): Promise<void> {
    const { rate, signal } = this.#request;
    const [spent, since, now] = [this.#fetched, this.#begun, this.#clock.now()];
    const wait = waitForRate({ spent, since, now, rate });
    if (wait > 0) await this.#clock.wait(wait, signal);
    signal.throwIfAborted();
  }

  /** Takes of what comes the frames that are missing: a server may send more than was asked for. */
  async #fetchRange(asked: {
    readonly map: BlockMap;
    readonly range: FrameRange;
    readonly partial: PartialFile;
    readonly missing: number[];
    readonly source: Source;
    readonly index: number;
  }): Promise<SourceEvent> {
    const { map, range, partial, missing, source, index } = asked;
    const { signal, build } = this.#request;
    const name = publishedNames.frames(build.digest);
    const opened = await source.open(name, range, signal);
    if (opened.kind !== "body") return opened;
    const frames = new FrameReader(map, opened.position);
    // To ask a server for the rest that sends all anyway would have it sent again from the begin.
    const last = (missing.at(-1) ?? 0) + 1;
    const end = opened.isWhole ? last : range.end;
    try {
      for await (const piece of opened.bytes) {
        this.#fetched += piece.length;
        for (const { block, number, frame } of frames.push(piece)) {
          const place = missing.indexOf(number);
          if (place < 0) {
            this.#again += frame.length;
            continue;
          }
          const bytes = unpackFrame(block, frame);
          if (bytes === undefined) {
            this.#again += frame.length;
            const why = `${source.address}${name}: block ${number} is not the one that was signed`;
            return { kind: "wrong", why };
          }
          await partial.write(bytes, block.position);
          passStep("block-written");
          missing.splice(place, 1);
          this.#have(block.size);
          this.#tell(index, { kind: "progressed" });
        }
        if (frames.next >= end) return { kind: "progressed" };
        // A server that knows no Range sends on and on.
        await this.#keepRate();
      }
    } catch (error) {
      if (signal.aborted || error instanceof ArtifactRefused) throw error;
      return { kind: "failed", why: describeError(error) };
    } finally {
      this.#again += frames.rest;
    }
    const why = `${source.address}${name}: expected ${range.bytes} bytes, received fewer`;
    return frames.next >= end ? { kind: "progressed" } : { kind: "failed", why };
  }

  async #nextSource(): Promise<{ readonly source: Source; readonly index: number }> {
    const { sources, signal, onWait, version } = this.#request;
    for (;;) {
      signal.throwIfAborted();
      const next = nextSource(this.#sources, this.#clock.now());
      if (next.kind === "ask") {
        return { source: sources[next.source] as Source, index: next.source };
      }
      if (next.kind === "give-up") {
        throw new ArtifactRefused(`fetch version ${version}`, {
          refusal: "unreachable",
          expected: `one of ${sources.length} sources that has it`,
          received: next.why.join("; ") || "no source",
          mend: "Publish it there whole, or name another source",
        });
      }
      const wait = next.until - this.#clock.now();
      onWait?.(wait, next.why);
      await this.#clock.wait(wait, signal);
    }
  }

  #tell(index: number, event: SourceEvent): void {
    const state = this.#sources[index] as SourceState;
    this.#sources[index] = stepSource(state, event, this.#clock.now());
  }

  #have(size: Bytes): void {
    this.#bytes += size;
    this.#request.onProgress?.(this.#progress);
  }

  get #progress(): FetchProgress {
    const of = this.#request.build.size;
    return { bytes: this.#bytes, of, fetched: this.#fetched, again: this.#again };
  }
}

/** Cuts what comes into frames, by the map. */
class FrameReader {
  readonly #map: BlockMap;
  /** Of the next frame. */
  next: number;
  #pieces: Uint8Array[] = [];
  #held: Bytes = 0;

  /** @param position of a frame: what is asked for begins with one, and so does the whole file */
  constructor(map: BlockMap, position: Bytes) {
    this.#map = map;
    this.next = map.blocks.findIndex(({ framePosition }) => framePosition === position);
  }

  /** Bytes of a frame that did not come whole. */
  get rest(): Bytes {
    return this.#held;
  }

  *push(
    piece: Uint8Array,
  ): Generator<{ readonly block: Block; readonly number: number; readonly frame: Uint8Array }> {
    for (let left = piece; left.length > 0; ) {
      const block = this.#map.blocks[this.next];
      if (block === undefined) return;
      const part = left.subarray(0, block.frameSize - this.#held);
      left = left.subarray(part.length);
      this.#pieces.push(part);
      this.#held += part.length;
      if (this.#held < block.frameSize) return;
      const frame = this.#pieces.length === 1 ? part : Buffer.concat(this.#pieces);
      const number = this.next;
      this.#pieces = [];
      this.#held = 0;
      this.next += 1;
      yield { block, number, frame };
    }
  }
}
