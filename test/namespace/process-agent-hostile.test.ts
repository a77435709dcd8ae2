/** The compiled orchestrator and an agent that means harm: whatever it does, the host is safe. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { constants, readdirSync, writeFileSync } from "node:fs";
import { libc } from "../../ffi/c-library.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { openProcess } from "../../ffi/pidfd.ts";
import {
  acceptConnection,
  bindUnix,
  hasHungUp,
  listen,
  makeTcpSocket,
  makeUnixSocket,
} from "../../ffi/unix-socket.ts";
import { type ControlClient, connectControl } from "../../src/messaging/control-client.ts";
import { encodeFrame } from "../../src/messaging/frame.ts";
import { newInvocation, openNull, RawClient } from "../support/agent-client.ts";
import { hostler } from "../support/binary.ts";
import {
  agentHello,
  childProcess,
  grandchildProcess,
  HostileAgent,
  memoryFile,
  openedFile,
  type Request,
  sendInTheNameOf,
  type TestProcess,
  threadDescriptor,
} from "../support/hostile-agent.ts";
import { withoutHolder } from "../support/kept.ts";
import { descriptorsOf } from "../support/malformed.ts";
import { isAlive, startAgent } from "../support/partition.ts";
import { type Program, runProgram, startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { kernel, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

let folder: TemporaryFolder;
let orchestrator: Program;
let client: ControlClient;
/** A process that nobody here started for the orchestrator. */
let stranger: TestProcess;
let canary: number;
let descriptors: number;
/** Where the orchestrator finds the agent of the partition "dialled". */
let listener: OwnedDescriptor;
let said = 0;
/** Partitions that take turns: of each only so many ends are logged in some time. */
const starts = Array.from({ length: 16 }, (_value, index) => `start-${index}`);
let start = "start-0";
let turn = 0;

const path = (name: string) => folder.file(`${name}.sock`);

interface Shown {
  readonly phase: string;
  readonly pid: number | null;
  readonly restarts: number;
}

async function show(name: string): Promise<Shown> {
  const { summary } = (await client.request("show", { name })) as { summary: Shown };
  const { phase, pid, restarts } = summary;
  return { phase, pid, restarts };
}

beforeAll(async () => {
  folder = temporaryFolder();
  stranger = childProcess(["/bin/sleep", "1000"]);
  const process = (name: string, more: string) => `
[partition.${name}]
listen = "${path(name)}"
[process.${name}]
partition = "${name}"
command = ["/bin/sleep", "1000"]
backoff = "none"
${more}
`;
  listener = makeUnixSocket("stream");
  bindUnix(listener, path("dialled"));
  listen(listener, 16);
  const configuration = [
    // Descriptors are counted, and a holder has duplicates.
    withoutHolder,
    '[process.canary]\ncommand = ["/bin/sleep", "1000"]\n',
    ...starts.map((name) => process(name, "")),
    process("connect", 'ready = {tcp = "127.0.0.1:9"}'),
    process("notify", 'ready = "notify"'),
    process("dialled", "").replace("listen =", "socket ="),
  ];
  writeFileSync(folder.file("process.toml"), configuration.join("\n"));
  const words = ["--config", folder.file("process.toml"), "--control-socket", path("control")];
  orchestrator = startProgram([hostler(), "process", "orchestrator", "--verbose", ...words]);
  await waitFor("the control socket", async () => {
    const probe = await connectControl(path("control"));
    probe.close();
    return true;
  });
  client = await connectControl(path("control"));
  await client.request("wait", { name: "canary", until: "ready" });
  canary = (await show("canary")).pid ?? 0;
  descriptors = descriptorsOf(orchestrator.processId);
});

afterAll(async () => {
  try {
    client.close();
    orchestrator.kill("SIGTERM");
    orchestrator.kill("SIGTERM");
    const { exitCode } = await orchestrator.ended();
    expect(exitCode).toBe(0);
  } finally {
    await orchestrator[Symbol.asyncDispose]();
    stranger[Symbol.dispose]();
    listener.close();
    folder[Symbol.dispose]();
  }
});

