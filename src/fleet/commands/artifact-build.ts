import { makeRelease } from "../../artifact/make.ts";
import { artifactLimits } from "../../artifact/protocol.ts";
import { compareVersions } from "../../artifact/protocol-version.ts";
import { printJson, printText } from "../../command-line/output.ts";
import { ProgressLine } from "../../command-line/progress.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { formatBytes, parseBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { askVersions } from "../perform/ask-version.ts";
import { pairOf, timeText, versionOf } from "./artifact-words.ts";

interface BuildFlags {
  readonly version: string;
  readonly files: readonly string[];
  readonly folder: string;
  readonly floor: string | undefined;
  readonly channel: string;
  readonly label: readonly string[];
  readonly issued: string | undefined;
  readonly "block-size": string;
  readonly level: string;
  readonly "skip-version-check": boolean;
  readonly json: boolean;
}

/** Makes of executables what is published, and a manifest that nobody has signed. */
export async function runArtifactBuild(flags: BuildFlags): Promise<number> {
  const version = versionOf(flags.version);
  if (flags.files.length === 0) throw new UsageError("Expected an executable after the version");
  if (flags.files.length > artifactLimits.builds) {
    const count = flags.files.length;
    throw new UsageError(`Expected at most ${artifactLimits.builds} files, received ${count}`);
  }
  const floor = versionOf(flags.floor ?? "0.0.0", "--floor");
  if (compareVersions(floor, version) > 0) {
    throw new UsageError(`--floor ${floor}: expected ${version} or below, which is this release`);
  }
  const unasked = await uncheckedOf(flags, version);
  using line = new ProgressLine("packing");
  const { path, manifest } = await makeRelease({
    files: flags.files,
    folder: flags.folder,
    blockBytes: blockBytesOf(flags["block-size"]),
    level: levelOf(flags.level),
    release: {
      ...{ version, floor, channel: wordOf("--channel", flags.channel) },
      labels: labelsOf(flags.label),
      issued: issuedOf(flags.issued),
    },
    onProgress: (done, of) => line.show(done, of),
  });
  if (flags.json) await printJson({ manifest: path, ...manifest, unchecked_files: unasked });
  else {
    const lines = manifest.builds.map(
      ({ architecture, libc, digest, size }) =>
        `${architecture} with ${libc}: ${formatBytes(size)}, SHA-256 ${digest}\n`,
    );
    const notes = unasked.map((file) => `${file}: not asked which version it is\n`);
    await printText(`${[...lines, ...notes].join("")}${path}: nobody has signed it\n`);
  }
  return ExitCode.done;
}

/** @returns the files that were not asked which version they are; all of them when nobody asks */
async function uncheckedOf(flags: BuildFlags, version: string): Promise<readonly string[]> {
  if (flags["skip-version-check"]) return flags.files;
  const unasked = await askVersions(flags.files, version);
  if (unasked.length < flags.files.length) return unasked;
  throw new UsageError(
    `Expected a file that can run here and say that it is ${version}, received ` +
      "files for other machines alone. Build it on one of them, or give --skip-version-check",
  );
}

function blockBytesOf(text: string): number {
  const bytes = parseBytes(text);
  const { leastBlockBytes, mostBlockBytes } = artifactLimits;
  if (bytes !== undefined && bytes >= leastBlockBytes && bytes <= mostBlockBytes) return bytes;
  throw new UsageError(`--block-size ${text}: expected 4KiB to 4MiB`);
}

function levelOf(text: string): number {
  if (/^([1-9]|1\d)$/.test(text)) return Number(text);
  throw new UsageError(`--level ${text}: expected a number from 1 to 19`);
}

function wordOf(what: string, text: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(text) && text.length <= artifactLimits.labelLength) {
    return text;
  }
  const most = artifactLimits.labelLength;
  throw new UsageError(`${what} ${text}: expected 1 to ${most} letters, digits, ".", "-" and "_"`);
}

function labelsOf(words: readonly string[]): Record<string, string> {
  if (words.length > artifactLimits.labels) {
    throw new UsageError(`Expected at most ${artifactLimits.labels} times --label`);
  }
  const pairs = words.map((word): [string, string] => {
    const [name, value] = pairOf(word, "--label");
    if (value.length > artifactLimits.labelLength) {
      const most = artifactLimits.labelLength;
      throw new UsageError(`--label ${name}: expected a value of at most ${most} characters`);
    }
    return [wordOf("--label", name), value];
  });
  return Object.fromEntries(pairs);
}

function issuedOf(text: string | undefined): string {
  if (text === undefined) return timeText(Date.now());
  const milliseconds = Date.parse(text);
  if (Number.isFinite(milliseconds) && timeText(milliseconds) === text) return text;
  throw new UsageError(`--issued ${text}: expected a time such as 2027-01-31T12:00:00Z`);
}
