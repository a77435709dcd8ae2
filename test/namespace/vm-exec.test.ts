/**
 * `hostler vm exec` and `ping`, compiled, over a control socket, to the compiled agent. The socket
 * that a VMM would have is a channel of the test's; all else of the path is the worker's own.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import { ControlServer, defaultControlLimits } from "../../src/messaging/control-server.ts";
import { encodeFrame, FrameReader } from "../../src/messaging/frame.ts";
import { allowUsers } from "../../src/messaging/peer.ts";
import { type AgentRequest, type AskedMachine, answerAgent } from "../../src/vm/agent-control.ts";
import { MachineAgent } from "../../src/vm/perform/machine-agent.ts";
import { type ControlRequest, controlRequestSchema } from "../../src/vm/protocol.ts";
import { type ExecItem, execLimits } from "../../src/vm/protocol-exec.ts";
import { RawClient } from "../support/agent-client.ts";
import { hostler } from "../support/binary.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { type GuestChannel, guestChannel, hostileGuest } from "../support/guest-channel.ts";
import { type Program, runProgram, startProgram } from "../support/program.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

let loop: EventLoop;
let folder: TemporaryFolder;
let channel: GuestChannel;
let guest: Program;
let agent: MachineAgent;
let server: ControlServer<ControlRequest>;
let machine: Omit<AskedMachine, "agent">;

const startGuest = () =>
  startProgram([hostler(), "vm", "guest-agent", "--port", channel.guestPath]);

beforeEach(async () => {
  loop = testEventLoop();
  folder = temporaryFolder();
  channel = await guestChannel();
  guest = startGuest();
  agent = new MachineAgent(loop, () => ({ path: channel.hostPath }));
  machine = { name: "web", phase: "running" };
  server = new ControlServer<ControlRequest>(loop, {
    path: folder.file("vm.sock"),
    policy: allowUsers([process.geteuid?.() ?? 0]),
    limits: defaultControlLimits,
    schema: controlRequestSchema,
    onRequest: (request, call) => answerAgent({ ...machine, agent }, request as AgentRequest, call),
    onTrouble: () => {},
  });
});

afterEach(async () => {
  server[Symbol.dispose]();
  agent[Symbol.dispose]();
  await guest[Symbol.asyncDispose]();
  await channel[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
  loop[Symbol.dispose]();
});

const words = (verb: string, ...rest: string[]) => [
  ...[hostler(), "vm", verb, "web", "--control-socket", folder.file("vm.sock")],
  ...rest,
];
const exec = (...rest: string[]) => runProgram(words("exec", ...rest));
const script = (text: string) => ["--", "sh", "-c", text];

describe("hostler vm exec", () => {
  test("gives output and error apart, and the program's own status", async () => {
    const result = await exec(...script("echo out; echo err >&2; exit 7"));
    expect(result).toMatchObject({ stdout: "out\n", stderr: "err\n", exitCode: 7 });
    expect(await exec("--", "true")).toMatchObject({ stdout: "", stderr: "", exitCode: 0 });
  });

  test("a signal is 128 and its number", async () => {
    expect((await exec(...script("kill -HUP $$"))).exitCode).toBe(129);
  });

  test("environment and folder are as they are told", async () => {
    const flags = ["--env", "A=1", "--env", "B=two words", "--directory", "/usr"];
    const { stdout } = await exec(...flags, ...script('echo "$A $B $PWD"; cat'));
    expect(stdout).toBe("1 two words /usr\n");
  });

  test("what cannot be started is refused in the guest's words", async () => {
    const result = await exec("--", "/nonexistent");
    expect(result.exitCode).toBe(111);
    expect(result.stderr).toContain("web: The guest agent refused: ");
    expect(result.stderr).toContain("/nonexistent");
  });

  test("bytes that are no text, and many of them, come as they are", async () => {
    const count = 3 * 2 ** 20;
    const zeroes = `head -c ${count} /dev/zero`;
    const { stdout } = await runProgram([
      ...["sh", "-c", '"$@" | { head -c 10 >/dev/null; wc -c; }', "sh"],
      ...words("exec", ...script(zeroes)),
    ]);
    expect(Number(stdout)).toBe(count - 10);
    const binary = await runProgram([
      ...["sh", "-c", '"$@" | od -An -tx1', "sh"],
      ...words("exec", ...script("printf '\\377\\000\\033'")),
    ]);
    expect(binary.stdout).toBe(" ff 00 1b\n");
  });

  test("a pager that nobody scrolls loses nothing, nor does it hold up the guest", async () => {
    const count = 20 * 2 ** 20;
    const gate = folder.file("gate");
    const reader = `mkfifo ${gate} && "$@" | { read -r word < ${gate}; wc -c; }`;
    const said = `head -c ${count} /dev/zero; echo said > ${gate}`;
    const result = await runProgram(["sh", "-c", reader, "sh", ...words("exec", ...script(said))]);
    expect(result).toMatchObject({ stdout: `${count}\n`, stderr: "" });
  });

  test("its limits of time and output end and cut it, and are told", async () => {
    const late = await exec("--time-limit", "300ms", "--", "sleep", "1000");
    expect(late).toMatchObject({ exitCode: 137, stderr: "web: killed after its time limit\n" });
    const long = await exec("--output-limit", "4B", ...script("echo 123456789"));
    expect(long).toMatchObject({ exitCode: 0, stdout: "1234" });
    expect(long.stderr).toBe("web: 6 bytes of output beyond the limit were left out\n");
  });

  test("what goes over a limit of the wire is refused before anything is sent", async () => {
    const long = await exec("--", "echo", "x".repeat(execLimits.commandBytes));
    expect(long.exitCode).toBe(100);
    expect(long.stderr).toContain(`at most ${execLimits.commandBytes} bytes as JSON`);
    const much = await exec("--output-limit", "65MiB", "--", "true");
    expect(much.exitCode).toBe(100);
    expect(much.stderr).toContain("at most 64MiB after --output-limit, received 65MiB");
    expect(await exec("--")).toMatchObject({ exitCode: 100 });
    expect(channel.heard).toBe("");
  });

  test("an agent that was started anew is asked, without a word about the one before", async () => {
    expect((await exec("--", "true")).exitCode).toBe(0);
    guest.kill("SIGKILL");
    await guest.ended();
    guest = startGuest();
    expect(await exec("--", "true")).toMatchObject({ exitCode: 0, stderr: "" });
  });

  test("a program ends with whoever asked for it", async () => {
    await using client = startProgram(words("exec", ...script("echo $$; exec sleep 1000")));
    const [, processId = ""] = await client.said(/^(\d+)$/m);
    client.kill("SIGINT");
    await client.ended();
    await waitFor("the end of the program", () => !isAlive(Number(processId)));
  });
});

function isAlive(processId: number): boolean {
  try {
    return !/\) Z/.test(readFileSync(`/proc/${processId}/stat`, "latin1"));
  } catch {
    return false;
  }
}

describe("hostler vm ping", () => {
  test("says how long the agent took", async () => {
    const { stdout, exitCode } = await runProgram(words("ping"));
    expect(stdout).toMatch(/^web: its agent answered within \d+\.\d\d ms\n$/);
    expect(exitCode).toBe(0);
    const json = JSON.parse((await runProgram(words("ping", "--json"))).stdout);
    expect(json).toEqual({ name: "web", milliseconds: expect.any(Number) });
  });

  test.each([
    ["paused", "web is paused: its guest does not run. See hostler vm resume web"],
    ["off", "web is off: its guest does not run. See hostler vm show web"],
  ])("a machine that is %s is not waited for", async (phase, message) => {
    machine = { ...machine, phase };
    const result = await runProgram(words("ping"));
    expect(result.exitCode).toBe(111);
    expect(result.stderr).toContain(message);
  });

  test("a guest without an agent is told of, and the worker asks on", async () => {
    await guest[Symbol.asyncDispose]();
    agent[Symbol.dispose]();
    agent = new MachineAgent(loop, () => ({ path: channel.hostPath }), {
      hello: 200,
      helloAgain: 50,
    });
    const result = await runProgram(words("ping"));
    expect(result.exitCode).toBe(111);
    expect(result.stderr).toContain("web: The guest agent did not answer within 200 ms");
    guest = startGuest();
    await waitFor("the agent", async () => (await runProgram(words("ping"))).exitCode === 0);
  });
});

/** Takes what it is sent when it is looked at, and not before. */
class SlowClient extends RawClient {
  readonly #reader = new FrameReader({ frameBytes: 2 ** 20, frameDescriptors: 0 });
  outputBytes = 0;
  answer: unknown;