beforeEach(async () => {
  turn += 1;
  start = starts[turn % starts.length] as string;
  // Starts that came to nothing wait longer each time; one that is asked for does not.
  for (const name of [start, "connect", "notify"]) await client.request("start", { name });
  said = orchestrator.output.stderr.length;
});

/** Whatever was done: the host's processes are as before, and nothing of it is held. */
afterEach(async () => {
  expect(await show("canary")).toMatchObject({ pid: canary, restarts: 0 });
  expect(isAlive(canary)).toBe(true);
  expect(isAlive(stranger.processId)).toBe(true);
  await waitFor(`no more than ${descriptors} descriptors`, () => {
    return descriptorsOf(orchestrator.processId) <= descriptors;
  });
});

/** The reason that the orchestrator gave, after this test began. */
async function reasonFor(partition: string): Promise<string> {
  const pattern = new RegExp(`partition ${partition} is away: (.*)`, "g");
  return await waitFor(`the end of the connection of ${partition}`, () => {
    const news = orchestrator.output.stderr.slice(said);
    return [...news.matchAll(pattern)].at(-1)?.[1];
  });
}

describe("what comes in place of a child", () => {
  type Made = { readonly list: readonly OwnedDescriptor[] } & Disposable;
  const one = (descriptor: OwnedDescriptor, more?: Disposable): Made => ({
    list: [descriptor],
    [Symbol.dispose]: () => {
      if (descriptor.isOpen) descriptor.close();
      more?.[Symbol.dispose]();
    },
  });
  const opened = (processId: number): OwnedDescriptor => {
    const process = openProcess(processId);
    if (process === undefined) throw new Error(`no process ${processId}`);
    return process;
  };

  const cases: readonly [string, () => Promise<Made> | Made, RegExp][] = [
    ["a FIFO", fifo, /expected a pidfd, received a descriptor of another kind/],
    ["a memory file", () => one(memoryFile()), /expected a pidfd/],
    ["a folder", () => one(openedFile("/proc", constants.O_DIRECTORY)), /expected a pidfd/],
    ["a file", () => one(openedFile("/proc/self/status")), /expected a pidfd/],
    ["/dev/zero", () => one(openedFile("/dev/zero")), /expected a pidfd/],
    ["a socket", () => one(makeUnixSocket("stream")), /expected a pidfd/],
    ["the agent's own pidfd", () => one(opened(process.pid)), /received the agent itself/],
    ["that of the first process", () => one(opened(1)), /expected a child of the agent/],
    ["that of a process of the host", () => one(opened(canary)), /expected a child of the agent/],
    [
      "that of a grandchild",
      async () => {
        const grandchild = await grandchildProcess();
        return { list: [grandchild.process], [Symbol.dispose]: () => grandchild[Symbol.dispose]() };
      },
      /expected a child of the agent/,
    ],
    ["none", () => ({ list: [], [Symbol.dispose]: () => {} }), /expected 1 descriptors with/],
    ["two", () => several(2), /expected 1 descriptors with/],
    ["as many as one message takes", () => several(253), /at most 64 descriptors/],
  ];

  async function fifo(): Promise<Made> {
    await runProgram(["mkfifo", folder.file("fifo")]);
    return one(openedFile(folder.file("fifo"), "r+"));
  }

  function several(count: number): Made {
    const child = childProcess(["/bin/sleep", "1000"]);
    const list = Array.from({ length: count }, () => child.process);
    return { list, [Symbol.dispose]: () => child[Symbol.dispose]() };
  }

  for (const [name, make, reason] of cases) {
    test(name, async () => {
      using agent = await HostileAgent.dial(path(start));
      const request = await agent.asked("start");
      using made = await make();
      agent.answerStart(
        request,
        made.list.map((descriptor) => descriptor.number),
      );
      await agent.closed();
      expect(await reasonFor(start)).toMatch(reason);
    });
  }

  test("a child that is dead and reaped", async () => {
    using agent = await HostileAgent.dial(path(start));
    const request = await agent.asked("start");
    using child = childProcess(["/bin/true"]);
    await waitFor("it to be reaped", () => !isKnown(child.processId));
    agent.answerStart(request, [child.process.number]);
    await agent.closed();
    expect(await reasonFor(start)).toContain("expected a child that is not reaped yet");
  });

  const isKnown = (processId: number) => readdirSync("/proc").includes(String(processId));

  skipUnless("a pidfd of a thread", kernel("6.9"), () => {
    test("of a child, and of the agent", async () => {
      using child = childProcess(["/bin/sleep", "1000"]);
      const threads = readdirSync("/proc/self/task").map(Number);
      const other = threads.find((threadId) => threadId !== process.pid) ?? process.pid;
      for (const threadId of [child.processId, other]) {
        using agent = await HostileAgent.dial(path(start));
        const request = await agent.asked("start");
        using thread = threadDescriptor(threadId);
        agent.answerStart(request, [thread.number]);
        await agent.closed();
        expect(await reasonFor(start)).toContain("expected a pidfd of a process");
      }
      expect(isAlive(child.processId)).toBe(true);
    });
  });
});

