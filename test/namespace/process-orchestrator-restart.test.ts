/** When and how the orchestrator starts a process again. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import type { ProcessSummary } from "../../src/process/protocol.ts";
import { hostler } from "../support/binary.ts";
import { startOrchestrator, type TestOrchestrator } from "../support/orchestrator.ts";
import {
  allPlaces,
  begin,
  bothPlaces,
  localPlace,
  type Place,
} from "../support/orchestrator-partition.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** An orchestrator with one process, "it". */
const beginOne = (place: Place, folder: TemporaryFolder, table: string) =>
  begin(place, folder, `[process.it]\n@here\n${table}\n`);

/** Waits that were told, in milliseconds, in order. */
function waitsOf(orchestrator: TestOrchestrator): number[] {
  return orchestrator.events.of("it", "backing-off").map((event) => {
    const [, amount, unit = ""] = /restart in ([\d.]+) ?(µs|ms|s)/.exec(event.detail ?? "") ?? [];
    return Number(amount) * ({ µs: 0.001, ms: 1, s: 1_000 }[unit] ?? Number.NaN);
  });
}

skipUnless("restart", root, () => {
  for (const place of allPlaces) {
    test(`SIGKILL is followed by a start at once: ${place.title}`, async () => {
      using folder = temporaryFolder();
      await using running = await beginOne(place, folder, 'command = ["sleep", "1000"]');
      const { orchestrator } = running;
      const first = await orchestrator.started("it");
      process.kill(first, "SIGKILL");
      const second = await orchestrator.started("it", 2);
      expect(second).not.toBe(first);
      const ended = await orchestrator.events.nth("it", "ended");
      expect(ended.ending).toEqual({ kind: "signalled", signal: 9, core_dumped: false });
      expect(ended.detail).toBe("SIGKILL");
      const summary = await orchestrator.summary("it");
      expect(summary.restarts).toBe(1);
      expect(summary.pid).toBe(second);
      expect(summary.last_exit).toEqual({ kind: "signalled", signal: 9, core_dumped: false });
      expect(orchestrator.events.of("it", "backing-off")).toEqual([]);
    });

    test(`always: exit 7 and exit 0 are both followed by a start: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const mark = folder.file("mark");
      const second = `[ -e ${mark}.7 ] && { touch ${mark}; exit 0; }`;
      const script = `[ -e ${mark} ] && exec sleep 1000; ${second}; touch ${mark}.7; exit 7`;
      const command = JSON.stringify(["sh", "-c", script]);
      await using running = await beginOne(
        place,
        folder,
        `command = ${command}\nbackoff = {first = "1ms"}`,
      );
      const { orchestrator } = running;
      await orchestrator.started("it", 3);
      const seven = await orchestrator.events.nth("it", "ended");
      const zero = await orchestrator.events.nth("it", "ended", 2);
      expect(seven.ending).toEqual({ kind: "exited", status: 7 });
      expect(seven.detail).toBe("exit 7");
      expect(zero.ending).toEqual({ kind: "exited", status: 0 });
      expect((await orchestrator.summary("it")).last_exit).toEqual({ kind: "exited", status: 0 });
    });

    test(`on-failure: exit 3 starts again, exit 0 finishes: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const mark = folder.file("mark");
      const command = JSON.stringify([
        "sh",
        "-c",
        `[ -e ${mark} ] && exit 0; touch ${mark}; exit 3`,
      ]);
      const table = `command = ${command}\nrestart = "on-failure"`;
      await using running = await beginOne(place, folder, table);
      const { orchestrator } = running;
      const summary = (await orchestrator.client.request("wait", {
        name: "it",
        until: "stopped",
      })) as ProcessSummary;
      expect(summary.phase).toBe("finished");
      expect(summary.restarts).toBe(1);
      const ended = await orchestrator.events.nth("it", "ended", 2);
      expect(ended.ending).toEqual({ kind: "exited", status: 0 });
      expect(orchestrator.events.of("it", "started")).toHaveLength(2);
    });

    test(`never: whatever its end, it is not started again: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const table = 'command = ["sh", "-c", "exit 9"]\nrestart = "never"';
      await using running = await beginOne(place, folder, table);
      const { orchestrator } = running;
      const ended = await orchestrator.events.nth("it", "ended");
      expect(ended.ending).toEqual({ kind: "exited", status: 9 });
      await orchestrator.client.request("wait", { name: "it", until: "stopped" });
      const { phase, restarts, last_exit } = await orchestrator.summary("it");
      expect({ phase, restarts }).toEqual({ phase: "finished", restarts: 0 });
      expect(last_exit).toEqual({ kind: "exited", status: 9 });
    });
  }

  test("waits grow by the factor up to the cap, after one start at once", async () => {
    using folder = temporaryFolder();
    const table = `command = ["false"]
      backoff = {first = "30ms", factor = 3, cap = "300ms", jitter = 0, reset_after = "1h"}`;
    await using running = await beginOne(localPlace, folder, table);
    const { orchestrator } = running;
    await orchestrator.events.nth("it", "backing-off", 5);
    expect(waitsOf(orchestrator).slice(0, 5)).toHaveLength(5);
    const asked = orchestrator.events.of("it").map((event) => event.what);
    const firstWait = asked.indexOf("backing-off");
    const starts = asked.slice(0, firstWait).filter((what) => what === "started");
    expect(starts).toHaveLength(2);
    // What clearing took is part of the wait, so each is at most what was asked for.
    const waits = waitsOf(orchestrator);
    for (const [index, most] of [30, 90, 270, 300, 300].entries()) {
      expect(waits[index]).toBeLessThanOrEqual(most);
    }
    expect(waits[2]).toBeGreaterThan(90);
    expect(waits[3]).toBeGreaterThan(90);
  });

  test("show prints the coming waits from where it stands", async () => {
    using folder = temporaryFolder();
    const table = `command = ["sleep", "1000"]
      backoff = {first = "50ms", factor = 2, cap = "300ms", jitter = 0.5, reset_after = "1h"}`;
    await using running = await beginOne(localPlace, folder, table);
    const { orchestrator } = running;
    const first = await orchestrator.started("it");
    const fresh = await orchestrator.show("it");
    expect(fresh.backoff_schedule_ms.slice(0, 6)).toEqual([0, 50, 100, 200, 300, 300]);
    process.kill(first, "SIGKILL");
    await orchestrator.started("it", 2);
    const later = await orchestrator.show("it");
    expect(later.backoff_schedule_ms.slice(0, 5)).toEqual([50, 100, 200, 300, 300]);
    expect(later.history.map((event) => event.what)).toContain("died");
  });

  test("a run of reset_after begins the waits anew", async () => {
    using folder = temporaryFolder();
    const gate = folder.file("gate");
    const script = `[ -e ${gate} ] && exec sleep 1000; exit 1`;
    const table = `command = ${JSON.stringify(["sh", "-c", script])}
      backoff = {first = "20ms", factor = 10, cap = "30s", jitter = 0, reset_after = "300ms"}`;
    await using running = await beginOne(localPlace, folder, table);
    const { orchestrator } = running;
    await orchestrator.events.nth("it", "backing-off", 2);
    writeFileSync(gate, "");
    const before = orchestrator.events.of("it", "started").length;
    await orchestrator.started("it", before + 1);
    const healthy = await waitFor("a run of 300 ms", async () => {
      const summary = await orchestrator.summary("it");
      return (summary.uptime_ms ?? 0) > 320 && summary;
    });
    process.kill(healthy.pid ?? 0, "SIGKILL");
    await orchestrator.started("it", before + 2);
    expect(waitsOf(orchestrator)).toHaveLength(2);
    const { backoff_schedule_ms } = await orchestrator.show("it");
    expect(backoff_schedule_ms[0]).toBe(20);
  });

  test("over its start limit a process has failed, and a start forgives", async () => {
    using folder = temporaryFolder();
    const table = `command = ["false"]
      backoff = "none"
      start_limit = {starts = 4, within = "1h"}`;
    await using running = await beginOne(localPlace, folder, table);
    const { orchestrator } = running;
    const failed = await orchestrator.events.nth("it", "failed");
    expect(failed.detail).toBe("the start limit is reached: at most 4 starts within 1 h 0 min");
    expect(orchestrator.events.of("it", "started")).toHaveLength(4);
    const { phase, reason } = await orchestrator.summary("it");
    expect({ phase, reason }).toEqual({ phase: "failed", reason: failed.detail ?? "" });
    await orchestrator.client.request("start", { name: "it" });
    await orchestrator.events.nth("it", "failed", 2);
    expect(orchestrator.events.of("it", "started")).toHaveLength(8);
  });
});

skipUnless("exec failures", root, () => {
  for (const place of bothPlaces) {
    test.each([
      ["ENOENT", "no such program", (path: string) => path],
      ["EACCES", "not executable", (path: string) => written(path, "#!/bin/sh\n", 0o600)],
      ["EACCES", "a folder", () => "/etc"],
      [
        "ENOEXEC",
        "no format that the kernel knows",
        (path: string) => written(path, "hello", 0o755),
      ],
      [
        "ENOENT",
        "its interpreter is missing",
        (path: string) => written(path, "#!/absent\n", 0o755),
      ],
      ["ENOTDIR", "a path through a file", () => "/etc/passwd/x"],
      ["ELOOP", "a link to itself", (path: string) => linked(path)],
      ["ENAMETOOLONG", "a name that is too long", () => `/${"x".repeat(300)}`],
    ])(`%s, %s, backs off and is shown: ${place.title}`, async (code, _what, make) => {
      using folder = temporaryFolder();
      const program = make(folder.file("program"));
      const table = `command = [${JSON.stringify(program)}]
        backoff = {first = "5ms", factor = 2, cap = "50ms", jitter = 0}`;
      await using running = await beginOne(place, folder, table);
      const { orchestrator } = running;
      const refused = await orchestrator.events.nth("it", "start-refused", 3);
      expect(refused.detail).toContain(program);
      expect(refused.detail).toMatch(reasons[code] ?? /never/);
      await orchestrator.events.nth("it", "backing-off", 3);
      expect(waitsOf(orchestrator).slice(0, 3)).toEqual([5, 10, 20]);
      expect(orchestrator.events.of("it", "started")).toEqual([]);
      const { history, summary } = await orchestrator.show("it");
      expect(summary.pid).toBeNull();
      expect(history.some((event) => event.what === "start-refused")).toBe(true);
    });

    test.each([
      ["plainly", ""],
      ["by the launcher", "no_new_privileges = true\n"],
    ])(`%s, what is missing is named: ${place.title}`, async (_, line) => {
      using folder = temporaryFolder();
      const script = written(folder.file("script"), "#! /absent/perl -w\n", 0o755);
      const file = written(folder.file("file"), "", 0o600);
      const tables: [string, string, RegExp][] = [
        ["away", 'command = ["sleep", "1"]\nworking_directory = "/nope"', /directory \/nope: No/],
        ["file", `command = ["true"]\nworking_directory = "${file}"`, /file: Not a directory/],
        ["script", `command = ["${script}"]`, /file is there.*first line names, "\/absent\/perl"/],
        ["absent", 'command = ["/absent/sleep"]', /Cannot start \/absent\/sleep: No such file/],
      ];
      const lines = tables.map(
        ([name, table]) => `[process.${name}]\n@here\n${table}\nrestart = "never"\n${line}`,
      );
      await using running = await begin(place, folder, lines.join(""));
      for (const [name, , words] of tables) {
        const { detail } = await running.orchestrator.events.nth(name, "start-refused");
        expect(detail).toMatch(words);
      }
    });

    test(`a program that appears later gets started: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const program = folder.file("late-program");
      const table = `command = ["late-program", "1000"]
        backoff = {first = "5ms", cap = "20ms"}
        environment = {PATH = "/nowhere:${folder.path}"}`;
      await using running = await beginOne(place, folder, table);
      const { orchestrator } = running;
      await orchestrator.events.nth("it", "start-refused", 2);
      copyFileSync("/bin/sleep", program);
      await orchestrator.started("it");
      expect((await orchestrator.summary("it")).phase).toBe("ready");
      rmSync(program);
    });
  }

  test("with restart = never a refused start has failed, and says why", async () => {
    using folder = temporaryFolder();
    const table = 'command = ["/absent"]\nrestart = "never"';
    await using running = await beginOne(localPlace, folder, table);
    const failed = await running.orchestrator.events.nth("it", "failed");
    expect(failed.detail).toMatch(/\/absent.*No such file/);
    expect((await running.orchestrator.summary("it")).phase).toBe("failed");
  });
});