  static async run(argv: readonly string[]): Promise<SlowClient> {
    const { socket } = await RawClient.connect(folder.file("vm.sock"));
    const client = new SlowClient(socket);
    await client.sendBytes(encodeFrame({ id: 1, verb: "exec", name: "web", argv }));
    return client;
  }

  protected override take(bytes: Uint8Array<ArrayBuffer>): void {
    this.#reader.push(bytes);
    for (let frame = this.#reader.next(); frame !== undefined; frame = this.#reader.next()) {
      if ("refusal" in frame) throw new Error(`The worker sent ${JSON.stringify(frame.refusal)}`);
      const { item, ...answer } = frame.body as { readonly item?: ExecItem };
      if (item === undefined) this.answer = answer;
      else this.outputBytes += Buffer.from(item.data, "base64").length;
    }
  }
}

describe("what floods harms nobody else", () => {
  test("a guest that says what is no answer loses its connection alone", async () => {
    await using hostile = await hostileGuest((_text, say) => {
      say(Buffer.alloc(2 * 2 ** 20, "x"));
    });
    const other = new MachineAgent(loop, () => ({ path: hostile.path }));
    const good = agent;
    agent = other;
    const result = await runProgram(words("ping"));
    expect(result.exitCode).toBe(111);
    expect(result.stderr).toContain("web: The guest agent broke the rules of the wire");
    await waitFor("the end of its connection", () => hostile.closes > 0);
    other[Symbol.dispose]();
    agent = good;
    expect((await runProgram(words("ping"))).exitCode).toBe(0);
  });

  test("a client that takes nothing has its program wait, and loses nothing of it", async () => {
    const count = 3 * defaultControlLimits.queuedBytes;
    const text = `head -c ${count} /dev/zero; exit 7`;
    using client = await SlowClient.run(["sh", "-c", text]);
    await waitFor("the program to be held", () => channel.heard.includes('"held":true'));
    // Others are served meanwhile.
    expect((await exec("--", "true")).exitCode).toBe(0);
    expect((await runProgram(words("ping"))).exitCode).toBe(0);
    await waitFor("the answer", () => {
      client.look();
      return client.ended || client.answer !== undefined;
    });
    const { answer } = client;
    expect(answer).toMatchObject({ ok: { ending: { kind: "exited", status: 7 }, left_out: 0 } });
    expect(client.outputBytes).toBe(count);
  });

  test("a program that waits for its client ends with it", async () => {
    const path = folder.file("process");
    const text = `echo $$ > ${path}; exec cat /dev/zero`;
    using client = await SlowClient.run(["sh", "-c", text]);
    await waitFor("the program to be held", () => channel.heard.includes('"held":true'));
    const processId = Number(readFileSync(path, "latin1"));
    expect(isAlive(processId)).toBe(true);
    client[Symbol.dispose]();
    await waitFor("the end of the program", () => !isAlive(processId));
    expect((await runProgram(words("ping"))).exitCode).toBe(0);
  });
});
