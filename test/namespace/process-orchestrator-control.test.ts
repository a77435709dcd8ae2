/** The control socket of the orchestrator: who may speak, and the limits of those who do. */
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import * as v from "valibot";
import { type ControlClient, connectControl } from "../../src/messaging/control-client.ts";
import { defaultControlLimits } from "../../src/messaging/control-server.ts";
import { encodeFrame } from "../../src/messaging/frame.ts";
import {
  logLineSchema,
  processDetailSchema,
  processEventSchema,
  processSummarySchema,
} from "../../src/process/protocol.ts";
import { hostler } from "../support/binary.ts";
import { withoutHolder } from "../support/kept.ts";
import { spawnOrchestrator, startOrchestrator } from "../support/orchestrator.ts";
import { isAlive } from "../support/partition.ts";
import { type ProgramResult, runProgram, startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, waitFor, withDeadline } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const sleeper = '[process.it]\ncommand = ["sh", "-c", "echo hello; exec sleep 1000"]\n';
const frame = (body: unknown) => new TextDecoder().decode(encodeFrame(body));

/** Connects to the socket, sends this, waits for a file if there is one, and prints all it gets. */
const rawClient = `
  use Socket;
  my ($path, $text, $gate, $enough) = @ARGV;
  socket(my $socket, AF_UNIX, SOCK_STREAM, 0);
  $SIG{PIPE} = "IGNORE";
  connect($socket, pack_sockaddr_un($path)) or die "cannot connect: $!";
  syswrite($socket, $text);
  $| = 1;
  print STDERR "sent\\n";
  if ($gate) { select(undef, undef, undef, 0.01) until -e $gate; }
  my $all = "";
  while (sysread($socket, my $bytes, 65536)) {
    $all .= $bytes;
    last if $enough and $all =~ /$enough/;
  }
  print $all;
`;
const raw = (path: string, text: string, ...rest: readonly string[]) => [
  "perl",
  "-e",
  rawClient,
  path,
  text,
  ...rest,
];

/** The bodies of the frames that a raw client printed. */
function bodies(result: ProgramResult): unknown[] {
  const lines = result.stdout.split("\n").filter((line) => line !== "");
  return lines.flatMap((line) => {
    try {
      return [(JSON.parse(line) as { body: unknown }).body];
    } catch {
      // The last one was cut short when the connection ended.
      return [];
    }
  });
}

