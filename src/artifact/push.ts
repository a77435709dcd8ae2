import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { hashOf, isSignedBy } from "../identity/secrets.ts";
import { NamedFileRefused, withFile, withNamedFile } from "../journal/file-refused.ts";
import type { Bytes } from "../units/units.ts";
import { ArtifactRefused, believed } from "./artifact-refused.ts";
import { checkRelease } from "./check-release.ts";
import { passStep } from "./kill-points.ts";
import { believeMetadata, readManifest, readRoot, readUnverified } from "./lifecycle-verify.ts";
import { NewFile } from "./new-file.ts";
import { artifactLimits, type Manifest, type Metadata, publishedNames } from "./protocol.ts";
import { openSource, readWhole, type Source } from "./source.ts";

export interface PushRequest {
  /** The folder of the release, as `makeRelease` has made it, signed. */
  readonly folder: string;
  readonly version: string;
  /** https:, http: or file:. */
  readonly to: string;
  /** Sent as Authorization: Bearer. */
  readonly token?: string;
  readonly signal: AbortSignal;
  readonly onProgress?: (name: string, done: Bytes, of: Bytes) => void;
}

export interface Pushed {
  readonly sent: readonly string[];
  /** That were there already. */
  readonly kept: readonly string[];
}

/**
 * Publishes a release: first what the manifest names, then the manifest, root sets, and the
 * metadata last, so that whoever fetches meanwhile finds the old or the new, whole. A folder is
 * written to durably; a server is sent PUT.
 * @throws ArtifactRefused for what is not as it was signed, and where another manifest of that
 *   version or later metadata is published; FileRefused
 */
export async function pushRelease(request: PushRequest): Promise<Pushed> {
  const { folder, version, to, signal } = request;
  const source = openSource(pathToFileURL(folder).href);
  const target = openTarget(to, request);
  const metadataText = readText(join(folder, publishedNames.metadata));
  const manifestName = publishedNames.manifest(version);
  const manifestText = readText(join(folder, manifestName));
  const metadata = checkMetadata(folder, metadataText);
  const outcome = readManifest({ text: manifestText, metadata, check: isSignedBy });
  const manifest = believed(`publish ${manifestName}`, outcome);
  await checkRelease(source, manifest, { signal });
  await refuseOlder(target.source, { manifest, manifestText, metadata, metadataText, signal });
  const sent: string[] = [];
  const kept: string[] = [];
  const push = async (name: string, isOfContent: boolean) => {
    const size = statSync(join(folder, name)).size;
    if (isOfContent && (await target.has(name, size))) kept.push(name);
    else {
      await target.put(name, join(folder, name), size);
      sent.push(name);
    }
  };
  for (const build of manifest.builds) {
    await push(publishedNames.frames(build.digest), true);
    await push(publishedNames.blocks(build.digest), true);
  }
  passStep("frames-pushed");
  await push(manifestName, false);
  passStep("manifest-pushed");
  for (const name of rootsIn(folder)) await push(name, false);
  await push(publishedNames.metadata, false);
  passStep("metadata-pushed");
  return { sent, kept };
}

/** Every root set that is there, in their order: a device may have any of them. */
function rootsIn(folder: string): string[] {
  const found = withNamedFile({ what: "publish", path: folder, otherwise: "name another" }, () =>
    readdirSync(folder),
  );
  const versions = found.flatMap((name) => {
    const [, digits] = /^root-([1-9]\d{0,9})\.json$/.exec(name) ?? [];
    return digits === undefined ? [] : [Number(digits)];
  });
  return versions.toSorted((one, other) => one - other).map(publishedNames.root);
}

/** The last root set beside it has to have signed it. */
function checkMetadata(folder: string, text: string): Metadata {
  const last = rootsIn(folder).at(-1);
  if (last === undefined) {
    throw new NamedFileRefused(
      `Cannot publish ${folder}: expected root-1.json in it, received none. ` +
        "hostler fleet root init makes it.",
    );
  }
  const root = believed(`publish ${last}`, readRoot(readText(join(folder, last)), isSignedBy));
  const outcome = believeMetadata({
    ...{ root, text, check: isSignedBy, digestOf: hashOf, seen: { version: 0, digest: null } },
  });
  return believed(`publish ${publishedNames.metadata}`, outcome).metadata;
}

const readText = (path: string): string =>
  withNamedFile({ what: "publish", path, otherwise: "name another folder" }, () =>
    readFileSync(path, "utf8"),
  );

