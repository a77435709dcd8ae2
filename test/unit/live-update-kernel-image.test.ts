/** What is read out of kernels' files: made by hand, and real ones where there are some. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type BzImage,
  ConfigurationSearch,
  type FileLength,
  type Packing,
  packedConfigurationLimit,
  packingOf,
  parseKernelImage,
} from "../../src/live-update/kernel-image.ts";
import {
  configurationBytesLimit,
  inspectTarget,
  kernelBytesLimit,
  type TargetRequest,
  unpackedBytesLimit,
} from "../../src/live-update/perform/inspect-target.ts";
import { judgeTarget, summarize, type Target } from "../../src/live-update/target-findings.ts";
import {
  liveUpdateOptions,
  makeArmImage,
  makeBzImage,
  makeEfiProgram,
  makeKernel,
  pack,
} from "../support/kernel-images.ts";
import { feature, program, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

function parseBz(file: Uint8Array): BzImage {
  const image = parseKernelImage(file);
  if (image.kind !== "bzImage") throw new Error(`No bzImage: ${image.kind}`);
  return image;
}

describe("a bzImage", () => {
  test("tells what it is", () => {
    const file = makeBzImage();
    expect(parseBz(file)).toMatchObject({
      bootProtocol: 0x020f,
      isLoadedHigh: true,
      is64Bit: true,
      isLoadableAbove4GiB: true,
      commandLineLimit: 2047,
      version: "7.3.4 (user@host) #1 SMP Debian 7.3.4-1",
      length: { actual: file.length, least: file.length },
      payload: { packing: "gzip" },
      isSigned: false,
    });
    expect(parseBz(makeBzImage({ isSigned: true })).isSigned).toBe(true);
  });

  test("has each flag in a bit of its own", () => {
    const flags = (moreLoadFlags: number) => parseBz(makeBzImage({ moreLoadFlags }));
    expect(flags(1)).toMatchObject({ is64Bit: true, isLoadableAbove4GiB: false });
    expect(flags(2)).toMatchObject({ is64Bit: false, isLoadableAbove4GiB: true });
    expect(parseBz(makeBzImage({ loadFlags: 0xfe })).isLoadedHigh).toBe(false);
    // What stands there is something else in a header from before the flags.
    expect(parseBz(makeBzImage({ bootProtocol: 0x020b })).is64Bit).toBe(false);
  });

  test("is found to be cut off, wherever it is cut, and never throws", () => {
    const file = makeBzImage();
    const cuts = [0x206, 0x20f, 0x237, 0x250, 1024, 2048, 2100, file.length - 1];
    for (const cut of cuts) {
      const { length, payload } = parseBz(file.subarray(0, cut));
      expect(length.actual).toBe(cut);
      expect(length.least).toBeGreaterThan(cut);
      if (cut < file.length - 1) expect(payload).toBeUndefined();
    }
  });

  test("with any single byte changed is read without an error", () => {
    const file = makeBzImage({ payload: Buffer.alloc(64, 0xff), isSigned: true });
    for (let at = 0; at < file.length; at += 1) {
      for (const value of [0, 0x7f, 0xff]) {
        const changed = Buffer.from(file);
        changed[at] = value;
        expect(() => parseKernelImage(changed)).not.toThrow();
      }
    }
  });

  test("with a payload beyond its end has none", () => {
    const file = makeBzImage();
    file.writeUInt32LE(0xffff_ffff, 0x248);
    expect(parseBz(file).payload).toBeUndefined();
  });
});

describe("an arm64 Image", () => {
  test("tells what it is, and with the EFI stub how long it is", () => {
    const file = makeArmImage();
    expect(parseKernelImage(file)).toEqual({
      kind: "Image",
      isPacked: false,
      memoryBytes: BigInt(file.length * 2),
      version: "7.3.4 (user@host) (gcc) #1 SMP",
      length: { actual: file.length, least: file.length },
      isSigned: false,
    });
    expect(parseKernelImage(file.subarray(0, -1))).toMatchObject({
      length: { actual: file.length - 1, least: file.length },
    });
    for (const cut of [100, 0x90, 0x80 + 24 + 100, 0x80 + 24 + 160 + 39]) {
      const { length } = parseKernelImage(file.subarray(0, cut)) as { length: FileLength };
      expect(length.least).toBeGreaterThan(cut);
    }
    expect(parseKernelImage(makeArmImage({ isSigned: true }))).toMatchObject({ isSigned: true });
  });

  test("without the EFI stub does not tell its length", () => {
    const file = makeArmImage({ hasEfiStub: false });
    expect(parseKernelImage(file)).toMatchObject({ length: { least: undefined } });
    expect(parseKernelImage(file.subarray(0, 61))).toMatchObject({ length: { least: 64 } });
  });
});

describe("what is no kernel is named", () => {
  const zboot = Buffer.alloc(512);
  zboot.write("MZ\0\0zimg", 0, "latin1");
  zboot.write("zstd22", 24, "latin1");
  test("an EFI program that unpacks a kernel", () => {
    expect(parseKernelImage(zboot)).toEqual({ kind: "zboot", packing: "zstd22" });
  });

  const files: [string, Uint8Array][] = [
    ["an empty file", new Uint8Array()],
    ["a text file", Buffer.from("#!/bin/sh\nexit 0\n")],
    ["an ELF file, as vmlinux is", Buffer.from("\x7fELF\x02\x01\x01\0", "latin1")],
    ["a unified kernel image (EFI)", makeEfiProgram(".linux")],
    ["an EFI or DOS program without a kernel", makeEfiProgram(".text")],
    ["an EFI or DOS program without a kernel", Buffer.from("MZ")],
    ["a file packed by zstd", Bun.zstdCompressSync(Buffer.from("kernel"))],
    ["a text file", Buffer.from("größer\n".repeat(600))],
    ["a file that is no kernel", Buffer.from("what \xff begins like text", "latin1")],
    ["a file that is no kernel", Buffer.alloc(4096)],
  ];
  test.each(files)("%s, case %#", (found, file) => {
    expect(parseKernelImage(file)).toEqual({ kind: "none", found });
  });
});

test("how something is packed is told by its first bytes", () => {
  const begin = (hex: string) => packingOf(Buffer.from(hex, "hex"));
  expect(begin("1f8b0800")).toBe("gzip");
  expect(begin("28b52ffd")).toBe("zstd");
  expect(begin("fd377a585a00")).toBe("xz");
  expect(begin("02214c18")).toBe("lz4");
  expect(begin("5d000080")).toBe("lzma");
  expect(begin("425a6839")).toBe("bzip2");
  expect(begin("894c5a4f00")).toBe("lzop");
  expect(begin("04224d18")).toBeUndefined();
  expect(begin("")).toBeUndefined();
});

describe("the search for a configuration", () => {
  const kernel = makeKernel(liveUpdateOptions);

  test("finds it across pieces of any size", () => {
    const whole = new ConfigurationSearch().push(kernel);
    expect(Buffer.from(Bun.gunzipSync(Buffer.from(whole ?? []))).toString()).toContain(
      "CONFIG_LIVEUPDATE=y\n",
    );
    for (const size of [1_000, 4_093, 299_995, 300_005, 300_020]) {
      const search = new ConfigurationSearch();
      let found: Uint8Array | undefined;
      for (let at = 0; at < kernel.length && found === undefined; at += size) {
        found = search.push(kernel.subarray(at, at + size));
      }
      expect(Buffer.from(found ?? [])).toEqual(Buffer.from(whole ?? []));
    }
  });

  test("byte by byte", () => {
    const search = new ConfigurationSearch();
    const bytes = [...kernel.subarray(299_900, 301_000)];
    const found = bytes.map((byte) => search.push(Uint8Array.of(byte)));
    expect(found.filter((piece) => piece !== undefined)).not.toEqual([]);
  });

  test("does not keep what has no end", () => {
    const search = new ConfigurationSearch();
    expect(search.push(Buffer.from("IKCFG_ST\x1f\x8b", "latin1"))).toBeUndefined();
    expect(search.push(Buffer.alloc(packedConfigurationLimit))).toBeUndefined();
    expect(search.push(Buffer.from("IKCFG_ED"))).toBeUndefined();
    expect(search.push(kernel)).toBeDefined();
  });
});

const commandLine = "console=ttyS0 liveupdate=on kho=on";

/** What is found of a file of these bytes. */
async function inspect(
  bytes: Uint8Array,
  more: Partial<TargetRequest> & { programPath?: string; beside?: string } = {},
): Promise<Target> {
  using folder = temporaryFolder();
  const kernel = folder.file("vmlinuz");
  writeFileSync(kernel, bytes);
  if (more.beside !== undefined) writeFileSync(folder.file("config-7.3.4"), more.beside);
  const { programPath, beside: _, ...request } = more;
  return await inspectTarget(
    { kernel, commandLine, ...request },
    programPath === undefined ? {} : { programPath },
  );
}

