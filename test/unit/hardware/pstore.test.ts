import { describe, expect, test } from "bun:test";
import { utimesSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync, deflateSync } from "node:zlib";
import * as v from "valibot";
import { readCrashes, removeCrashFiles } from "../../../src/hardware/pstore.ts";
import { pstoreLimits } from "../../../src/hardware/pstore-limits.ts";
import { crashesTask } from "../../../src/vetting/perform/tasks/crashes.ts";
import { crashesReportSchema } from "../../../src/vetting/tasks/crashes.ts";
import { type FixtureHost, fixtureHost } from "../../support/hardware/fixture-host.ts";

const folder = "sys/fs/pstore";

function write(host: FixtureHost, name: string, content: string | Uint8Array, at = 1_000): void {
  host.file(`${folder}/${name}`, content);
  utimesSync(join(host.root, folder, name), at, at);
}

describe("what a kernel wrote as it died", () => {
  test("is put together, the oldest part first", () => {
    using host = fixtureHost();
    write(host, "dmesg-erst-7001", "Panic#1 Part1\n<0>Kernel panic - not syncing\n", 1_002);
    write(host, "dmesg-erst-7002", "Panic#1 Part2\n<4>RIP: 0010:x\n", 1_001);
    write(host, "dmesg-erst-7003", "Panic#1 Part3\n<6>booting\n", 1_000);
    const { crashes, refusals } = readCrashes(host.tree);
    expect(refusals).toEqual([]);
    expect(crashes).toEqual([
      {
        reason: "Panic",
        at: 1_000,
        text: "<6>booting\n<4>RIP: 0010:x\n<0>Kernel panic - not syncing",
        files: ["dmesg-erst-7003", "dmesg-erst-7002", "dmesg-erst-7001"],
      },
    ]);
  });

  test("two boots whose panics are both the first are two crashes", () => {
    using host = fixtureHost();
    write(host, "dmesg-erst-1", "Panic#1 Part1\none\n", 1_000);
    write(host, "dmesg-erst-2", "Panic#1 Part2\nbefore one\n", 1_000);
    write(host, "dmesg-erst-3", "Panic#1 Part1\ntwo\n", 5_000);
    write(host, "dmesg-erst-4", "Oops#1 Part1\nan oops\n", 5_000);
    expect(readCrashes(host.tree).crashes.map(({ reason, text }) => [reason, text])).toEqual([
      ["Panic", "before one\none"],
      ["Panic", "two"],
      ["Oops", "an oops"],
    ]);
  });

  test.each([
    ["with a head", (text: string) => deflateSync(text)],
    ["without one", (text: string) => deflateRawSync(text)],
  ])("that the kernel left packed is unpacked, %s", (_, pack) => {
    using host = fixtureHost();
    write(host, "dmesg-efi_pstore-165467122601001.enc.z", pack("Panic#2 Part1\n<0>dead\n"));
    expect(readCrashes(host.tree).crashes[0]?.text).toBe("<0>dead");
  });

  test("that cannot be unpacked, or is packed without an end, is told", () => {
    using host = fixtureHost();
    write(host, "dmesg-erst-1.enc.z", "no zlib");
    write(host, "dmesg-erst-2.enc.z", deflateSync(new Uint8Array(64 * 1024 ** 2)));
    const { crashes, refusals } = readCrashes(host.tree);
    expect(crashes).toEqual([]);
    expect(refusals).toEqual([
      "dmesg-erst-1.enc.z: it is packed, and cannot be unpacked",
      "dmesg-erst-2.enc.z: it is packed, and cannot be unpacked",
    ]);
  });

  test("of a file that refuses, and of a folder that is not there, is told", () => {
    using host = fixtureHost();
    expect(readCrashes(host.tree).refusals).toEqual(["/sys/fs/pstore: ENOENT"]);
    write(host, "dmesg-erst-1", "Panic#1 Part1\nx\n");
    host.refuse(`${folder}/dmesg-erst-1`, "EIO");
    expect(readCrashes(host.tree).refusals).toEqual(["dmesg-erst-1: EIO"]);
  });

  test("a console is told without a head, and another kind of file is none", () => {
    using host = fixtureHost();
    write(host, "console-ramoops-0", "[    1.0] hello\n");
    write(host, "mce-erst-9", new Uint8Array([1, 2, 3]));
    const { crashes } = readCrashes(host.tree);
    expect(crashes.map(({ reason, text }) => [reason, text])).toEqual([
      ["console", "[    1.0] hello"],
    ]);
  });

  test("keeps its limits: files, crashes, and the end of a long text", () => {
    using host = fixtureHost();
    for (let at = 0; at < pstoreLimits.files + 4; at += 1) {
      write(host, `dmesg-erst-${1_000 + at}`, `Panic#1 Part1\n${"x".repeat(500)}\n`, at * 1_000);
    }
    write(host, "dmesg-erst-0", `Panic#9 Part1\n${"a".repeat(100_000)}end`, 9_000_000);
    const { crashes, refusals } = readCrashes(host.tree);
    expect(crashes).toHaveLength(pstoreLimits.crashes);
    expect(refusals).toEqual([
      "there are 261 files, of which 256 are read",
      "there are 256 crashes, of which the last are told",
    ]);
    expect(crashes.at(-1)?.text).toHaveLength(pstoreLimits.text);
    expect(crashes.at(-1)?.text.endsWith("end")).toBe(true);
  });

  test("is removed by name, and nothing else is", () => {
    using host = fixtureHost();
    write(host, "dmesg-erst-1", "Panic#1 Part1\nx\n");
    write(host, "dmesg-erst-2", "Panic#2 Part1\ny\n");
    host.file("sys/fs/other", "kept");
    const names = ["dmesg-erst-1", "../other", ".hidden", "dmesg-erst-77"];
    expect(removeCrashFiles(host.tree, names)).toEqual([
      "../other: it is no file of pstore",
      ".hidden: it is no file of pstore",
    ]);
    expect(readCrashes(host.tree).crashes.map(({ text }) => text)).toEqual(["y"]);
    expect(host.tree.has("sys/fs/other")).toBe(true);
  });

  test("is read and removed by two orders of one task", async () => {
    using host = fixtureHost();
    write(host, "dmesg-erst-1", "Panic#1 Part1\nx\n");
    const context = { signal: new AbortController().signal, tell: () => {}, onQuestion: () => {} };
    const ask = async (order: object) => {
      const input = v.parse(crashesTask.input, { root: host.root, ...order });
      return v.parse(crashesReportSchema, await crashesTask.run(input, context));
    };
    const { crashes } = await ask({ action: "read" });
    expect(crashes.map(({ files }) => files)).toEqual([["dmesg-erst-1"]]);
    const files = crashes.flatMap((crash) => crash.files);
    expect(await ask({ action: "remove", files })).toEqual({ crashes: [], refusals: [] });
    expect((await ask({ action: "read" })).crashes).toEqual([]);
  });
});