/** A version is published once; metadata never goes back. */
async function refuseOlder(
  source: Source,
  own: {
    readonly manifest: Manifest;
    readonly manifestText: string;
    readonly metadata: Metadata;
    readonly metadataText: string;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { manifest, manifestText, metadata, signal } = own;
  const name = publishedNames.manifest(manifest.version);
  const present = await presentText(source, name, artifactLimits.manifestBytes, signal);
  const there = present === undefined ? undefined : signedIn("manifest", present);
  if (there !== undefined && there !== signedIn("manifest", manifestText)) {
    throw new ArtifactRefused(`publish ${name}`, {
      refusal: "already-published",
      expected: `no other manifest of ${manifest.version} at ${source.address}`,
      received: "one with another text",
      mend: "Give this release a version of its own",
    });
  }
  const { metadata: metadataName } = publishedNames;
  const text = await presentText(source, metadataName, artifactLimits.metadataBytes, signal);
  const found = text === undefined ? undefined : readUnverified("metadata", text);
  if (found?.kind !== "ok") return;
  const { version } = found.value.value;
  const isOther = signedIn("metadata", text ?? "") !== signedIn("metadata", own.metadataText);
  if (version < metadata.version || (version === metadata.version && !isOther)) return;
  throw new ArtifactRefused(`publish ${metadataName}`, {
    refusal: "already-published",
    expected: `metadata below version ${metadata.version} at ${source.address}`,
    received: version === metadata.version ? "another text with that version" : `${version}`,
    mend: "Make metadata of the next version: hostler fleet root metadata",
  });
}

function signedIn(kind: "manifest" | "metadata", text: string): string | undefined {
  const read = readUnverified(kind, text);
  return read.kind === "ok" ? read.value.envelope.signed : undefined;
}

async function presentText(
  source: Source,
  name: string,
  most: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  const read = await readWhole(source, name, { most, signal });
  if (read.kind === "bytes") return new TextDecoder().decode(read.bytes);
  if (read.kind === "absent") return undefined;
  throw new ArtifactRefused(`look at ${source.address}${name}`, {
    refusal: "unreachable",
    expected: "an answer",
    received: "why" in read ? read.why : "a server that asks for patience",
    mend: "Try it again",
  });
}

interface Target {
  readonly source: Source;
  /** Whether a file that is named by its content is there. */
  has(name: string, size: Bytes): Promise<boolean>;
  put(name: string, path: string, size: Bytes): Promise<void>;
}

function openTarget(to: string, request: PushRequest): Target {
  const source = openSource(to);
  const url = new URL(to.endsWith("/") ? to : `${to}/`);
  return url.protocol === "file:" ? folderTarget(source, url) : serverTarget(source, url, request);
}

const pieceBytes = 2 * 1024 * 1024;

function folderTarget(source: Source, url: URL): Target {
  const folder = fileURLToPath(url);
  const tried = <T>(act: () => T): T =>
    withFile({ what: "publish in", path: folder, otherwise: "name another" }, act);
  return {
    source,
    has: async (name, size) =>
      tried(() => {
        const status = statSync(join(folder, name), { throwIfNoEntry: false });
        return status?.isFile() === true && status.size === size;
      }),
    put: async (name, path) => {
      tried(() => mkdirSync(folder, { recursive: true, mode: 0o755 }));
      using file = new NewFile(join(folder, `.${name}.pushing`));
      copyInto(file, path);
      file.place(join(folder, name));
    },
  };
}

function copyInto(file: NewFile, path: string): void {
  const descriptor = openSync(path, constants.O_RDONLY);
  try {
    const memory = new Uint8Array(pieceBytes);
    for (;;) {
      const count = readSync(descriptor, memory);
      if (count === 0) return;
      file.append(memory.subarray(0, count));
    }
  } finally {
    closeSync(descriptor);
  }
}

function serverTarget(source: Source, url: URL, { token, signal }: PushRequest): Target {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const place = (name: string) => new URL(encodeURIComponent(name), url);
  return {
    source,
    has: async (name, size) => {
      const asked = { method: "HEAD", headers, signal, redirect: "error" } as const;
      const response = await fetch(place(name), asked);
      return response.status === 200 && Number(response.headers.get("content-length")) === size;
    },
    put: async (name, path) => {
      // A redirect would have the token sent to somebody else.
      const asked = { method: "PUT", headers, signal, redirect: "error" } as const;
      const response = await fetch(place(name), { ...asked, body: Bun.file(path) });
      await response.body?.cancel();
      if (response.ok) return;
      throw new ArtifactRefused(`publish ${place(name).href}`, {
        refusal: "push-refused",
        expected: "status 200, 201 or 204",
        received: `${response.status}`,
        mend: "Have the server take PUT there, or push to a folder that it serves",
      });
    },
  };
}