describe("what an agent says", () => {
  const ending = { kind: "exited", status: 0 } as const;
  const invocation = newInvocation();

  const cases: readonly [
    string,
    (agent: HostileAgent, request: Request<"start">) => Promise<void> | void,
    RegExp,
  ][] = [
    [
      "an answer to a request that there is not",
      (agent) => agent.answer({ kind: "pong", id: 4_711 }),
      /expected an answer to a request of ours, received one to 4711/,
    ],
    [
      "an answer of another kind",
      (agent, { id }) => agent.answer({ kind: "pong", id }),
      /expected started, or an error, received "pong"/,
    ],
    [
      "a socket in place of a child",
      (agent, { id }) => {
        using socket = makeUnixSocket("stream");
        agent.answer({ kind: "socket", id, connected: true }, [socket.number]);
      },
      /expected started, or an error, received "socket"/,
    ],
    [
      "an answer twice",
      (agent, request) => {
        const child = agent.startTruly(request);
        agent.answerStart(request, [child.process.number]);
      },
      /expected an answer to a request of ours/,
    ],
    [
      "an error and then a child",
      (agent, request) => {
        const error = { kind: "start", message: "no" };
        agent.answer({ kind: "error", id: request.id, error });
        agent.startTruly(request);
      },
      /expected an answer to a request of ours/,
    ],
    [
      "the end of an instance that there is not",
      (agent) => agent.answer({ kind: "exited", invocation, ending }),
      /expected the end of an instance that runs, once/,
    ],
    [
      "the end of an instance whose start is not answered",
      (agent, request) => agent.answer({ kind: "exited", invocation: request.invocation, ending }),
      /expected the end of an instance that runs, once/,
    ],
    [
      "the end of an instance that lives",
      (agent, request) => {
        agent.startTruly(request);
        agent.answer({ kind: "exited", invocation: request.invocation, ending });
      },
      /expected the end of an instance that has ended/,
    ],
    [
      "an end twice",
      async (agent, request) => {
        const child = agent.startTruly(request);
        await agent.asked("seen");
        process.kill(child.processId, "SIGKILL");
        await waitFor(
          "it to be reaped",
          () => !readdirSync("/proc").includes(`${child.processId}`),
        );
        agent.answer({ kind: "exited", invocation: request.invocation, ending });
        agent.answer({ kind: "exited", invocation: request.invocation, ending });
      },
      /expected the end of an instance that runs, once/,
    ],
    ["a second hello", (agent) => void agent.trySend(encodeFrame(agentHello)), /an answer of an/],
    ["a request", (agent) => void agent.trySend(encodeFrame({ kind: "ping", id: 1 })), /an answer/],
    ["null", (agent) => void agent.trySend(encodeFrame(null)), /expected an answer of an agent/],
    [
      "garbage",
      (agent) => void agent.trySend(new Uint8Array(10_000).fill(0xa5)),
      /broke the protocol/,
    ],
    [
      "a frame that is longer than any",
      (agent) =>
        void agent.trySend(new TextEncoder().encode('{"bytes":999999999,"descriptors":0,')),
      /in the middle of a frame|broke the protocol/,
    ],
    [
      "a flood of answers",
      (agent) => {
        const frame = encodeFrame({ kind: "pong", id: 1 << 30 });
        const many = new Uint8Array(Buffer.concat(Array(3_000).fill(frame)));
        agent.trySend(many);
      },
      /expected an answer to a request of ours/,
    ],
    [
      "descriptors that it does not announce",
      (agent, { id }) => {
        using nothing = openNull();
        const error = { kind: "start", message: "no" };
        const frame = encodeFrame({ kind: "error", id, error });
        agent.trySend(frame, Array(200).fill(nothing.number));
      },
      /received 200 descriptors that no frame announces/,
    ],
  ];

  for (const [name, misbehave, reason] of cases) {
    test(name, async () => {
      using agent = await HostileAgent.dial(path(start));
      await misbehave(agent, await agent.asked("start"));
      if (name.startsWith("a frame that is longer")) agent.socket.close();
      else await agent.closed();
      expect(await reasonFor(start)).toMatch(reason);
    });
  }

  const hellos: readonly [string, unknown, RegExp][] = [
    ["that it is an orchestrator", { ...agentHello, role: "orchestrator" }, /hello of an agent/],
    ["another version", { ...agentHello, protocol: 2 }, /hello of an agent/],
    ["more than a hello may say", { ...agentHello, version: "x".repeat(5_000) }, /broke the proto/],
    ["nothing that is a hello", { kind: "started", id: 1, process_id: 1 }, /hello of an agent/],
  ];
  for (const [name, hello, reason] of hellos) {
    test(`in its hello ${name}`, async () => {
      using agent = await HostileAgent.dial(path(start), hello);
      await agent.closed();
      expect(await reasonFor(start)).toMatch(reason);
      expect(agent.requests).toEqual([]);
    });
  }

  test("a second agent is refused, and the first one served on", async () => {
    using first = await HostileAgent.dial(path(start));
    await first.asked("start");
    using second = await RawClient.connect(path(start));
    await second.closed();
    expect(orchestrator.output.stderr.slice(said)).not.toContain("is away");
    first.socket.close();
    await reasonFor(start);
  });

  onlyInAll(() => {
    test("nothing at all: the start is uncertain, and made again by the next agent", async () => {
      using silent = await HostileAgent.dial(path(start));
      const request = await silent.asked("start");
      await waitFor(
        "the orchestrator to leave it",
        () => {
          silent.look();
          return orchestrator.output.stderr.slice(said).includes("it left a start unanswered");
        },
        30_000,
      );
      silent.socket.close();
      using next = await HostileAgent.dial(path(start));
      const again = await next.asked("start");
      expect(again.invocation).not.toBe(request.invocation);
      next.socket.close();
      await reasonFor(start);
    }, 60_000);
  });
});

