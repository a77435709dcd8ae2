/** Releases of really built programs: signed, and published in folders of this machine. */
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { build } from "../../scripts/build.ts";
import { saysDone } from "./authority.ts";
import { repositoryRoot } from "./binary.ts";

export interface BuiltVersion {
  readonly version: string;
  readonly program: string;
}

/** The version whose canonical agent ends as soon as it has begun. */
export const badEntry = "scripts/demo/fleet/bad/main.ts";

const built = new Map<string, Promise<BuiltVersion>>();
let lastBuild: Promise<unknown> = Promise.resolve();

/**
 * This source, which says another version; built once by a file of tests.
 * @param options.entry instead of src/main.ts
 */
export async function buildVersion(
  version: string,
  options: { readonly entry?: string; readonly faults?: boolean } = {},
): Promise<BuiltVersion> {
  const key = JSON.stringify([version, options.entry, options.faults ?? false]);
  const present = built.get(key);
  if (present !== undefined) return await present;
  // One after another: a build waits for the lock of another one with its whole thread.
  const made = lastBuild.then(() => buildAnew(version, options));
  built.set(key, made);
  lastBuild = made.catch(() => {});
  return await made;
}

async function buildAnew(
  version: string,
  options: { readonly entry?: string; readonly faults?: boolean },
): Promise<BuiltVersion> {
  const folder = join(repositoryRoot, "dist/fleet-versions");
  const { faults = false, ...entries } = options;
  const name = `hostler-${version}${faults ? "-faults" : ""}`;
  const { path } = await build({ folder, name, faults, version, ...entries });
  return { version, program: path };
}

/** Keys, a root set that devices pin, and what is published: root-1.json, metadata.json. */
export class PublishedReleases {
  readonly #folder: string;
  readonly site: string;

  /** @param folder an empty one */
  constructor(folder: string) {
    this.#folder = folder;
    this.site = join(folder, "site");
  }

  #file(name: string): string {
    return join(this.#folder, name);
  }

  /** @param strangers names of keys that are made as well, and named nowhere */
  async makeTrust(...strangers: readonly string[]): Promise<void> {
    mkdirSync(this.site, { recursive: true });
    for (const name of ["root", "release", ...strangers]) {
      await saysDone(["fleet", "key", "generate", this.#file(name)]);
    }
    const first = join(this.site, "root-1.json");
    await saysDone(["fleet", "root", "init", "--key", this.#file("root.pub"), "--out", first]);
    await saysDone(["fleet", "root", "sign", first, "--key", this.#file("root")]);
    await this.metadata("--signer", this.#file("release.pub"));
  }

  /** The next metadata. */
  async metadata(...flags: readonly string[]): Promise<void> {
    const metadata = join(this.site, "metadata.json");
    await saysDone(["fleet", "root", "metadata", metadata, ...flags]);
    await saysDone(["fleet", "root", "sign", metadata, "--key", this.#file("root")]);
  }

  /** @param options.key its name @returns the path of its manifest */
  async publish(
    { version, program }: BuiltVersion,
    options: { readonly floor?: string; readonly key?: string } = {},
  ): Promise<string> {
    const { floor = "0.0.0", key = "release" } = options;
    const words = ["build", version, program, "--folder", this.site, "--level", "1"];
    await saysDone(["fleet", "artifact", ...words, "--floor", floor]);
    const manifest = join(this.site, manifestOf(version));
    await saysDone(["fleet", "artifact", "sign", manifest, "--key", this.#file(key)]);
    return manifest;
  }

  /** One version once more, with its signed manifest, where its packed blocks are damaged. */
  damaged(name: string, version: string, damage: (path: string) => void): string {
    const folder = this.#file(name);
    mkdirSync(folder);
    const envelope = JSON.parse(readFileSync(join(this.site, manifestOf(version)), "utf8"));
    const { builds } = JSON.parse(envelope.signed) as { builds: readonly { digest: string }[] };
    const digest = builds[0]?.digest ?? "";
    const files = ["root-1.json", "metadata.json", manifestOf(version), `${digest}.blocks`];
    for (const file of [...files, `${digest}.zst`]) {
      copyFileSync(join(this.site, file), join(folder, file));
    }
    damage(join(folder, `${digest}.zst`));
    return folder;
  }
}

export const manifestOf = (version: string): string => `hostler-${version}.manifest.json`;

/** Turns over some bits in each of many places. @param every bytes between two of them */
export function flipBytes(path: string, every: number): void {
  const { length } = readFileSync(path);
  const file = openSync(path, "r+");
  for (let at = every; at < length; at += every) writeSync(file, Buffer.from([0xa5]), 0, 1, at);
  closeSync(file);
}

/** Leaves the first half. */
export function cutInHalf(path: string): void {
  truncateSync(path, Math.floor(readFileSync(path).length / 2));
}
