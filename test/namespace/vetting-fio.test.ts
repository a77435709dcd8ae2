/** The stage Storage by fio: the tasks of the compiled file, with Debian's fio and hostile ones. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, existsSync, openSync, readFileSync, readSync } from "node:fs";
import { storage } from "../../src/vetting/stages/storage.ts";
import { SCAN_TASK, type ScanInput, scanReportSchema } from "../../src/vetting/tasks/scan.ts";
import {
  VERIFY_TASK,
  type VerifyInput,
  verifyReportSchema,
} from "../../src/vetting/tasks/verify.ts";
import { program, skipUnless } from "../support/skips.ts";
import { contextOf, diskOf, smartReport, walk } from "../support/vetting/disk-stage.ts";
import { fioJson } from "../support/vetting/fio-output.ts";
import { DiskHost, type LoopDisk, loopDevices } from "../support/vetting/loop-disks.ts";
import { reportOfTask } from "../support/vetting/run-task.ts";
import { installTool, startDiskTask } from "../support/vetting/task-with-disks.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const MEBIBYTE = 1024 ** 2;
const SIZE = 8 * MEBIBYTE + 512;

let host: DiskHost;
let disk: LoopDisk;

beforeEach(() => {
  host = new DiskHost();
  disk = host.add("sda", { serial: "S1", size: SIZE });
});
afterEach(() => host[Symbol.dispose]());

const common = () => ({
  disk: { name: "sda", serial: "S1", size_bytes: disk.size },
  ...{ block_bytes: MEBIBYTE, depth: 4, most_s: 60, engine: "tool" as const },
});

function startScan(given: Partial<ScanInput> = {}, tools?: string) {
  const input: ScanInput = { ...common(), extent: 1, ...given };
  return startDiskTask(host, disk, { task: SCAN_TASK, input }, tools);
}
const scan = (given: Partial<ScanInput> = {}, tools?: string) =>
  reportOfTask(startScan(given, tools), scanReportSchema);

async function verify(given: Partial<VerifyInput> = {}, tools?: string) {
  const input: VerifyInput = { ...common(), allowed: "expected", ...given };
  const task = startDiskTask(host, disk, { task: VERIFY_TASK, input }, tools);
  return await reportOfTask(task, verifyReportSchema);
}

const needs = [...loopDevices, program("unshare", "util-linux")];

skipUnless("a disk that Debian's fio goes over", [...needs, program("fio", "fio")], () => {
  test("all of it is read, and nothing is written", async () => {
    const before = disk.digest();
    const report = await scan();
    expect(report).toMatchObject({
      engine: { name: "fio", version: expect.stringMatching(/^\d+\.\d+/) },
      read: { planned_bytes: SIZE, done_bytes: SIZE, slowest_offset: null, failed: { count: 0 } },
    });
    expect(report.read.latency_ms.p50).toBeGreaterThan(0);
    expect(report.read.slowest_ms).toBeGreaterThanOrEqual(report.read.latency_ms.p50);
    expect(disk.digest()).toBe(before);
  });

  test("the stage names it as the engine, and says what was covered", async () => {
    const ended = await startScan().ended;
    const context = contextOf({
      disks: [diskOf({ name: "sda", serial: "S1", size_bytes: SIZE, transport: "sata" })],
      storage: { engine: "tool" },
    });
    const { report } = walk(storage, context, ({ task }) => {
      if (task === "smart") return smartReport();
      if (ended.last?.kind !== "report") throw new Error(JSON.stringify(ended));
      return { kind: "report", report: ended.last.report };
    });
    expect(report.outcome).toBe("PASS");
    expect(report.engines).toContainEqual(expect.objectContaining({ task: "scan", engine: "fio" }));
    expect(report.coverage).toMatchObject([{ unit: "bytes", covered: SIZE, total: SIZE }]);
  });

  test("a part of it, as much as our own engine would", async () => {
    disk = host.add("sda", { serial: "S1", size: 64 * MEBIBYTE });
    const own = await scan({ extent: 0.25, engine: "own" });
    const { read } = await scan({ extent: 0.25 });
    expect(own.engine.name).toBe("hostler");
    expect(read.done_bytes).toBe(own.read.done_bytes);
  });

  test("what cannot be read is counted", async () => {
    disk.cut(6 * MEBIBYTE);
    const { last, lines } = await startScan().ended;
    if (last?.kind !== "report") throw new Error(JSON.stringify(last));
    expect(last.report).toMatchObject({
      read: { done_bytes: 6 * MEBIBYTE, failed: { count: 3, bytes: 2 * MEBIBYTE + 512 } },
    });
    expect(JSON.stringify(lines)).toContain("fio does not tell where a read failed");
  });

  test("all of it is written, with this run's nonce, and read back", async () => {
    const first = await verify();
    expect(first).toMatchObject({
      kind: "verified",
      engine: { name: "fio" },
      miscompared: 0,
      written: { done_bytes: SIZE, failed: { count: 0 } },
      read: { done_bytes: SIZE, failed: { count: 0 } },
    });
    const nonces = [nonceAt(0), nonceAt(5 * MEBIBYTE), nonceAt(8 * MEBIBYTE)];
    expect(new Set(nonces.map(({ nonce }) => nonce)).size).toBe(1);
    expect(nonces.map(({ offset }) => offset)).toEqual([0, 5 * MEBIBYTE, 8 * MEBIBYTE]);
    expect(await verify()).toMatchObject({ kind: "verified", miscompared: 0 });
    expect(nonceAt(0).nonce).not.toBe(nonces[0]?.nonce);
  });

  test("bits that flip between the two ways are found, in each block", async () => {
    const flips = [301, 303, 700, 2_048].map((unit) => unit * 4_096 + 5);
    const flip = flips.map(
      (at) => `printf '\\001' | dd of=${disk.file} bs=1 seek=${at} conv=notrunc 2>/dev/null`,
    );
    const lines = [
      'PATH=/usr/bin:/bin; case "$*" in *--rw=read*)',
      ...flip,
      `;; esac; exec ${Bun.which("fio")} "$@"`,
    ];
    const report = await verify({}, installTool(host, "fio", lines));
    if (report.kind !== "verified") throw new Error(report.kind);
    // Two of them are in one block; fio compares blocks, and not units.
    expect(report.miscompared).toBe(3);
    expect(report.read.failed.ranges.map(({ offset }) => offset / MEBIBYTE)).toEqual([1, 2, 8]);
    expect(report.read.done_bytes).toBe(6 * MEBIBYTE);
  });
});

/** What stands at the beginning of a block. */
function nonceAt(offset: number): { nonce: string; offset: number } {
  const file = openSync(disk.file, "r");
  const bytes = new Uint8Array(24);
  readSync(file, bytes, 0, bytes.length, offset);
  closeSync(file);
  const told = new DataView(bytes.buffer).getBigUint64(16, true);
  return { nonce: bytes.subarray(0, 16).toHex(), offset: Number(told) };
}