skipUnless("the control socket", root, () => {
  test("is 0600", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    expect(statSync(orchestrator.controlSocket).mode & 0o777).toBe(0o600);
    expect(await orchestrator.stop()).toBe(0);
  });

  test("the default one's folder is made, 0755, whatever the umask", async () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("process.toml"), sleeper);
    const script = [
      "mount -t tmpfs none /run; umask 077",
      `"$1" process orchestrator --config "$2" & pid=$!`,
      `until "$1" process list >/dev/null 2>&1; do kill -0 $pid || exit 1; done`,
      "stat -c '%a %n' /run/hostler; kill $pid; wait $pid; echo code $?",
    ].join("\n");
    const words = ["sh", "-c", script, "sh", hostler(), folder.file("process.toml")];
    const { stdout } = await runProgram(["unshare", "--mount", ...words]);
    expect(stdout).toBe("755 /run/hostler\ncode 0\n");
  });

  test("another user is refused, even where the file lets him through", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    chmodSync(folder.path, 0o755);
    chmodSync(orchestrator.controlSocket, 0o666);
    const setUser = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const request = frame({ id: 1, verb: "stop", name: "it" });
    const client = raw(orchestrator.controlSocket, request);
    const answer = await runProgram([...setUser, ...client]);
    expect(bodies(answer)).toEqual([
      {
        id: 0,
        error: {
          kind: "refused",
          message: expect.stringContaining("Refused: expected user 0, received user 65534"),
          expected: "user 0",
          received: expect.stringContaining("user 65534"),
        },
      },
    ]);
    expect((await orchestrator.summary("it")).phase).toBe("ready");
    expect(orchestrator.program.output.stderr).toMatch(/refused a client.*user 65534/);
  });

  test("what it says with --json fits the schemas", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    await orchestrator.events.nth("it", "ready");
    await orchestrator.followLogs().until("its line", (lines) => lines.length === 1);
    const say = async (...words: string[]) => {
      const socket = ["--control-socket", orchestrator.controlSocket, "--json"];
      const result = await runProgram([hostler(), "process", ...words, ...socket]);
      expect(result.exitCode).toBe(0);
      return result.stdout;
    };
    const lines = (text: string) =>
      text
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as unknown);
    v.parse(v.array(processSummarySchema), JSON.parse(await say("list")));
    v.parse(processDetailSchema, JSON.parse(await say("show", "it")));
    expect(v.parse(v.array(logLineSchema), lines(await say("logs", "it")))).toHaveLength(1);
    const events = v.parse(v.array(processEventSchema), lines(await say("events")));
    expect(events.map(({ what }) => what)).toEqual(["start-requested", "started", "ready"]);
  });

  test("nobody at the socket: it says so, and where", async () => {
    using folder = temporaryFolder();
    const path = folder.file("absent.sock");
    const words = ["process", "list", "--control-socket", path];
    const { exitCode, stderr, stdout } = await runProgram([hostler(), ...words]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 111, stdout: "" });
    expect(stderr).toContain(path);
    expect(stderr).not.toMatch(/\.ts:\d|\n {4}at /);
  });

  test.each([
    ["show", {}],
    ["start", {}],
    ["stop", {}],
    ["restart", {}],
    ["signal", { signal: 15 }],
    ["logs", {}],
    ["wait", { until: "ready" }],
  ])("%s of an unknown process is refused", async (verb, fields) => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    const asked = orchestrator.client.request(verb, { name: "its", ...fields });
    expect((await rejectionOf(asked)).message).toBe("There is no process its in the configuration");
  });

  test("a change of several answers for each; an unknown name keeps no other", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    const names = ["its", "it"];
    const answer = await orchestrator.client.request("change", { what: "stop", names });
    const outcomes = [
      { name: "its", error: { kind: "unknown-process", received: "its" } },
      { name: "it", summary: { name: "it" } },
    ];
    expect(answer).toMatchObject({ since: expect.any(Number), outcomes });
    await orchestrator.events.nth("it", "ended");
  });

  test.each([
    ["a verb that is none", { verb: "format" }],
    ["a signal of 0", { verb: "signal", name: "it", signal: 0 }],
    ["a signal of 65", { verb: "signal", name: "it", signal: 65 }],
    ["a key too many", { verb: "list", all: true }],
    ["no name", { verb: "stop" }],
    ["a change of none", { verb: "change", what: "stop", names: [] }],
    ["a change of too many", { verb: "change", what: "stop", names: Array(513).fill("it") }],
    ["a name that is too long", { verb: "show", name: "x".repeat(65) }],
    ["lines below none", { verb: "logs", lines: -1 }],
  ])("%s is refused with what was expected", async (_what, request) => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    const { verb, ...fields } = request;
    const refusal = await rejectionOf(orchestrator.client.request(verb, fields));
    expect(refusal.message).toMatch(/^The request is wrong: expected .*, received /);
    await orchestrator.list();
  });
});

