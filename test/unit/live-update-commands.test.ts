/** luoctl's side: its client, what it prints, and what it makes of its flags. */
import { describe, expect, test } from "bun:test";
import { ConnectionLost, LiveUpdateClient, LiveUpdateError } from "../../src/live-update/client.ts";
import { composeCommandLine } from "../../src/live-update/commands/command-line-of.ts";
import { type DaemonFlags, readDaemonFlags } from "../../src/live-update/commands/daemon.ts";
import { eventText } from "../../src/live-update/commands/follow.ts";
import { renderResult } from "../../src/live-update/commands/kexec.ts";
import { chooseCommandLine, renderReport } from "../../src/live-update/commands/load.ts";
import { renderMetrics } from "../../src/live-update/commands/metrics.ts";
import { renderProgress } from "../../src/live-update/commands/progress.ts";
import {
  renderClients,
  renderSessions,
  renderStatus,
} from "../../src/live-update/commands/show.ts";
import { mayUseId } from "../../src/live-update/options.ts";
import type { ControlRequest } from "../../src/live-update/protocol.ts";
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
import { type Call, startLuodStandIn } from "../support/luod-stand-in.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf } from "../support/wait-for.ts";

async function withServer(
  answer: (request: ControlRequest, call: Call) => void,
  use: (client: LiveUpdateClient) => Promise<void>,
): Promise<void> {
  using luod = startLuodStandIn(answer);
  using client = await LiveUpdateClient.connect(luod.controlSocket);
  await use(client);
}

describe("the client", () => {
  test("sends what the daemon's schema has, and gives the answers on", async () => {
    const answers: Record<string, unknown> = { load: loadReport, list: [qemu] };
    using luod = startLuodStandIn(({ verb }, call) => call.done(answers[verb] ?? null));
    using client = await LiveUpdateClient.connect(luod.controlSocket);
    expect(await client.list()).toEqual([qemu]);
    const load = { kernel: "/k", commandLine: "a", force: true };
    expect(await client.load(load)).toEqual(loadReport);
    await client.load({ ...load, initrd: "/i" });
    await client.abort("why");
    await client.abort();
    await client.finish("db");
    await client.unload();
    const loaded = { verb: "load", kernel: "/k", command_line: "a", force: true };
    expect(luod.requests).toEqual([
      { verb: "list" },
      { ...loaded },
      { ...loaded, initrd: "/i" },
      { verb: "abort", reason: "why" },
      { verb: "abort" },
      { verb: "finish", client: "db" },
      { verb: "unload" },
    ]);
  });

  const kexec = { dryRun: true, includeBare: false, discardUnclaimed: false, by: "auto" } as const;

  test("gives an update's events, and at last what it came to", async () => {
    await withServer(
      (_request, call) => {
        call.item(readyEvent);
        call.done(dryResult);
      },
      async (client) => {
        const events = client.kexec(kexec);
        expect(await events.next()).toEqual({ done: false, value: readyEvent });
        expect(await events.next()).toEqual({ done: true, value: dryResult });
      },
    );
  });

  test("tells an ended connection from a refusal", async () => {
    await withServer(
      (_request, call) => {
        call.item(readyEvent);
        call.close();
      },
      async (client) => {
        const events = client.kexec(kexec);
        await events.next();
        expect(await rejectionOf(events.next())).toBeInstanceOf(ConnectionLost);
      },
    );
  });

  const wrong: unknown[] = [null, {}, [{ ...qemu, user: "0" }], [qemu, 1]];
  test.each(wrong)("refuses what is no answer: %j", async (ok) => {
    await withServer(
      (_request, call) => call.done(ok),
      async (client) => {
        const error = await rejectionOf(client.list());
        expect(error).toBeInstanceOf(LiveUpdateError);
        expect(error.message).toContain("Restart it by systemctl restart luod");
      },
    );
  });

  const refusals: [object, string][] = [
    [
      { kind: "request", message: "The request is wrong: expected a verb, received x" },
      "received x. This is hostler source, and the luod that runs is another version. Restart it",
    ],
    [
      { kind: "refused", message: "Refused", expected: "user 0", received: "user 7" },
      "Refused. Run this as that user, or start luod with --command-uid for this one.",
    ],
    [
      { kind: "refused", message: "Full", expected: "at most 256 clients", hint: "Later" },
      "Full. Later",
    ],
    [
      { kind: "unknown-client", message: "No bd", expected: "db, qemu-1", received: "bd" },
      "No bd. Did you mean db?",
    ],
    [{ kind: "unknown-client", message: "No x", expected: "db", hint: "See list" }, "No x. See"],
    [{ kind: "phase", message: "No kernel is loaded", hint: "Load one" }, "loaded. Load one"],
    [{ kind: "phase", message: "No kernel is loaded" }, "No kernel is loaded"],
  ];
  test.each(refusals)("tells a refusal with its mend: %j", async (error, said) => {
    await withServer(
      (_request, call) => call.refuse(error),
      async (client) => {
        const refusal = await rejectionOf(client.finish("x"));
        expect(refusal).toMatchObject({ name: "LiveUpdateError", exitCode: 111 });
        expect(refusal.message).toContain(said);
      },
    );
  });

  test("tells what to do when nobody answers", async () => {
    using folder = temporaryFolder();
    const error = await rejectionOf(LiveUpdateClient.connect(folder.file("x.sock")));
    expect(error).toMatchObject({ name: "LiveUpdateError", exitCode: 111 });
    expect(error.message).toContain("(ENOENT). Start it by systemctl start luod or hostler live");
  });
});

