/** luoctl, compiled, against a stand-in for luod: what it asks, prints, and exits with. */
import { describe, expect, test } from "bun:test";
import { readFileSync, symlinkSync } from "node:fs";
import type { ControlRequest } from "../../src/live-update/protocol.ts";
import { hostler } from "../support/binary.ts";
import {
  abortedResult,
  barrierStatus,
  blackout,
  database,
  dryResult,
  idleStatus,
  loadReport,
  metrics,
  qemu,
  readyEvent,
  restoredSession,
} from "../support/live-update-answers.ts";
import { type Call, type LuodStandIn, startLuodStandIn } from "../support/luod-stand-in.ts";
import { type ProgramOptions, runProgram, startProgram } from "../support/program.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

/** What luod answers to this verb; nothing else is asked for. */
function answering(answers: Readonly<Record<string, unknown>>): LuodStandIn {
  return startLuodStandIn(({ verb }, call) => call.done(answers[verb] ?? null));
}

/** Runs luoctl, by a link of that name. */
async function luoctl(luod: LuodStandIn, words: readonly string[], options: ProgramOptions = {}) {
  using folder = temporaryFolder();
  symlinkSync(hostler(), folder.file("luoctl"));
  const argv = [folder.file("luoctl"), ...words, "--control-socket", luod.controlSocket];
  return await runProgram(argv, options);
}

const committing = { ...readyEvent, sequence: 9, what: "committing", client: undefined };
const entering = { ...committing, sequence: 10, what: "entering-kernel" };

describe("load", () => {
  test("the words of luo-agent, with the current system's command line", async () => {
    using luod = answering({ load: loadReport });
    const words = ["load", "vmlinuz", "--initrd", "initrd.img", "--reuse-cmdline"];
    const { exitCode, stdout } = await luoctl(luod, words, { workingDirectory: "/usr" });
    expect(exitCode).toBe(0);
    expect(stdout).toStartWith("STATUS   CHECK");
    expect(stdout).toEndWith("loaded /boot/vmlinuz (7.2.13): liveupdate=on kho=on\n");
    const [request] = luod.requests;
    expect(request).toMatchObject({
      verb: "load",
      kernel: "/usr/vmlinuz",
      initrd: "/usr/initrd.img",
      force: false,
    });
    const { command_line: commandLine } = request as { command_line: string };
    expect(commandLine).not.toMatch(/(^| )(BOOT_IMAGE|initrd)=/);
    const current = readFileSync("/proc/cmdline", "utf8").trim().split(/\s+/);
    expect(current).toContain(commandLine.split(" ")[0] ?? "");
  });

  test("with one that is given; and JSON", async () => {
    using luod = answering({ load: loadReport });
    const words = ["load", "/k", "--cmdline", "console=ttyS0 root=/dev/sda1", "--force", "--json"];
    const { exitCode, stdout, stderr } = await luoctl(luod, words);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(JSON.parse(stdout)).toEqual(loadReport);
    const commandLine = "console=ttyS0 root=/dev/sda1";
    expect(luod.requests).toEqual([
      { verb: "load", kernel: "/k", command_line: commandLine, force: true },
    ]);
  });

  test("refused: the table, and 111", async () => {
    const [fine, finding] = loadReport.findings;
    const findings = [fine, { ...finding, status: "fatal" }];
    using luod = answering({ load: { loaded: false, kernel: null, findings } });
    const { exitCode, stdout, stderr } = await luoctl(luod, ["load", "/k", "--cmdline", "x"]);
    expect(exitCode).toBe(111);
    expect(stdout).toContain("fatal   live update");
    expect(stderr).toBe(
      "luoctl load: The kernel is not loaded: live update. --force loads it in spite of that.\n",
    );
  });

  test("without a command line: 100, and nothing is asked", async () => {
    using luod = answering({});
    const { exitCode, stderr } = await luoctl(luod, ["load", "/k"]);
    expect(exitCode).toBe(100);
    expect(stderr).toContain("Expected --reuse-cmdline or --cmdline, received neither");
    expect(luod.requests).toEqual([]);
  });
});

