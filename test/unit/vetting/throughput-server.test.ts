import { afterEach, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import * as v from "valibot";
import { descriptorLimit, setDescriptorLimit } from "../../../ffi/process.ts";
import {
  isSameKey,
  ThroughputServer,
  type ThroughputServerOptions,
} from "../../../src/vetting/perform/throughput/server.ts";
import { join, leave, noTurns } from "../../../src/vetting/throughput/lifecycle-turns.ts";
import {
  PATTERN_BYTES,
  patternWords,
  throughputAnswerSchema,
  throughputLimits,
} from "../../../src/vetting/throughput/protocol.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { waitFor, withDeadline } from "../../support/wait-for.ts";

const KEY = "0123456789abcdef0123456789abcdef";
const hello = (parts: object = {}) =>
  `${JSON.stringify({ protocol: 1, run: 7, key: KEY, direction: "up", seconds: 1, ...parts })}\n`;

const kept: Disposable[] = [];
afterEach(() => {
  for (const one of kept.splice(0).reverse()) one[Symbol.dispose]();
});

/** Its children do nothing, until their input ends. */
const idle = { path: "/bin/sh", words: ["sh", "-c", "cat > /dev/null", "sh"] };

function serve(parts: Partial<ThroughputServerOptions> = {}) {
  const loop = testEventLoop();
  kept.push(loop);
  const said: string[] = [];
  const log = (line: string) => void said.push(line);
  const server = ThroughputServer.start({
    listen: { address: Uint8Array.of(127, 0, 0, 1), port: 0 },
    admit: (run, key) => run >= 7 && isSameKey(key, KEY),
    logger: { error: log, warn: log, info: log, debug: log },
    loop,
    own: idle,
    ...parts,
  });
  kept.push(server);
  return { server, said };
}

class Client {
  readonly #socket: Socket;
  text = "";
  readonly ended: Promise<void>;

  constructor(server: ThroughputServer, line?: string) {
    this.#socket = connect({ host: "127.0.0.1", port: server.port });
    this.#socket.on("data", (bytes) => {
      this.text += bytes.toString();
    });
    this.#socket.on("error", () => undefined);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#socket.on("close", resolve);
    this.ended = promise;
    if (line !== undefined) this.#socket.write(line);
    kept.push({ [Symbol.dispose]: () => this.#socket.destroy() });
  }

  send(text: string): void {
    this.#socket.write(text);
  }

  leave(): void {
    this.#socket.destroy();
  }

  /** What the server has said, each by its schema. */
  get answers() {
    return this.text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => v.parse(throughputAnswerSchema, JSON.parse(line)));
  }

  async waits(): Promise<void> {
    await waitFor("a word of the server", () => this.answers[0]?.say === "wait");
  }
}

