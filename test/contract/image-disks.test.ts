/** The disks that we make, as others read them: qemu-img, isoinfo, blkid. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { createOverlay, createSeedDisk, lookAtDisk } from "../../src/image/disks.ts";
import { runProgram } from "../support/program.ts";
import { program, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";

let folder: TemporaryFolder;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder[Symbol.dispose]());

async function say(...argv: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await runProgram(argv);
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: ${exitCode}\n${stdout}${stderr}`);
  return stdout;
}

const nobody = { virtualSize: undefined, owner: undefined };

skipUnless("overlays by qemu-img", program("qemu-img", "qemu-utils"), () => {
  /** An image's disk, and an overlay of it. */
  async function make(virtualSize: number | undefined) {
    const base = folder.file("base.img");
    const content = Buffer.alloc(3 * 1024 * 1024 + 512, "what is there ");
    writeFileSync(base, content);
    const path = folder.file("disk.qcow2");
    const disk = lookAtDisk({ path: base, key: "disks[0].path" }, undefined);
    await createOverlay(path, disk, { ...nobody, virtualSize });
    return { path, base, content };
  }

  test("it is what it says that it is", async () => {
    const { path, base } = await make(20 * 1024 ** 3);
    expect(JSON.parse(await say("qemu-img", "info", "--output=json", path))).toMatchObject({
      format: "qcow2",
      "virtual-size": 20 * 1024 ** 3,
      "cluster-size": 65_536,
      "backing-filename": base,
      "backing-filename-format": "raw",
      "dirty-flag": false,
      "format-specific": {
        data: { compat: "1.1", "lazy-refcounts": false, "refcount-bits": 16, corrupt: false },
      },
    });
    expect(await say("qemu-img", "check", path)).toContain("No errors were found on the image.");
  });

  test.each([512, 512 * 1024 ** 2 + 512, 5 * 1024 ** 4, 64 * 1024 ** 4])(
    "nothing is wrong with one of %d bytes more",
    async (more) => {
      const size = Math.min(64 * 1024 ** 4, 3 * 1024 * 1024 + 512 + more);
      const { path } = await make(size);
      expect(await say("qemu-img", "check", path)).toContain("No errors were found on the image.");
      const found = JSON.parse(await say("qemu-img", "info", "--output=json", path));
      expect(found["virtual-size"]).toBe(size);
    },
  );

  test("it shows what is below, and keeps what is written for itself", async () => {
    const { path, base, content } = await make(undefined);
    const raw = folder.file("shown.img");
    await say("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw);
    expect(readFileSync(raw).equals(content)).toBe(true);
    await say("qemu-io", "-f", "qcow2", "-c", "write -P 0x41 1000k 512k", path);
    await say("qemu-io", "-f", "qcow2", "-c", "read -P 0x41 1000k 512k", path);
    expect(await say("qemu-img", "check", path)).toContain("No errors were found on the image.");
    expect(readFileSync(base).equals(content)).toBe(true);
  });

  test("an image in qcow2 is known, and stands below as one", async () => {
    const base = folder.file("base.qcow2");
    await say("qemu-img", "create", "-f", "qcow2", base, "3G");
    const disk = lookAtDisk({ path: base, key: "disks[0].path" }, undefined);
    expect(disk).toEqual({ path: base, format: "qcow2", virtualSize: 3 * 1024 ** 3 });
    const path = folder.file("disk.qcow2");
    await createOverlay(path, disk, nobody);
    const found = JSON.parse(await say("qemu-img", "info", "--output=json", path));
    expect(found).toMatchObject({ "backing-filename-format": "qcow2" });
    expect(await say("qemu-img", "check", path)).toContain("No errors were found on the image.");
  });

  test("an image with a backing file of its own choice is refused", async () => {
    const base = folder.file("base.qcow2");
    writeFileSync(folder.file("secret"), Buffer.alloc(65_536));
    await say("qemu-img", "create", "-f", "qcow2", "-b", folder.file("secret"), "-F", "raw", base);
    expect(() => lookAtDisk({ path: base, key: "disks[0].path" }, undefined)).toThrow(
      "expected a qcow2 image that needs no other file, received one with a backing file",
    );
  });
});

const seed = {
  userData: `#cloud-config\n${"x".repeat(5_000)}\n`,
  metaData: "instance-id: i-1\n",
  networkConfig: "",
};
const time = Date.UTC(2026, 10, 28, 20, 30, 15);

async function makeSeed(files: Partial<Parameters<typeof createSeedDisk>[1]> = {}) {
  const path = folder.file("seed.iso");
  await createSeedDisk(path, { ...seed, ...files }, { time, owner: undefined });
  return path;
}

skipUnless("seeds by isoinfo", program("isoinfo", "genisoimage"), () => {
  test("the disk is called cidata, in both trees", async () => {
    const path = await makeSeed();
    const found = await say("isoinfo", "-d", "-i", path);
    expect(found).toContain("Volume id: cidata");
    expect(found).toContain(`Volume size is: ${statSync(path).size / 2048}`);
    expect(found).toContain("Joliet with UCS level 3 found");
    expect(found).toContain("Rock Ridge signatures version 1 found");
  });

  test.each(["-J", "-R"])(
    "by %s its files have their names, and say what they are",
    async (tree) => {
      const path = await makeSeed();
      const names = (await say("isoinfo", tree, "-f", "-i", path)).trim().split("\n");
      expect(names).toEqual(["/meta-data", "/network-config", "/user-data"]);
      for (const [name, content] of [
        ["/user-data", seed.userData],
        ["/meta-data", seed.metaData],
        ["/network-config", ""],
      ] as const) {
        expect(await say("isoinfo", tree, "-i", path, "-x", name)).toBe(content);
      }
      const listed = await say("isoinfo", tree, "-l", "-i", path);
      expect(listed).toContain("Nov 28 2026");
    },
  );

  test("without either, they are there by short names", async () => {
    const path = await makeSeed({ networkConfig: undefined });
    const names = (await say("isoinfo", "-f", "-i", path)).trim().split("\n");
    expect(names).toEqual(["/META_DAT.;1", "/USER_DAT.;1"]);
  });

  test("modes are those of files that everybody may read", async () => {
    const listed = await say("isoinfo", "-R", "-l", "-i", await makeSeed());
    expect(listed).toMatch(/^-r--r--r--.* user-data\s*$/m);
    expect(listed).toMatch(/^dr-xr-xr-x.* \.\s*$/m);
  });
});

skipUnless("seeds by blkid", program("blkid", "util-linux"), () => {
  test("it is found by what cloud-init looks for", async () => {
    const found = await say("blkid", "-p", "-o", "export", await makeSeed());
    expect(found).toContain("LABEL=cidata");
    expect(found).toContain("TYPE=iso9660");
  });
});
