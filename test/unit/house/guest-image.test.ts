/** What guests are made of: the archive of their files, and where their kernels come from. */
import { describe, expect, test } from "bun:test";
import { type ArchiveEntry, packArchive } from "../../../scripts/guest/initramfs.ts";
import { findDebianMirror } from "../../../scripts/guest-kernel/debian-archive.ts";
import { parseOptions, readNamedKernel } from "../../../scripts/guest-kernel/kernel-image.ts";
import { type CaseResult, readCases, writeCase } from "../../machine/guest/story.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const text = (content: string) => new TextEncoder().encode(content);

function pack(entries: readonly ArchiveEntry[]): Buffer {
  return Buffer.concat(packArchive(entries));
}

/** The fields of an archive's entries, read by the format's description alone. */
function unpack(archive: Buffer) {
  const entries: { path: string; mode: number; content: string; device: number[] }[] = [];
  for (let place = 0; place < archive.length; ) {
    expect(archive.toString("latin1", place, place + 6)).toBe("070701");
    const field = (index: number) => {
      const begin = place + 6 + 8 * index;
      return Number.parseInt(archive.toString("latin1", begin, begin + 8), 16);
    };
    const nameEnd = place + 110 + field(11);
    const begin = Math.ceil(nameEnd / 4) * 4;
    const content = archive.toString("latin1", begin, begin + field(6));
    const path = archive.toString("latin1", place + 110, nameEnd - 1);
    if (path === "TRAILER!!!") return entries;
    entries.push({ path, mode: field(1), content, device: [field(9), field(10)] });
    place = Math.ceil((begin + field(6)) / 4) * 4;
  }
  throw new Error("the archive has no end");
}

describe("the archive of a guest's files", () => {
  test("folders come before what is in them, once", () => {
    const archive = pack([
      { kind: "file", path: "usr/bin/probe", content: text("12345"), mode: 0o755 },
      { kind: "file", path: "usr/lib/x", content: text("") },
      { kind: "link", path: "usr/sh", target: "bin/probe" },
      { kind: "device", path: "dev/console", major: 5, minor: 1 },
    ]);
    expect(unpack(archive)).toEqual([
      { path: "usr", mode: 0o040755, content: "", device: [0, 0] },
      { path: "usr/bin", mode: 0o040755, content: "", device: [0, 0] },
      { path: "usr/bin/probe", mode: 0o100755, content: "12345", device: [0, 0] },
      { path: "usr/lib", mode: 0o040755, content: "", device: [0, 0] },
      { path: "usr/lib/x", mode: 0o100644, content: "", device: [0, 0] },
      { path: "usr/sh", mode: 0o120777, content: "bin/probe", device: [0, 0] },
      { path: "dev", mode: 0o040755, content: "", device: [0, 0] },
      { path: "dev/console", mode: 0o020600, content: "", device: [5, 1] },
    ]);
  });

  test("it says neither who made it nor when", () => {
    const entries = [{ kind: "file" as const, path: "x", content: text("y") }];
    expect(pack(entries).equals(pack(entries))).toBe(true);
    // User, group, links and time of the first entry.
    expect(pack(entries).toString("latin1", 22, 54)).toBe("00000000000000000000000100000000");
  });
});

describe("the mirror that a kernel is fetched from", () => {
  test.each([
    ["one line", "deb http://m.example/debian bookworm main", "http://m.example/debian"],
    [
      "options, and a comment before",
      "# deb http://old.example/debian x\ndeb [arch=amd64] https://m.example/debian/ trixie main",
      "https://m.example/debian/",
    ],
    [
      "fields, and security updates before",
      "Types: deb\nURIs: http://s.example/debian-security http://m.example/debian\nSuites: sid",
      "http://m.example/debian",
    ],
    ["another distribution", "deb http://m.example/ubuntu jammy main", undefined],
  ])("%s", (_name, sources, expected) => {
    expect(findDebianMirror([sources])).toBe(expected);
  });
});

describe("a kernel's options", () => {
  test("what is not set is left out", () => {
    const options = parseOptions("CONFIG_UNIX=y\n# CONFIG_NET is not set\nCONFIG_EXT4_FS=m\n");
    expect([...options]).toEqual([
      ["CONFIG_UNIX", "y"],
      ["CONFIG_EXT4_FS", "m"],
    ]);
  });

  test("a file that is no kernel is refused", async () => {
    using folder = temporaryFolder();
    await Bun.write(folder.file("kernel"), "x".repeat(8192));
    expect(() => readNamedKernel(folder.file("kernel"))).toThrow("is not a kernel");
    expect(() => readNamedKernel(folder.file("absent"))).toThrow("is not a kernel");
  });
});

test("a case comes over the serial line as it was told", () => {
  const told: CaseResult = { name: "a (b): c", outcome: "not ok", detail: "x", milliseconds: 12 };
  const line = writeCase({ ...told, detail: "x\n  y" });
  expect(readCases(["HOSTLER-NOTE x", line])).toEqual([{ ...told, detail: "x | y" }]);
});