describe("who is refused", () => {
  const cases: readonly [string, string, RegExp][] = [
    ["another key", hello({ key: KEY.replace("0", "1") }), /no test of run 7 is expected/],
    ["another run", hello({ run: 6 }), /no test of run 6 is expected/],
    ["another protocol", hello({ protocol: 2 }), /expected a test/],
    ["too long a test", hello({ seconds: throughputLimits.seconds + 1 }), /expected a test/],
    ["a key that is none", hello({ key: "../../etc" }), /expected a test/],
    ["more than is known", hello({ wait: true }), /expected a test/],
    ["a tool that is none", hello({ tool: "sh" }), /expected a test/],
    ["a tool that its spec does not want", hello({ tool: "iperf3" }), /does not ask for iperf3/],
    ["no JSON", "GET / HTTP/1.1\n", /expected a line of JSON/],
    ["a line that is too long", `${" ".repeat(600)}\n`, /expected one line of at most 512 bytes/],
    ["a line without an end", " ".repeat(600), /expected one line of at most 512 bytes/],
    ["more than a line", `${hello()}x`, /expected one line/],
  ];
  test.each([...cases])("%s", async (_, line, reason) => {
    const { server } = serve();
    const client = new Client(server, line);
    await withDeadline("the end of a connection", client.ended);
    const [answer] = client.answers;
    expect(answer?.say === "refused" && answer.reason).toMatch(reason);
    expect(server.count).toBe(0);
  });

  test("who says nothing, and who speaks out of turn", async () => {
    const { server } = serve({ times: { hello: 30, turn: 60_000 }, limits: { atOnce: 0 } });
    const silent = new Client(server);
    await withDeadline("the end of a connection", silent.ended);
    expect(silent.text).toContain("no line came");
    const loud = new Client(server, hello());
    await loud.waits();
    loud.send("x");
    await withDeadline("the end of a connection", loud.ended);
    expect(loud.text).toContain("nothing is to come");
  });

  test("whose turn does not come", async () => {
    const { server } = serve({ times: { hello: 5_000, turn: 30 }, limits: { atOnce: 0 } });
    const client = new Client(server, hello());
    await withDeadline("the end of a connection", client.ended);
    expect(client.text).toContain("its turn did not come");
  });

  test("one connection too many, in all and of one run", async () => {
    const { server, said } = serve({ limits: { connections: 3, connectionsOfRun: 2 } });
    const [first, second] = [new Client(server, hello()), new Client(server, hello())];
    await Promise.all([first.waits(), second.waits()]);
    const third = new Client(server, hello());
    await withDeadline("the end of a connection", third.ended);
    expect(third.text).toContain("run 7 has 2 connections already");
    const other = new Client(server, hello({ run: 8 }));
    await other.waits();
    const fourth = new Client(server, hello({ run: 9 }));
    await withDeadline("the end of a connection", fourth.ended);
    expect(fourth.text).toBe("");
    expect(said.some((line) => line.startsWith("a connection too many"))).toBe(true);
  });

  test("without descriptors nobody is taken; with some again, whoever waited", async () => {
    const { server, said } = serve({ limits: { atOnce: 0 } });
    const before = descriptorLimit();
    if (before === undefined) throw new Error("No limit of descriptors");
    // A process of its own, which connects when it is told: here there are no descriptors then.
    const script =
      'echo ready; read line; exec 3<>"/dev/tcp/127.0.0.1/$1"; echo "$line" >&3; head -n 1 <&3';
    await using other = Bun.spawn(["bash", "-c", script, "bash", String(server.port)], {
      stdin: "pipe",
      stdout: "pipe",
    });
    const reader = other.stdout.getReader();
    await withDeadline("a client", reader.read());
    setDescriptorLimit({ ...before, soft: 3 });
    try {
      other.stdin.write(hello());
      other.stdin.flush();
      await waitFor(
        "a refusal of the kernel's",
        () => said.some((line) => line.startsWith("cannot take a connection")),
        4_000,
      );
    } finally {
      setDescriptorLimit(before);
    }
    const { value } = await withDeadline("a word of the server", reader.read());
    expect(new TextDecoder().decode(value)).toContain("wait");
  });

  test("a second one while it lives gets the port of nobody", () => {
    const { server } = serve();
    const listen = { address: Uint8Array.of(127, 0, 0, 1), port: server.port };
    expect(() => serve({ listen })).toThrow(/EADDRINUSE/);
  });
});

describe("whose turn it is", () => {
  test("the next one's, when one went away", async () => {
    const { server } = serve({ limits: { atOnce: 1 } });
    const clients = [7, 8, 9].map((run) => new Client(server, hello({ run })));
    await Promise.all(clients.map((client) => client.waits()));
    expect(server.count).toBe(3);
    // Who waits and goes away is forgotten at once; of who is served its child knows.
    clients[1]?.leave();
    await waitFor("two connections", () => server.count === 2);
  });

  test("a child that cannot be started ends its own test alone", async () => {
    const { server, said } = serve({ own: { path: "/nonexistent", words: ["x"] } });
    const client = new Client(server, hello());
    await withDeadline("the end of a connection", client.ended);
    expect(client.answers).toEqual([{ say: "wait" }]);
    expect(said.some((line) => line.startsWith("cannot start a test"))).toBe(true);
    expect(server.count).toBe(0);
  });

  test("one of a run at a time, so many of all, in their order", () => {
    let { turns, begin } = join(noTurns(2), { id: 1, run: 7 });
    const ids = () => begin.map(({ id }) => id);
    expect(ids()).toEqual([1]);
    ({ turns, begin } = join(turns, { id: 2, run: 7 }));
    expect(ids()).toEqual([]);
    ({ turns, begin } = join(turns, { id: 3, run: 8 }));
    expect(ids()).toEqual([3]);
    ({ turns, begin } = join(turns, { id: 4, run: 9 }));
    expect(ids()).toEqual([]);
    ({ turns, begin } = leave(turns, 3));
    expect(ids()).toEqual([4]);
    ({ turns, begin } = leave(turns, 2));
    expect(ids()).toEqual([]);
    ({ turns, begin } = leave(turns, 1));
    expect([ids(), turns.waiting, turns.active.length]).toEqual([[], [], 1]);
  });
});

test("keys are compared whole", () => {
  expect(isSameKey(KEY, KEY)).toBe(true);
  expect(isSameKey(KEY, KEY.slice(1))).toBe(false);
  expect(isSameKey(KEY, KEY.replace("f", "e"))).toBe(false);
});

test("the pattern has no word twice near by", () => {
  const words = patternWords();
  expect(words.byteLength).toBe(PATTERN_BYTES);
  expect(new Set(words).size).toBe(words.length);
});