describe("for people", () => {
  test("list", () => {
    expect(renderClients([qemu, database]).split("\n")).toEqual([
      "ID      USER  PID   BARE  REQUIRED  STATE       DEADLINE   READY AFTER  BYTES   DETAIL",
      "qemu-1  107   4711  no    yes       ready       1 min 0 s  412 ms       64 MiB",
      "db      0     -     yes   no        preserving  500 ms     -            -       34 %",
      "",
    ]);
    expect(renderClients([{ ...qemu, detail: "34 %" }])).not.toContain("DETAIL");
  });

  test("sessions", () => {
    const kept = { ...restoredSession, name: "\u001b[2J", finish_in_ms: null };
    expect(renderSessions([restoredSession, kept]).split("\n")).toEqual([
      "NAME       CLIENT  DIRECTION  STATE      USER  FINISHED",
      "db/log     db      incoming   unclaimed  0     in 1 min 30 s",
      "\\u001b[2J  db      incoming   unclaimed  0     never",
      "",
    ]);
  });

  test("status of an idle luod", () => {
    expect(renderStatus(idleStatus).split("\n")).toEqual([
      "phase        idle",
      "kernel       none is loaded",
      "clients      0",
      "last update  -",
      "restored     nothing",
      "unclaimed    keep",
      "",
    ]);
  });

  test("status of one that is hindered, after an update of which all is settled", () => {
    const last = { id: "u-6", outcome: "entered", detail: "this kernel came of it" };
    const text = renderStatus({ ...idleStatus, last, blackout, troubles: ["one", "two"] });
    expect(text.split("\n").slice(0, 7)).toEqual([
      "phase        idle",
      "trouble      one",
      "trouble      two",
      "kernel       none is loaded",
      "clients      0",
      "last update  u-6: entered: this kernel came of it",
      "restored     nothing waits any more: every session is settled",
    ]);
  });

  test("status of one at its barrier, after an update", () => {
    const last = { id: "u-6", outcome: "entered", detail: "" };
    const status = { ...barrierStatus, last, claimed: 1, unclaimed: 2, blackout };
    expect(renderStatus(status).split("\n")).toEqual([
      "phase         barrier",
      "kernel        /boot/vmlinuz, 7.2.13",
      "initrd        -",
      "command line  liveupdate=on kho=on",
      "clients       2",
      "update        u-7: 1 of 2 ready, waits for db, 12.30 s left",
      "last update   u-6: entered",
      "restored      1 session claimed, 2 unclaimed",
      "unclaimed     keep",
      "",
      "Update u-6, 2 clients:",
      "PART     TIME    WHAT",
      "barrier  412 ms  from the command to the last ready client",
      "commit   38 ms   sync, hooks, and stopping what runs",
      "kexec    -       from there to the new kernel's first moment",
      "boot     2.50 s  from there to luod, which offers the sessions",
      "restore  4.2 ms  from there to the last claim",
      "total    3.10 s",
      "",
    ]);
  });

  test("status of a kernel that somebody else loaded", () => {
    const { loaded } = barrierStatus;
    if (loaded === null) throw new Error("the answer has a kernel");
    const status = { ...idleStatus, loaded: { ...loaded, foreign: true } };
    expect(renderStatus(status)).toContain("kernel       loaded by another program");
  });

  test("the report of load, the worst first", () => {
    expect(renderReport(loadReport).split("\n")).toEqual([
      "STATUS   CHECK        FOUND                       EXPECTED       MEND",
      "warning  live update  LIVEUPDATE=y                liveupdate=on  add liveupdate=on",
      "ok       header       a bzImage of protocol 2.15  a bzImage",
      "loaded /boot/vmlinuz (7.2.13): liveupdate=on kho=on",
      "",
    ]);
    expect(renderReport({ loaded: false, kernel: null, findings: [] })).toBe("");
  });

  test("what an update came to", () => {
    expect(renderResult(abortedResult).split("\n")).toEqual([
      "ID      STATE     READY AFTER  BYTES   DETAIL",
      "qemu-1  ready     412 ms       64 MiB",
      "db      left-out  -            -       missed its deadline",
      "",
    ]);
    expect(renderResult(dryResult).split("\n")).toEqual([
      "ID      STATE  READY AFTER  BYTES",
      "qemu-1  ready  412 ms       64 MiB",
      "dry run: 1 of 1 client ready after 430 ms",
      "",
    ]);
    const leftOut = [
      { id: "qemu-1", reason: "in the table already" },
      { id: "db", reason: "bare: needs --include-bare" },
    ];
    expect(renderResult({ ...dryResult, left_out: leftOut })).toContain(
      "64 MiB\nleft out: db, bare: needs --include-bare\ndry run: 1",
    );
    expect(renderResult({ ...dryResult, clients: [], left_out: leftOut.slice(1) })).toBe(
      "left out: db, bare: needs --include-bare\ndry run: no client took part\n",
    );
  });

  test("events, in which nothing drives the terminal", () => {
    const { time } = readyEvent;
    expect(eventText(readyEvent)).toBe(`${time} u-7 ready qemu-1 after 412 ms\n`);
    const other = { sequence: 9, time, what: "claimed", client: "db", session: "db/\u0007" };
    expect(eventText(other)).toBe(`${time} claimed db/\\u0007\n`);
  });

  test("metrics, whose labels nothing ends", () => {
    expect(renderMetrics(metrics).split("\n")).toEqual([
      "# HELP hostler_live_update_clients Clients, by what they are",
      "# TYPE hostler_live_update_clients gauge",
      'hostler_live_update_clients{id="a\\"b\\\\c\\nd"} 1',
      'hostler_live_update_clients{id="x",bare="yes"} 0.5',
      "# HELP hostler_live_update_updates_total One\\\\two\\nthree",
      "# TYPE hostler_live_update_updates_total counter",
      "hostler_live_update_updates_total 3",
      "",
    ]);
  });
});

