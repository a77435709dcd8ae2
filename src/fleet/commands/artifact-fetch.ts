import { join } from "node:path";
import { ArtifactRefused, believed } from "../../artifact/artifact-refused.ts";
import { type Fetched, type FetchRequest, fetchVersion } from "../../artifact/fetch.ts";
import { artifactLimits, publishedNames } from "../../artifact/protocol.ts";
import { readPublishedManifest, textsOf } from "../../artifact/published.ts";
import { openSource } from "../../artifact/source.ts";
import { metadataOf, TrustFolder } from "../../artifact/trust-folder.ts";
import { printJson, printText } from "../../command-line/output.ts";
import { ProgressLine } from "../../command-line/progress.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { formatBytes, parseBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { parseDuration } from "../../units/units.ts";
import { ownFacts, tellingPatience } from "./artifact-trust.ts";
import { addressOf, readNamed, timeText, versionOf } from "./artifact-words.ts";

interface FetchFlags {
  readonly version: string;
  readonly from: readonly string[];
  readonly root: string;
  readonly into: string;
  readonly base: readonly string[];
  readonly rate: string | undefined;
  readonly certificates: string | undefined;
  readonly "time-limit": string | undefined;
  readonly json: boolean;
}

/** Certificates of a whole company have less. */
const mostCertificateBytes = 1024 * 1024;
/** Below it a single block would take minutes. */
const leastRate = 1_024;

/** Brings a version here by the same code as an agent does. */
export async function runArtifactFetch(flags: FetchFlags): Promise<number> {
  const signal = signalOf(flags["time-limit"]);
  return await withinLimit(signal, () => fetchOne(flags, signal));
}

async function fetchOne(flags: FetchFlags, signal: AbortSignal): Promise<number> {
  const version = versionOf(flags.version);
  const rate = rateOf(flags.rate);
  const certificates =
    flags.certificates === undefined
      ? {}
      : { certificates: [readNamed(flags.certificates, "read", mostCertificateBytes)] };
  const sources = flags.from.map((word) => openSource(addressOf(word), certificates));
  const from = sources.map((source) => textsOf(source, signal));
  const patience = tellingPatience(signal);
  const pinned = readNamed(flags.root, "read the root set", artifactLimits.rootBytes);
  const trust = TrustFolder.pin(join(flags.into, "trust"), pinned);
  const journaled = { version: 0, digest: null };
  const now = timeText(Date.now());
  const refreshed = await trust.refresh({ from, journaled, now, patience });
  metadataOf(trust, refreshed);
  const name = publishedNames.manifest(version);
  const manifest = await readPublishedManifest(version, from, patience);
  const judged = trust.judge({ manifest, device: ownFacts(), ordered: null, journaled });
  const { build } = believed(`use ${name}`, judged);
  const fetched = await fetchShown({
    ...{ version, build, manifest, sources, rate, signal },
    versions: join(flags.into, "versions"),
    bases: flags.base.length === 0 ? ["/proc/self/exe"] : flags.base,
  });
  const { folder, file, digest, progress } = fetched;
  const { freshness } = refreshed;
  if (flags.json) await printJson({ version, digest, folder, file, freshness, ...progress });
  else {
    const { bytes, fetched: wire, again } = progress;
    const more = again === 0 ? "" : `, ${formatBytes(again)} of it for nothing`;
    await printText(
      `${file}: ${formatBytes(bytes)}, of which ${formatBytes(wire)} were sent${more}\n` +
        (freshness === "stale" ? "The metadata is stale: its time is over.\n" : ""),
    );
  }
  return ExitCode.done;
}

/** @throws ArtifactRefused; what has come stays */
async function fetchShown(request: FetchRequest): Promise<Fetched> {
  using line = new ProgressLine("fetching");
  return await fetchVersion({
    ...request,
    onProgress: ({ bytes, of }) => line.show(bytes, of),
    onWait: tellingPatience(request.signal).onWait,
  });
}

/** What the time limit ends is refused, and no bug. */
async function withinLimit<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
  }
  throw new ArtifactRefused("fetch it", {
    refusal: "unreachable",
    expected: "all of it within --time-limit",
    received: "a part",
    mend: "Call it again: it goes on from there",
  });
}

function rateOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  const rate = parseBytes(text);
  if (rate !== undefined && rate >= leastRate) return rate;
  throw new UsageError(`--rate ${text}: expected a size of 1KiB or more, such as 500KiB`);
}

function signalOf(text: string | undefined): AbortSignal {
  if (text === undefined) return new AbortController().signal;
  const limit = parseDuration(text);
  if (limit === undefined || limit <= 0) {
    throw new UsageError(`--time-limit ${text}: expected a duration such as 10min`);
  }
  return AbortSignal.timeout(Math.ceil(limit));
}