skipUnless("limits of the control socket", root, () => {
  test("clients over the limit are refused, and there is room when others leave", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    const clients: ControlClient[] = [];
    const refusals: string[] = [];
    // The orchestrator's own follower is one of them.
    for (let count = 1; count <= 300; count++) {
      const client = await connectControl(orchestrator.controlSocket);
      try {
        await withDeadline("an answer", client.request("list"));
        clients.push(client);
      } catch (error) {
        refusals.push((error as Error).message);
        client.close();
      }
    }
    const most = defaultControlLimits.connections;
    expect(clients).toHaveLength(most - 1);
    expect(new Set(refusals)).toEqual(
      new Set([`Refused: expected at most ${most} clients, received one more`]),
    );
    const together = await Promise.all(clients.map((client) => client.request("list")));
    expect(together).toHaveLength(most - 1);
    for (const client of clients) client.close();
    await orchestrator.list();
    const late = await connectControl(orchestrator.controlSocket);
    await late.request("list");
    late.close();
  });

  test("requests over the limit are refused, those before are answered", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    const client = await connectControl(orchestrator.controlSocket);
    const most = defaultControlLimits.openRequests;
    const waits = Array.from({ length: most }, () =>
      client.request("wait", { name: "it", until: "stopped" }),
    );
    const refusal = await rejectionOf(client.request("list"));
    expect(refusal.message).toMatch(new RegExp(`at most ${most} open requests`));
    await orchestrator.client.request("stop", { name: "it" });
    expect(await Promise.all(waits)).toHaveLength(most);
    await client.request("list");
    client.close();
  });

  test("a request that is too long ends its connection alone", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    const name = "x".repeat(defaultControlLimits.requestBytes);
    const long = frame({ id: 1, verb: "show", name });
    const answer = await runProgram(raw(orchestrator.controlSocket, long));
    expect(bodies(answer)).toEqual([]);
    await orchestrator.list();
    expect(orchestrator.program.output.stderr).toMatch(/a client broke the protocol/);
  });

  test("a follower of events that never reads is let go, and harms nobody", async () => {
    using folder = temporaryFolder();
    const gate = folder.file("gate");
    const configuration = `${sleeper}[process.loop]\ncommand = ["true"]\nbackoff = "none"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const requests = Array.from({ length: 50 }, (_, index) =>
      frame({ id: index + 1, verb: "subscribe", follow: true }),
    ).join("");
    await using lazy = startProgram(raw(orchestrator.controlSocket, requests, gate));
    await lazy.said(/sent/);
    const from = orchestrator.events.items.length;
    // 50 times so many events are more than it is allowed to leave lying.
    await orchestrator.events.until("many events", (items) => items.length > from + 2_000);
    writeFileSync(gate, "");
    const got = bodies(await lazy.ended());
    expect(got.length).toBeGreaterThan(0);
    expect(got.length).toBeLessThan(50 * 2_000);
    expect((await orchestrator.summary("it")).restarts).toBe(0);
  });

  test("a follower of logs that reads late misses lines, and is told how many", async () => {
    using folder = temporaryFolder();
    const gate = folder.file("gate");
    const go = folder.file("go");
    const script = `until [ -e ${go} ]; do sleep 0.01; done; seq 1 1000000; echo end`;
    const command = JSON.stringify(["sh", "-c", script]);
    const configuration = `[process.it]\ncommand = ${command}\nrestart = "never"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const request = frame({ id: 1, verb: "logs", follow: true });
    const client = raw(orchestrator.controlSocket, request, gate, '"end"');
    await using lazy = startProgram(client);
    await lazy.said(/sent/);
    writeFileSync(go, "");
    await orchestrator.client.request("wait", { name: "it", until: "stopped" });
    writeFileSync(gate, "");
    const lines = bodies(await lazy.ended()).map((body) =>
      v.parse(logLineSchema, (body as { item: unknown }).item),
    );
    const lost = lines.reduce((sum, { dropped = 0 }) => sum + dropped, 0);
    expect(lost).toBeGreaterThan(0);
    expect(lines.length + lost).toBe(1_000_001);
    expect(lines.at(-1)?.line).toBe("end");
  });

  test("a log that is longer than the queue of a client is shown whole", async () => {
    using folder = temporaryFolder();
    const script = "seq -f '%0100.f' 1 300000";
    const limits = 'log_lines = 1000000\nlog_bytes = "64MiB"\nrestart = "never"\n';
    const command = JSON.stringify(["sh", "-c", script]);
    const configuration = `[process.it]\ncommand = ${command}\n${limits}`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const { log } = await orchestrator.client
      .request("wait", { name: "it", until: "stopped" })
      .then(() => orchestrator.show("it"));
    expect(log.lines).toBe(300_000);
    const lines = await withDeadline("the log", orchestrator.logs(), 40_000);
    expect(lines).toHaveLength(300_000);
    expect(Number(lines.at(-1)?.line)).toBe(300_000);
  });
});