describe("the live block", () => {
  const clients = [qemu, database, { ...database, id: "late", state: "subscribed" }];

  test("who is not ready stands first", () => {
    expect(renderProgress(barrierStatus, clients, { columns: 80, rows: 24 })).toEqual([
      "barrier: u-7: 1 of 2 ready, waits for db, 12.30 s left",
      "  db      preserving  -       -       34 %",
      "  qemu-1  ready       412 ms  64 MiB",
    ]);
    expect(renderProgress(idleStatus, [], { columns: 80, rows: 24 })).toEqual(["idle"]);
  });

  test("never fills the screen, nor is a line wider than it", () => {
    const many = Array.from({ length: 100 }, (_, number) => ({ ...database, id: `c-${number}` }));
    const lines = renderProgress(barrierStatus, [qemu, ...many], { columns: 20, rows: 6 });
    expect(lines).toEqual([
      "barrier: u-7: 1 of…",
      "  c-0  preserving …",
      "  c-1  preserving …",
      "  c-2  preserving …",
      "  … and 98 more",
    ]);
    const wide = renderProgress(idleStatus, [{ ...qemu, id: "漢字漢字漢字漢字漢字" }], {
      columns: 20,
      rows: 6,
    });
    expect(wide[1]).toBe("  漢字漢字漢字漢字…");
  });
});