function source({ configuration }: Target): string {
  return configuration.kind === "known" ? configuration.source : configuration.reason;
}

describe("a file is inspected", () => {
  const packed = ["gzip", "zstd"] as const;
  test.each(packed)("its configuration is unpacked by ourselves: %s", async (packing) => {
    const payload = pack(makeKernel(liveUpdateOptions), packing);
    const target = await inspect(makeBzImage({ payload }), { programPath: "/nonexistent" });
    expect(source(target)).toBe("the kernel itself");
    expect(target.configuration).toMatchObject({
      options: new Map(Object.entries(liveUpdateOptions)),
    });
  });

  test("without the program that unpacks it, that is named", async () => {
    const payload = Buffer.from("fd377a585a000000", "hex");
    const target = await inspect(makeBzImage({ payload }), { programPath: "/nonexistent" });
    expect(source(target)).toBe("no xz here, by which the kernel is packed");
  });

  test("a configuration that is not carried, or is damaged, is looked for beside it", async () => {
    const none = makeBzImage({ payload: pack(makeKernel(undefined), "gzip") });
    expect(source(await inspect(none))).toBe("the kernel does not carry it (CONFIG_IKCONFIG)");
    const beside = "CONFIG_LIVEUPDATE=y\n";
    expect(source(await inspect(none, { beside }))).toBe("config-7.3.4");
    const damaged = makeKernel(liveUpdateOptions);
    damaged.fill(0, damaged.indexOf("IKCFG_ST\x1f\x8b", 0, "latin1") + 20, 300_080);
    const file = makeBzImage({ payload: pack(damaged, "gzip") });
    expect(source(await inspect(file))).toBe("the one in the kernel is damaged");
  });

  test("the version of a file is no path", async () => {
    const version = "../../../../../etc/passwd #1";
    const file = makeBzImage({ version, payload: pack(makeKernel(undefined), "gzip") });
    expect((await inspect(file)).configuration.kind).toBe("unknown");
  });

  const broken: [string, Packing][] = [
    ["Z_DATA_ERROR", "gzip"],
    ["nothing comes out", "zstd"],
  ];
  test.each(broken)("a packed kernel that cannot be unpacked: %s", async (reason, packing) => {
    const payload = pack(makeKernel(undefined), packing);
    // Behind the marks of the format itself, by which it is known.
    payload.fill(0xff, 10);
    const target = await inspect(makeBzImage({ payload }));
    expect(source(target)).toStartWith(`the packed kernel (${packing}) cannot be unpacked: `);
    if (packing === "gzip") expect(source(target)).toEndWith(reason);
  });

  test("an Image.gz is looked into", async () => {
    const target = await inspect(Bun.gzipSync(makeArmImage()));
    expect(target.image).toMatchObject({ kind: "Image", isPacked: true });
    expect(source(target)).toBe("the kernel itself");
    expect((await inspect(Bun.gzipSync(Buffer.from("text")))).image).toEqual({ kind: "gzip" });
    const cut = Bun.gzipSync(makeArmImage()).subarray(0, 500);
    expect((await inspect(cut)).image).toMatchObject({ kind: "none" });
  });

  test("what is no file, or too large, is not read", async () => {
    using folder = temporaryFolder();
    const look = async (kernel: string) => (await inspectTarget({ kernel, commandLine })).image;
    mkdirSync(folder.file("folder"));
    expect(await look(folder.file("folder"))).toMatchObject({ reason: "it is no file" });
    expect(await look("/dev/zero")).toMatchObject({ reason: "it is no file" });
    expect(await look(folder.file("none"))).toEqual({ kind: "unreadable", reason: "ENOENT" });
    const pipe = folder.file("pipe");
    expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
    expect(await look(pipe)).toMatchObject({ reason: "it is no file" });
    const huge = folder.file("huge");
    expect(Bun.spawnSync(["truncate", "-s", `${kernelBytesLimit + 1}`, huge]).exitCode).toBe(0);
    expect(await look(huge)).toMatchObject({
      reason: `${kernelBytesLimit + 1} bytes, more than ${kernelBytesLimit}`,
    });
  });

  test("of an initrd its size and its beginning", async () => {
    using folder = temporaryFolder();
    const path = folder.file("initrd");
    writeFileSync(path, "070701 and so on, and on");
    const { initrd } = await inspect(makeBzImage(), { initrd: path });
    expect(initrd).toEqual({ kind: "read", size: 24, begin: Buffer.from("070701 and so on") });
    const none = await inspect(makeBzImage(), { initrd: folder.file("none") });
    expect(none.initrd).toEqual({ kind: "unreadable", reason: "ENOENT" });
    expect((await inspect(makeBzImage())).initrd).toEqual({ kind: "none" });
  });
});

