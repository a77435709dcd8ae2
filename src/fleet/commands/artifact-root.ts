import { existsSync } from "node:fs";
import { believed } from "../../artifact/artifact-refused.ts";
import { readRoot, readUnverified } from "../../artifact/lifecycle-verify.ts";
import { makeMetadata, makeRoot } from "../../artifact/make-trust.ts";
import { artifactLimits, type Envelope, type Metadata } from "../../artifact/protocol.ts";
import { readPublicKey, writeEnvelope } from "../../artifact/signing-key.ts";
import { printJson, printText, tellText } from "../../command-line/output.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { isSignedBy } from "../../identity/secrets.ts";
import { writeDurably } from "../../journal/append-journal.ts";
import { NamedFileRefused, withFile } from "../../journal/file-refused.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { parseDuration } from "../../units/units.ts";
import { pairOf, readNamed, timeText } from "./artifact-words.ts";

interface RootFlags {
  readonly key: readonly string[];
  readonly threshold: string;
  readonly out: string;
  readonly json: boolean;
}

/** Makes the first root set. */
export async function runRootInit(flags: RootFlags): Promise<number> {
  return await writeRoot(flags, 1);
}

/** Makes the root set after a present one. */
export async function runRootRotate(
  flags: RootFlags & { readonly previous: string },
): Promise<number> {
  const text = readNamed(flags.previous, "read the root set", artifactLimits.rootBytes);
  const { version } = believed(`use the root set ${flags.previous}`, readRoot(text, isSignedBy));
  return await writeRoot(flags, version + 1);
}

async function writeRoot(flags: RootFlags, version: number): Promise<number> {
  const { out, json } = flags;
  const keys = flags.key.map(readPublicKey);
  const threshold = Number(flags.threshold);
  if (!/^\d{1,3}$/.test(flags.threshold) || threshold < 1 || threshold > keys.length) {
    const most = keys.length;
    const expected =
      most === 1 ? "1, as there is 1 key" : `1 to ${most}, as there are ${most} keys`;
    throw new UsageError(`--threshold ${flags.threshold}: expected ${expected}`);
  }
  if (new Set(keys).size !== keys.length) throw new UsageError("--key: expected each key once");
  if (keys.length > artifactLimits.rootKeys) {
    const most = artifactLimits.rootKeys;
    throw new UsageError(`--key: expected at most ${most} keys, received ${keys.length}`);
  }
  if (existsSync(out)) {
    throw new NamedFileRefused(
      `Cannot write ${out}: expected no such file, received one. Name another, or remove it.`,
    );
  }
  const envelope = makeRoot({ version, issued: timeText(Date.now()), threshold, keys });
  await write(out, envelope, json);
  return ExitCode.done;
}

async function write(file: string, envelope: Envelope, json: boolean): Promise<void> {
  withFile({ what: "write", path: file, otherwise: "name another folder" }, () =>
    writeDurably(file, writeEnvelope(envelope), 0o644),
  );
  if (json) await printJson({ file, ...(JSON.parse(envelope.signed) as object) });
  else await printText(`${file}: nobody has signed it\n`);
}

interface MetadataFlags {
  readonly file: string;
  readonly signer: readonly string[];
  readonly "revoke-key": readonly string[];
  readonly revoke: readonly string[];
  readonly valid: string;
  readonly json: boolean;
}

/** Makes the next metadata in the place of the present one. */
export async function runRootMetadata(flags: MetadataFlags): Promise<number> {
  const valid = parseDuration(flags.valid);
  if (valid === undefined || valid <= 0) {
    throw new UsageError(`--valid ${flags.valid}: expected a duration such as 2160h`);
  }
  const revoked = flags.revoke.map((word) => {
    const [digest, reason] = pairOf(word, "--revoke");
    if (/^[0-9a-f]{64}$/.test(digest)) return { digest, reason: reasonOf(reason) };
    throw new UsageError(`--revoke ${digest}: expected a SHA-256: 64 hexadecimal digits`);
  });
  const revokedKeys = flags["revoke-key"].map((word) => {
    const [path, reason] = pairOf(word, "--revoke-key");
    return { key: readPublicKey(path), reason: reasonOf(reason) };
  });
  const keys = flags.signer.map((path) => ({ key: readPublicKey(path), note: noteOf(path) }));
  const now = Date.now();
  const envelope = makeMetadata({
    ...{ previous: readPrevious(flags.file), keys, revokedKeys, revoked },
    ...{ issued: timeText(now), expires: timeText(now + valid) },
  });
  if (typeof envelope === "string") throw new UsageError(envelope);
  await write(flags.file, envelope, flags.json);
  warnOfNoSigner(envelope);
  return ExitCode.done;
}

/** It revokes, and gives nobody in the place: right for an hour, and seldom meant for longer. */
function warnOfNoSigner({ signed }: Envelope): void {
  const { version, keys } = JSON.parse(signed) as Metadata;
  if (keys.length > 0) return;
  tellText(
    `hostler: metadata ${version} names no key that may sign: once it is published no device ` +
      "takes any release. Name one: hostler fleet root metadata --signer FILE\n",
  );
}

function readPrevious(file: string): Metadata | null {
  if (!existsSync(file)) return null;
  const text = readNamed(file, "read the metadata", artifactLimits.metadataBytes);
  return believed(`go on from ${file}`, readUnverified("metadata", text)).value;
}

function reasonOf(text: string): string {
  if (text.length <= artifactLimits.noteLength) return text;
  throw new UsageError(`Expected a reason of at most ${artifactLimits.noteLength} characters`);
}

/** The file's own name, for people. */
const noteOf = (path: string): string =>
  path.slice(path.lastIndexOf("/") + 1).slice(0, artifactLimits.noteLength);