describe("the next kernel's command line", () => {
  const current =
    'BOOT_IMAGE=/boot/vmlinuz-6.19 root=/dev/sda1 initrd=\\boot\\initrd.img quiet x="a b" -- s\n';
  const rows: [string, { base: string; isReused: boolean; append: string }, string, string[]][] = [
    [
      "loses the boot loader's words",
      { base: current, isReused: true, append: "" },
      'root=/dev/sda1 quiet x="a b" -- s',
      ["BOOT_IMAGE=/boot/vmlinuz-6.19", "initrd=\\boot\\initrd.img"],
    ],
    [
      "takes further words before init's",
      { base: current, isReused: true, append: " kho=on  liveupdate=on -- t" },
      'root=/dev/sda1 quiet x="a b" kho=on liveupdate=on -- s t',
      ["BOOT_IMAGE=/boot/vmlinuz-6.19", "initrd=\\boot\\initrd.img"],
    ],
    [
      "is left alone when it was given",
      { base: "initrd=mine BOOT_IMAGE=mine", isReused: false, append: "" },
      "initrd=mine BOOT_IMAGE=mine",
      [],
    ],
    [
      "keeps quoted words whole, an unclosed one too, and what only resembles",
      { base: 'a="-- b" noinitrd=1 "initrd=q" -- initrd=2 "c d', isReused: true, append: "" },
      'a="-- b" noinitrd=1 "initrd=q" -- initrd=2 "c d',
      [],
    ],
    ["may be empty", { base: "\n", isReused: true, append: "" }, "", []],
  ];
  test.each(rows)("%s", (_name, asked, commandLine, stripped) => {
    expect(composeCommandLine(asked)).toEqual({ commandLine, stripped });
  });

  const choose = (asked: { reuse?: boolean; cmdline?: string; append?: string }) =>
    chooseCommandLine(
      { "reuse-cmdline": asked.reuse === true, cmdline: asked.cmdline, append: asked.append },
      () => "root=/dev/vda\n",
    ).commandLine;

  test("is the current one or a given one, said once", () => {
    expect(choose({ reuse: true })).toBe("root=/dev/vda");
    expect(choose({ append: "kho=on" })).toBe("root=/dev/vda kho=on");
    expect(choose({ reuse: true, append: "kho=on" })).toBe("root=/dev/vda kho=on");
    expect(choose({ cmdline: "a" })).toBe("a");
    expect(choose({ cmdline: "" })).toBe("");
    expect(choose({ cmdline: "a", append: "b" })).toBe("a b");
    expect(() => choose({})).toThrow("received neither");
    expect(() => choose({ reuse: true, cmdline: "a" })).toThrow("--reuse-cmdline --append");
  });
});

