import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, ftruncateSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import { renderSnapshots } from "../../../src/vm/commands/snapshot.ts";
import type { MachineRecord } from "../../../src/vm/machine-record.ts";
import { MachineFolders } from "../../../src/vm/perform/machine-folders.ts";
import { restoreSnapshot } from "../../../src/vm/perform/restoration.ts";
import { type SnapshotSource, Snapshots } from "../../../src/vm/perform/snapshots.ts";
import { mostManifestBytes } from "../../../src/vm/snapshot-manifest.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

const memoryBytes = 5 * 1024 ** 2;
const card = { network: "default", tap: "tap-a", mac: "02:00:00:00:00:01", address: "10.100.0.2" };
const choice = {
  hypervisor: "qemu",
  accelerator: "tcg",
  machine_type: "q35",
  processor_model: "max",
} as const;
const record: MachineRecord = {
  format: 1,
  spec: { name: "web", kernelPath: "/kernel" },
  owner: "operator",
  declared_power: null,
  shutdown_grace_ms: null,
  allocation: { user: 100_000, cards: [card] },
  choice,
  image: null,
  boot: "boot",
  note: { version: 1, stage: "living", wanted: "running", prepared: true, restarts: 0 },
};
const never = new AbortController().signal;

let folder: TemporaryFolder;
let snapshots: Snapshots;

beforeEach(() => {
  folder = temporaryFolder();
  snapshots = new Snapshots(folder.path);
});
afterEach(() => folder[Symbol.dispose]());

async function write(change: Partial<SnapshotSource> = {}, signal = never): Promise<void> {
  using memory = makeMemoryFile("memory");
  ftruncateSync(memory.number, memoryBytes);
  const state = { hypervisor: "qemu", version: "7.2.22", bytes: new Uint8Array([1, 2]) } as const;
  const given = { record, snapshot: "first", power: "running", state, disks: [] } as const;
  const usual = { boundToBuild: [], encryptTo: undefined, memory: [memory] };
  await snapshots.write({ ...given, ...usual, ...change }, signal);
}

const inFolder = () => readdirSync(join(folder.path, "snapshots"));

/** Restores on a host that has this version of QEMU, and gives that answer for the address. */
async function restore(version: string, reservation: string | undefined): Promise<unknown> {
  const folders = new MachineFolders(folder.path);
  const program = { hypervisor: "qemu", path: "/qemu", version } as const;
  const tools = {
    ...{ folders, snapshots, boot: "boot" },
    captures: { keep: async () => {}, forget: async () => {} },
    network: { reserve: () => reservation, unreserve: () => {} },
    choose: () => ({ kind: "chosen", program, accelerator: "tcg" }),
  } as unknown as Parameters<typeof restoreSnapshot>[0];
  const options = { key: undefined, signal: never, onProgress: () => {} };
  return await restoreSnapshot(tools, snapshots.read("web", "first"), options);
}

describe("snapshots", () => {
  test("tell how far they are, and are there when all of it is", async () => {
    const told: number[] = [];
    using _watch = snapshots.watch("web", ({ done }) => told.push(done));
    await write();
    expect(told.at(-1)).toBe(memoryBytes + 2);
    const [manifest] = snapshots.list("web");
    expect(manifest).toMatchObject({
      cards: [card],
      choice,
      vmm_version: "7.2.22",
      same_build_only: null,
    });
    expect(String(await rejectionOf(write()))).toContain("already");
  });

  test("of a worker that knew one network are read all the same", async () => {
    await write();
    const path = join(snapshots.folderOf("web", "first"), "manifest.json");
    const { cards: _cards, ...rest } = snapshots.read("web", "first");
    const { network: _network, ...older } = card;
    for (const [one, expected] of [
      [older, [card]],
      [null, []],
    ] as const) {
      writeFileSync(path, JSON.stringify({ ...rest, card: one }));
      expect(snapshots.read("web", "first").cards).toEqual([...expected]);
    }
    writeFileSync(
      path,
      JSON.stringify({ ...rest, card: { ...older, tap: "much too long a name" } }),
    );
    expect(() => snapshots.read("web", "first")).toThrow("cards.0.tap");
  });

  test("whose manifest is broken are told, and can be removed", async () => {
    await write();
    const path = join(snapshots.folderOf("web", "first"), "manifest.json");
    writeFileSync(path, "{");
    expect(snapshots.list("web")).toEqual([]);
    const [damaged, ...more] = snapshots.damaged(undefined);
    expect(more).toEqual([]);
    const reason = expect.stringContaining(`${path} is not understood: JSON Parse error`);
    expect(damaged).toMatchObject({ name: "web", snapshot: "first", damaged: reason });
    const text = renderSnapshots(snapshots.damaged("web"));
    expect(text).toContain("remove all of it by hostler vm snapshot --delete web first\n");
    await snapshots.remove("web", "first");
    expect(snapshots.damaged("web")).toEqual([]);
  });

  test("that are given up leave nothing", async () => {
    const controller = new AbortController();
    using _watch = snapshots.watch("web", () => controller.abort(new Error("given up")));
    expect(String(await rejectionOf(write({}, controller.signal)))).toContain("given up");
    expect(inFolder()).toEqual([]);
  });

  test("that a worker left half done are removed by the next one", () => {
    mkdirSync(folder.file("snapshots/web/.partial-first"), { recursive: true });
    expect(inFolder()).toEqual(["web"]);
    expect(new Snapshots(folder.path).list(undefined)).toEqual([]);
    expect(inFolder()).toEqual([]);
  });

  test("with a manifest that is too long, or none, are not understood", async () => {
    await write();
    const path = join(snapshots.folderOf("web", "first"), "manifest.json");
    writeFileSync(path, " ".repeat(mostManifestBytes + 1));
    const words = `expected at most ${mostManifestBytes} bytes, received ${mostManifestBytes + 1}`;
    expect(() => snapshots.read("web", "first")).toThrow(words);
    writeFileSync(path, "{}");
    expect(() => snapshots.read("web", "first")).toThrow("is not understood");
    expect(snapshots.list("web")).toEqual([]);
  });

  test("that another version of the VMM cannot take are refused", async () => {
    await write({ boundToBuild: ['machine_type "q35" has no version'] });
    const refusal = String(await rejectionOf(restore("9.0.0", undefined)));
    expect(refusal).toContain("expected qemu 7.2.22, which made it, received 9.0.0");
    using restored = (await restore("7.2.22", undefined)) as Disposable;
    expect(restored).toBeDefined();
  });

  test("whose address is another's are refused, and make nothing", async () => {
    await write();
    const refusal = String(await rejectionOf(restore("9.0.0", "10.100.0.2 belongs to db")));
    expect(refusal).toContain("10.100.0.2 belongs to db");
    expect(existsSync(folder.file("machines/web"))).toBe(false);
  });
});
