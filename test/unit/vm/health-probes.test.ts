/** Probes, against servers that answer well, wrongly, slowly and without end. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type AddressInfo, createServer, type Socket } from "node:net";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import type { HealthCheck, ProbeOutcome } from "../../../src/vm/health.ts";
import {
  judgeHttp,
  PROBE_BYTES,
  type ProbeTarget,
  probeHealth,
} from "../../../src/vm/perform/health-probes.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { withDeadline } from "../../support/wait-for.ts";

let loop: EventLoop;
beforeEach(() => {
  loop = testEventLoop();
});
afterEach(() => loop[Symbol.dispose]());

const usual: ProbeTarget = {
  address: "127.0.0.1",
  pingAgent: () => Promise.resolve(),
  hasSaid: () => false,
};

function probe(
  check: HealthCheck,
  target: Partial<ProbeTarget> = {},
  timeout = 5_000,
): Promise<ProbeOutcome> {
  const { promise, resolve } = Promise.withResolvers<ProbeOutcome>();
  const options = { target: { ...usual, ...target }, timeout, onOutcome: resolve };
  probeHealth(loop, check, options);
  return withDeadline("the outcome", promise);
}

interface TestServer extends AsyncDisposable {
  readonly port: number;
  readonly heard: string;
}

async function server(answer: (socket: Socket) => void): Promise<TestServer> {
  const sockets = new Set<Socket>();
  let heard = "";
  const listening = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("data", (bytes) => {
      heard += String(bytes);
      answer(socket);
    });
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  listening.listen(0, "127.0.0.1", resolve);
  await promise;
  return {
    port: (listening.address() as AddressInfo).port,
    get heard() {
      return heard;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      listening.close();
    },
  };
}

const http = (port: number, body?: string): Extract<HealthCheck, { kind: "http" }> => ({
  ...{ kind: "http", port, path: "/healthz?a=1", body },
  status: { least: 200, most: 399 },
});

describe("over TCP", () => {
  test("a port that takes connections passes, one that does not fails", async () => {
    const gone = await server(() => {});
    expect(await probe({ kind: "tcp", port: gone.port })).toEqual({ kind: "passed" });
    await gone[Symbol.asyncDispose]();
    const outcome = await probe({ kind: "tcp", port: gone.port });
    expect(outcome).toEqual({
      kind: "failed",
      reason: `port ${gone.port}: Connection refused`,
    });
  });

  test("a machine without an address, or with none that is one, fails", async () => {
    const check = { kind: "tcp", port: 22 } as const;
    expect(await probe(check, { address: undefined })).toMatchObject({
      reason: "it has no address yet",
    });
    for (const address of ["example", "1.2.3", "1.2.3.256", "::1"]) {
      expect(await probe(check, { address })).toMatchObject({ kind: "failed" });
    }
  });
});

describe("over HTTP", () => {
  const fine = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall is well\n";

  test("the status passes, and so does a body with the pattern", async () => {
    await using well = await server((socket) => socket.end(fine));
    expect(await probe(http(well.port))).toEqual({ kind: "passed" });
    expect(well.heard).toStartWith("GET /healthz?a=1 HTTP/1.0\r\nHost: 127.0.0.1\r\n");
    expect(await probe(http(well.port, "all*well"))).toEqual({ kind: "passed" });
    expect(await probe(http(well.port, "ill"))).toMatchObject({
      reason: 'the body has no "ill"',
    });
  });

  test("the answer may come byte by byte, and end with a reset", async () => {
    await using slow = await server((socket) => {
      socket.setNoDelay(true);
      for (const byte of Buffer.from(fine)) socket.write(Uint8Array.of(byte));
      socket.end();
    });
    expect(await probe(http(slow.port, "well"))).toEqual({ kind: "passed" });
  });

  test.each([
    ["HTTP/1.1 503 No\r\n\r\n", "expected the status 200 to 399, received 503"],
    ["HTTP/1.1 abc\r\n\r\n", "expected an answer of HTTP"],
    ["SSH-2.0-\u001b[31mred\r\n", 'received "SSH-2.0-\\u001b[31mred"'],
    ["", 'expected an answer of HTTP, received ""'],
  ])("%j fails", async (answer, reason) => {
    await using wrong = await server((socket) => socket.end(answer));
    const outcome = await probe(http(wrong.port));
    expect(outcome.kind === "failed" && outcome.reason).toContain(reason);
  });

  test("an answer without end is read up to the limit alone", async () => {
    await using endless = await server((socket) => {
      socket.write(fine);
      const flood = () => {
        while (socket.writable && socket.write("x".repeat(100_000)));
        if (socket.writable) socket.once("drain", flood);
      };
      flood();
    });
    expect(await probe(http(endless.port, "nowhere"))).toMatchObject({
      reason: 'the body has no "nowhere"',
    });
  });

  test("a server that says nothing fails after the timeout", async () => {
    await using silent = await server(() => {});
    expect(await probe(http(silent.port), {}, 200)).toEqual({
      ...{ kind: "failed", reason: "no answer within 200 ms" },
    });
  });

  test("judged at every length, an answer is never taken for another", () => {
    const check = { status: { least: 200, most: 200 }, body: "well" };
    const bytes = Buffer.from(fine);
    for (let size = 0; size < bytes.length; size++) {
      const outcome = judgeHttp(check, bytes.subarray(0, size), false);
      const isThere = bytes.subarray(0, size).includes("well");
      expect(outcome?.kind).toBe(isThere ? "passed" : (undefined as never));
    }
    const long = Buffer.alloc(PROBE_BYTES, "x");
    expect(judgeHttp(check, long, true)).toMatchObject({ kind: "failed" });
  });
});

describe("in the guest", () => {
  test("the agent's answer passes, its refusal fails with its reason", async () => {
    expect(await probe({ kind: "agent" })).toEqual({ kind: "passed" });
    const pingAgent = () => Promise.reject(new Error("it is away"));
    expect(await probe({ kind: "agent" }, { pingAgent })).toEqual({
      ...{ kind: "failed", reason: "it is away" },
    });
    const hanging = () => new Promise<void>(() => {});
    expect(await probe({ kind: "agent" }, { pingAgent: hanging }, 100)).toMatchObject({
      reason: "no answer within 100 ms",
    });
  });

  test("a line of the console passes", async () => {
    const check = { kind: "serial", pattern: "ready" } as const;
    expect(await probe(check, { hasSaid: (pattern) => pattern === "ready" })).toEqual({
      kind: "passed",
    });
    expect(await probe(check)).toMatchObject({
      reason: 'no line of the console has "ready" so far',
    });
  });

  test("what nobody can ask, or has heard, neither passes nor fails", async () => {
    expect(await probe({ kind: "agent" }, { pingAgent: undefined })).toEqual({
      kind: "unknown",
      reason: "this hypervisor has no agent",
    });
    const serial = { kind: "serial", pattern: "login:" } as const;
    expect(await probe(serial, { hasSaid: () => undefined })).toMatchObject({ kind: "unknown" });
  });

  test("a probe that was abandoned tells nothing", async () => {
    const told: ProbeOutcome[] = [];
    const answer = Promise.withResolvers<void>();
    const target = { ...usual, pingAgent: () => answer.promise };
    const onOutcome = (outcome: ProbeOutcome) => told.push(outcome);
    const abandoned = probeHealth(loop, { kind: "agent" }, { target, timeout: 50, onOutcome });
    abandoned[Symbol.dispose]();
    answer.resolve();
    await probe({ kind: "agent" }, { pingAgent: () => new Promise<void>(() => {}) }, 100);
    expect(told).toEqual([]);
  });
});
