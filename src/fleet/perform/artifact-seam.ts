import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type ArtifactRefusal,
  ArtifactRefused,
  believed,
} from "../../artifact/artifact-refused.ts";
import { type FetchProgress, fetchVersion } from "../../artifact/fetch.ts";
import { findVersion, versionFolder } from "../../artifact/installed.ts";
import type { BelievedManifest, DeviceFacts } from "../../artifact/lifecycle-verify.ts";
import { checkRoom } from "../../artifact/partial-file.ts";
import { type Patience, readPublishedManifest, textsOf } from "../../artifact/published.ts";
import { openSource, type Source } from "../../artifact/source.ts";
import { metadataOf, type Refreshed, TrustFolder } from "../../artifact/trust-folder.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import { folderOf, layoutNames } from "../layout.ts";
import type { Build, DeviceStatus, EndingCause, Marker } from "../protocol.ts";
import { type AgentVersions, OrderRefused } from "../upgrade-agent.ts";
import type { ArtifactSeam } from "./host-parts.ts";
import { versionFolder as folderIn } from "./layout-files.ts";

type Progress = NonNullable<DeviceStatus["progress"]>;

/** So often at most a download's progress is told. */
const PROGRESS_EVERY: Milliseconds = 1_000;
/** The file that runs: most of the next version is in it. */
const ownProgram = "/proc/self/exe";

/** What says nothing against a version: this host has no room for it, or no way to it. */
const ofTheHost: readonly ArtifactRefusal[] = ["unreachable", "disk-full", "metadata-missing"];

export interface ArtifactPlace {
  /** Of the installation. */
  readonly folder: string;
  /** What this host runs. */
  readonly device: Pick<DeviceFacts, "architecture" | "libc">;
  /** The highest version of metadata that the journal has seen. */
  metadataVersion(): number;
  /** What is waited for, and what is stale: worth a line, and no refusal. */
  onNotice(message: string): void;
}

/** Releases as a device believes and fetches them: only what its pinned root set leads to. */
export function artifactSeam(place: ArtifactPlace): ArtifactSeam {
  return {
    check: (marker, known) => refusing(() => check(place, marker, known)),
    fetch: (marker, { signal, onProgress }) =>
      refusing(async () => {
        const { manifest, build } = marker;
        const trust = openTrust(place);
        const believedManifest = judge(place, { trust, manifest, ordered: build, floor: null });
        await bring(place, {
          ...{ marker, manifest, signal, onProgress },
          believed: believedManifest,
        });
      }),
    fetchAgain: (build, marker) => refusing(() => fetchAgain(place, build, marker)),
  };
}

async function check(
  place: ArtifactPlace,
  marker: Marker,
  { floor, metadataVersion, signal }: Parameters<AgentVersions["check"]>[1],
): ReturnType<AgentVersions["check"]> {
  const trust = openTrust(place);
  const from = sourcesOf(marker).map((source) => textsOf(source, signal));
  const refreshed = await trust.refresh({
    from,
    journaled: { version: metadataVersion, digest: null },
    now: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
    patience: patienceOf(place, signal),
  });
  tellRefreshed(place, refreshed);
  metadataOf(trust, refreshed);
  const { manifest, build: ordered } = marker;
  const judged = judge(place, { trust, manifest, ordered, floor, metadataVersion });
  const folder = versionFolder(versionsOf(place), ordered);
  const there = await findVersion(folder, ordered.digest);
  if (there === undefined) checkRoom(folder, judged.build.size);
  return { floor: judged.floor, metadataVersion: refreshed.seen.version };
}

function tellRefreshed({ onNotice }: ArtifactPlace, { freshness, refused }: Refreshed): void {
  if (freshness === "stale") {
    onNotice("the metadata is stale: its time is over, and somebody may keep news from this host");
  }
  for (const one of refused) {
    onNotice(
      one.kind === "failed"
        ? `what a source says of trust is not to be had: ${one.why}`
        : `what a source says of trust is refused: expected ${one.expected}, ` +
            `received ${one.received}. ${one.mend}`,
    );
  }
}