describe("an agent that is told before an end what follows it", () => {
  /** An instance that truly runs, and the order for its end. */
  async function armed(agent: HostileAgent) {
    const child = agent.startTruly(await agent.asked("start"));
    const { id } = await agent.asked("prepare");
    agent.answer({ kind: "prepared", id });
    return { child, arm: await agent.asked("arm") };
  }

  const refuse = (agent: HostileAgent, id: number, kind: string) =>
    agent.answer({ kind: "error", id, error: { kind, message: "no" } });

  async function stopped(): Promise<void> {
    const isIdle = async () => (await show(start)).phase === "idle";
    await waitFor("the stop", isIdle, 5_000);
  }

  test("and says that it was made while the instance lives", async () => {
    using agent = await HostileAgent.dial(path(start));
    const { child, arm } = await armed(agent);
    const before = await show(start);
    using another = childProcess(["/bin/sleep", "1000"]);
    agent.answer({ kind: "started", id: arm.id, process_id: 1_000 }, [another.process.number]);
    await agent.closed();
    expect(await reasonFor(start)).toContain(
      "expected an armed start after the end of what it replaces, received one before",
    );
    expect(await show(start)).toEqual(before);
    expect(before.pid).toBe(child.processId);
    expect(isAlive(child.processId)).toBe(true);
  });

  test("and passes a process of the host when the instance has ended", async () => {
    using agent = await HostileAgent.dial(path(start));
    const { child, arm } = await armed(agent);
    process.kill(child.processId, "SIGKILL");
    await waitFor("it to be reaped", () => !readdirSync("/proc").includes(`${child.processId}`));
    using foreign = openProcess(canary);
    const list = foreign === undefined ? [] : [foreign.number];
    agent.answer({ kind: "started", id: arm.id, process_id: 1_000 }, list);
    await agent.closed();
    expect(await reasonFor(start)).toContain("expected a child of the agent");
  });

  test("and says unasked that it was taken back: it is asked for at the end", async () => {
    using agent = await HostileAgent.dial(path(start));
    const { child, arm } = await armed(agent);
    refuse(agent, arm.id, "disarmed");
    // What comes after it has been read with it.
    await client.request("list");
    process.kill(child.processId, "SIGKILL");
    const asked = await agent.asked("start");
    expect([asked.invocation, asked.replaces]).toEqual([arm.invocation, arm.replaces]);
    refuse(agent, arm.id, "disarmed");
    await agent.closed();
    expect(await reasonFor(start)).toContain("expected an answer to a request of ours");
  });

  test("and refuses to be told: it is asked for the whole start at the end", async () => {
    using agent = await HostileAgent.dial(path(start));
    const { child, arm } = await armed(agent);
    refuse(agent, arm.id, "request");
    await client.request("list");
    process.kill(child.processId, "SIGKILL");
    const asked = await agent.asked("start");
    expect([asked.invocation, asked.replaces]).toEqual([arm.invocation, arm.replaces]);
    agent.socket.close();
    await reasonFor(start);
  });

  test("and says nothing while a stop is wanted: the stop comes through", async () => {
    using agent = await HostileAgent.dial(path(start));
    const { child, arm } = await armed(agent);
    await client.request("stop", { name: start });
    expect((await agent.asked("disarm")).invocation).toBe(arm.invocation);
    expect(isAlive(child.processId)).toBe(true);
    await stopped();
    expect(isAlive(child.processId)).toBe(false);
    expect(await reasonFor(start)).toContain("did not take back a start within 1000 ms");
  });

  test("and says that it was made when it is taken back: the stop comes through", async () => {
    using agent = await HostileAgent.dial(path(start));
    const { child, arm } = await armed(agent);
    await client.request("stop", { name: start });
    await agent.asked("disarm");
    using another = childProcess(["/bin/sleep", "1000"]);
    agent.answer({ kind: "started", id: arm.id, process_id: 1_000 }, [another.process.number]);
    await agent.closed();
    await stopped();
    expect(isAlive(child.processId)).toBe(false);
    expect(await reasonFor(start)).toContain("an armed start after the end");
  });

  test("and takes it back, but says later that it was made", async () => {
    using agent = await HostileAgent.dial(path(start));
    const { child, arm } = await armed(agent);
    await client.request("stop", { name: start });
    await agent.asked("disarm");
    refuse(agent, arm.id, "disarmed");
    await stopped();
    expect(isAlive(child.processId)).toBe(false);
    using another = childProcess(["/bin/sleep", "1000"]);
    agent.answer({ kind: "started", id: arm.id, process_id: 1_000 }, [another.process.number]);
    await agent.closed();
    expect(await reasonFor(start)).toContain("expected an answer to a request of ours");
  });
});

