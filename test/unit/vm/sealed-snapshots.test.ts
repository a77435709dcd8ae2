/** Encrypted snapshots: what was changed, cut, moved or opened with another key is refused. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import type { MachineRecord } from "../../../src/vm/machine-record.ts";
import {
  chunkBytes,
  openSealed,
  sealedSize,
  sealToNew,
} from "../../../src/vm/perform/sealed-files.ts";
import { Snapshots } from "../../../src/vm/perform/snapshots.ts";
import {
  DataKey,
  makeKeyPair,
  publicKeyOf,
  readKeyText,
  writePublicKey,
  writeSecretKey,
} from "../../../src/vm/snapshot-key.ts";
import type { SnapshotManifest } from "../../../src/vm/snapshot-manifest.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

const storedChunk = chunkBytes + 16;
const options = { signal: new AbortController().signal, onBytes: () => {} };

let folder: TemporaryFolder;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder[Symbol.dispose]());

/** Bytes that are no zeros, each its place's. */
function bytesOf(size: number): Uint8Array {
  return Uint8Array.from(
    { length: size },
    (_value, index) => 1 + ((index * 7 + (index >> 9)) % 255),
  );
}

async function seal(bytes: Uint8Array, key: Buffer, name = "sealed"): Promise<string> {
  const plain = folder.file("plain");
  writeFileSync(plain, bytes);
  const source = openSync(plain, "r");
  try {
    const { size } = await sealToNew(source, folder.file(name), key, options);
    expect(size).toBe(bytes.length);
    return folder.file(name);
  } finally {
    closeSync(source);
  }
}

async function open(path: string, key: Buffer, size: number): Promise<Uint8Array> {
  const source = openSync(path, "r");
  const target = openSync(folder.file("opened"), "w+");
  try {
    await openSealed(source, target, { key, size }, options);
    return readFileSync(folder.file("opened"));
  } finally {
    closeSync(source);
    closeSync(target);
  }
}

/** Changes a file in its place. */
function alter(path: string, change: (bytes: Buffer) => Uint8Array): void {
  writeFileSync(path, change(readFileSync(path)));
}

const flip = (at: number) => (bytes: Buffer) => {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
};

describe("a sealed file", () => {
  const { key } = DataKey.make(makeKeyPair().publicKey);
  const fileKey = key.ofFile("memory-0");

  const sizes = [0, 1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 40 * chunkBytes + 5];
  for (const size of sizes) {
    test(`of ${size} bytes gives the same back, and nothing of it is to be seen`, async () => {
      const bytes = bytesOf(size);
      const path = await seal(bytes, fileKey);
      expect(statSync(path)).toMatchObject({ size: sealedSize(size) });
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect(Buffer.compare(await open(path, fileKey, size), bytes)).toBe(0);
      const seen = readFileSync(path).indexOf(bytes.subarray(0, 64));
      if (size > 64) expect(seen).toBe(-1);
    });
  }

  test("keeps its holes, and is as large as what was in it", async () => {
    const plain = folder.file("sparse");
    const size = 64 * 1024 ** 2;
    const file = openSync(plain, "w+");
    ftruncateSync(file, size);
    writeSync(file, bytesOf(100_000), 0, 100_000, 30 * 1024 ** 2);
    await sealToNew(file, folder.file("sealed"), fileKey, options);
    expect(statSync(folder.file("sealed")).blocks * 512).toBeLessThan(1024 ** 2);
    const target = openSync(folder.file("opened"), "w+");
    const sealed = openSync(folder.file("sealed"), "r");
    await openSealed(sealed, target, { key: fileKey, size }, options);
    expect(statSync(folder.file("opened")).blocks * 512).toBeLessThan(1024 ** 2);
    const found = new Uint8Array(100_000);
    readSync(target, found, 0, found.length, 30 * 1024 ** 2);
    expect(Buffer.compare(found, bytesOf(100_000))).toBe(0);
    for (const descriptor of [file, target, sealed]) closeSync(descriptor);
  });

  const size = 3 * chunkBytes + 100;
  const swapped = (bytes: Buffer) =>
    Buffer.concat([
      bytes.subarray(storedChunk, 2 * storedChunk),
      bytes.subarray(0, storedChunk),
      bytes.subarray(2 * storedChunk),
    ]);
  const changes: readonly [string, (bytes: Buffer) => Uint8Array, number][] = [
    ["its first byte changed", flip(0), size],
    ["the tag of a chunk changed", flip(2 * storedChunk - 1), size],
    ["its last byte changed", flip(sealedSize(size) - 1), size],
    ["two chunks swapped", swapped, size],
    [
      "a chunk doubled in the place of another",
      (bytes) => {
        bytes.copy(bytes, storedChunk, 0, storedChunk);
        return bytes;
      },
      size,
    ],
    [
      "cut between two chunks, its size told accordingly",
      (bytes) => bytes.subarray(0, 2 * storedChunk),
      2 * chunkBytes,
    ],
    ["its first chunk left out", (bytes) => bytes.subarray(storedChunk), size - chunkBytes],
    [
      "longer by a chunk of its own",
      (bytes) => Buffer.concat([bytes, bytes.subarray(-116)]),
      size + 100,
    ],
  ];
  for (const [what, change, told] of changes) {
    test(`with ${what} is refused`, async () => {
      const path = await seal(bytesOf(size), fileKey);
      alter(path, change);
      const refusal = String(await rejectionOf(open(path, fileKey, told)));
      expect(refusal).toMatch(/expected chunk \d of \d as it was encrypted, received other bytes/);
    });
  }

  test("that is shorter than it was is refused", async () => {
    const path = await seal(bytesOf(size), fileKey);
    truncateSync(path, storedChunk);
    expect(String(await rejectionOf(open(path, fileKey, size)))).toContain("then its end");
  });

  test("of another name, or another snapshot, does not open", async () => {
    const path = await seal(bytesOf(size), fileKey);
    const other = DataKey.make(makeKeyPair().publicKey).key.ofFile("memory-0");
    for (const wrong of [key.ofFile("memory-1"), other]) {
      expect(String(await rejectionOf(open(path, wrong, size)))).toContain("chunk 1 of 4");
    }
  });
});