/** An orchestrator that is refused, and all that stands in its folder after that. */
async function refused(
  folder: { readonly path: string; file(name: string): string },
  socket: string,
  wrap: readonly string[] = [],
) {
  writeFileSync(folder.file("process.toml"), sleeper);
  const words = ["process", "orchestrator", "--config", folder.file("process.toml")];
  const before = readdirSync(folder.path).toSorted();
  const result = await runProgram([...wrap, hostler(), ...words, "--control-socket", socket]);
  const after = readdirSync(folder.path).toSorted();
  return { ...result, left: after.filter((name) => !before.includes(name)) };
}

skipUnless("a control socket that cannot be", root, () => {
  const paths: [string, (file: (name: string) => string) => string, number, RegExp][] = [
    [
      "a file in the way",
      (file) => {
        writeFileSync(file("x"), "mine");
        return file("x");
      },
      111,
      /expected a socket or nothing there, received a file of another kind\. Choose another/,
    ],
    ["too long", (file) => file("x".repeat(108)), 100, /1 to 107 bytes after --control-socket/],
    [
      "a folder that is missing",
      (file) => file("a/b/x"),
      111,
      /expected the folder \S+\/a\/b, received nothing there\. Make it: mkdir -p \S+\/a\/b, or/,
    ],
    [
      "a file for a folder",
      (file) => file("process.toml/x"),
      111,
      /expected the folder \S+process\.toml, received a file\. Remove it, or choose another/,
    ],
  ];
  test.each(paths)("%s: refused, and nothing is left", async (_what, make, code, message) => {
    using folder = temporaryFolder();
    const path = make((name) => folder.file(name));
    const { exitCode, stderr, left } = await refused(folder, path);
    expect(stderr).toMatch(message);
    expect(stderr).not.toContain("stopping");
    expect({ exitCode, left }).toEqual({ exitCode: code, left: [] });
    expect(existsSync(folder.file("a"))).toBe(false);
  });

  test("another user's, and another service's: refused, and nothing is left", async () => {
    using folder = temporaryFolder();
    const path = folder.file("x.sock");
    await using server = startProgram(["perl", "-MIO::Socket::UNIX", "-e", listening, path]);
    await server.said(/listening/);
    const served = await refused(folder, path);
    expect(served).toMatchObject({ exitCode: 111, left: [] });
    expect(served.stderr).toContain("somebody listens there already. Stop it first");
    await runProgram(["chown", "1234", path]);
    const owned = await refused(folder, path);
    expect(owned).toMatchObject({ exitCode: 111, left: [] });
    expect(owned.stderr).toContain("received one of user 1234");
  });

  const listening = `
    my $socket = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die $!;
    $| = 1;
    print "listening\\n";
    sleep 1000;
  `;

  const journals: [string, (path: string) => void, RegExp][] = [
    [
      "a folder in the place of the journal",
      (path) => mkdirSync(`${path}.journal`),
      /journal \S+\.journal: expected a file, or nothing there, received a folder \(EISDIR\)\. Rem/,
    ],
    [
      "a link in the place of the lock",
      (path) => symlinkSync("/dev/null", `${path}.lock`),
      /Cannot open the lock \S+\.lock: expected .*, received a symbolic link \(ELOOP\)\. Remove it/,
    ],
  ];
  test.each(journals)("%s: said with the mend", async (_what, make, message) => {
    using folder = temporaryFolder();
    make(folder.file("x.sock"));
    const { exitCode, stderr } = await refused(folder, folder.file("x.sock"));
    expect(exitCode).toBe(111);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });

  test("a full disk, and a folder of another: said with the mend", async () => {
    using folder = temporaryFolder();
    const full =
      'mount -t tmpfs -o size=16k none "$0" && cp -r "$1" "$0/process.toml"; shift; ' +
      'dd if=/dev/zero of="$0/fill" bs=1k 2>/dev/null; exec "$@"';
    writeFileSync(folder.file("process.toml"), sleeper);
    mkdirSync(folder.file("disk"));
    const disk = ["unshare", "--mount", "sh", "-c", full];
    const first = await refused(folder, folder.file("disk/x.sock"), [
      ...disk,
      folder.file("disk"),
      folder.file("process.toml"),
    ]);
    expect(first.exitCode).toBe(111);
    expect(first.stderr).toMatch(
      /write the crash journal \S+\.journal: expected room on its file system, received none \(ENO/,
    );
    expect(first.stderr).toMatch(/Make room there .*, or give another --control-socket\.\n$/);
    chmodSync(folder.path, 0o755);
    const user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const second = await refused(folder, folder.file("x.sock"), user);
    expect(second).toMatchObject({ exitCode: 111, left: [] });
    expect(second.stderr).toMatch(/Cannot open the lock \S+x\.sock\.lock: expected .*\(EACCES\)/);
    const run = [
      "unshare",
      "--mount",
      "sh",
      "-c",
      'mount -t tmpfs -o mode=755 none /run && exec "$@"',
      "sh",
    ];
    const third = await refused(folder, "/run/hostler/process.sock", [...run, ...user]);
    expect(third.exitCode).toBe(111);
    expect(third.stderr).toMatch(
      /make the folder \/run\/hostler: expected that .*, received .*\(EACCES\)\. Run this as the/,
    );
  });
});

skipUnless("a control socket that is removed", root, () => {
  const removals: [string, (path: string) => void][] = [
    ["by rm", (path) => unlinkSync(path)],
    ["by mv", (path) => renameSync(path, `${path}.old`)],
    ["by another file in its place", (path) => replaceFile(path)],
    ["with its folder", (path) => removeFolder(path)],
  ];

  /** Somebody's file comes and goes: the socket is made anew when it has gone. */
  function replaceFile(path: string): void {
    unlinkSync(path);
    writeFileSync(path, "mine");
  }

  /** All that stood there, and the folder comes back. */
  function removeFolder(path: string): void {
    rmSync(dirname(path), { recursive: true });
    mkdirSync(dirname(path));
  }

  test.each(removals)("%s: made anew, told, and nobody is disturbed", async (how, remove) => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    const pid = await orchestrator.started("it");
    const path = orchestrator.controlSocket;
    for (const time of [1, 2]) {
      remove(path);
      if (how.includes("another file")) {
        const told = new RegExp(`(was removed, and cannot be made anew: [^\n]*[\\s\\S]*){${time}}`);
        await orchestrator.program.said(told);
        rmSync(path);
      }
      await orchestrator.program.said(new RegExp(`(it is made anew[\\s\\S]*){${time}}`));
      const client = await waitFor("a new client", () => connectControl(path));
      const answer = v.parse(v.array(processSummarySchema), await client.request("list"));
      client.close();
      expect(answer.map((summary) => summary.pid)).toEqual([pid]);
    }
    // The client from before, and a second orchestrator, are as they were.
    expect((await orchestrator.summary("it")).pid).toBe(pid);
    await using second = spawnOrchestrator({ folder, configuration: sleeper });
    const { exitCode, stderr } = await second.ended();
    expect(exitCode).toBe(111);
    const holder = orchestrator.program.processId;
    expect(stderr).toContain(`control socket ${path}, process ${holder}: expected that nobody`);
    expect(stderr).toContain(`Stop that one (kill ${holder}, or by its unit), or give this one`);
    expect(await orchestrator.stop()).toBe(0);
    expect(existsSync(path)).toBe(false);
  });

  test("the journal comes back with it: what a killed one leaves is ended", async () => {
    using folder = temporaryFolder();
    const configuration = `${withoutHolder}${sleeper}`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const pid = await orchestrator.started("it");
    removeFolder(orchestrator.controlSocket);
    await orchestrator.program.said(/it is made anew/);
    orchestrator.program.kill("SIGKILL");
    await orchestrator.program.ended();
    await using next = await startOrchestrator({ folder, configuration });
    await next.program.said(/it: ended what an orchestrator that was killed had left running/);
    expect(isAlive(pid)).toBe(false);
  });
});
