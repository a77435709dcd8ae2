/** A writer of the audit log that is killed at each of its kill points, and one on a full disk. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { AuditWriter, writtenHeads } from "../support/audit-writer.ts";
import { hostler, repositoryRoot } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(120_000);

/** Small segments, so that some come and go. */
const small = { segmentBytes: 64 * 1024, size: 1024 ** 2 };

async function verify(writer: AuditWriter, heads: readonly string[]) {
  const flags = heads.flatMap((head) => ["--head", head]);
  const words = ["--directory", writer.directory, "--key", writer.publicKey, "--json"];
  const argv = [hostler(), "audit", "verify", ...words, ...flags];
  const { exitCode, stdout, stderr } = await runProgram(argv);
  const found = JSON.parse(stdout === "" ? "{}" : stdout);
  return { exitCode, stderr, faults: found.faults, found };
}

const intact = { exitCode: 0, stderr: "", faults: [] };

describe("killed", () => {
  test.each([
    ...["audit-segment-made", "audit-half-written", "audit-written", "audit-synced"],
    ...["audit-half-written#2", "audit-written#2", "audit-synced#3", "audit-half-written#9"],
    ...["audit-segment-made#3", "audit-half-written#20", "audit-segment-removed"],
    ...["audit-segment-removed#2", "audit-segment-made#17"],
  ])("at %s: what was answered is there, and it goes on", async (killAt) => {
    using folder = temporaryFolder();
    const writer = await AuditWriter.make(folder);
    const killed = await writer.run(["append:3", "together:5", "big:90"], { ...small, killAt });
    expect(killed.signal).toBe("SIGKILL");
    const first = writtenHeads(killed);
    // The last answer is the one that a call was given.
    expect(await verify(writer, first.slice(-1))).toMatchObject(intact);
    const second = await writer.run(["append:2"], small);
    expect(second).toMatchObject({ exitCode: 0, stderr: "" });
    const after = await verify(writer, [...first.slice(-1), ...writtenHeads(second)]);
    expect(after).toMatchObject(intact);
    expect(after.found).toMatchObject({ cut_short_bytes: 0, unsigned: 0 });
  });

  test.each(["audit-before-cut", "audit-cut", "audit-half-written", "audit-written"])(
    "at %s, when it takes off what another one left",
    async (killAt) => {
      using folder = temporaryFolder();
      const writer = await AuditWriter.make(folder);
      const first = await writer.run(["append:3"], { killAt: "audit-half-written#3" });
      const before = await verify(writer, writtenHeads(first));
      expect(before).toMatchObject(intact);
      expect(before.found.cut_short_bytes).toBeGreaterThan(0);
      const second = await writer.run(["append"], { killAt });
      expect(second.signal).toBe("SIGKILL");
      expect(await verify(writer, writtenHeads(first))).toMatchObject(intact);
      const third = await writer.run(["append"]);
      const heads = [...writtenHeads(first), ...writtenHeads(third)];
      expect(await verify(writer, heads)).toMatchObject(intact);
    },
  );

  test("the note says how many bytes were taken off", async () => {
    using folder = temporaryFolder();
    const writer = await AuditWriter.make(folder);
    await writer.run(["append:3"], { killAt: "audit-half-written#3" });
    const { found } = await verify(writer, []);
    await writer.run(["append"]);
    const text = readFileSync(`${writer.directory}/segment-0000000000000001.jsonl`, "utf8");
    expect(text).toContain(`"kind":"cut-short","bytes":${found.cut_short_bytes},`);
  });
});

test("a second writer is refused while the first one lives, and not after it", async () => {
  using folder = temporaryFolder();
  const writer = await AuditWriter.make(folder);
  await using first = writer.start(["append", "wait"]);
  await first.said(/waiting/);
  const second = await writer.run(["append"]);
  expect(second.stdout).toStartWith("refused locked: Cannot write the audit log");
  first.kill("SIGKILL");
  await first.ended();
  expect(writtenHeads(await writer.run(["append"]))).toHaveLength(1);
  expect(await verify(writer, writtenHeads(first.output))).toMatchObject(intact);
});