/** A connection that was given up before it was taken, for want of a hello, is none. */
function acceptLiving(): OwnedDescriptor | undefined {
  for (;;) {
    const connection = acceptConnection(listener);
    if (connection === undefined || !hasHungUp(connection)) return connection;
    connection.close();
  }
}

describe("an agent in the name of the orchestrator, whose children would be its own", () => {
  test("that connects", async () => {
    const { socket } = await RawClient.connect(path(start));
    using agent = new HostileAgent(socket);
    sendInTheNameOf(socket, encodeFrame(agentHello), orchestrator.processId);
    const request = await agent.asked("start");
    using process = openProcess(canary);
    agent.answerStart(request, process === undefined ? [] : [process.number]);
    await agent.closed();
    expect(await reasonFor(start)).toContain("expected a child of the agent");
  });

  test("that listens", async () => {
    const socket = await waitFor("the orchestrator", acceptLiving);
    using agent = new HostileAgent(socket);
    sendInTheNameOf(socket, encodeFrame(agentHello), orchestrator.processId);
    await agent.closed();
    expect(await reasonFor("dialled")).toContain("expected an agent in our PID namespace or below");
    using honest = new HostileAgent(await waitFor("the orchestrator to dial again", acceptLiving));
    honest.trySend(encodeFrame(agentHello));
    await honest.asked("start");
  });
});