/**
 * What the device's floor refuses was refused when it was checked; a way back is bound by none.
 * @throws ArtifactRefused
 */
function judge(
  place: ArtifactPlace,
  what: {
    readonly trust: TrustFolder;
    readonly manifest: string;
    readonly ordered: Build;
    readonly floor: string | null;
    readonly metadataVersion?: number;
  },
): BelievedManifest {
  const { trust, manifest, ordered, floor, metadataVersion = place.metadataVersion() } = what;
  return believed(
    `use the manifest of ${ordered.version}`,
    trust.judge({
      ...{ manifest, ordered },
      device: { ...place.device, floor, channels: null },
      journaled: { version: metadataVersion, digest: null },
    }),
  );
}

async function bring(
  place: ArtifactPlace,
  what: {
    readonly marker: Marker;
    readonly manifest: string;
    readonly believed: BelievedManifest;
    readonly signal: AbortSignal;
    readonly onProgress: (progress: Progress) => void;
  },
): Promise<void> {
  const { marker, manifest, signal, onProgress } = what;
  const { build, manifest: said } = what.believed;
  let toldAt = Number.NEGATIVE_INFINITY;
  const { progress: last } = await fetchVersion({
    ...{ version: said.version, build, manifest, signal, rate: marker.rate },
    sources: sourcesOf(marker),
    versions: versionsOf(place),
    bases: [ownProgram],
    onProgress: (progress) => {
      const now = monotonicNow();
      if (now - toldAt < PROGRESS_EVERY) return;
      toldAt = now;
      onProgress(told(progress));
    },
    onWait: patienceOf(place, signal).onWait,
  });
  onProgress(told(last));
}

/** By the manifest that lies beside it; what was installed by hand has none, and is published. */
async function fetchAgain(place: ArtifactPlace, build: Build, marker: Marker): Promise<void> {
  const { signal } = new AbortController();
  const path = join(folderIn(place.folder, folderOf(build)), layoutNames.manifest);
  const from = sourcesOf(marker).map((source) => textsOf(source, signal));
  const manifest = existsSync(path)
    ? readFileSync(path, "utf8")
    : await readPublishedManifest(build.version, from, patienceOf(place, signal));
  const trust = openTrust(place);
  const judged = judge(place, { trust, manifest, ordered: build, floor: null });
  await bring(place, { ...{ marker, manifest, signal }, believed: judged, onProgress: () => {} });
}

const told = ({ bytes, of, fetched, again }: FetchProgress): Progress => ({
  ...{ bytes, of_bytes: of, fetched_bytes: fetched, again_bytes: again },
});

const versionsOf = ({ folder }: ArtifactPlace): string => join(folder, layoutNames.versions);

const sourcesOf = ({ sources }: Marker): Source[] => sources.map((address) => openSource(address));

const patienceOf = (
  { onNotice }: ArtifactPlace,
  signal: AbortSignal,
): Patience & Required<Pick<Patience, "onWait">> => ({
  signal,
  onWait: (time, why) => onNotice(`waits for ${formatDuration(time)}: ${why}`),
});

/** A host that trusts nobody yet says nothing against a version. @throws OrderRefused */
function openTrust({ folder }: ArtifactPlace): TrustFolder {
  try {
    return TrustFolder.open(join(folder, layoutNames.trust));
  } catch (error) {
    throw refusalOf(error, () => "host");
  }
}

async function refusing<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw refusalOf(error, (refusal) => (ofTheHost.includes(refusal) ? "host" : "artifact"));
  }
}

function refusalOf(error: unknown, causeOf: (refusal: ArtifactRefusal) => EndingCause): unknown {
  if (!(error instanceof ArtifactRefused)) return error;
  return new OrderRefused(error.message, { cause: causeOf(error.refusal) });
}