skipUnless("an fsync that fails", program("gcc", "gcc"), () => {
  test("nothing more is taken before it is opened anew; what was answered is there", async () => {
    using folder = temporaryFolder();
    const writer = await AuditWriter.make(folder);
    const source = join(repositoryRoot, "test/support/programs/failing-fsync.c");
    const library = folder.file("failing-fsync.so");
    const words = ["gcc", "-shared", "-fPIC", "-O", "-o", library, source];
    expect(await runProgram(words)).toMatchObject({ exitCode: 0, stderr: "" });
    const environment = { LD_PRELOAD: library, NO_FSYNC: folder.file("no-fsync") };
    const steps = ["append:2", "no-fsync", "append", "admit", "fsync", "append", "admit"];
    const result = await writer.run(steps, { environment });
    expect(result).toMatchObject({ exitCode: 0, stderr: "" });
    const said = result.stdout.split("\n").map((line) => line.split(":")[0]?.split(" ")[0]);
    const refused = Array(4).fill("refused");
    expect(said).toEqual(["opened", "written", "written", ...refused, "closed", ""]);
    expect(result.stdout).toContain("refused failed: Cannot sync the audit log");
    expect(result.stdout).toContain("takes nothing more before it is opened anew");
    const again = await writer.run(["append"], { environment });
    const heads = [...writtenHeads(result), ...writtenHeads(again)];
    expect(heads).toHaveLength(3);
    expect(await verify(writer, heads)).toMatchObject(intact);
  });
});

skipUnless("a full disk", root, () => {
  async function onSmallDisk(act: (writer: AuditWriter) => Promise<void>): Promise<void> {
    using folder = temporaryFolder();
    const writer = await AuditWriter.make(folder);
    mkdirSync(writer.directory, { mode: 0o700 });
    const words = ["-t", "tmpfs", "-o", "size=256k,mode=700", "none", writer.directory];
    expect((await runProgram(["mount", ...words])).exitCode).toBe(0);
    try {
      await act(writer);
    } finally {
      await runProgram(["umount", writer.directory]);
    }
  }

  test("nothing is admitted, written or broken; with room it goes on", async () => {
    await onSmallDisk(async (writer) => {
      // What a page of the last segment has left takes a small record also on a full disk.
      const steps = ["append:2", "admit", "fill", "admit", "together:50", "big", "admit"];
      const after = ["free", "admit", "append:2"];
      const result = await writer.run([...steps, ...after], { reserve: 4_096 });
      expect(result).toMatchObject({ exitCode: 0, stderr: "" });
      const said = result.stdout.trim().split("\n");
      const short = said.map((line) => line.replace(/^(written|refused \w+).*/, "$1"));
      const full = Array(53).fill("refused full");
      const written = ["written", "written"];
      expect(short).toEqual([
        ...["opened", ...written, "admitted", ...full, "admitted", ...written, "closed"],
      ]);
      expect(said[4]).toContain("make room there");
      expect(await verify(writer, writtenHeads(result))).toMatchObject(intact);
    });
  });

  test("without a reserve some fit; who was answered is there, and nobody else", async () => {
    await onSmallDisk(async (writer) => {
      const result = await writer.run(["big:30", "append"], { reserve: 0 });
      expect(result.stdout).toContain("refused full");
      const heads = writtenHeads(result);
      expect(heads.length).toBeGreaterThan(8);
      const after = await verify(writer, heads);
      expect(after).toMatchObject(intact);
      expect(after.found.head.sequence).toBeLessThanOrEqual(heads.length + 4);
    });
  });

  test("a log opens on it, for whoever reads; the first record waits for room", async () => {
    await onSmallDisk(async (writer) => {
      await writer.run(["append"], { killAt: "audit-half-written#2" });
      const full = await writer.run(["fill", "admit", "big"], { reserve: 4_096 });
      expect(full.stdout).toMatch(/^opened\nrefused full.*\nrefused full.*\nclosed\n$/);
      expect(readdirSync(writer.directory)).toContain("filler");
      const again = await writer.run(["admit", "big", "free", "admit", "append"], {
        reserve: 4_096,
      });
      expect(again.stdout).toMatch(
        /^opened\nrefused full.*\nrefused full.*\nadmitted\nwritten \S+\nclosed\n$/,
      );
      expect(await verify(writer, writtenHeads(again))).toMatchObject(intact);
    });
  });
});
