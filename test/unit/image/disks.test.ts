/** Disks of machines: what is made, what of an image's disk is refused, what is in whose place. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import {
  type BaseDisk,
  createEphemeralDisk,
  createOverlay,
  createSeedDisk,
  lookAtDisk,
} from "../../../src/image/disks.ts";
import { makeOverlay, overlayLimits, parseDiskHeader } from "../../../src/image/qcow2.ts";
import { defaultMetaData, makeSeedDisk, seedLimits } from "../../../src/image/seed-disk.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

let folder: TemporaryFolder;
let base: BaseDisk;
beforeEach(() => {
  folder = temporaryFolder();
  base = { path: folder.file("base.img"), format: "raw", virtualSize: 1024 };
  writeFileSync(base.path, "x".repeat(1000));
});
afterEach(() => folder[Symbol.dispose]());

const sha256 = (bytes: Uint8Array) => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
const overlay = { backing: "/base", backingFormat: "raw", virtualSize: 10 * 1024 ** 3 } as const;
const nobody = { virtualSize: undefined, owner: undefined };

/** The header of a qcow2, changed at a place. */
function header(change: (bytes: Buffer) => void = () => undefined): Buffer {
  const bytes = Buffer.from(makeOverlay(overlay).bytes.subarray(0, 104));
  bytes.writeBigUInt64BE(0n, 8);
  change(bytes);
  return bytes;
}

describe("an overlay", () => {
  test("has these bytes, always", () => {
    const { bytes, size } = makeOverlay(overlay);
    expect(size).toBe(4 * 65_536);
    expect(Buffer.from(bytes.subarray(0, 136)).toString("hex")).toBe(
      "514649fb" + // QFI
        "00000003" +
        "0000000000000080" + // the backing file's name
        "00000005" +
        "00000010" + // clusters of 64 KiB
        "0000000280000000" +
        "00000000" + // not encrypted
        "00000014" + // entries of the first table
        "0000000000030000" +
        "0000000000010000" + // the table of counts
        "00000001" +
        "00000000" + // no snapshots
        "0000000000000000" +
        "0000000000000000" + // features
        "0000000000000000" +
        "0000000000000000" +
        "00000004" +
        "00000068" +
        "e2792aca00000003" + // the backing file's format
        "7261770000000000" +
        "0000000000000000" +
        "2f62617365000000", // its name
    );
    expect(sha256(bytes)).toMatchInlineSnapshot(
      `"92636fb000829ef1a4f401d603bb1ab8aa54377a86825ab23526811745d28e66"`,
    );
  });

  test.each([
    [512, 4],
    [512 * 1024 ** 2, 4],
    [4 * 1024 ** 4, 4],
    [4 * 1024 ** 4 + 512, 5],
    [overlayLimits.virtualSize, 19],
  ])("of %d bytes has %d clusters", (virtualSize, count) => {
    const { bytes, size } = makeOverlay({ ...overlay, virtualSize });
    expect(size).toBe(count * 65_536);
    const counts = Buffer.from(bytes.subarray(2 * 65_536));
    expect(counts.indexOf(Buffer.alloc(2), 0)).toBeGreaterThanOrEqual(count * 2 - 1);
    expect(counts.readUInt16BE(count * 2 - 2)).toBe(1);
    expect(counts.readUInt16BE(count * 2)).toBe(0);
  });

  test.each([
    { virtualSize: 0 },
    { virtualSize: 513 },
    { virtualSize: overlayLimits.virtualSize + 512 },
    { backing: "relative" },
    { backing: "/a\0b" },
    { backing: `/${"x".repeat(overlayLimits.nameBytes)}` },
  ])("with %j is a mistake of ours", (changes) => {
    expect(() => makeOverlay({ ...overlay, ...changes })).toThrow(RangeError);
  });

  test("is made once: a machine's disk is never overwritten", async () => {
    const path = folder.file("disk.qcow2");
    await createOverlay(path, base, nobody);
    expect(statSync(path).mode & 0o7777).toBe(0o600);
    expect(statSync(path).blocks * 512).toBeLessThan(statSync(path).size + 4096);
    writeFileSync(path, "what the machine wrote");
    expect((await rejectionOf(createOverlay(path, base, nobody))).message).toBe(
      `Cannot make the disk ${path}: expected nothing there, received a disk, which the machine ` +
        "may have written to. Remove it first, if nobody needs what is on it.",
    );
    expect(readFileSync(path, "utf8")).toBe("what the machine wrote");
    expect(readdirSync(folder.path).toSorted()).toEqual(["base.img", "disk.qcow2"]);
  });

  test("may be larger than what it shows, and not smaller", async () => {
    const path = folder.file("disk.qcow2");
    const options = { virtualSize: 1023, owner: undefined };
    await createOverlay(path, base, options);
    const smaller = createOverlay(folder.file("b"), base, { ...options, virtualSize: 512 });
    expect((await rejectionOf(smaller)).message).toContain(
      "expected at least the image's 1024 bytes, received 512 bytes",
    );
    await createOverlay(folder.file("c"), base, { ...options, virtualSize: 4096 });
    expect(parseDiskHeader(readFileSync(folder.file("c")).subarray(0, 104))).toEqual({
      kind: "refused",
      expected: "a qcow2 image that needs no other file",
      received: "one with a backing file",
    });
  });

  test("where there can be none, leaves nothing", async () => {
    const path = folder.file("none/disk.qcow2");
    expect((await rejectionOf(createOverlay(path, base, nobody))).message).toContain("(ENOENT)");
    symlinkSync("/nowhere/x", folder.file("link"));
    await rejectionOf(createOverlay(folder.file("link"), base, nobody));
    expect(readdirSync(folder.path).toSorted()).toEqual(["base.img", "link"]);
  });
});