skipUnless("a tool that is not to be trusted", needs, () => {
  const asked = () => existsSync(host.path("asked"));
  const tool = (...lines: readonly string[]) =>
    installTool(host, "fio", [`: >${host.path("asked")}`, ...lines]);

  test("no tool is asked but where the spec says so", async () => {
    const tools = tool();
    for (const engine of ["default", "own"] as const) {
      expect((await scan({ engine }, tools)).engine.name).toBe("hostler");
      const report = await verify({ engine }, tools);
      expect(report).toMatchObject({ kind: "verified", engine: { name: "hostler" } });
    }
    expect(asked()).toBe(false);
  });

  test("where an interlock is closed it is not asked", async () => {
    const before = disk.digest();
    const given = { disk: { name: "sda", serial: "S9", size_bytes: SIZE } };
    const report = await verify(given, tool());
    expect(report).toMatchObject({ kind: "refused", closed: [{ interlock: "serial" }] });
    expect(asked()).toBe(false);
    expect(disk.digest()).toBe(before);
  });

  test.each<[string, readonly string[], RegExp]>([
    ["prints no JSON", ["echo usage"], /fio \(exit code 0\): expected a JSON object, .*"usage"/],
    ["dies", ["echo no shm >&2", "exit 7"], /exit code 7\): expected .*It said: no shm/],
    ["is killed", ["kill -9 $$"], /fio \(SIGKILL\): expected a JSON object, received nothing/],
    ["tells other jobs", [`echo '{"fio version":"9","jobs":[]}'`], /2 jobs, received 0/],
    [
      "never stops printing",
      [
        "x={",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do x=$x$x; done",
        "while :; do echo $x; done",
      ],
      /expected at most 4194304 bytes, received more/,
    ],
    ["hangs until it is told to end", ["read -r _ <pipe"], /\(SIGINT\): expected a JSON object/],
  ])("one that %s is an error, with what was expected", async (_name, lines, message) => {
    const pipe = host.path("pipe");
    const made = Bun.spawnSync(["mkfifo", pipe]);
    expect(made.exitCode).toBe(0);
    const tools = tool(...lines.map((line) => line.replace("<pipe", `<${pipe}`)));
    const { last } = await startScan({ most_s: 2 }, tools).ended;
    expect(last).toMatchObject({ kind: "failure", message: expect.stringMatching(message) });
  });

  test("when the time is over it is told to end, and what it came to counts", async () => {
    const json = JSON.stringify(
      fioJson([
        { name: "region0", bytes: MEBIBYTE },
        { name: "rest0", bytes: 0 },
      ]),
    );
    host.write("answer.json", `\nfio: terminating on signal 2\n${json}`);
    const print = 'while read -r line || [ "$line" ]; do echo "$line"; done';
    Bun.spawnSync(["mkfifo", host.path("pipe")]);
    const tools = tool(
      `trap '${print} <${host.path("answer.json")}; exit 128' INT`,
      `while :; do read -r _ <${host.path("pipe")}; done`,
    );
    const { read } = await scan({ most_s: 3 }, tools);
    expect(read).toMatchObject({ planned_bytes: SIZE, done_bytes: MEBIBYTE, failed: { count: 0 } });
  });

  test("one that does not end is killed with its task", async () => {
    const pipe = host.path("pipe");
    Bun.spawnSync(["mkfifo", pipe]);
    const id = host.path("id");
    const tools = tool("trap '' INT", `echo $$ >${id}`, `while :; do read -r _ <${pipe}; done`);
    const task = startScan({ most_s: 60 }, tools);
    await waitFor("its tool", () => existsSync(id) && readFileSync(id, "utf8").endsWith("\n"));
    task.stop();
    expect((await task.ended).exitCode).toBe(111);
    const process = readFileSync(id, "utf8").trim();
    await waitFor("the end of its tool", () => !existsSync(`/proc/${process}`));
  });

  test("one that is not there is an error that says what to do", async () => {
    const { last } = await startScan({}, host.path("nowhere")).ended;
    expect(last).toMatchObject({
      kind: "failure",
      message: expect.stringMatching(/expected fio, .*not installed: put it into the image/),
    });
  });
});