const reasons: Readonly<Record<string, RegExp>> = {
  ENOENT: /No such file/,
  EACCES: /Permission denied/,
  ENOEXEC: /Exec format error/,
  ENOTDIR: /Not a directory/,
  ELOOP: /Too many levels/,
  ENAMETOOLONG: /File name too long/,
};

function written(path: string, text: string, mode: number): string {
  writeFileSync(path, text, { mode });
  return path;
}

function linked(path: string): string {
  symlinkSync(path, path);
  return path;
}

skipUnless("a restart by an operator", root, () => {
  test("of several: each starts when what it comes after is ready again", async () => {
    using folder = temporaryFolder();
    const there = folder.file("there");
    // Its shell hears of the signal only when the sleep is over: it dies last.
    const script = `trap "rm ${there}; exit 0" TERM; : >${there}; while :; do sleep 0.1; done`;
    const ready = `ready = {command = ["test", "-e", "${there}"]}`;
    const database = `command = ["sh", "-c", '${script}']\n${ready}`;
    const sleeps = 'command = ["sleep", "1000"]';
    const configuration =
      `[process.top]\n${sleeps}\nafter = ["web"]\n` +
      `[process.web]\n${sleeps}\nafter = ["db"]\n[process.db]\n${database}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.events.nth("top", "ready");
    const upwards = ["db", "web", "top"].flatMap((name) => [
      `${name} start-requested`,
      `${name} ready`,
    ]);
    const socket = ["--control-socket", orchestrator.controlSocket];
    for (const names of [
      ["db", "web", "top"],
      ["top", "web", "db"],
    ]) {
      const before = orchestrator.events.items.length;
      const words = ["process", "restart", ...names, "--wait", ...socket];
      expect((await runProgram([hostler(), ...words])).exitCode).toBe(0);
      const story = orchestrator.events.items
        .slice(before)
        .filter(({ what }) => what === "start-requested" || what === "ready")
        .map(({ name, what }) => `${name} ${what}`);
      expect(story).toEqual(upwards);
    }
  });
});
