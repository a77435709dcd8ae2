/** Releases for tests: small files that look like executables, keys, and a folder to publish. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { SignedKind } from "../../src/artifact/lifecycle-verify.ts";
import { makeRelease } from "../../src/artifact/make.ts";
import { makeMetadata, makeRoot } from "../../src/artifact/make-trust.ts";
import type { Metadata, Root } from "../../src/artifact/protocol.ts";
import {
  addSignature,
  makeSigningKey,
  readSigningKey,
  writeEnvelope,
} from "../../src/artifact/signing-key.ts";
import type { IdentityKey } from "../../src/identity/host-key.ts";
import { SeededChance } from "./chance.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";

/** An ELF header with one program header, PT_INTERP, as elf(5) has them; then chance. */
export function executable(options: {
  readonly size: number;
  readonly seed: number;
  readonly machine?: number;
  readonly interpreter?: string;
}): Buffer<ArrayBuffer> {
  const { size, seed, machine = 62, interpreter = "/lib64/ld-linux-x86-64.so.2" } = options;
  const chance = new SeededChance(seed);
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at += 1) bytes[at] = chance.below(64);
  bytes.fill(0, 0, 256);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1], 0);
  bytes.writeUInt16LE(machine, 18);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(1, 56);
  bytes.writeUInt32LE(3, 64);
  bytes.writeBigUInt64LE(128n, 72);
  bytes.writeBigUInt64LE(BigInt(interpreter.length + 1), 96);
  bytes.write(`${interpreter}\0`, 128, "latin1");
  return bytes;
}

/** Keys by name, made once each. */
export class Keys implements Disposable {
  readonly #folder: TemporaryFolder = temporaryFolder();
  readonly #made = new Map<string, IdentityKey>();

  get(name: string): IdentityKey {
    const found = this.#made.get(name);
    if (found !== undefined) return found;
    const path = this.#folder.file(name);
    makeSigningKey(path);
    const key = readSigningKey(path);
    this.#made.set(name, key);
    return key;
  }

  public(name: string): string {
    return this.get(name).publicKey;
  }

  /** An envelope's text, signed by these. */
  sign(kind: SignedKind, envelope: ReturnType<typeof makeRoot>, by: readonly string[]): string {
    return writeEnvelope(
      by.reduce((before, name) => addSignature(kind, before, this.get(name)), envelope),
    );
  }

  root(
    version: number,
    keys: readonly string[],
    options: { readonly by: readonly string[]; readonly threshold?: number },
  ): string {
    const root: Omit<Root, "format"> = {
      ...{ version, issued: "2026-01-01T00:00:00Z", threshold: options.threshold ?? 1 },
      keys: keys.map((name) => this.public(name)),
    };
    return this.sign("root", makeRoot(root), options.by);
  }

  metadata(options: {
    readonly by: readonly string[];
    readonly signers?: readonly string[];
    readonly previous?: Metadata | null;
    readonly version?: number;
    readonly revoked?: Metadata["revoked"];
    readonly revokedKeys?: readonly string[];
    readonly expires?: string;
  }): string {
    const { version, previous = null, signers = ["release"], revokedKeys = [] } = options;
    const envelope = makeMetadata({
      previous: version === undefined ? previous : { ...emptyMetadata, version: version - 1 },
      ...{ issued: "2026-01-01T00:00:00Z", expires: options.expires ?? "2027-01-01T00:00:00Z" },
      keys: signers.map((name) => ({ key: this.public(name), note: name })),
      revokedKeys: revokedKeys.map((name) => ({ key: this.public(name), reason: "stolen" })),
      revoked: options.revoked ?? [],
    });
    if (typeof envelope === "string") throw new Error(envelope);
    return this.sign("metadata", envelope, options.by);
  }

  [Symbol.dispose](): void {
    this.#folder[Symbol.dispose]();
  }
}

const emptyMetadata: Metadata = {
  ...{ format: 1, version: 0, issued: "2026-01-01T00:00:00Z", expires: "2027-01-01T00:00:00Z" },
  ...{ keys: [], revoked_keys: [], revoked: [] },
};

export interface Release {
  readonly version: string;
  /** The signed manifest. */
  readonly manifest: string;
  readonly digest: string;
}

/** A folder that is published: root-1.json by "root-a", metadata.json, and releases. */
export class Site implements Disposable {
  readonly #folder: TemporaryFolder = temporaryFolder();
  readonly keys: Keys = new Keys();
  readonly path: string;

  constructor() {
    this.path = this.#folder.file("site");
    mkdirSync(this.path);
    this.write("root-1.json", this.keys.root(1, ["root-a", "root-b"], { by: ["root-a"] }));
    this.write("metadata.json", this.keys.metadata({ by: ["root-a"] }));
  }

  get root(): string {
    return this.read("root-1.json");
  }

  /** A path beside what is published. */
  file(name: string): string {
    return this.#folder.file(name);
  }

  write(name: string, text: string | Uint8Array): void {
    writeFileSync(join(this.path, name), text);
  }

  read(name: string): string {
    return readFileSync(join(this.path, name), "utf8");
  }

  /** Makes, and signs by "release", a release of one file. */
  async release(
    version: string,
    bytes: Uint8Array,
    options: { readonly blockBytes?: number; readonly floor?: string; readonly by?: string } = {},
  ): Promise<Release> {
    const file = this.#folder.file(`hostler-${version}`);
    writeFileSync(file, bytes);
    const { path, manifest } = await makeRelease({
      ...{ files: [file], folder: this.path, level: 1, blockBytes: options.blockBytes ?? 4_096 },
      release: {
        ...{ version, floor: options.floor ?? "0.0.0", channel: "stable", labels: {} },
        issued: "2026-01-01T00:00:00Z",
      },
    });
    const envelope = JSON.parse(readFileSync(path, "utf8"));
    const text = this.keys.sign("manifest", envelope, [options.by ?? "release"]);
    writeFileSync(path, text);
    return { version, manifest: text, digest: manifest.builds[0]?.digest ?? "" };
  }

  [Symbol.dispose](): void {
    this.keys[Symbol.dispose]();
    this.#folder[Symbol.dispose]();
  }
}