describe("keys", () => {
  test("are read as they are written, and known by their public half", () => {
    const pair = makeKeyPair();
    expect(readKeyText("public", "a.pub", writePublicKey(pair))).toBe(pair.publicKey);
    expect(readKeyText("secret", "a", writeSecretKey(pair))).toBe(pair.secretKey);
    expect(publicKeyOf(pair.secretKey)).toBe(pair.publicKey);
  });

  test("that are none, or the other half, are refused by what was expected", () => {
    const pair = makeKeyPair();
    const other = () => readKeyText("public", "a", writeSecretKey(pair));
    expect(other).toThrow("received a secret key");
    for (const text of ["", "hello", `hostler-snapshot-public-1 ${"A".repeat(43)}`]) {
      expect(() => readKeyText("public", "a.pub", text)).toThrow("received something else");
    }
  });

  test("of low order are refused: everybody would know what follows from them", () => {
    const low = Buffer.alloc(32).toString("base64");
    expect(() => DataKey.make(low)).toThrow("low order");
  });

  test("another one, and a wrapped key that was changed, do not open a snapshot", () => {
    const pair = makeKeyPair();
    const other = makeKeyPair();
    const { seal: made } = DataKey.make(pair.publicKey);
    expect(() => DataKey.open(made, other.secretKey)).toThrow(
      `expected the secret key of ${pair.publicKey}, received that of ${other.publicKey}`,
    );
    const wrapped = Buffer.from(made.wrapped, "base64");
    flip(5)(wrapped);
    const changed = { ...made, wrapped: wrapped.toString("base64") };
    expect(() => DataKey.open(changed, pair.secretKey)).toThrow("was changed");
    const moved = { ...made, recipient: other.publicKey };
    expect(() => DataKey.open(moved, other.secretKey)).toThrow("was changed");
  });
});

const record: MachineRecord = {
  format: 1,
  spec: { name: "web", kernelPath: "/kernel" },
  owner: "operator",
  declared_power: null,
  shutdown_grace_ms: null,
  allocation: { user: 100_000, cards: [] },
  choice: { hypervisor: "qemu", accelerator: "tcg", machine_type: "q35", processor_model: "max" },
  image: null,
  boot: "boot",
  note: { version: 1, stage: "living", wanted: "running", prepared: true, restarts: 0 },
};

