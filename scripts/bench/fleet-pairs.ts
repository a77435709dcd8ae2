/** What comes over the wire when a device goes from one build to another, really fetched. */
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fetchVersion } from "../../src/artifact/fetch.ts";
import { makeRelease } from "../../src/artifact/make.ts";
import type { ArtifactBuild } from "../../src/artifact/protocol.ts";
import { openSource } from "../../src/artifact/source.ts";
import type { Step } from "../terminal.ts";
import type { BuildPair } from "./fleet-builds.ts";
import { measurePeers, type PeerFinding } from "./fleet-peers.ts";
import { CountingServer } from "./fleet-server.ts";

export interface BlockFinding {
  readonly blockBytes: number;
  /** Bytes that the server sent: of the whole file, and beside the former build. */
  readonly whole: number;
  readonly delta: number;
  /** Seconds from nothing to a verified file. */
  readonly wholeSeconds: number;
  readonly deltaSeconds: number;
}

export interface PairFindings {
  readonly what: string;
  /** Of the file that a device is to have. */
  readonly bytes: number;
  readonly blocks: readonly BlockFinding[];
  readonly peers: readonly PeerFinding[];
}

const KIBIBYTE = 1024;
/** Of zstd: the usual 19 makes it a tenth smaller, and takes a minute for each size of blocks. */
const level = 3;
const sizes = [16, 32, 64, 128, 256].map((size) => size * KIBIBYTE);

export interface PairsPlan {
  readonly folder: string;
  readonly pairs: readonly BuildPair[];
  readonly quick: boolean;
}

/** A release of the same file for each size of blocks, fetched beside each former build. */
export async function measurePairs(
  { folder, pairs, quick }: PairsPlan,
  step: Step,
): Promise<PairFindings[]> {
  const [first] = pairs;
  if (first === undefined) return [];
  const releases: Release[] = [];
  for (const blockBytes of quick ? [64 * KIBIBYTE] : sizes) {
    step.say(`packing blocks of ${blockBytes / KIBIBYTE} KiB`);
    const place = join(folder, `site-${blockBytes}`);
    mkdirSync(place);
    releases.push(await publish(first.to, { folder: place, blockBytes, level }));
  }
  const found: PairFindings[] = [];
  for (const pair of pairs) {
    const blocks: BlockFinding[] = [];
    for (const release of releases) {
      step.say(`${pair.what}, blocks of ${release.blockBytes / KIBIBYTE} KiB`);
      blocks.push(await fetchBoth(release, pair, join(folder, "fetched")));
    }
    step.say(`${pair.what}, others`);
    const peers = await measurePeers(pair, { folder });
    found.push({ what: pair.what, bytes: statSync(pair.to).size, blocks, peers });
  }
  return found;
}

interface Release {
  readonly folder: string;
  readonly blockBytes: number;
  readonly build: ArtifactBuild;
}

async function publish(
  file: string,
  options: { readonly folder: string; readonly blockBytes: number; readonly level: number },
): Promise<Release> {
  const { manifest } = await makeRelease({
    ...{ files: [file], ...options },
    release: {
      ...{ version: "2.0.0", floor: "0.0.0", channel: "stable", labels: {} },
      issued: "2026-01-01T00:00:00Z",
    },
  });
  const [build] = manifest.builds;
  if (build === undefined) throw new Error("A release without a build");
  return { folder: options.folder, blockBytes: options.blockBytes, build };
}

let fetches = 0;

async function fetchBoth(
  { folder, blockBytes, build }: Release,
  { from }: BuildPair,
  into: string,
): Promise<BlockFinding> {
  await using server = new CountingServer(folder);
  const fetchOnce = async (bases: readonly string[]) => {
    fetches += 1;
    const [sent, begun] = [server.sent, performance.now()];
    await fetchVersion({
      ...{ version: "2.0.0", build, manifest: "{}", bases, rate: null },
      ...{ versions: join(into, `${fetches}`), signal: new AbortController().signal },
      sources: [openSource(server.address)],
    });
    return { bytes: server.sent - sent, seconds: (performance.now() - begun) / 1_000 };
  };
  const whole = await fetchOnce([]);
  const delta = await fetchOnce([from]);
  return {
    ...{ blockBytes, whole: whole.bytes, delta: delta.bytes },
    ...{ wholeSeconds: whole.seconds, deltaSeconds: delta.seconds },
  };
}