describe("the flags of luod", () => {
  const usual: DaemonFlags = {
    socket: "/run/luod/liveupdate.sock",
    "control-socket": "/run/luod/control.sock",
    "state-directory": "/run/luod",
    "allow-uid": [],
    "allow-gid": [],
    "allow-id": [],
    "command-uid": [],
    unclaimed: "keep",
    "kexec-hook": [],
    by: "auto",
    "log-json": false,
    verbose: false,
  };

  test("none: its own user does everything", () => {
    expect(readDaemonFlags(usual, 7)).toEqual({
      clientSocket: "/run/luod/liveupdate.sock",
      controlSocket: "/run/luod/control.sock",
      stateDirectory: "/run/luod",
      allowUsers: [7],
      allowGroups: [],
      idRules: [],
      commandUsers: [7],
      unclaimed: { kind: "keep" },
      kexecHooks: [],
      by: "auto",
    });
  });

  test("all", () => {
    const flags = {
      ...usual,
      socket: "/a",
      "state-directory": "/s/",
      "allow-uid": ["1,2", "3"],
      "allow-gid": ["4"],
      "allow-id": ["qemu-*=107", "a=b=0"],
      "command-uid": ["5"],
      unclaimed: "10min",
      "kexec-hook": ["/h"],
      by: "reboot" as const,
    };
    expect(readDaemonFlags(flags, 7)).toMatchObject({
      clientSocket: "/a",
      stateDirectory: "/s",
      allowUsers: [1, 2, 3],
      allowGroups: [4],
      idRules: [
        { pattern: "qemu-*", user: 107 },
        { pattern: "a=b", user: 0 },
      ],
      commandUsers: [5],
      unclaimed: { kind: "finish", after: 600_000 },
      kexecHooks: ["/h"],
      by: "reboot",
    });
    expect(readDaemonFlags({ ...usual, "allow-gid": ["4"] }, 7).allowUsers).toEqual([]);
  });

  const wrong: [Partial<DaemonFlags>, string][] = [
    [{ socket: "" }, "Expected a path of 1 to 107 bytes after --socket"],
    [{ "control-socket": `/${"x".repeat(107)}` }, "received 108 bytes"],
    [{ socket: "/run/luod/control.sock" }, "Expected two paths"],
    [{ "allow-uid": ["root"] }, "after --allow-uid, received root"],
    [{ "allow-gid": ["4294967295"] }, "after --allow-gid"],
    [{ "command-uid": ["1,"] }, "after --command-uid"],
    [{ "allow-id": ["=1"] }, "Expected PATTERN=UID"],
    [{ "allow-id": ["a"] }, "Expected PATTERN=UID"],
    [{ "allow-id": ["a=-1"] }, "Expected PATTERN=UID"],
    [{ "allow-id": ["a=4294967295"] }, "Expected PATTERN=UID"],
    [{ unclaimed: "forever" }, "Expected keep, or a duration"],
    [{ unclaimed: "0s" }, "Expected a duration"],
    [{ "kexec-hook": ["hook"] }, "Expected an absolute path after --kexec-hook"],
  ];
  test.each(wrong)("refused: %j", (flags, said) => {
    expect(() => readDaemonFlags({ ...usual, ...flags }, 0)).toThrow(said);
  });
});

describe("whose an id is", () => {
  const rules = [
    { pattern: "qemu-*", user: 107 },
    { pattern: "db?", user: 26 },
    { pattern: "*/log*", user: 26 },
  ];
  const rows: [string, number, boolean][] = [
    ["qemu-1", 107, true],
    ["qemu-", 107, true],
    ["qemu-1/a", 107, true],
    ["qemu-1", 0, false],
    ["aqemu-1", 107, false],
    ["db1", 26, true],
    ["db", 26, false],
    ["db12", 26, false],
    ["db?", 26, true],
    ["a/logs", 26, true],
    ["/lo/log", 26, true],
    ["a/lo", 26, false],
    ["other", 26, false],
  ];
  test.each(rows)("%s for user %d: %p", (id, user, may) => {
    expect(mayUseId(rules, id, user)).toBe(may);
  });

  test("everybody's without a rule; and no pattern takes long", () => {
    expect(mayUseId([], "x", 5)).toBe(true);
    const rule = { pattern: `${"*a".repeat(60)}b`, user: 0 };
    expect(mayUseId([rule], "a".repeat(63), 0)).toBe(false);
    expect(mayUseId([{ pattern: "*?漢*", user: 0 }], "x漢", 0)).toBe(true);
  });
});
