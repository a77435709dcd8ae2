/** The control socket of the orchestrator: who may speak, and the limits of those who do. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, statSync, writeFileSync } from "node:fs";
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
import { startOrchestrator } from "../support/orchestrator.ts";
import { type ProgramResult, runProgram, startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, withDeadline } from "../support/wait-for.ts";

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
  test("is 0600, and its folder is made when it is missing", async () => {
    using folder = temporaryFolder();
    const file = folder.file("process.toml");
    writeFileSync(file, sleeper);
    const socket = folder.file("a/b/control.sock");
    const words = ["process", "orchestrator", "--config", file, "--control-socket", socket];
    await using program = startProgram([hostler(), ...words, "--verbose"]);
    await program.said(/it: ready/);
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    program.kill("SIGTERM");
    expect((await program.ended()).exitCode).toBe(0);
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

  test.each([
    ["a verb that is none", { verb: "format" }],
    ["a signal of 0", { verb: "signal", name: "it", signal: 0 }],
    ["a signal of 65", { verb: "signal", name: "it", signal: 65 }],
    ["a key too many", { verb: "list", all: true }],
    ["no name", { verb: "stop" }],
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
