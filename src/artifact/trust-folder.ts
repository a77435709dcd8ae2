import { mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { hashOf, isSignedBy } from "../identity/secrets.ts";
import { writeDurably } from "../journal/append-journal.ts";
import { withFile } from "../journal/file-refused.ts";
import { ArtifactRefused, believed } from "./artifact-refused.ts";
import {
  type Believed,
  type BelievedManifest,
  believeManifest,
  believeMetadata,
  type DeviceFacts,
  followRoot,
  freshnessOf,
  type MetadataSeen,
  type NotBelieved,
  readRoot,
  readUnverified,
  type Trust,
} from "./lifecycle-verify.ts";
import { artifactLimits, publishedNames, type Root } from "./protocol.ts";
import { type Patience, type Published, type PublishedTexts, withPatience } from "./published.ts";

const names = { root: "root.json", metadata: "metadata.json" } as const;

/** What a look for newer trust has found. */
export interface Refreshed {
  readonly rootVersion: number;
  readonly metadataVersion: number | null;
  /** To be journaled: below it the device never goes. */
  readonly seen: MetadataSeen;
  readonly freshness: "fresh" | "stale" | "unknown" | "none";
  /** What was refused, and what could not be read: the device goes on with what it has. */
  readonly refused: readonly (NotBelieved | { readonly kind: "failed"; readonly why: string })[];
}

/**
 * What a device believes, in a folder: the root set that was pinned or has followed it, and the
 * newest metadata.
 */
export class TrustFolder {
  readonly #folder: string;
  #root: Root;
  #trust: Trust;
  /** The highest metadata that was ever believed here, by whatever root set. */
  #seen: MetadataSeen = { version: 0, digest: null };

  private constructor(folder: string, root: Root) {
    this.#folder = folder;
    this.#root = root;
    this.#trust = { root, metadata: null };
  }

  /**
   * Pins a root set: at installation, from hands that are trusted. One that is pinned already
   * stays, and so do those that have followed it.
   * @throws ArtifactRefused, FileRefused
   */
  static pin(folder: string, text: string): TrustFolder {
    const root = believed("pin the root set", readRoot(text, isSignedBy));
    withFile({ what: "keep the root set in", path: folder, otherwise: "name another" }, () => {
      mkdirSync(folder, { recursive: true, mode: 0o755 });
    });
    const present = readSmall(join(folder, names.root), artifactLimits.rootBytes);
    if (present === undefined) {
      keep(join(folder, names.root), text);
      return new TrustFolder(folder, root);
    }
    return TrustFolder.open(folder);
  }

  /** @throws ArtifactRefused where none was pinned, or it is damaged; FileRefused */
  static open(folder: string): TrustFolder {
    const path = join(folder, names.root);
    const text = readSmall(path, artifactLimits.rootBytes);
    if (text === undefined) {
      throw new ArtifactRefused(`use the root set ${path}`, {
        refusal: "root-malformed",
        expected: "the root set that was pinned at installation",
        received: "nothing",
        mend: "Pin it again: hostler fleet install --root FILE",
      });
    }
    const root = believed(`use the root set ${path}`, readRoot(text, isSignedBy));
    const trust = new TrustFolder(folder, root);
    const kept = readSmall(join(folder, names.metadata), artifactLimits.metadataBytes);
    // What is damaged is as good as none: the next one is fetched, and the journal has its version.
    if (kept !== undefined) trust.#takeKept(kept);
    return trust;
  }

  get trust(): Trust {
    return this.#trust;
  }

  get seen(): MetadataSeen {
    return this.#seen;
  }

  /**
   * Looks at every source for root sets that follow, and for metadata: one of them may lag behind.
   * What is believed is kept on the disk before it counts. Only whoever has no metadata at all
   * waits for a source that asks for patience, or fails.
   * @param options.journaled what the device's own journal has seen: this folder may be restored
   * @param options.now RFC 3339, whole seconds; null where the time is not known
   * @throws FileRefused where it cannot be kept; the signal's reason
   */
  async refresh(options: {
    readonly from: readonly PublishedTexts[];
    readonly journaled: MetadataSeen;
    readonly now: string | null;
    readonly patience: Patience;
  }): Promise<Refreshed> {
    const { from, journaled, now, patience } = options;
    let refused: Refreshed["refused"][number][] = [];
    await withPatience(patience, async () => {
      refused = [];
      const answers: Published[] = [];
      for (const texts of from) answers.push(await this.#look(texts, journaled, refused));
      return this.#trust.metadata === null ? answers : undefined;
    });
    const { metadata } = this.#trust;
    return {
      rootVersion: this.#root.version,
      metadataVersion: metadata?.version ?? null,
      seen: laterOf(this.seen, journaled),
      freshness: metadata === null ? "none" : freshnessOf(metadata, now),
      refused,
    };
  }

  async #look(
    from: PublishedTexts,
    journaled: MetadataSeen,
    refused: Refreshed["refused"][number][],
  ): Promise<Published> {
    await this.#followRoots(from, refused);
    const published = await from.read(publishedNames.metadata, artifactLimits.metadataBytes);
    if (published.kind !== "text") {
      const why = published.kind === "patience" ? "it asks for patience" : published.why;
      refused.push({ kind: "failed", why });
      return published;
    }
    const taken = this.#take(published.text, laterOf(this.seen, journaled));
    if (taken.kind === "refused") refused.push(taken);
    else keep(join(this.#folder, names.metadata), published.text);
    return published;
  }

  /** @param options.journaled as of `refresh`: metadata below it does not count */
  judge(options: {
    readonly manifest: string;
    readonly device: DeviceFacts;
    readonly ordered: { readonly version: string; readonly digest: string } | null;
    readonly journaled: MetadataSeen;
  }): Believed<BelievedManifest> {
    const { manifest, device, ordered, journaled } = options;
    const { metadata } = this.#trust;
    if (metadata !== null && metadata.version < journaled.version) {
      return {
        kind: "refused",
        refusal: "metadata-replayed",
        expected: `version ${journaled.version} or later, which this device has seen`,
        received: `${metadata.version}`,
        mend: "Publish the newest metadata where this device fetches it",
      };
    }
    return believeManifest({
      ...{ trust: this.#trust, text: manifest, check: isSignedBy, device, ordered },
    });
  }

  async #followRoots(from: PublishedTexts, refused: Refreshed["refused"][number][]): Promise<void> {
    for (let count = 0; count < artifactLimits.rootChain; count += 1) {
      const name = publishedNames.root(this.#root.version + 1);
      const published = await from.read(name, artifactLimits.rootBytes);
      if (published.kind === "failed") refused.push(published);
      if (published.kind !== "text") return;
      const next = followRoot(this.#root, published.text, isSignedBy);
      if (next.kind === "refused") {
        refused.push(next);
        return;
      }
      keep(join(this.#folder, names.root), published.text);
      this.#root = next.value;
      const metadata = readSmall(join(this.#folder, names.metadata), artifactLimits.metadataBytes);
      // What the old keys have signed counts where the new root set says so as well.
      this.#trust = { root: this.#root, metadata: null };
      if (metadata !== undefined) this.#takeKept(metadata);
    }
  }

  /** What was believed once says which version was seen, also where another root set counts now. */
  #takeKept(text: string): void {
    const read = readUnverified("metadata", text);
    if (read.kind === "refused") return;
    const { envelope, value } = read.value;
    const seen = { version: value.version, digest: hashOf(envelope.signed) };
    this.#seen = laterOf(this.#seen, seen);
    this.#take(text, { version: 0, digest: null });
  }

  #take(text: string, seen: MetadataSeen): Believed<unknown> {
    const taken = believeMetadata({
      ...{ root: this.#root, text, check: isSignedBy, seen, digestOf: hashOf },
    });
    if (taken.kind === "refused") return taken;
    this.#trust = { root: this.#root, metadata: taken.value.metadata };
    const { metadata, digest } = taken.value;
    this.#seen = laterOf(this.#seen, { version: metadata.version, digest });
    return taken;
  }
}

/** @throws ArtifactRefused that says why there is none */
export function metadataOf(trust: TrustFolder, refreshed: Refreshed) {
  const { metadata } = trust.trust;
  if (metadata !== null) return metadata;
  const what = `use ${publishedNames.metadata}`;
  const refusal = refreshed.refused.find((one) => one.kind === "refused");
  if (refusal !== undefined) throw new ArtifactRefused(what, refusal);
  throw new ArtifactRefused(what, {
    refusal: "metadata-missing",
    expected: "metadata that the root keys have signed",
    received: refreshed.refused.map((one) => ("why" in one ? one.why : "")).join("; "),
    mend: "Publish it there: hostler fleet artifact push does",
  });
}

/** @throws FileRefused */
function keep(path: string, text: string): void {
  withFile({ what: "keep", path, otherwise: "name another folder" }, () =>
    writeDurably(path, text, 0o644),
  );
}

/** Of two, the later; of the same, the one that knows its text. */
function laterOf(one: MetadataSeen, other: MetadataSeen): MetadataSeen {
  if (one.version !== other.version) return one.version > other.version ? one : other;
  return one.digest === null ? other : one;
}

/** @returns undefined where there is none, or it is longer than it can be */
function readSmall(path: string, most: number): string | undefined {
  const file = { what: "read", path, otherwise: "look at who has written there" };
  return withFile(file, () => {
    const status = statSync(path, { throwIfNoEntry: false });
    if (status === undefined || !status.isFile() || status.size > most) return undefined;
    return readFileSync(path, "utf8");
  });
}
