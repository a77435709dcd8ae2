import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import * as v from "valibot";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { wallClock } from "../../event-loop/clock.ts";
import type { CapturedState, Disk } from "../../hypervisor/driver.ts";
import { writeDurably } from "../../journal/append-journal.ts";
import { describeRefusal, refusalCode, withFile } from "../../journal/file-refused.ts";
import type { Bytes } from "../../units/units.ts";
import { hostlerVersion } from "../../units/version.ts";
import type { MachineRecord } from "../machine-record.ts";
import { type DamagedSnapshot, namePattern } from "../protocol.ts";
import { DataKey, KeyRefused } from "../snapshot-key.ts";
import {
  mostManifestBytes,
  type SnapshotFile,
  type SnapshotManifest,
  snapshotManifestSchema,
} from "../snapshot-manifest.ts";
import { mostStateBytes, readAt, writeAll } from "./captures.ts";
import { passStep } from "./kill-points.ts";
import {
  ChunkRefused,
  openSealed,
  openSealedToNew,
  sealedSize,
  sealToNew,
} from "./sealed-files.ts";
import {
  type Copied,
  type CopyOptions,
  copySparsely,
  copyToNew,
  openPlain,
  synchroniseFolder,
} from "./snapshot-files.ts";

/** How much of a snapshot is written, or read and verified. */
export interface SnapshotProgress {
  readonly done: Bytes;
  readonly of: Bytes;
}

/** A snapshot that cannot be made or used: what was expected, what was received, the mend. */
export class SnapshotRefused extends Error {
  override readonly name = "SnapshotRefused";
  /** system: the kernel refused. */
  readonly kind: "unknown" | "taken" | "damaged" | "unfit" | "system";
  readonly code: string | undefined;

  constructor(kind: SnapshotRefused["kind"], message: string, code?: string) {
    super(message);
    this.kind = kind;
    this.code = code;
  }
}

/** A machine that stands still, for as long as its snapshot is made. */
export interface SnapshotSource {
  readonly record: MachineRecord;
  readonly snapshot: string;
  readonly power: SnapshotManifest["power"];
  readonly state: CapturedState;
  readonly memory: readonly OwnedDescriptor[];
  readonly disks: readonly Disk[];
  /** Why the same build of the VMM alone can take its state. */
  readonly boundToBuild: readonly string[];
  /** The public key that all of it is encrypted to; undefined writes it as it is. */
  readonly encryptTo: string | undefined;
}

/** What a snapshot held, verified: in memory, and its disks where they are to be. */
export interface LoadedSnapshot extends Disposable {
  readonly state: CapturedState;
  readonly memory: readonly OwnedDescriptor[];
  /** Paths of the disks, which are root's yet. */
  readonly disks: readonly string[];
}

/** Names that a refusal counts up. */
const MOST_SHOWN = 50;
const manifestName = "manifest.json";
const stateName = "state";
const partialPrefix = ".partial-";
const asidePrefix = ".deleted-";

/**
 * Snapshots below the artifacts folder: `snapshots/MACHINE/SNAPSHOT/` with the manifest, the state
 * of the devices, the memory and the machine's own disks. Root's alone: memory has secrets in it.
 */
export class Snapshots {
  readonly #folder: string;
  readonly #watchers = new Map<string, Set<(progress: SnapshotProgress) => void>>();

