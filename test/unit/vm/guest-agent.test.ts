/** The agent and its client, in one process, over a channel such as a VMM makes. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { createLogger } from "../../../src/logging/logger.ts";
import { GuestAgent } from "../../../src/vm/guest-agent/agent.ts";
import {
  AgentRefused,
  AgentUnreachable,
  type CommandEnd,
  GuestAgentClient,
  type GuestCommand,
} from "../../../src/vm/guest-agent/client.ts";
import { limits } from "../../../src/vm/guest-agent/protocol.ts";
import { machineFacts, parseMemory } from "../../../src/vm/perform/guest-facts.ts";
import { choosePort, openPort, PortRefused } from "../../../src/vm/perform/guest-port.ts";
import { MachineAgent } from "../../../src/vm/perform/machine-agent.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { type GuestChannel, guestChannel } from "../../support/guest-channel.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf, waitFor, withDeadline } from "../../support/wait-for.ts";

let loop: EventLoop;
let channel: GuestChannel;
let agent: GuestAgent;
let client: GuestAgentClient;
const log = createLogger("guest-agent", { write: () => true });

function makeAgent(at: GuestChannel = channel): GuestAgent {
  return new GuestAgent(loop, {
    ...{ log, facts: machineFacts },
    open: (handlers) => openPort(loop, { kind: "socket", path: at.guestPath }, handlers),
    onFailure: (reason) => {
      throw new Error(reason);
    },
  });
}

const makeClient = () => new GuestAgentClient(loop, { path: channel.hostPath });

beforeEach(async () => {
  loop = testEventLoop();
  channel = await guestChannel();
  agent = makeAgent();
  client = makeClient();
});

afterEach(async () => {
  client.close();
  agent[Symbol.dispose]();
  await channel[Symbol.asyncDispose]();
  loop[Symbol.dispose]();
});

const usual: Omit<GuestCommand, "argv"> = {
  timeLimit: 20_000,
  outputLimit: 1_000_000,
  streams: "apart",
  outlives: false,
};

interface Told {
  readonly end: CommandEnd;
  readonly stdout: string;
  readonly stderr: string;
  readonly order: readonly string[];
}

async function run(script: string, options: Partial<GuestCommand> = {}): Promise<Told> {
  const told = { stdout: "", stderr: "" };
  const order: string[] = [];
  const running = client.exec(
    { ...usual, argv: ["sh", "-c", script], ...options },
    {
      onOutput: (stream, bytes) => {
        told[stream] += Buffer.from(bytes).toString("latin1");
        order.push(stream);
      },
    },
  );
  const end = await withDeadline("the end of the program", running.ended);
  return { end, ...told, order };
}

describe("the agent answers", () => {
  test("a ping, what the machine is, and its memory", async () => {
    expect(await client.ping()).toBeGreaterThan(0);
    const information = await client.info();
    expect(information).toEqual(machineFacts.information());
    const memory = await client.memory();
    expect(memory.total).toBeGreaterThan(memory.free);
  });

  test("many at once, each its own", async () => {
    const answers = await Promise.all([client.ping(), client.info(), client.memory(), run("echo")]);
    expect(answers).toHaveLength(4);
  });

  test("an asker that said no hello to it is told so, and then asks anew", async () => {
    await client.ping();
    agent[Symbol.dispose]();
    agent = makeAgent();
    const error = await rejectionOf(client.ping());
    expect(error).toBeInstanceOf(AgentUnreachable);
    expect(error.message).toContain("started anew");
    expect(await client.ping()).toBeGreaterThan(0);
  });

  test("nobody shuts a machine down through a socket of its own", async () => {
    const error = await rejectionOf(client.shutdown("power-off"));
    expect(error).toBeInstanceOf(AgentRefused);
    expect(error.message).toContain("received a Unix socket");
  });

  test("what is no request is refused with what was expected", async () => {
    const session = "0123456789abcdef".repeat(2);
    using asker = rawAsker(channel.hostPath);
    asker.say({ verb: "ping", session, id: 1 });
    await asker.hears(/"kind":"unknown-session"/);
    asker.say({ verb: "hello", session, version: 99 });
    await asker.hears(/"kind":"hello".*"version":1/);
    asker.say({ verb: "ping", session, id: 2 });
    await asker.hears(/(unknown-session.*){2}/s);
    asker.say({ verb: "hello", session, version: 1 });
    asker.say({ verb: "dance", session, id: 3 });
    await asker.hears(/"id":3,"kind":"refused"|"kind":"refused".*"id":3/s);
    asker.say({ verb: "input", session, id: 4, data: "not base64!", last: true });
    await asker.hears(/"kind":"refused".*"id":4.*base64/s);
    asker.say({ verb: "ping", session, id: 5 });
    await asker.hears(/"kind":"done".*"id":5/s);
  });

  test("garbage and half a message before a request do no harm", async () => {
    const session = "f".repeat(32);
    using asker = rawAsker(channel.hostPath);
    asker.sayBytes('garbage\n\u001e{"verb":\u001e\u0000\n');
    asker.sayBytes(`\u001e"${"x".repeat(limits.requestBytes)}"\n`);
    asker.say({ verb: "hello", session, version: 1 });
    await asker.hears(/"kind":"hello"/);
  });
});

describe("programs", () => {
  test("end with a status or a signal, and say what they said", async () => {
    expect(await run("echo out; echo err >&2; exit 3")).toMatchObject({
      end: { ending: { kind: "exited", status: 3 }, leftOut: 0, killed: undefined },
      ...{ stdout: "out\n", stderr: "err\n" },
    });
    const { end } = await run("kill -TERM $$");
    expect(end.ending).toEqual({ kind: "signalled", signal: 15, core_dumped: false });
  });

  test("together, what they write to both comes in the order of the writes", async () => {
    const script = "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done";
    const { stdout, stderr } = await run(script, { streams: "together" });
    expect(stdout).toBe("o1\ne1\no2\ne2\no3\ne3\no4\ne4\no5\ne5\n");
    expect(stderr).toBe("");
  });

  test("have the environment and the folder that they are given, and no other", async () => {
    const given = { environment: ["PATH=/bin:/usr/bin", "WORD=ü"], workingDirectory: "/tmp" };
    const { stdout } = await run("pwd; env | grep -v ^PWD | grep -v ^_= | sort", given);
    expect(Buffer.from(stdout, "latin1").toString()).toContain("/tmp\nPATH=/bin:/usr/bin\n");
    expect(Buffer.from(stdout, "latin1").toString()).toContain("WORD=ü\n");
    expect((await run("env")).stdout).toContain("HOME=/root\n");
  });

  test("read what they are given, whatever bytes, and then the end", async () => {
    const input = Uint8Array.from({ length: 200_000 }, (_, index) => index % 256);
    const { stdout } = await run("cat", { input });
    expect(Buffer.from(stdout, "latin1").equals(Buffer.from(input))).toBe(true);
    expect((await run("cat", { input: new Uint8Array(0) })).stdout).toBe("");
    expect((await run("cat")).stdout).toBe("");
  });

  test("that read nothing of their input end all the same", async () => {
    const input = new Uint8Array(limits.inputBytes);
    expect((await run("exit 0", { input })).end.ending).toEqual({ kind: "exited", status: 0 });
  });

  test("that cannot be started are refused with the reason", async () => {
    for (const [options, why] of [
      [{ argv: ["no-such-program"] }, "no such program in PATH"],
      [{ argv: ["/no/such"] }, "No such file or directory"],
      [{ argv: ["/etc/passwd"] }, "Permission denied"],
      [{ workingDirectory: "/no/such" }, "in /no/such: No such file or directory"],
    ] as const) {
      const error = await rejectionOf(run("exit", options));
      expect(error).toBeInstanceOf(AgentRefused);
      expect(error.message).toContain(why);
    }
  });

  test("over their time are killed with their process group", async () => {
    using folder = temporaryFolder();
    const script = `sh -c 'echo $$ > ${folder.file("child")}; exec sleep 1000' & sleep 1000`;
    const { end } = await run(script, { timeLimit: 500 });
    expect(end).toMatchObject({ ending: { kind: "signalled", signal: 9 }, killed: "time-limit" });
    const child = Number(await Bun.file(folder.file("child")).text());
    await waitFor("the end of the child", () => !isAlive(child));
  });

  test("what they say beyond the limit is counted, and they go on", async () => {
    const { end, stdout } = await run("head -c 300000 /dev/zero; exit 7", { outputLimit: 100_000 });
    expect(stdout).toHaveLength(100_000);
    expect(end).toMatchObject({ ending: { status: 7 }, leftOut: 200_000 });
    expect((await run("echo", { outputLimit: 0 })).end.leftOut).toBe(1);
  });

  test("much output comes whole, while the asker is still asked other things", async () => {
    const bytes = 8 * 1024 * 1024;
    const running = run(`head -c ${bytes} /dev/zero`, { outputLimit: bytes });
    expect(await client.ping()).toBeGreaterThan(0);
    expect((await running).stdout).toHaveLength(bytes);
  });

  test("are ended by whoever began them", async () => {
    const running = client.exec({ ...usual, argv: ["sleep", "1000"] }, { onOutput: () => {} });
    await waitFor("the program", () => agent.programCount === 1);
    running.end();
    expect(await running.ended).toMatchObject({ ending: { signal: 9 }, killed: "asker" });
    expect(agent.programCount).toBe(0);
  });
});

describe("an asker that goes", () => {
  const begin = async (outlives: boolean) => {
    const started = Promise.withResolvers<number>();
    const running = client.exec(
      { ...usual, argv: ["sleep", "1000"], outlives },
      { onStarted: started.resolve, onOutput: () => {} },
    );
    const ended = rejectionOf(running.ended);
    return { processId: await started.promise, ended };
  };

  test("takes along what it began", async () => {
    const { processId, ended } = await begin(false);
    channel.cutHost();
    expect(await ended).toBeInstanceOf(AgentUnreachable);
    await waitFor("the end of the program", () => !isAlive(processId));
    await waitFor("that the agent knows", () => agent.programCount === 0);
  });

  test("leaves what outlives it, and another asker is answered", async () => {
    const { processId, ended } = await begin(true);
    channel.cutHost();
    await ended;
    const other = makeClient();
    await other.ping();
    expect(isAlive(processId)).toBe(true);
    expect(agent.programCount).toBe(1);
    process.kill(processId, "SIGKILL");
    await waitFor("that the agent knows", () => agent.programCount === 0);
    other.close();
  });

  test("another that says hello meanwhile is the asker", async () => {
    const { processId, ended } = await begin(false);
    client.close();
    const other = makeClient();
    await other.ping();
    await waitFor("the end of the program", () => !isAlive(processId));
    await ended;
    other.close();
  });
});

describe("an agent that its VMM tells to have left", () => {
  test("is not waited for: what it was asked is lost, and it is asked anew", async () => {
    const started = Promise.withResolvers<void>();
    const command = { ...usual, argv: ["sleep", "1000"] };
    const { ended } = client.exec(command, {
      onStarted: () => started.resolve(),
      onOutput: () => {},
    });
    const failure = rejectionOf(ended);
    await started.promise;
    client.leave();
    expect(await failure).toBeInstanceOf(AgentUnreachable);
    expect(await client.ping()).toBeGreaterThan(0);
  });

  test("and was not heard of yet, may still come", async () => {
    const answer = client.ping();
    client.leave();
    expect(await answer).toBeGreaterThan(0);
  });
});

describe("the agent of a machine", () => {
  test("is asked where its VMM of now listens", async () => {
    await using next = await guestChannel();
    let hostPath = channel.hostPath;
    using machine = new MachineAgent(loop, () => ({ path: hostPath }));
    await machine.ping();
    hostPath = next.hostPath;
    using _nextAgent = makeAgent(next);
    await machine.ping();
    expect(next.heard).toContain("ping");
  });
});

describe("limits of what is asked", () => {
  const refuse = async (options: Partial<GuestCommand>) => {
    const command = { ...usual, argv: ["true"], ...options };
    return await rejectionOf(
      (async () => await client.exec(command, { onOutput: () => {} }).ended)(),
    );
  };

  test.each([
    [{ argv: ["true", "x".repeat(limits.argumentBytes)] }, "bytes"],
    [{ argv: new Array(limits.argumentCount + 1).fill("") }, "arguments"],
    [{ environment: new Array(limits.variableCount + 1).fill("") }, "variables"],
    [{ input: new Uint8Array(limits.inputBytes + 1) }, "input"],
    [{ outputLimit: limits.outputBytes + 1 }, "output"],
    [{ timeLimit: limits.programTime + 1 }, "milliseconds"],
  ])("%#: one more is refused before it is sent", async (options, word) => {
    const error = await refuse(options as Partial<GuestCommand>);
    expect(error).toBeInstanceOf(AgentRefused);
    expect(error.message).toContain(word);
    expect(channel.heard).not.toContain("exec");
  });

  test("the longest arguments fit into a message", async () => {
    // What JSON has to escape takes most room.
    const argv = ["true", "\u0001".repeat(limits.argumentBytes - 6)];
    expect((await run("", { argv, environment: [] })).end.ending).toMatchObject({ status: 0 });
  });

  test("one program more than may run at once is refused", async () => {
    const running = Array.from({ length: limits.programs }, () =>
      client.exec({ ...usual, argv: ["sleep", "1000"] }, { onOutput: () => {} }),
    );
    await waitFor("all programs", () => agent.programCount === limits.programs);
    expect((await rejectionOf(run("exit"))).message).toContain(`${limits.programs} programs`);
    for (const { end } of running) end();
    await Promise.all(running.map(({ ended }) => ended));
    expect((await run("exit 1")).end.ending).toMatchObject({ status: 1 });
  });
});

describe("ports", () => {
  test.each(["/no/such/port", "/etc/passwd"])("%s is none", (path) => {
    expect(() => choosePort(path)).toThrow(PortRefused);
  });

  test("a terminal is none, a number of AF_VSOCK is one", () => {
    expect(() => openPort(loop, { kind: "device", path: "/dev/ptmx" }, {} as never)).toThrow(
      "received a terminal",
    );
    expect(choosePort("vsock:26735")).toEqual({ kind: "vsock", port: 26_735 });
  });
});

test("memory is told in bytes, and what is not told is 0", () => {
  expect(parseMemory("MemTotal:       2 kB\nMemFree:   1 kB\nCached: nonsense\n")).toEqual({
    ...{ total: 2048, free: 1024, available: 0, buffers: 0, cached: 0 },
    ...{ swap_total: 0, swap_free: 0 },
  });
});

/** A dead one may wait for whoever reaps it. */
function isAlive(processId: number): boolean {
  try {
    return !/\) Z/.test(readFileSync(`/proc/${processId}/stat`, "latin1"));
  } catch {
    return false;
  }
}

/** Somebody who asks with words of its own. */
function rawAsker(path: string) {
  const socket = connect(path);
  let heard = "";
  socket.on("data", (bytes) => {
    heard += String(bytes);
  });
  const sayBytes = (text: string) => socket.write(text);
  return {
    sayBytes,
    say: (body: unknown) => sayBytes(`\u001e${JSON.stringify(body)}\n`),
    hears: (pattern: RegExp) => waitFor(`${pattern} in ${heard}`, () => pattern.test(heard)),
    [Symbol.dispose]: () => socket.destroy(),
  };
}
