/** Lines of processes in files: turned over, reopened, on a full disk, through a re-execution. */
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { hostler } from "../support/binary.ts";
import { HangingDisk, hangingDisks } from "../support/hanging-disk.ts";
import { kept, killOrchestrator } from "../support/kept.ts";
import { spawnOrchestrator, startOrchestrator } from "../support/orchestrator.ts";
import { allPlaces, begin, bothPlaces } from "../support/orchestrator-partition.ts";
import { runProgram } from "../support/program.ts";
import { again, reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const shell = (script: string) => `command = ${JSON.stringify(["sh", "-c", script])}`;
const once = 'restart = "never"';
const plain = "time = false, stream = false";

/** A folder of root alone, in which logs may stand. */
function logsIn(folder: TemporaryFolder): string {
  const path = folder.file("logs");
  mkdirSync(path, { mode: 0o755 });
  return path;
}

const linesOf = (path: string) =>
  existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1) : [];

/** Numbers that a file and the older ones beside it hold, the oldest first. */
function numbersIn(path: string): number[] {
  const older = [9, 8, 7, 6, 5, 4, 3, 2, 1].map((index) => `${path}.${index}`);
  return [...older, path].flatMap(linesOf).map(Number);
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

skipUnless("log files", root, () => {
  for (const place of bothPlaces) {
    test(`lines of both streams, the last one as well: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const path = `${logsIn(folder)}/it.log`;
      const lines = `[process.it]\n@here\n${shell("echo one; echo two >&2; printf half")}
        ${once}\nlog_file = {path = "${path}"}\n`;
      await using running = await begin(place, folder, lines);
      await waitFor("three lines", () => linesOf(path).length === 3);
      const time = "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{6}Z";
      const told = linesOf(path).toSorted((one, other) =>
        one.slice(28) < other.slice(28) ? -1 : 1,
      );
      expect(told).toEqual([
        expect.stringMatching(new RegExp(`^${time} stderr two$`)),
        expect.stringMatching(new RegExp(`^${time} stdout half$`)),
        expect.stringMatching(new RegExp(`^${time} stdout one$`)),
      ]);
      expect(statSync(path).mode & 0o7777).toBe(0o640);
      // The line is in the file a moment before the thread that wrote it has said so.
      const file = await waitFor("its size", async () => {
        const { log } = await running.orchestrator.show("it");
        return log.file?.bytes === statSync(path).size && log.file;
      });
      expect(file).toEqual({ path, bytes: statSync(path).size, dropped_lines: 0 });
    });
  }

  test("turned over at its size; no line is cut or lost", async () => {
    using folder = temporaryFolder();
    const path = `${logsIn(folder)}/it.log`;
    const file = `log_file = {path = "${path}", size = "64KiB", count = 9, ${plain}}`;
    const lines = `[process.it]\n${shell("seq 60000")}\n${once}\n${file}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration: lines });
    await waitFor("the last line", () => linesOf(path).at(-1) === "60000");
    expect(numbersIn(path)).toEqual(upTo(60_000));
    for (const index of [1, 2, 3, 4, 5]) {
      expect(statSync(`${path}.${index}`).size).toBeLessThanOrEqual(65_536);
      expect(statSync(`${path}.${index}`).size).toBeGreaterThan(65_536 - 16);
    }
    expect(await orchestrator.stop()).toBe(0);
  });

  test("what is over the count is gone, with 0 all but the newest", async () => {
    using folder = temporaryFolder();
    const logs = logsIn(folder);
    const of = (name: string, count: number) => `[process.${name}]\n${shell("seq 60000")}\n${once}
      log_file = {path = "${logs}/${name}.log", size = "64KiB", count = ${count}, ${plain}}\n`;
    const configuration = of("two", 2) + of("none", 0);
    await using _orchestrator = await startOrchestrator({ folder, configuration });
    for (const name of ["two", "none"]) {
      const path = `${logs}/${name}.log`;
      await waitFor("the last line", () => linesOf(path).at(-1) === "60000");
      const numbers = numbersIn(path);
      expect(numbers).toEqual(upTo(60_000).slice(-numbers.length));
    }
    expect([1, 2, 3].map((index) => existsSync(`${logs}/two.log.${index}`))).toEqual([
      ...[true, true, false],
    ]);
    expect(existsSync(`${logs}/none.log.1`)).toBe(false);
  });

  test("opened anew when somebody has renamed it, and says when that cannot be", async () => {
    using folder = temporaryFolder();
    const logs = logsIn(folder);
    const path = `${logs}/it.log`;
    const words = shell("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done");
    const configuration = `[process.it]\n${words}\nlog_file = {path = "${path}", ${plain}}
      [process.other]\ncommand = ["sleep", "1000"]\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const reopen = (...names: readonly string[]) => {
      const socket = ["--control-socket", orchestrator.controlSocket];
      return runProgram([hostler(), "process", "reopen-logs", ...names, ...socket]);
    };
    await waitFor("lines", () => linesOf(path).length > 3);
    renameSync(path, `${logs}/moved`);
    const before = linesOf(`${logs}/moved`).length;
    await waitFor("lines in the renamed one", () => linesOf(`${logs}/moved`).length > before);
    expect(await reopen()).toMatchObject({ exitCode: 0, stdout: `it: ${path}\n` });
    await waitFor("lines in a new one", () => linesOf(path).length > 3);
    const told = [...linesOf(`${logs}/moved`), ...linesOf(path)].map(Number);
    expect(told).toEqual(upTo(told.length));
    expect((await reopen("other")).stderr).toContain("other has no log_file");
    renameSync(path, `${logs}/again`);
    symlinkSync("/dev/null", path);
    const { exitCode, stderr } = await reopen("it");
    expect([exitCode, stderr]).toEqual([111, expect.stringContaining("received a symbolic link")]);
    await orchestrator.program.said(/it: cannot write its log to .*symbolic link/);
  });

  test("a folder that others can write to, or a link: refused, nothing starts", async () => {
    using folder = temporaryFolder();
    const logs = logsIn(folder);
    const open = `${logs}/open`;
    mkdirSync(open);
    chmodSync(open, 0o777);
    symlinkSync("/etc/passwd", `${logs}/link`);
    writeFileSync(`${logs}/one`, "");
    linkSync(`${logs}/one`, `${logs}/two`);
    mkdirSync(`${logs}/folder`);
    for (const [path, message] of [
      [`${open}/it.log`, `expected a folder that no other user can write to, received ${open}`],
      [`${logs}/nowhere/it.log`, "expected a folder above it, received none"],
      [`${logs}/link`, "received a symbolic link (ELOOP)"],
      [`${logs}/two`, "received one with 2 links"],
      [`${logs}/folder`, "received a folder"],
      ["/dev/null", "received something that is no file"],
    ] as const) {
      const configuration = `[process.it]\n${shell(`touch ${logs}/started`)}
        log_file = {path = "${path}"}\n`;
      await using program = spawnOrchestrator({ folder, configuration });
      const { exitCode, stderr } = await program.ended();
      expect([path, exitCode, stderr]).toEqual([path, 111, expect.stringContaining(message)]);
      expect(existsSync(folder.file("control.sock.lock"))).toBe(false);
    }
    expect(existsSync(`${logs}/started`)).toBe(false);
  });

  test("a full disk drops lines, counts them, says so once, and holds up nobody", async () => {
    using folder = temporaryFolder();
    using disk = new SmallDisk(folder.file("disk"), "1m");
    const path = `${disk.path}/it.log`;
    const mark = folder.file("count");
    // Long lines: what is left of the last page takes few of them.
    const say = `printf '%0200d\\n' $i; echo $i > ${mark}`;
    const script = `i=0; while :; do i=$((i+1)); ${say}; sleep 0.003; done`;
    const configuration = `[process.it]\n${shell(script)}
      log_file = {path = "${path}", ${plain}}
      [process.calm]\ncommand = ["sleep", "1000"]\nbackoff = "none"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const { program } = orchestrator;
    const first = await orchestrator.started("calm");
    await waitFor("lines", () => linesOf(path).length > 10);
    disk.fill();
    await program.said(/it: cannot write its log to \S+: expected room on its file system/);
    const count = () => Number(readFileSync(mark, "utf8"));
    const dropped = async () => (await orchestrator.show("it")).log.file?.dropped_lines ?? 0;
    await waitFor("lines that are dropped", async () => (await dropped()) > 200);
    // Its writer went on meanwhile, and so did who restarts others.
    await waitFor("its writer's mark", () => count() > 200);
    process.kill(first, "SIGKILL");
    await orchestrator.started("calm", 2);
    const last = linesOf(path).length;
    disk.clear();
    await waitFor("lines again", () => linesOf(path).length > last + 10);
    await program.said(/it: its log is written to \S+ again; \d+ lines were dropped/);
    const stderr = program.output.stderr;
    expect([...stderr.matchAll(/cannot write its log/g)]).toHaveLength(1);
    const numbers = linesOf(path).map(Number);
    const gaps = numbers.filter((number, index) => number !== (numbers[index - 1] ?? 0) + 1);
    // Whole lines, in order, with one gap, whose length is what was counted.
    expect(numbers.every((number) => Number.isInteger(number))).toBe(true);
    expect(gaps).toHaveLength(1);
    const [resumed = 0] = gaps;
    const before = numbers[numbers.indexOf(resumed) - 1] ?? 0;
    expect(await dropped()).toBe(resumed - before - 1);
    const socket = ["--control-socket", orchestrator.controlSocket];
    const { stdout } = await runProgram([hostler(), "process", "metrics", ...socket]);
    const metric = `hostler_process_log_file_dropped_lines_total{process="it"} ${await dropped()}`;
    expect(stdout).toContain(metric);
  });

  for (const place of allPlaces.slice(0, 2)) {
    test(`another program goes on, no line is lost or doubled: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const path = `${logsIn(folder)}/it.log`;
      const script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.001; done";
      const lines = `[process.it]\n@here\n${shell(script)}
        log_file = {path = "${path}", size = "64KiB", count = 9, ${plain}}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await waitFor("lines", () => linesOf(path).length > 50);
      for (let turn = 0; turn < 2; turn += 1) {
        await reexecute(orchestrator.controlSocket);
        const before = numbersIn(path).length;
        await waitFor("more lines", () => numbersIn(path).length > before + 50);
      }
      const next = await again(orchestrator);
      try {
        expect((await next.show("it")).log.file?.dropped_lines).toBe(0);
        await next.client.request("stop", { name: "it" });
        await next.client.request("wait", { name: "it", until: "stopped" });
        const [last] = await next.logs({ name: "it", lines: 1 });
        await waitFor("the last line", () => linesOf(path).at(-1) === last?.line);
        const numbers = numbersIn(path);
        expect(numbers).toEqual(upTo(numbers.length));
      } finally {
        next.client.close();
      }
    });
  }

  test("the orchestrator is killed: the next one writes on, nothing is doubled", async () => {
    using folder = temporaryFolder();
    const path = `${logsIn(folder)}/it.log`;
    const script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.005; done";
    const file = `log_file = {path = "${path}", ${plain}}`;
    const configuration = `[process.it]\n${shell(script)}\n${file}\n`;
    await using first = await startOrchestrator({ folder, configuration });
    await kept(first);
    await waitFor("lines", () => linesOf(path).length > 20);
    await killOrchestrator(first);
    await using second = await startOrchestrator({ folder, configuration });
    await second.events.nth("it", "adopted");
    const before = linesOf(path).length;
    await waitFor("more lines", () => linesOf(path).length > before + 20);
    // What stood in the memory of the one that was killed is lost, and nothing else.
    const numbers = linesOf(path).map(Number);
    expect(numbers).toEqual([...new Set(numbers)].toSorted((one, other) => one - other));
    expect(numbers.every(Number.isInteger)).toBe(true);
  });

  test("what its processes say while all is stopped is there at the end", async () => {
    using folder = temporaryFolder();
    const path = `${logsIn(folder)}/it.log`;
    const script = "trap 'seq 20000; exit 0' TERM; echo 0; while :; do sleep 0.01; done";
    const file = `log_file = {path = "${path}", ${plain}}`;
    const configuration = `[process.it]\n${shell(script)}\n${file}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await waitFor("its first line", () => linesOf(path).length === 1);
    expect(await orchestrator.stop()).toBe(0);
    expect(linesOf(path).map(Number)).toEqual([0, ...upTo(20_000)]);
  });
});

skipUnless("log files on a disk that hangs", [root, ...hangingDisks], () => {
  test("nobody is held up, and no line is lost when it goes on", async () => {
    using folder = temporaryFolder();
    using disk = new HangingDisk(folder.file("disk"));
    const path = `${disk.path}/it.log`;
    const mark = folder.file("count");
    const script = `i=0; while :; do i=$((i+1)); echo $i; echo $i > ${mark}; sleep 0.003; done`;
    const configuration = `[process.it]\n${shell(script)}\nlog_file = {path = "${path}", ${plain}}
      [process.calm]\ncommand = ["sleep", "1000"]\nbackoff = "none"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const first = await orchestrator.started("calm");
    await waitFor("lines", () => linesOf(path).length > 10);
    try {
      disk.hang();
      const count = () => Number(readFileSync(mark, "utf8"));
      const before = await waitFor("its writer's mark", count);
      await waitFor("its writer to go on", () => count() > before + 200);
      process.kill(first, "SIGKILL");
      await orchestrator.started("calm", 2);
    } finally {
      disk.goOn();
    }
    await orchestrator.client.request("stop", { name: "it" });
    await orchestrator.client.request("wait", { name: "it", until: "stopped" });
    const [last] = await orchestrator.logs({ name: "it", lines: 1 });
    await waitFor("the last line", () => linesOf(path).at(-1) === last?.line);
    const numbers = linesOf(path).map(Number);
    expect(numbers).toEqual(upTo(numbers.length));
  });
});