  /** Removes what a worker before left half done. @throws FileRefused */
  constructor(artifactsFolder: string) {
    this.#folder = join(artifactsFolder, "snapshots");
    const place = {
      what: "keep snapshots in",
      path: this.#folder,
      otherwise: "give another folder",
    };
    withFile(place, () => {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      for (const machine of readdirSync(this.#folder)) this.#sweep(machine);
    });
  }

  #sweep(machine: string): void {
    const folder = join(this.#folder, machine);
    const isOurs = namePattern.test(machine) && statSync(folder).isDirectory();
    if (!isOurs) return;
    for (const name of readdirSync(folder)) {
      const isHalf = name.startsWith(partialPrefix) || name.startsWith(asidePrefix);
      if (isHalf) rmSync(join(folder, name), { recursive: true, force: true });
    }
    removeEmpty(folder);
  }

  folderOf(machine: string, snapshot: string): string {
    return join(this.#folder, machine, snapshot);
  }

  has(machine: string, snapshot: string): boolean {
    return existsSync(join(this.folderOf(machine, snapshot), manifestName));
  }

  /** Hears how far the snapshot of a machine is, until disposed. */
  watch(machine: string, call: (progress: SnapshotProgress) => void): Disposable {
    const calls = this.#watchers.get(machine) ?? new Set();
    this.#watchers.set(machine, calls.add(call));
    return {
      [Symbol.dispose]: () => {
        calls.delete(call);
        if (calls.size === 0) this.#watchers.delete(machine);
      },
    };
  }

  /** Of one machine, or all, by name; what cannot be read is among the damaged ones. */
  list(machine: string | undefined): SnapshotManifest[] {
    return this.#all(machine).flatMap(({ found }) => (typeof found === "string" ? [] : [found]));
  }

  /** Those whose manifest cannot be read, or is not understood: their files are still there. */
  damaged(machine: string | undefined): DamagedSnapshot[] {
    return this.#all(machine).flatMap(({ name, snapshot, found }) => {
      if (typeof found !== "string") return [];
      const folder = this.folderOf(name, snapshot);
      const damaged = `${join(folder, manifestName)} is not understood: ${found}`;
      return [{ name, snapshot, folder, damaged }];
    });
  }

  #all(machine: string | undefined) {
    const machines = machine === undefined ? readdirSync(this.#folder).toSorted() : [machine];
    return machines.flatMap((name) => {
      const folder = join(this.#folder, name);
      if (!namePattern.test(name) || !existsSync(folder)) return [];
      const snapshots = readdirSync(folder).filter((one) => namePattern.test(one));
      return snapshots
        .toSorted()
        .map((snapshot) => ({ name, snapshot, found: this.#read(name, snapshot) }));
    });
  }

  /** Keys of images that disks of snapshots write over. */
  images(): string[] {
    return this.list(undefined).flatMap(({ image }) => (image === null ? [] : [image]));
  }

  /** @throws SnapshotRefused when there is none, or its manifest is not understood */
  read(machine: string, snapshot: string): SnapshotManifest {
    const found = this.#read(machine, snapshot);
    if (typeof found !== "string") return found;
    if (this.has(machine, snapshot)) {
      const path = join(this.folderOf(machine, snapshot), manifestName);
      throw new SnapshotRefused("damaged", `${path} is not understood: ${found}`);
    }
    const known = this.list(machine).map((one) => one.snapshot);
    const own = known.slice(0, MOST_SHOWN).join(", ") || "none";
    throw new SnapshotRefused(
      "unknown",
      `${machine} has no snapshot ${snapshot}; its own: ${own}. See hostler vm snapshot --list.`,
    );
  }

  #read(machine: string, snapshot: string): SnapshotManifest | string {
    const path = join(this.folderOf(machine, snapshot), manifestName);
    try {
      const { size } = statSync(path);
      if (size > mostManifestBytes) {
        return `expected at most ${mostManifestBytes} bytes, received ${size}`;
      }
      const outcome = v.safeParse(snapshotManifestSchema, JSON.parse(readFileSync(path, "utf8")));
      if (!outcome.success) {
        const [issue] = outcome.issues;
        return `${v.getDotPath(issue) ?? "the manifest"}: ${issue.message}`;
      }
      const { output } = outcome;
      const named = `${output.machine}/${output.snapshot}`;
      const expected = `${machine}/${snapshot}`;
      return named === expected ? output : `expected that of ${expected}, received ${named}`;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /**
   * Makes a snapshot of a machine that stands still. It has its name when all of it is on the disk;
   * when anything fails nothing of it is left.
   * @throws SnapshotRefused; the signal's reason
   */
  async write(source: SnapshotSource, signal: AbortSignal): Promise<void> {
    const { snapshot, record } = source;
    const machine = record.spec.name;
    const folder = this.folderOf(machine, snapshot);
    const parent = join(this.#folder, machine);
    const partial = join(parent, `${partialPrefix}${snapshot}`);
    try {
      if (existsSync(folder)) throw snapshotTaken(machine, snapshot);
      mkdirSync(parent, { recursive: true, mode: 0o700 });
      await rm(partial, { recursive: true, force: true });
      mkdirSync(partial, { mode: 0o700 });
      passStep("snapshot:begun");
      const manifest = await this.#fill(partial, source, signal);
      passStep("snapshot:copied");
      writeDurably(join(partial, manifestName), `${JSON.stringify(manifest, null, 2)}\n`);
      await synchroniseFolder(partial);
      passStep("snapshot:written");
      // From here on the machine may run: what was not whole by now never is.
      signal.throwIfAborted();
      renameSync(partial, folder);
      passStep("snapshot:placed");
      await synchroniseFolder(parent);
      await synchroniseFolder(this.#folder);
    } catch (error) {
      await rm(partial, { recursive: true, force: true });
      removeEmpty(parent);
      throw refusedWriting(`${machine}/${snapshot}`, error);
    }
  }

  async #fill(
    folder: string,
    source: SnapshotSource,
    signal: AbortSignal,
  ): Promise<SnapshotManifest> {
    const { record, state, memory } = source;
    const { choice, spec, allocation, image } = record;
    if (choice === null) throw new Error("Bug: a machine that runs, and was never chosen for");
    const machine = spec.name;
    const disks = source.disks.filter(({ readOnly }) => !readOnly);
    const of = sizeOf(memory, disks);
    const options = this.#counting(machine, of, signal);
    const files: SnapshotFile[] = [];
    const sealing = source.encryptTo === undefined ? undefined : DataKey.make(source.encryptTo);
    using stateFile = makeMemoryFile("hostler-vm-state");
    writeAll(stateFile, state.bytes);
    const add = async (file: Omit<SnapshotFile, "size" | "sha256">, descriptor: number) => {
      const path = join(folder, file.name);
      const key = sealing?.key.ofFile(file.name);
      const copied =
        key === undefined
          ? await copyToNew(descriptor, path, options)
          : await sealToNew(descriptor, path, key, options);
      files.push({ ...file, ...copied });
    };
    await add({ name: stateName, kind: "state" }, stateFile.number);
    for (const [index, piece] of memory.entries()) {
      await add({ name: `memory-${index}`, kind: "memory" }, piece.number);
    }
    for (const [index, disk] of disks.entries()) {
      const descriptor = openPlain(disk.path);
      try {
        const name = `disk-${index}`;
        await add({ name, kind: "disk", disk: basename(disk.path) }, descriptor);
      } finally {
        closeSync(descriptor);
      }
    }
    const { snapshot, power, boundToBuild } = source;
    const bound = boundToBuild.length === 0 ? null : boundToBuild.join("; ");
    const manifest: SnapshotManifest = {
      format: 1,
      ...{ machine, snapshot, time: wallClock(), hostler: hostlerVersion, power },
      ...{ spec, cards: allocation.cards, image, choice, files },
      vmm_version: state.version,
      same_build_only: bound,
    };
    if (sealing === undefined) return manifest;
    const code = sealing.key.codeOf({ ...manifest, encryption: sealing.seal });
    return { ...manifest, encryption: { ...sealing.seal, code } };
  }

  #counting(machine: string, of: Bytes, signal: AbortSignal): CopyOptions {
    let done = 0;
    const onBytes = (count: Bytes) => {
      done += count;
      for (const call of this.#watchers.get(machine) ?? []) call({ done, of: Math.max(of, done) });
    };
    return { signal, onBytes };
  }

  /**
   * Puts memory and state where a VMM can be given them, and the disks into a folder. Each file is
   * verified while it is copied, so that what was verified is what is used.
   * @param options.disks the folder, which is there and has none of them
   * @throws SnapshotRefused with file, expected and received; the signal's reason
   */
  async load(
    manifest: SnapshotManifest,
    options: {
      readonly disks: string;
      /** The secret key of what is encrypted; undefined for what is not. */
      readonly key: string | undefined;
      readonly signal: AbortSignal;
      readonly onProgress: (progress: SnapshotProgress) => void;
    },
  ): Promise<LoadedSnapshot> {
    const { machine, snapshot, files, choice, vmm_version: version } = manifest;
    const key = dataKeyOf(manifest, options.key);
    const folder = this.folderOf(machine, snapshot);
    const memory: OwnedDescriptor[] = [];
    const disks: string[] = [];
    const close = () => {
      for (const piece of memory) piece.close();
    };
    const of = files.reduce((sum, { size }) => sum + size, 0);
    let done = 0;
    const copying: CopyOptions = {
      signal: options.signal,
      onBytes: (count) => {
        done += count;
        options.onProgress({ done, of });
      },
    };
    let bytes: Uint8Array | undefined;
    try {
      for (const file of files) {
        if (file.kind === "disk") {
          const path = join(options.disks, file.disk ?? file.name);
          await verified(folder, file, key, (from, sealed) =>
            sealed === undefined
              ? copyToNew(from, path, copying)
              : openSealedToNew(from, path, sealed, copying),
          );
          disks.push(path);
          continue;
        }
        const piece = makeMemoryFile(`hostler-vm-${machine}`);
        memory.push(piece);
        await verified(folder, file, key, (from, sealed) =>
          sealed === undefined
            ? copySparsely(from, piece.number, copying)
            : openSealed(from, piece.number, sealed, copying),
        );
        if (file.kind === "memory") continue;
        memory.pop();
        bytes = readAt(piece, 0, file.size);
        piece.close();
      }
      if (bytes === undefined) {
        throw new SnapshotRefused(
          "damaged",
          `${folder}: expected a file of the state, received none`,
        );
      }
    } catch (error) {
      close();
      throw error;
    }
    const state = { hypervisor: choice.hypervisor, version, bytes };
    return { state, memory, disks, [Symbol.dispose]: close };
  }

  /** @throws SnapshotRefused when there is none; Error (EBUSY …) */
  async remove(machine: string, snapshot: string): Promise<void> {
    const folder = this.folderOf(machine, snapshot);
    if (!existsSync(folder)) this.read(machine, snapshot);
    const parent = join(this.#folder, machine);
    const aside = join(parent, `${asidePrefix}${snapshot}`);
    await rm(aside, { recursive: true, force: true });
    renameSync(folder, aside);
    await synchroniseFolder(parent);
    await rm(aside, { recursive: true, force: true });
    removeEmpty(parent);
  }
}

export const snapshotTaken = (machine: string, snapshot: string) =>
  new SnapshotRefused(
    "taken",
    `${machine} has a snapshot ${snapshot} already: delete it first, ` +
      `by hostler vm snapshot --delete ${machine} ${snapshot}, or choose another name.`,
  );

/**
 * What opens a snapshot, once its manifest is known to be that which was encrypted with it.
 * @throws SnapshotRefused where key and snapshot do not fit
 */
function dataKeyOf(manifest: SnapshotManifest, secretKey: string | undefined): DataKey | undefined {
  const { machine, snapshot, encryption } = manifest;
  const what = `The snapshot ${machine}/${snapshot}`;
  if (encryption === undefined) {
    if (secretKey === undefined) return undefined;
    // Whoever gives a key relies on what it says, and a plain snapshot has nothing of that.
    const expected = "expected one that is encrypted, as a key was given, received a plain one";
    throw new SnapshotRefused("unfit", `${what}: ${expected}. Restore it without --key.`);
  }
  const { code, ...seal } = encryption;
  if (secretKey === undefined) {
    const mend = "Give its secret key, by --key FILE.";
    throw new SnapshotRefused("unfit", `${what} is encrypted to ${seal.recipient}. ${mend}`);
  }
  try {
    const key = DataKey.open(seal, secretKey);
    if (key.isCodeOf(code, { ...manifest, encryption: seal })) return key;
  } catch (error) {
    throw refusedKey(what, error);
  }
  const path = `${machine}/${snapshot}/${manifestName}`;
  throw new SnapshotRefused(
    "damaged",
    `${path}: expected the manifest that was encrypted with its files, received another one: it ` +
      "was changed after it was made. Take another snapshot.",
  );
}

/** Copies a file of a snapshot, and compares what was copied with what its manifest says. */
async function verified(
  folder: string,
  file: SnapshotFile,
  dataKey: DataKey | undefined,
  copy: (
    source: number,
    sealed: { readonly key: Buffer; readonly size: Bytes } | undefined,
  ) => Promise<Copied>,
): Promise<void> {
  const path = join(folder, file.name);
  const refuse = (expected: string, received: string) =>
    new SnapshotRefused(
      "damaged",
      `${path}: expected ${expected}, received ${received}: it was changed after it was made. ` +
        "Take another snapshot.",
    );
  let source: number;
  try {
    source = openPlain(path);
  } catch (error) {
    throw refuse("a file", refusalCode(error) ?? String(error));
  }
  try {
    const status = fstatSync(source);
    const stored = dataKey === undefined ? file.size : sealedSize(file.size);
    if (!status.isFile() || status.size !== stored) {
      throw refuse(`${stored} bytes`, status.isFile() ? `${status.size}` : "no plain file");
    }
    if (file.kind === "state" && file.size > mostStateBytes) {
      throw refuse(`at most ${mostStateBytes} bytes`, `${file.size}`);
    }
    const key = dataKey?.ofFile(file.name);
    const { sha256 } = await copy(source, key && { key, size: file.size });
    if (sha256 !== file.sha256) throw refuse(file.sha256, sha256);
  } catch (error) {
    throw refusedChunk(path, error);
  } finally {
    closeSync(source);
  }
}

const refusedKey = (what: string, error: unknown): unknown =>
  error instanceof KeyRefused ? new SnapshotRefused("unfit", `${what}: ${error.message}.`) : error;

function refusedChunk(path: string, error: unknown): unknown {
  if (!(error instanceof ChunkRefused)) return error;
  return new SnapshotRefused("damaged", `${path}: ${error.message}. Take another snapshot.`);
}

function sizeOf(memory: readonly OwnedDescriptor[], disks: readonly Disk[]): Bytes {
  const pieces = memory.map((piece) => fstatSync(piece.number).size);
  const files = disks.map(({ path }) => statSync(path).size);
  return [...pieces, ...files].reduce((sum, size) => sum + size, 0);
}

/** What the kernel refused, with its mend; anything else as it is. */
function refusedWriting(what: string, error: unknown): unknown {
  const code = refusalCode(error);
  if (code === undefined || error instanceof SnapshotRefused) return error;
  const { why, mend } = describeRefusal(code);
  const message = `The snapshot ${what} was not made, and nothing of it is left: ${why}. ${mend}.`;
  return new SnapshotRefused("system", message, code);
}

function removeEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // It has other snapshots, or is no more.
  }
}