describe("what unpacks to too much is left", () => {
  test("a configuration that would fill the memory", async () => {
    const bomb = Bun.gzipSync(Buffer.alloc(configurationBytesLimit + 11, "CONFIG_A=y\n"));
    const kernel = Buffer.concat([Buffer.from("IKCFG_ST"), bomb, Buffer.from("IKCFG_ED")]);
    const file = makeBzImage({ payload: pack(kernel, "gzip") });
    expect(source(await inspect(file))).toBe("the one in the kernel is damaged");
  });

  test("a kernel of more than any kernel has", async () => {
    const payload = pack(new Uint8Array(unpackedBytesLimit + 65_536), "zstd");
    expect(source(await inspect(makeBzImage({ payload })))).toBe(
      `the packed kernel (zstd) cannot be unpacked: more than ${unpackedBytesLimit} bytes`,
    );
  });

  test("an Image.gz that would", async () => {
    const bomb = Bun.gzipSync(new Uint8Array(kernelBytesLimit + 1));
    const { image } = await inspect(bomb);
    expect(image).toMatchObject({
      found: "a gzip file that cannot be unpacked: ERR_BUFFER_TOO_LARGE",
    });
  });
});

const programs: [Packing, string][] = [
  ["xz", "xz-utils"],
  ["lzma", "xz-utils"],
  ["lz4", "lz4"],
  ["bzip2", "bzip2"],
];
for (const [packing, debianPackage] of programs) {
  skipUnless(`a kernel packed by ${packing}`, program(packing, debianPackage), () => {
    test("is unpacked by that program", async () => {
      const payload = pack(makeKernel(liveUpdateOptions), packing);
      expect(source(await inspect(makeBzImage({ payload })))).toBe("the kernel itself");
      const none = pack(makeKernel(undefined), packing);
      expect(source(await inspect(makeBzImage({ payload: none })))).toContain("does not carry it");
    });

    test("and what it refuses is said", async () => {
      const payload = pack(makeKernel(undefined), packing);
      payload.fill(0xff, 40);
      expect(source(await inspect(makeBzImage({ payload })))).toStartWith(
        `the packed kernel (${packing}) cannot be unpacked: `,
      );
    });
  });
}