describe("kexec", () => {
  test("the connection ends after the barrier: the new kernel is being entered", async () => {
    using luod = startLuodStandIn((_request, call) => {
      call.item(readyEvent);
      call.item(entering);
      call.item({ ...readyEvent, what: "disconnected" });
      call.close();
    });
    expect(await luoctl(luod, ["kexec"])).toMatchObject({
      exitCode: 0,
      stdout: "the new kernel is being entered\n",
      stderr:
        `${readyEvent.time} u-7 ready qemu-1 after 412 ms\n` +
        `${readyEvent.time} u-7 entering-kernel after 412 ms\n` +
        `${readyEvent.time} u-7 disconnected qemu-1 after 412 ms\n`,
    });
    const json = await luoctl(luod, ["kexec", "--json"]);
    expect(JSON.parse(json.stdout)).toMatchObject({ update: "u-7", outcome: "entered" });
  });

  const tooEarly = [[], [readyEvent], [committing], [entering, { ...entering, what: "aborting" }]];
  test.each(tooEarly)("it ends elsewhere: luod has gone, 111", async (...events) => {
    using luod = startLuodStandIn((_request, call) => {
      for (const event of events) call.item(event);
      call.close();
    });
    const { exitCode, stdout, stderr } = await luoctl(luod, ["kexec"]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 111, stdout: "" });
    expect(stderr).toContain("luod went away before the new kernel was entered");
  });

  test("aborted, or refused by the kernel: the table, and 111", async () => {
    using luod = answering({ kexec: abortedResult });
    const aborted = await luoctl(luod, ["kexec"]);
    expect(aborted.exitCode).toBe(111);
    expect(aborted.stdout).toContain("db      left-out  -            -       missed its deadline");
    expect(aborted.stderr).toContain("The update was aborted: db missed its deadline. Everything");
    const result = { ...abortedResult, outcome: "refused-by-kernel", reason: "EBUSY" };
    using other = answering({ kexec: result });
    const refused = await luoctl(other, ["kexec", "--json"]);
    expect(refused.exitCode).toBe(111);
    expect(JSON.parse(refused.stdout)).toEqual(result);
    expect(refused.stderr).toContain("The kernel refused to be replaced: EBUSY.");
  });

  test("who took no part at all is told at the end as well", async () => {
    using luod = answering({ kexec: { ...dryResult, left_out: [{ id: "db", reason: "bare" }] } });
    const { stdout } = await luoctl(luod, ["kexec", "--dry-run"]);
    expect(stdout).toEndWith("\nleft out: db, bare\ndry run: 1 of 1 client ready after 430 ms\n");
  });

  test("a dry run, with every flag", async () => {
    using luod = answering({ kexec: dryResult });
    const flags = ["--dry-run", "--include-bare", "--discard-unclaimed", "--by", "systemctl"];
    const { exitCode, stdout } = await luoctl(luod, ["kexec", ...flags]);
    expect(exitCode).toBe(0);
    expect(stdout).toEndWith("dry run: 1 of 1 client ready after 430 ms\n");
    await luoctl(luod, ["kexec"]);
    const usual = { dry_run: false, include_bare: false, discard_unclaimed: false, by: "auto" };
    const all = { dry_run: true, include_bare: true, discard_unclaimed: true, by: "systemctl" };
    expect(luod.requests).toEqual([
      { verb: "kexec", ...all },
      { verb: "kexec", ...usual },
    ]);
  });

  test("an interrupt aborts it, and its end is waited for", async () => {
    let begun: Call | undefined;
    using luod = startLuodStandIn((request, call) => {
      if (request.verb === "kexec") {
        begun = call;
        call.item(readyEvent);
        return;
      }
      call.done(null);
      begun?.done(abortedResult);
    });
    const words = ["live-update", "kexec", "--control-socket", luod.controlSocket];
    await using kexec = startProgram([hostler(), ...words]);
    await kexec.said(/ready qemu-1/);
    kexec.kill("SIGINT");
    const { exitCode, stderr } = await kexec.ended();
    expect(exitCode).toBe(111);
    expect(stderr).toContain("aborting the update\n");
    expect(luod.requests.at(-1)).toEqual({
      verb: "abort",
      reason: "interrupted by the operator",
    });
  });
});