describe("an encrypted snapshot", () => {
  const pair = makeKeyPair();
  const content = bytesOf(3 * chunkBytes);
  let snapshots: Snapshots;

  beforeEach(async () => {
    snapshots = new Snapshots(folder.path);
    using memory = makeMemoryFile("memory");
    writeSync(memory.number, content);
    const state = { hypervisor: "qemu", version: "7.2.22", bytes: content } as const;
    const given = { record, snapshot: "first", power: "running", state, disks: [] } as const;
    const whose = { boundToBuild: [], encryptTo: pair.publicKey, memory: [memory] };
    await snapshots.write({ ...given, ...whose }, options.signal);
  });

  const inSnapshot = (name: string) => join(snapshots.folderOf("web", "first"), name);
  const load = async (key: string | undefined = pair.secretKey) => {
    const onProgress = () => {};
    const how = { key, disks: folder.path, signal: options.signal, onProgress };
    using loaded = await snapshots.load(snapshots.read("web", "first"), how);
    return loaded.state.bytes;
  };
  const refusalOf = async (key?: string) => String(await rejectionOf(load(key)));
  const change = (edit: (manifest: SnapshotManifest) => object) => {
    const path = inSnapshot("manifest.json");
    const manifest = JSON.parse(readFileSync(path, "utf8")) as SnapshotManifest;
    writeFileSync(path, JSON.stringify(edit(manifest)));
  };

  test("opens with its key alone", async () => {
    expect(Buffer.compare(await load(), content)).toBe(0);
    const other = makeKeyPair().secretKey;
    expect(await refusalOf(other)).toContain(`expected the secret key of ${pair.publicKey}`);
    const onProgress = () => {};
    const how = { key: undefined, disks: folder.path, signal: options.signal, onProgress };
    const none = rejectionOf(snapshots.load(snapshots.read("web", "first"), how));
    expect(String(await none)).toContain(`is encrypted to ${pair.publicKey}. Give its secret key`);
  });

  test("with another manifest is refused, whatever was changed in it", async () => {
    const path = inSnapshot("manifest.json");
    const text = readFileSync(path, "utf8");
    const edits: readonly ((manifest: SnapshotManifest) => object)[] = [
      (manifest) => ({ ...manifest, power: "paused" }),
      (manifest) => ({ ...manifest, spec: { ...manifest.spec, cpu: 2 } }),
      (manifest) => ({ ...manifest, files: manifest.files.toReversed() }),
      (manifest) => ({ ...manifest, files: manifest.files.slice(0, 1) }),
    ];
    for (const edit of edits) {
      change(edit);
      expect(await refusalOf()).toContain(
        "expected the manifest that was encrypted with its files",
      );
      writeFileSync(path, text);
    }
    // The same in another order is the same.
    change((manifest) => Object.fromEntries(Object.entries(manifest).toReversed()));
    expect(Buffer.compare(await load(), content)).toBe(0);
  });

  test("whose manifest says nothing of that is refused to who gives a key", async () => {
    change(({ encryption: _encryption, ...manifest }) => manifest);
    expect(await refusalOf()).toContain("expected one that is encrypted, as a key was given");
  });

  test("with a changed, a cut or an emptied file is refused", async () => {
    const path = inSnapshot("memory-0");
    const whole = readFileSync(path);
    const zeroed = Buffer.concat([Buffer.alloc(storedChunk), whole.subarray(storedChunk)]);
    const expected: readonly [Uint8Array, string][] = [
      [flip(9)(Buffer.from(whole)), "expected chunk 1 of 3 as it was encrypted"],
      [whole.subarray(0, -1), `expected ${whole.length} bytes, received ${whole.length - 1}`],
      [whole.subarray(0, storedChunk), `expected ${whole.length} bytes`],
      // A hole that was none is told by the hash of the whole.
      [zeroed, "it was changed after it was made"],
    ];
    for (const [bytes, words] of expected) {
      writeFileSync(path, bytes);
      expect(await refusalOf()).toContain(words);
    }
    writeFileSync(path, whole);
    expect(Buffer.compare(await load(), content)).toBe(0);
    expect(existsSync(inSnapshot("memory-1"))).toBe(false);
  });
});