describe("an ephemeral disk", () => {
  test("is empty, takes no room, and replaces the one before", async () => {
    const path = folder.file("e.img");
    await createEphemeralDisk(path, 1024 ** 4, undefined);
    expect(statSync(path)).toMatchObject({ size: 1024 ** 4, blocks: 0 });
    writeFileSync(path, "written");
    await createEphemeralDisk(path, 513, { user: 0, group: 0 });
    expect(statSync(path)).toMatchObject({ size: 1024, blocks: 0 });
    expect(readFileSync(path).every((byte) => byte === 0)).toBe(true);
    // What a killed worker left does not stay.
    writeFileSync(`${path}.partial`, "half");
    await createEphemeralDisk(path, 512, undefined);
    expect(readdirSync(folder.path).toSorted()).toEqual(["base.img", "e.img"]);
  });

  test("is refused by its name where the kernel refuses it", async () => {
    const path = folder.file("d");
    mkdirSync(`${path}/full`, { recursive: true });
    const refused = await rejectionOf(createEphemeralDisk(path, 512, undefined));
    expect(refused).toMatchObject({ name: "ImageRefused" });
    expect(refused.message).toStartWith(`Cannot make the disk ${path}: expected `);
  });
});

describe("an image's disk", () => {
  const look = (content: Uint8Array | string, format?: "raw" | "qcow2") => {
    writeFileSync(base.path, content);
    return lookAtDisk({ path: base.path, key: "disks[0].path" }, format);
  };

  test("is raw, in whole sectors, or qcow2 with a size of its own", () => {
    expect(look("x".repeat(513))).toMatchObject({ format: "raw", virtualSize: 1024 });
    expect(look("x", "raw")).toMatchObject({ format: "raw", virtualSize: 512 });
    expect(look(header())).toMatchObject({ format: "qcow2", virtualSize: 10 * 1024 ** 3 });
    expect(look(header(), "qcow2")).toMatchObject({ format: "qcow2" });
    const older = header((bytes) => bytes.writeUInt32BE(2, 4)).subarray(0, 72);
    expect(look(older)).toMatchObject({ format: "qcow2" });
  });

  test("whose image_type is Raw is not looked into", () => {
    expect(look(header(), "raw")).toMatchObject({ format: "raw", virtualSize: 512 });
  });

  test.each<[string, (bytes: Buffer) => void, string]>([
    ["backing file", (bytes) => bytes.writeUInt32BE(5, 12), "one with a backing file"],
    ["external data", (bytes) => bytes.writeUInt32BE(4, 76), "one with an external data file"],
    ["encryption", (bytes) => bytes.writeUInt32BE(1, 32), "an encrypted one"],
    ["dirty", (bytes) => bytes.writeUInt32BE(1, 76), "one to be repaired"],
    ["corrupt", (bytes) => bytes.writeUInt32BE(2, 76), "one to be repaired"],
    ["unknown features", (bytes) => bytes.writeUInt32BE(0x80, 76), "the feature bits 0x80"],
    ["version", (bytes) => bytes.writeUInt32BE(4, 4), "version 4"],
    ["size", (bytes) => bytes.writeUInt32BE(0xffff_ffff, 24), "18446744071562067968 bytes"],
  ])("that is a qcow2 with %s is refused", (_, change, received) => {
    expect(() => look(header(change))).toThrow(`received ${received}.`);
    expect(() => look(header(change), "qcow2")).toThrow(`received ${received}.`);
  });

  test("that is cut off, empty, or not what was said", () => {
    expect(() => look(header().subarray(0, 71))).toThrow("received 71 bytes of it");
    expect(() => look(header().subarray(0, 103))).toThrow("received 103 bytes of it");
    expect(() => look("")).toThrow("expected a disk, received an empty file");
    expect(() => look("raw", "qcow2")).toThrow("disks[0].path: expected a qcow2 image");
  });
});