/** A terminal of 60 columns, and what it would show: the block is drawn over itself. */
async function onTerminal(
  argv: readonly string[],
  during: (screen: () => string) => Promise<void>,
) {
  let written = "";
  const child = Bun.spawn([...argv], {
    terminal: {
      cols: 60,
      rows: 10,
      data: (_terminal, bytes) => {
        written += new TextDecoder().decode(bytes);
      },
    },
  });
  try {
    await during(() => screenOf(written));
    await child.exited;
  } finally {
    child.kill("SIGKILL");
  }
  return { exitCode: child.exitCode, screen: () => screenOf(written) };
}

/** Lines, "up" and "clear from here on" are all that the block writes. */
function screenOf(written: string): string {
  const text = written.replaceAll("\r", "").replaceAll("\u001b[", "ESC");
  const lines = [""];
  let row = 0;
  for (const part of text.split(/(\n|ESC\d+A|ESCJ)/)) {
    if (part === "\n") {
      row += 1;
      lines[row] ??= "";
    } else if (part === "ESCJ") lines.splice(row, lines.length, "");
    else if (part.startsWith("ESC")) row -= Number(part.slice("ESC".length, -1));
    else lines[row] += part;
  }
  return lines.join("\n");
}

describe("kexec on a terminal", () => {
  test("has one block that changes in its place, and gives way to what it came to", async () => {
    let begun: Call | undefined;
    let clients = [qemu, database];
    using luod = startLuodStandIn((request: ControlRequest, call) => {
      if (request.verb === "kexec") {
        begun = call;
        call.item(readyEvent);
      } else call.done(request.verb === "list" ? clients : barrierStatus);
    });
    const words = ["live-update", "kexec", "--control-socket", luod.controlSocket];
    const { exitCode, screen } = await onTerminal([hostler(), ...words], async (shown) => {
      const first =
        "barrier: u-7: 1 of 2 ready, waits for db, 12.30 s left\n" +
        "  db      preserving  -       -       34 %\n" +
        "  qemu-1  ready       412 ms  64 MiB\n";
      await waitFor("the block", () => shown() === first);
      clients = [qemu, { ...database, state: "ready", detail: null, ready_ms: 500 }];
      begun?.item(readyEvent);
      await waitFor("its change", () => shown().includes("db      ready  500 ms  -"));
      expect(shown().match(/barrier/g)).toHaveLength(1);
      clients = [{ ...qemu, id: "a name that is longer than this terminal is wide, by far" }];
      await waitFor("what comes without an event", () => shown().includes("a name"));
      for (const line of shown().split("\n")) expect(line.length).toBeLessThan(60);
      begun?.done(dryResult);
    });
    expect(exitCode).toBe(0);
    const last = "ID      STATE  READY AFTER  BYTES\nqemu-1  ready  412 ms       64 MiB\n";
    await waitFor("the table", () => {
      return screen() === `${last}dry run: 1 of 1 client ready after 430 ms\n`;
    });
  });
});

