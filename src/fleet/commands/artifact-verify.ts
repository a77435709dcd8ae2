import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ArtifactRefused, believed } from "../../artifact/artifact-refused.ts";
import { checkRelease } from "../../artifact/check-release.ts";
import { readManifest } from "../../artifact/lifecycle-verify.ts";
import { artifactLimits, publishedNames } from "../../artifact/protocol.ts";
import {
  type Patience,
  type PublishedTexts,
  readPublishedManifest,
  textsOf,
} from "../../artifact/published.ts";
import { openSource } from "../../artifact/source.ts";
import { metadataOf, TrustFolder } from "../../artifact/trust-folder.ts";
import { printJson, printText } from "../../command-line/output.ts";
import { ProgressLine } from "../../command-line/progress.ts";
import { isSignedBy } from "../../identity/secrets.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { tellingPatience } from "./artifact-trust.ts";
import { addressOf, readNamed, timeText, versionOf } from "./artifact-words.ts";

interface VerifyFlags {
  readonly version: string;
  readonly at: string;
  readonly root: string;
  readonly "signatures-only": boolean;
  readonly json: boolean;
}

/** Looks at a release as a device would that has pinned this root set. */
export async function runArtifactVerify(flags: VerifyFlags): Promise<number> {
  const version = versionOf(flags.version);
  const source = openSource(addressOf(flags.at));
  const { signal } = new AbortController();
  const texts = textsOf(source, signal);
  const patience = tellingPatience(signal);
  const { refreshed, metadata } = await trustOf(flags.root, [texts], patience);
  const text = await readPublishedManifest(version, [texts], patience);
  const manifest = believedManifest(publishedNames.manifest(version), text, metadata);
  if (!flags["signatures-only"]) {
    using line = new ProgressLine("verifying");
    const onProgress = (done: number, of: number) => line.show(done, of);
    await checkRelease(source, manifest, { signal, onProgress });
  }
  const { rootVersion, metadataVersion, freshness } = refreshed;
  const trusted = { root_version: rootVersion, metadata_version: metadataVersion, freshness };
  if (flags.json) await printJson({ ...trusted, manifest });
  else {
    await printText(
      `${version} is as it was signed, by root set ${rootVersion} and metadata ` +
        `${metadataVersion}, which is ${freshness}\n`,
    );
  }
  return ExitCode.done;
}

/**
 * Checks what is about to be rolled out as a device would that has pinned this root set, with what
 * the sources say of trust; the files themselves are not looked at.
 * @throws ArtifactRefused, NamedFileRefused
 */
export async function checkManifest(release: {
  readonly manifest: string;
  readonly version: string;
  readonly sources: readonly string[];
  /** A file. */
  readonly root: string;
}): Promise<void> {
  const { manifest, version, sources, root } = release;
  const { signal } = new AbortController();
  const texts = sources.map((source) => textsOf(openSource(source), signal));
  const { metadata } = await trustOf(root, texts, tellingPatience(signal));
  believedManifest(publishedNames.manifest(version), manifest, metadata);
}

/** @throws ArtifactRefused for one that is not signed, or of which a file is revoked */
function believedManifest(
  name: string,
  text: string,
  metadata: Parameters<typeof readManifest>[0]["metadata"],
) {
  const manifest = believed(`use ${name}`, readManifest({ text, metadata, check: isSignedBy }));
  const revoked = metadata.revoked.find((one) =>
    manifest.builds.some(({ digest }) => digest === one.digest),
  );
  if (revoked === undefined) return manifest;
  throw new ArtifactRefused(`use ${name}`, {
    refusal: "revoked-digest",
    expected: "files that are not revoked",
    received: `${revoked.digest.slice(0, 12)}…, revoked: ${revoked.reason}`,
    mend: "Choose another version",
  });
}

/**
 * What is trusted from that root set on; nothing of it is kept.
 * @param root a file
 * @throws ArtifactRefused, NamedFileRefused
 */
async function trustOf(root: string, from: readonly PublishedTexts[], patience: Patience) {
  const pinned = readNamed(root, "read the root set", artifactLimits.rootBytes);
  const folder = mkdtempSync(join(tmpdir(), "hostler-trust-"));
  try {
    const trust = TrustFolder.pin(folder, pinned);
    const refreshed = await trust.refresh({
      ...{ from, patience },
      journaled: { version: 0, digest: null },
      now: timeText(Date.now()),
    });
    return { refreshed, metadata: metadataOf(trust, refreshed) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