describe("what comes in place of a socket", () => {
  const wrong: readonly [string, () => OwnedDescriptor][] = [
    ["a file", () => openedFile("/proc/self/status")],
    ["a folder", () => openedFile("/proc", constants.O_DIRECTORY)],
    ["a memory file", memoryFile],
    ["a pidfd", () => childProcess(["/bin/true"]).process],
    ["a Unix socket", () => makeUnixSocket("stream")],
    ["a socket of the other family", () => makeTcpSocket("ipv6")],
  ];

  for (const [name, make] of wrong) {
    test(`for a connection: ${name}`, async () => {
      using agent = await HostileAgent.dial(path("connect"));
      agent.startTruly(await agent.asked("start"));
      const { id } = await agent.asked("socket");
      using descriptor = make();
      agent.answer({ kind: "socket", id, connected: false }, [descriptor.number]);
      await agent.closed();
      expect(await reasonFor("connect")).toContain('the socket that "socket" asked for');
    });

    test(`for notices: ${name}`, async () => {
      using agent = await HostileAgent.dial(path("notify"));
      const { id } = await agent.asked("notify");
      using descriptor = make();
      agent.answer({ kind: "notify", id }, [descriptor.number]);
      await agent.closed();
      expect(await reasonFor("notify")).toContain('the socket that "notify" asked for');
    });
  }

  test("one that blocks, and one that is connected: nobody waits", async () => {
    using agent = await HostileAgent.dial(path("connect"));
    agent.startTruly(await agent.asked("start"));
    for (let count = 0; count < 3; count++) {
      const { id } = await agent.asked("socket");
      using socket = makeTcpSocket("ipv4");
      makeBlocking(socket);
      agent.answer({ kind: "socket", id, connected: false }, [socket.number]);
      await client.request("list");
    }
    agent.socket.close();
    await reasonFor("connect");
  });
});

/** fcntl(2), F_SETFL without O_NONBLOCK. */
function makeBlocking(socket: OwnedDescriptor): void {
  const F_SETFL = 4;
  libc.fcntl(socket.number, F_SETFL, 0);
}

test("a good agent that comes after all of them is served", async () => {
  await using agent = await startAgent(folder, { words: ["--connect", path(start)] });
  await client.request("wait", { name: start, until: "ready" });
  const { pid } = await show(start);
  expect(isAlive(pid ?? 0)).toBe(true);
  process.kill(pid ?? 0, "SIGKILL");
  await waitFor("another instance", async () => {
    const now = await show(start);
    return now.pid !== null && now.pid !== pid;
  });
  await client.request("stop", { name: start, now: true });
  await client.request("wait", { name: start, until: "stopped" });
  expect(isAlive(agent.processId)).toBe(true);
});
