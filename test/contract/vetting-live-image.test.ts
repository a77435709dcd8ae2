/** The live image: the same bytes from the same inputs, and a disk that others can read. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeBootDisk } from "../../scripts/live-image/disk.ts";
import { type LiveImage, makeLiveImage } from "../../scripts/live-image.ts";
import { formatMebibytes } from "../../scripts/terminal.ts";
import { hostler, repositoryRoot } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { feature, program, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";

/** Packages of Debian may have to come first. */
const makingMilliseconds = 5 * 60_000;
const stubPlace = ".cache/live-image/tree/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

let folder: TemporaryFolder;
let first: LiveImage;
const commandLine = "console=ttyS0 hostler.vetting.run=7";

async function make(place: string): Promise<LiveImage> {
  const target = folder.file(place);
  mkdirSync(target, { recursive: true });
  // The file from somewhere else, with another time.
  const copy = join(target, "hostler");
  writeFileSync(copy, readFileSync(hostler()), { mode: 0o755 });
  return await makeLiveImage({
    folder: target,
    program: copy,
    disk: true,
    commandLine,
    packing: "fast",
  });
}

/** What it has of its entries, in their order. */
function archived(): Head[] {
  return headsOf(Buffer.from(Bun.zstdDecompressSync(readFileSync(first.initramfs))));
}

const rightMachine = feature("not an x86-64 machine", () => process.arch === "x64");

skipUnless("the live image", rightMachine, () => {
  beforeAll(async () => {
    folder = temporaryFolder();
    first = await make("a");
  }, makingMilliseconds);
  afterAll(() => folder[Symbol.dispose]());

  test(
    "made twice, in folders of different depth, it has the same bytes",
    async () => {
      const second = await make("deeper/and/deeper");
      for (const [one, other] of [
        [first.kernel, second.kernel],
        [first.initramfs, second.initramfs],
        [first.disk ?? "", second.disk ?? ""],
      ] as const) {
        expect(hashOf(one)).toBe(hashOf(other));
      }
      console.log(
        `live image: kernel ${formatMebibytes(statSync(first.kernel).size)}, initramfs ` +
          `${formatMebibytes(statSync(first.initramfs).size)}, packed quickly, ` +
          `${formatMebibytes(first.unpacked)} unpacked`,
      );
    },
    makingMilliseconds,
  );

  defineArchiveTests();
  skipUnless("a disk of the live image", program("blkid", "util-linux"), defineDiskTests);
});

function defineArchiveTests(): void {
  test("its archive holds nothing of when, where and by whom it was made", () => {
    const heads = archived();
    const paths = heads.map(({ path }) => path);
    expect(heads.filter(({ owner, time }) => owner !== 0 || time !== 0)).toEqual([]);
    expect(new Set(paths).size).toBe(paths.length);
    for (const path of [
      "init",
      "usr/bin/hostler",
      "usr/bin/busybox",
      "usr/sbin/dropbear",
      "usr/lib64/ld-linux-x86-64.so.2",
      "usr/lib/x86_64-linux-gnu/libc.so.6",
      `usr/lib/modules/${first.release}/kernel/drivers/nvme/host/nvme.ko`,
      `usr/lib/modules/${first.release}/modules.dep`,
    ]) {
      expect(paths).toContain(path);
    }
  });

  test("every module that its list of needs names is there", () => {
    const heads = archived();
    const folderName = `usr/lib/modules/${first.release}/`;
    const needs = heads.find(({ path }) => path === `${folderName}modules.dep`)?.content ?? "";
    const places = new Set(heads.map(({ path }) => path));
    const named = needs.split(/[\s:]+/).filter((word) => word !== "");
    expect(named.length).toBeGreaterThan(300);
    expect(named.filter((place) => !places.has(folderName + place))).toEqual([]);
  });
}

async function probe(path: string, ...words: readonly string[]): Promise<string> {
  return (await runProgram(["blkid", "-p", ...words, "-o", "export", path])).stdout;
}

function defineDiskTests(): void {
  test("others find its partition, and its file system", async () => {
    expect(await probe(first.disk ?? "")).toContain("PTTYPE=gpt");
    const partition = await probe(first.disk ?? "", "-O", `${2048 * 512}`);
    expect(partition).toContain("TYPE=vfat");
    expect(partition).toContain("VERSION=FAT32");
    expect(partition).toMatch(/^LABEL=HOSTLERLIVE$/m);
  });

  test("its second table is good when the first one is gone", async () => {
    const damaged = folder.file("damaged.img");
    const bytes = readFileSync(first.disk ?? "");
    bytes.fill(0, 512, 1024);
    writeFileSync(damaged, bytes);
    expect(await probe(damaged)).toContain("PTTYPE=gpt");
    bytes.fill(0, bytes.length - 512);
    writeFileSync(damaged, bytes);
    expect(await probe(damaged)).not.toContain("PTTYPE=gpt");
  });

  test("a disk with another command line is another disk", () => {
    const stub = readFileSync(join(repositoryRoot, stubPlace));
    const bytes = new Uint8Array(5_000);
    const common = { stub, kernel: bytes, initramfs: bytes, release: "6.1" };
    const [one, other] = ["a", "b"].map((line) => makeBootDisk({ ...common, commandLine: line }));
    const identity = (disk: Uint8Array | undefined) => disk?.slice(512 + 56, 512 + 72).toHex();
    expect(identity(one)).not.toBe(identity(other));
  });
}

function hashOf(path: string): string {
  return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
}

interface Head {
  readonly path: string;
  readonly owner: number;
  readonly time: number;
  /** Of the list of needs alone. */
  readonly content: string;
}

/** The entries of a cpio archive, by the format's description alone. */
function headsOf(archive: Buffer): Head[] {
  const heads: Head[] = [];
  for (let place = 0; ; ) {
    if (archive.toString("latin1", place, place + 6) !== "070701") throw new Error("no entry");
    const field = (index: number) => {
      const begin = place + 6 + 8 * index;
      return Number.parseInt(archive.toString("latin1", begin, begin + 8), 16);
    };
    const nameEnd = place + 110 + field(11);
    const path = archive.toString("latin1", place + 110, nameEnd - 1);
    if (path === "TRAILER!!!") return heads;
    const begin = Math.ceil(nameEnd / 4) * 4;
    const content = path.endsWith("modules.dep")
      ? archive.toString("latin1", begin, begin + field(6))
      : "";
    heads.push({ path, owner: field(2) + field(3), time: field(5), content });
    place = Math.ceil((begin + field(6)) / 4) * 4;
  }
}