describe("a seed for cloud-init", () => {
  const seed = { userData: "#cloud-config\n", metaData: "a: b\n", networkConfig: "version: 2\n" };
  const time = Date.UTC(2026, 10, 28, 20, 30, 15);

  test("has the same bytes for the same arguments, and others for others", () => {
    const disk = makeSeedDisk(seed, time);
    expect(disk.length).toBe(28 * 2048);
    expect(sha256(makeSeedDisk({ ...seed }, time))).toBe(sha256(disk));
    expect(sha256(disk)).toMatchInlineSnapshot(
      `"86b44afe139b97ec316786f02c5684cc1c4fee6beb04e55a4b6a454167fa5b89"`,
    );
    expect(sha256(makeSeedDisk(seed, time + 1_000))).not.toBe(sha256(disk));
  });

  test("a clock at 1970, before it, and in 2200 make one as well", () => {
    for (const wrong of [0, -1, Date.UTC(2200, 0)]) {
      expect(makeSeedDisk(seed, wrong).length).toBe(28 * 2048);
    }
  });

  test("is replaced, and read by its owner alone", async () => {
    const path = folder.file("seed.iso");
    await createSeedDisk(path, seed, { time, owner: undefined });
    await createSeedDisk(path, { ...seed, userData: "" }, { time, owner: undefined });
    expect(statSync(path).mode & 0o7777).toBe(0o400);
    expect(statSync(path).size).toBe(28 * 2048);
  });

  test("has at most so many bytes in each file", () => {
    const { fileBytes } = seedLimits;
    expect(makeSeedDisk({ ...seed, userData: "x".repeat(fileBytes) }, time).length).toBe(
      (27 + fileBytes / 2048) * 2048,
    );
    expect(() => makeSeedDisk({ ...seed, userData: "x".repeat(fileBytes + 1) }, time)).toThrow(
      "Expected at most 1048576 bytes of user-data",
    );
  });

  test("tells a name and an id as YAML, whatever is in them", () => {
    expect(defaultMetaData({ id: 'i-"1', name: "web" })).toBe(
      'instance-id: "i-\\"1"\nlocal-hostname: "web"\n',
    );
  });
});