describe("what there is", () => {
  test("status, list, sessions and metrics", async () => {
    const status = { ...barrierStatus, blackout };
    const answers = { status, list: [qemu, database], sessions: [restoredSession], metrics };
    using luod = answering(answers);
    expect((await luoctl(luod, ["status"])).stdout).toMatch(
      /^phase +barrier\nkernel +\/boot\/vmlinuz, 7\.2\.13\n[\s\S]*\nbarrier +412 ms/,
    );
    expect((await luoctl(luod, ["list"])).stdout).toMatch(/^ID +USER .*\nqemu-1 +107 +4711/);
    expect((await luoctl(luod, ["sessions"])).stdout).toMatch(/\ndb\/log +db +incoming/);
    expect((await luoctl(luod, ["metrics"])).stdout).toContain("_updates_total 3\n");
    for (const [verb, answer] of Object.entries(answers)) {
      const { exitCode, stdout } = await luoctl(luod, [verb, "--json"]);
      expect(exitCode).toBe(0);
      expect(JSON.parse(stdout)).toEqual(answer);
    }
  });

  test("events go on with what comes, after a number", async () => {
    let following: Call | undefined;
    using luod = startLuodStandIn((_request, call) => {
      call.item(readyEvent);
      following = call;
    });
    const words = ["events", "-f", "--after", "7", "--json"];
    const argv = [hostler(), "live-update", ...words, "--control-socket", luod.controlSocket];
    await using events = startProgram(argv);
    await events.said(/"sequence":8/);
    following?.item({ ...readyEvent, sequence: 9 });
    await events.said(/"sequence":9/);
    expect(luod.requests).toEqual([{ verb: "subscribe", after: 7, follow: true }]);
    following?.close();
    expect((await events.ended()).exitCode).toBe(111);
  });
});

describe("changes", () => {
  test("unload, abort and finish", async () => {
    using luod = answering({ status: idleStatus });
    const said = async (...words: string[]) => (await luoctl(luod, words)).stdout;
    expect(await said("unload")).toBe("no kernel is loaded now\n");
    expect(await said("abort", "--reason", "the backup runs")).toContain("rolled back");
    expect(await said("finish", "qemu-1")).toBe(
      "qemu-1: finished; what it had not retrieved is freed\n",
    );
    expect(JSON.parse(await said("finish", "db", "--json"))).toEqual({ finished: "db" });
    expect(JSON.parse(await said("unload", "--json"))).toEqual({ loaded: false });
    expect(luod.requests).toEqual([
      { verb: "unload" },
      { verb: "abort", reason: "the backup runs" },
      { verb: "finish", client: "qemu-1" },
      { verb: "finish", client: "db" },
      { verb: "unload" },
    ]);
    const long = await luoctl(luod, ["abort", "--reason", "x".repeat(1025)]);
    expect(long.exitCode).toBe(100);
  });

  test("that luod refuses: 111, and the mend", async () => {
    using luod = startLuodStandIn((_request, call) => {
      const message = "Nothing was restored for bd";
      call.refuse({ kind: "unknown-client", message, expected: "db", received: "bd" });
    });
    expect(await luoctl(luod, ["finish", "bd"])).toMatchObject({
      exitCode: 111,
      stdout: "",
      stderr: "luoctl finish: Nothing was restored for bd. Did you mean db?\n",
    });
  });
});

describe("names", () => {
  test("luod is the daemon, and refuses wrong flags", async () => {
    using folder = temporaryFolder();
    symlinkSync(hostler(), folder.file("luod"));
    const help = await runProgram([folder.file("luod"), "--help"]);
    expect(help.stdout).toContain("Usage:\n  luod [options]");
    const refused = await runProgram([folder.file("luod"), "--allow-id", "x"]);
    expect(refused).toMatchObject({ exitCode: 100, stdout: "" });
    expect(refused.stderr).toContain("luod: Expected PATTERN=UID, such as qemu-*=107");
  });

  test("a luod that does not run: 111, and what to do", async () => {
    using folder = temporaryFolder();
    const socket = folder.file("absent.sock");
    const argv = [hostler(), "live-update", "list", "--control-socket", socket];
    const { exitCode, stderr } = await runProgram(argv);
    expect(exitCode).toBe(111);
    expect(stderr).toContain(`control socket is elsewhere: ${socket} (ENOENT). Start it by`);
    expect(stderr.split("\n")).toHaveLength(2);
  });
});
