/** The pure parts of `run` and `hold`: names, manifests, notices. */
import { describe, expect, test } from "bun:test";
import { appendFileSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { duplicate } from "../../ffi/descriptor.ts";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import {
  decodeHoldManifest,
  encodeHoldManifest,
  entriesOutside,
  type HoldManifest,
  holdLimits,
} from "../../src/live-update/hold/manifest.ts";
import { memoryFileOf } from "../../src/live-update/perform/carried.ts";
import { copyIn, scan } from "../../src/live-update/perform/hold-archive.ts";
import { restore } from "../../src/live-update/perform/hold-restore.ts";
import { Parking } from "../../src/live-update/perform/parking.ts";
import {
  decodeRunManifest,
  encodeRunManifest,
  fileKey,
  listenName,
  mappedMemoryFiles,
  memoryFileName,
  type RunManifest,
  runLimits,
} from "../../src/live-update/run/manifest.ts";
import { parseNotice } from "../../src/live-update/run/notices.ts";
import { listed } from "../../src/live-update/run/words.ts";
import { repositoryRoot } from "../support/binary.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf } from "../support/wait-for.ts";

const file = {
  token: "1",
  name: "cache",
  bytes: 4096,
  flags: 2,
  source: "program",
  process: 17,
  number: 3,
} as const;
const runManifest: RunManifest = {
  version: 1,
  kind: "run",
  command: ["/bin/db", ""],
  environment: ["A=b=c"],
  working_directory: "/",
  files: [file],
};
const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

describe("the manifest of run", () => {
  test("comes back as it was", () => {
    expect(decodeRunManifest(encodeRunManifest(runManifest))).toEqual(runManifest);
  });

  test.each([
    ["no JSON", new Uint8Array(3), "expected JSON, received 3 other bytes"],
    ["of another version", encode({ ...runManifest, version: 2 }), "version: expected 1"],
    ["of hold", encode({ ...runManifest, kind: "hold" }), 'kind: expected "run"'],
    ["without a command", encode({ ...runManifest, command: [] }), "command: expected >=1"],
    [
      "a token that is no number",
      encode({ ...runManifest, files: [{ ...file, token: "x" }] }),
      "files.0.token",
    ],
    [
      "too many files",
      encode({ ...runManifest, files: Array.from({ length: runLimits.files + 1 }, () => file) }),
      "files: expected <=4096",
    ],
  ])("%s is refused", (_name, bytes, problem) => {
    const decoded = decodeRunManifest(bytes);
    expect("problem" in decoded && decoded.problem).toContain(problem);
  });

  test("one that is too large is refused when it is written", () => {
    const environment = [`A=${"x".repeat(runLimits.manifestBytes)}`];
    expect(() => encodeRunManifest({ ...runManifest, environment })).toThrow(/at most 8388608/);
  });
});

test("the name of a memfd, as /proc shows it", () => {
  expect(memoryFileName("/memfd:cache (deleted)")).toBe("cache");
  expect(memoryFileName("/memfd: (deleted)")).toBe("");
  expect(memoryFileName("/memfd:a (deleted) (deleted)")).toBe("a (deleted)");
  // One that was carried over a kexec, as Linux 7.3 shows it.
  expect(memoryFileName("/ (deleted)")).toBe("");
  expect(memoryFileName("/tmp/memfd:cache (deleted)")).toBeUndefined();
  expect(memoryFileName("socket:[7]")).toBeUndefined();
});

test("a name that LISTEN_FDNAMES can carry", () => {
  expect(listenName("cache", "memfd")).toBe("cache");
  expect(listenName("a:b\nc\u00e4", "memfd")).toBe("a_b_c_");
  expect(listenName("", "memfd")).toBe("memfd");
  expect(listenName("x".repeat(300), "memfd")).toHaveLength(runLimits.nameBytes);
});

test("memfds among what is mapped, under the key that stat(2) gives", () => {
  const maps = [
    "7f00-7f01 rw-s 00000000 00:01 1234                       /memfd:a b (deleted)",
    "7f01-7f02 r--s 00001000 00:01 1234                       /memfd:a b (deleted)",
    "7f02-7f03 rw-p 00000000 00:00 0 ",
    "7f03-7f04 r-xp 00000000 fd:01 99                         /usr/bin/memfd:x",
    "7f05-7f06 rw-s 00000000 00:01 3                          / (deleted)",
  ].join("\n");
  expect(mappedMemoryFiles(maps)).toEqual([
    { key: "0:1:1234", name: "a b" },
    { key: "0:1:3", name: "" },
  ]);
  expect(fileKey({ dev: 1, ino: 1234 })).toBe("0:1:1234");
  // makedev(3) of 0xfd and 0x12345.
  expect(fileKey({ dev: 0x1_2300_0000 / 0x10 + 0xfd45, ino: 5 })).toBe(`253:${0x12345}:5`);
});

describe("what a program says to its service manager", () => {
  test("it parks a descriptor, under a name or the usual one", () => {
    const named = parseNotice("FDSTORE=1\nFDNAME=cache");
    expect(named).toMatchObject({ store: true, name: "cache", isNameWrong: false, ready: false });
    expect(parseNotice("FDSTORE=1")).toMatchObject({ store: true, name: "stored" });
    expect(parseNotice("FDSTOREREMOVE=1\nFDNAME=x")).toMatchObject({ remove: true, store: false });
  });

  test.each(["a:b", "", "a\tb", "\u00e4", "x".repeat(256)])("%j is no name", (name) => {
    expect(parseNotice(`FDSTORE=1\nFDNAME=${name}`).isNameWrong).toBe(true);
  });

  test("it is ready; our own service manager hears that, and nothing that is ours", () => {
    const text = "READY=1\nSTATUS=up\nMAINPID=7\nWATCHDOG=1\nFDPOLL=0\nnothing";
    expect(parseNotice(text)).toMatchObject({ ready: true, forward: ["READY=1", "STATUS=up"] });
    expect(parseNotice("READY=0").ready).toBe(false);
  });
});

const about = { mode: 0o644, user: 0, group: 0, modified: "5", accessed: "-6" };
const holdManifest: HoldManifest = {
  version: 1,
  kind: "hold",
  bytes: 10,
  entries: [
    { kind: "folder", path: "/a", ...about },
    { kind: "file", path: "/a/b", ...about, offset: 3, bytes: 7, sum: "0123456789abcdef" },
  ],
};

describe("the manifest of hold", () => {
  test("comes back as it was", () => {
    expect(decodeHoldManifest(encodeHoldManifest(holdManifest))).toEqual(holdManifest);
  });

  test.each([
    ["ends behind the archive", { bytes: 9 }, "/a/b ends behind the archive's 9 bytes"],
    ["leads elsewhere", entry({ path: "/a/../etc/passwd" }), "entries.0.path"],
    ["is relative", entry({ path: "a" }), "entries.0.path"],
    ["has a mode beyond the permissions", entry({ mode: 0o100644 }), "entries.0.mode"],
  ])("one that %s is refused", (_name, change, problem) => {
    const decoded = decodeHoldManifest(encode({ ...holdManifest, ...change }));
    expect("problem" in decoded && decoded.problem).toContain(problem);
  });

  function entry(change: object) {
    return { entries: [{ kind: "folder", path: "/a", ...about, ...change }] };
  }

  test("what is outside of the paths", () => {
    const outside = (...paths: string[]) =>
      entriesOutside(holdManifest.entries, paths).map(({ path }) => path);
    expect(outside("/a")).toEqual([]);
    expect(outside("/")).toEqual([]);
    expect(outside("/a/b")).toEqual(["/a"]);
    expect(outside("/a/")).toEqual(["/a"]);
    expect(outside("/aa", "/b")).toEqual(["/a", "/a/b"]);
  });
});

test("a program parks so many descriptors, the same one once", () => {
  using loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
  const troubles: string[] = [];
  const onTrouble = (message: string) => troubles.push(message);
  using parking = new Parking(loop, { onReady() {}, onForward() {}, onTrouble });
  const one = memoryFileOf("one", new Uint8Array(1));
  parking.store("one", duplicate(one.number));
  parking.store("one", one);
  expect(parking.stored).toHaveLength(1);
  for (let count = 1; count < runLimits.parked; count++) {
    parking.store("many", memoryFileOf("many", new Uint8Array(1)));
  }
  expect(troubles).toEqual([]);
  parking.store("late", memoryFileOf("late", new Uint8Array(1)));
  expect(parking.stored).toHaveLength(runLimits.parked);
  expect(troubles.join()).toContain("expected at most 128 descriptors, received one more (late)");
});

describe("copying", () => {
  const at = { turns: { next: async () => {} }, goesOn: () => true };

  test("a file that changes once is copied again; one that always does is refused", async () => {
    using folder = temporaryFolder();
    const path = folder.file("log");
    writeFileSync(path, "x".repeat(holdLimits.pieceBytes + 5));
    using archive = memoryFileOf("archive", new Uint8Array());
    let changes = 0;
    const changing = (most: number) => ({
      ...at,
      turns: {
        next: async () => {
          if (changes++ < most) appendFileSync(path, "more");
        },
      },
    });
    const copied = await copyIn(path, { archive, offset: 0 }, changing(1));
    expect(copied.bytes).toBe(holdLimits.pieceBytes + 9);
    changes = 0;
    const refused = await rejectionOf(copyIn(path, { archive, offset: 0 }, changing(1000)));
    expect(refused.message).toContain("changes while it is copied");
  });

  test("one entry more than the limit is named", async () => {
    using folder = temporaryFolder();
    for (const name of ["a", "b", "c"]) writeFileSync(folder.file(name), name);
    const enough = await scan([folder.path], at.turns, 4);
    expect(enough).toMatchObject({ bytes: 3, others: [] });
    const { entries, others } = await scan([folder.path], at.turns, 3);
    expect(entries).toHaveLength(3);
    expect(others).toEqual(["more than 3 files and folders: the rest of them"]);
  });

  test("what is not there is named", async () => {
    using folder = temporaryFolder();
    const missing = Array.from({ length: 3 }, (_, index) => folder.file(`none-${index}`));
    const found = await scan([folder.path, ...missing], at.turns);
    expect(found.entries.map(({ path }) => path)).toEqual([folder.path]);
    expect(found.others).toHaveLength(3);
    expect(listed(found.others, 1)).toEndWith("; and 2 more");
  });

  test("memory that was damaged is not written", async () => {
    using folder = temporaryFolder();
    const path = folder.file("file");
    writeFileSync(path, "precious");
    using archive = memoryFileOf("archive", new Uint8Array());
    const copied = await copyIn(path, { archive, offset: 0 }, at);
    const manifest = { ...holdManifest, bytes: copied.bytes, entries: [copied] };
    const options = { id: "x", turns: at.turns };
    writeFileSync(path, "another");
    using damaged = memoryFileOf("damaged", new TextEncoder().encode("preciouz"));
    const refused = await rejectionOf(restore(manifest, damaged, options));
    expect(refused.message).toContain("its memory was damaged; nothing was written");
    expect(readFileSync(path, "utf8")).toBe("another");
    await restore(manifest, archive, options);
    expect(readFileSync(path, "utf8")).toBe("precious");
    expect(String(statSync(path, { bigint: true }).mtimeNs)).toBe(copied.modified);
    expect(existsSync(folder.file(".hostler-restore-x"))).toBe(false);
  });
});