const named = process.env["HOSTLER_GUEST_KERNEL"];
const hasNamed = feature("HOSTLER_GUEST_KERNEL names none", () => named !== undefined);
skipUnless("a real kernel with live update", [hasNamed, program("xz", "xz-utils")], () => {
  test("can be loaded, and when it is cut off it cannot", async () => {
    const request = { kernel: named ?? "", commandLine };
    const target = await inspectTarget(request);
    expect(target.configuration).toMatchObject({ kind: "known", source: "the kernel itself" });
    const { host } = { host: { ...target.host, architecture: "x64" as const } };
    const findings = judgeTarget({ ...target, host });
    expect(summarize(findings)).toEqual({ loads: true, forceable: true });
    const cut = await inspect(readFileSync(request.kernel).subarray(0, -1));
    const [format, complete] = judgeTarget({ ...cut, host });
    expect(format?.status).toBe("ok");
    expect(complete).toMatchObject({ status: "fatal", force: false });
  });
});

const debian = join(import.meta.dir, "../../.cache/guest-kernel-bookworm/vmlinuz");
const hasDebian = feature("Debian's kernel is not in .cache", () => existsSync(debian));
skipUnless("Debian 12's kernel", [hasDebian, program("xz", "xz-utils")], () => {
  test("is whole and signed, and too old", async () => {
    const target = await inspectTarget({ kernel: debian, commandLine });
    expect(target.image).toMatchObject({ kind: "bzImage", isSigned: true });
    expect(source(target)).toBe("the kernel does not carry it (CONFIG_IKCONFIG)");
    const findings = judgeTarget({ ...target, host: { ...target.host, architecture: "x64" } });
    const hindering = findings.filter(({ status }) => status === "fatal");
    expect(hindering.map(({ check }) => check)).toEqual(["version"]);
    expect(findings.find(({ check }) => check === "complete")?.status).toBe("ok");
  });
});
