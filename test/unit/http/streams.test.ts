/** What stays open: event streams, WebSockets, and certificates that are replaced meanwhile. */
import { describe, expect, test } from "bun:test";
import { connect } from "node:net";
import * as v from "valibot";
import type { HttpClient } from "../../../src/http/client.ts";
import { type HttpRefusal, HttpUnreachable } from "../../../src/http/client-error.ts";
import { EventReader } from "../../../src/http/event-reader.ts";
import { ProblemError } from "../../../src/http/problem.ts";
import { defineStream, type StreamEvent } from "../../../src/http/route.ts";
import { EventQueue, encodeEvent } from "../../../src/http/stream.ts";
import { closeCodes, defineWebSocket } from "../../../src/http/web-socket.ts";
import { makeCertificate } from "../../support/certificate.ts";
import { startTestServer, type TestServer, whoAmI } from "../../support/http-server.ts";
import { rejectionOf, waitFor, withDeadline } from "../../support/wait-for.ts";

const viewer = { token: () => "view-token" };
const fast = { retryTime: 1, longestRetryTime: 5 };

/** Numbers from the one after the last that was seen; `ending` says what follows. */
const numbers = defineStream({
  name: "test.numbers",
  method: "GET",
  path: "/v1/numbers",
  summary: "Numbers",
  permission: "view",
  mutates: false,
  input: v.object({ ending: v.picklist(["end", "wait", "cut", "refuse", "lie"]) }),
  output: v.object({ number: v.number() }),
  stream: async function* (call, input, after) {
    const first = Number(after ?? 0) + 1;
    for (let number = first; number < first + 3; number += 1) {
      yield { id: String(number), event: "number", data: { number } };
    }
    if (input.ending === "refuse") throw new ProblemError("gone", "No more numbers");
    if (input.ending === "cut") throw new ProblemError("slow", "Come again");
    if (input.ending === "lie") yield { id: "x", event: "number", data: { number: "none" } };
    if (input.ending === "wait") {
      const { promise, resolve } = Promise.withResolvers<void>();
      call.signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
    }
  },
});

/** As many bytes as are asked for, as fast as they are taken. */
const flood = defineStream({
  name: "test.flood",
  method: "GET",
  path: "/v1/flood",
  summary: "Very many",
  permission: "anyone",
  mutates: false,
  input: v.object({}),
  output: v.string(),
  stream: async function* () {
    for (;;) {
      made += 1;
      yield { id: String(made), event: "flood", data: "x".repeat(10_000) };
    }
  },
});
let made = 0;

const echo = defineWebSocket({
  name: "test.echo",
  method: "GET",
  path: "/v1/echo/:room",
  summary: "Says what it is told",
  permission: "view",
  input: v.object({ room: v.string() }),
  open: (socket, call, { room }) => {
    const who = call.principal.kind === "operator" ? call.principal.name : "?";
    socket.send(`${who} in ${room}`);
    return {
      message: (data) => {
        if (data === "throw") throw new Error("broken");
        socket.send(data);
      },
      close: (code) => closed.push(code),
    };
  },
});
const closed: number[] = [];

function start(options: Parameters<typeof startTestServer>[0] = {}): TestServer {
  return startTestServer({ streams: [numbers, flood], webSockets: [echo], ...options });
}

async function take(
  given: TestServer,
  asked: { readonly ending: v.InferInput<typeof numbers.input>["ending"]; readonly count: number },
  client: HttpClient = given.client({ ...viewer, limits: fast }),
): Promise<number[]> {
  const seen: number[] = [];
  const end = new AbortController();
  const options = { signal: end.signal };
  for await (const { data } of client.stream(numbers, { ending: asked.ending }, options)) {
    seen.push(data.number);
    if (seen.length >= asked.count) break;
  }
  end.abort();
  return seen;
}

describe("a stream", () => {
  test("ends where its source ends", async () => {
    await using given = start();
    expect(await take(given, { ending: "end", count: 100 })).toEqual([1, 2, 3]);
  });

  test("that was cut off goes on after the event that was seen last", async () => {
    await using given = start();
    expect(await take(given, { ending: "cut", count: 8 })).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test("goes on at a server that was started again", async () => {
    const first = start();
    const { port } = first.server;
    const seen: number[] = [];
    const links: string[] = [];
    const end = new AbortController();
    const { certificate } = first;
    const reading = (async () => {
      const client = first.client({ ...viewer, limits: fast });
      const onLink = (state: "up" | { down: Error }) => {
        links.push(state === "up" ? "up" : "down");
      };
      const options = { signal: end.signal, onLink };
      for await (const { data } of client.stream(numbers, { ending: "wait" }, options)) {
        seen.push(data.number);
      }
    })();
    await waitFor("three numbers", () => seen.length === 3);
    await first.server.stop();
    await using _second = start({ listen: { hostname: "127.0.0.1", port }, certificate });
    await waitFor("three more", () => seen.length === 6);
    end.abort();
    await withDeadline("the end", reading);
    expect(seen).toEqual([1, 2, 3, 4, 5, 6]);
    expect(links[0]).toBe("up");
    expect(links).toContain("down");
  });

  test("says why its source refused, and what a bug is it does not tell", async () => {
    await using given = start();
    const gone = await rejectionOf(take(given, { ending: "refuse", count: 9 }));
    expect((gone as HttpRefusal).kind).toBe("gone");
    const bug = await rejectionOf(take(given, { ending: "lie", count: 9 }));
    expect((bug as HttpRefusal).kind).toBe("bug");
    expect(given.log.join("")).toContain("expected number in number");
  });

  test("ends with the session of who reads it", async () => {
    await using given = start();
    const reading = rejectionOf(take(given, { ending: "wait", count: 4 }));
    await waitFor("an open stream", async () => (await openOf(given, "streams")) === 1);
    given.revoke("view-token");
    const refusal = (await withDeadline("the refusal", reading)) as HttpRefusal;
    expect(refusal.kind).toBe("unauthenticated");
    expect(await openOf(given, "streams")).toBe(0);
  });

  test("has a limit for each principal, and for all", async () => {
    await using given = start({ limits: { streamsPerPrincipal: 1 } });
    const end = new AbortController();
    const options = { signal: end.signal };
    const open = given.client(viewer).stream(numbers, { ending: "wait" }, options);
    await open.next();
    const response = await plainGet(given, "/v1/numbers?ending=wait", "view-token");
    expect(response.status).toBe(429);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
    end.abort();
    await open.return(undefined);
    await waitFor("its place to be free", async () => (await openOf(given, "streams")) === 0);
  });

  test("goes no further than its reader, and drops one that stands still", async () => {
    made = 0;
    const listen = { hostname: "127.0.0.1", port: 0 };
    const limits = { streamStallTime: 200, streamQueueBytes: 64 * 1024 };
    await using given = start({ listen, certificate: undefined as never, limits });
    const socket = connect(given.server.port, "127.0.0.1");
    socket.pause();
    socket.on("error", () => {});
    socket.write("GET /v1/flood HTTP/1.1\r\nHost: x\r\n\r\n");
    await waitFor("the stream", () => made > 0);
    await waitFor("the drop", async () => (await openOf(given, "streams")) === 0);
    // What the kernel holds of both sockets, and the queue.
    expect(made).toBeLessThan(2_000);
    socket.destroy();
  });

  test("says something while nothing happens, and a client misses it", async () => {
    await using given = start({ limits: { streamHeartbeat: 20 } });
    const response = await plainGet(given, "/v1/numbers?ending=wait", "view-token");
    const reader = response.body?.getReader();
    let text = "";
    while (!text.includes(":\n\n:\n\n")) {
      const next = await reader?.read();
      text += new TextDecoder().decode(next?.value);
    }
    expect(text).toStartWith("retry: 1000\n\nid: 1\nevent: number\n");
    await reader?.cancel();
    await using quiet = start();
    const end = new AbortController();
    const client = quiet.client({ ...viewer, limits: { ...fast, streamSilence: 200 } });
    let isUp = false;
    let lost: Error | undefined;
    const onLink = (state: "up" | { readonly down: Error }) => {
      // A loaded machine may take longer than that to open it.
      if (state !== "up" && isUp) lost ??= state.down;
      isUp = state === "up";
      if (lost !== undefined) end.abort();
    };
    const options = { signal: end.signal, onLink };
    for await (const _event of client.stream(numbers, { ending: "wait" }, options));
    expect(lost).toBeInstanceOf(HttpUnreachable);
    expect(lost?.message).toContain("said nothing for 200 ms");
  });
});

describe("events", () => {
  test("are read however their bytes come", () => {
    const text = encodeEvent({ id: "1", event: "a", data: { text: "ü\nb" } });
    const bytes = new TextEncoder().encode(`:\n\n${text}${text}`);
    const reader = new EventReader(1_000);
    const events = [...bytes].flatMap((byte) => reader.push(Uint8Array.of(byte)));
    const expected = { id: "1", event: "a", data: '{"text":"ü\\nb"}' };
    expect(events).toEqual([expected, expected]);
  });

  test("over the limit are refused", () => {
    const reader = new EventReader(100);
    expect(() => reader.push(Buffer.from(`data: ${"x".repeat(200)}`))).toThrow("at most 100 bytes");
  });

  test.each([
    { id: "a\nb", event: "x", data: 1 },
    { id: "", event: "x", data: 1 },
    { id: "1", event: "x\ndata: 2", data: 1 },
    { id: "1", event: "problem", data: 1 },
  ])("that would break the lines are none: %j", (event: StreamEvent) => {
    expect(() => encodeEvent(event)).toThrow("none");
  });

  test("wait for their reader up to a limit", async () => {
    const queue = new EventQueue({ limit: 2, signal: new AbortController().signal });
    const event = (id: string) => ({ id, event: "x", data: 1 });
    expect([queue.push(event("1")), queue.push(event("2"))]).toEqual([true, true]);
    expect(queue.push(event("3"))).toBe(false);
    const refusal = await rejectionOf(queue[Symbol.asyncIterator]().next());
    expect((refusal as ProblemError).kind).toBe("slow");
  });
});

describe("a WebSocket", () => {
  test("knows who opened it, and ends with the session", async () => {
    await using given = start();
    const socket = await given.client(viewer).webSocket("/v1/echo/hall");
    const heard: string[] = [];
    socket.onmessage = ({ data }) => heard.push(String(data));
    const end = closeOf(socket);
    await waitFor("the greeting", () => heard[0]);
    socket.send("hello");
    await waitFor("the echo", () => heard[1]);
    expect(heard).toEqual(["bob in hall", "hello"]);
    given.revoke("view-token");
    expect(await end).toBe(closeCodes.policy);
    await waitFor("its place to be free", async () => (await openOf(given, "web_sockets")) === 0);
  });

  test("is refused without the permission, and to who asks for no upgrade", async () => {
    await using given = start();
    const anonymous = await given.client().webSocket("/v1/echo/hall");
    expect(await closeOf(anonymous)).toBe(1006);
    const plain = await plainGet(given, "/v1/echo/hall", "view-token");
    expect([plain.status, ((await plain.json()) as { expected: string }).expected]).toEqual([
      400,
      "a request with Upgrade: websocket",
    ]);
  });

  test("of another pin is not opened", async () => {
    await using given = start();
    const other = makeCertificate();
    const client = given.client({ ...viewer, pins: [], certificates: [other.certificate] });
    expect(await closeOf(await client.webSocket("/v1/echo/hall"))).toBe(1006);
  });

  test("whose handler throws is closed, and so is one that says too much", async () => {
    await using given = start({ limits: { webSocketMessageBytes: 1_000 } });
    for (const text of ["throw", "x".repeat(2_000)]) {
      const socket = await given.client(viewer).webSocket("/v1/echo/hall");
      const end = closeOf(socket);
      socket.onopen = () => socket.send(text);
      const code = await end;
      expect(text === "throw" ? code : [1006, closeCodes.tooBig].includes(code)).toEqual(
        text === "throw" ? closeCodes.bug : true,
      );
    }
    expect(given.log.join("")).toContain("broken");
  });

  test("has a limit for each principal, and for what it has yet to take", async () => {
    const limits = { webSocketsPerPrincipal: 1, webSocketQueueBytes: 64 * 1024 };
    let answers: string[] = [];
    const pour = defineWebSocket({
      ...echo,
      name: "test.pour",
      path: "/v1/pour",
      input: v.object({}),
      open: (socket) => ({
        message: () => {
          const piece = "x".repeat(60_000);
          for (let count = 0; count < 500; count += 1) answers.push(socket.send(piece));
        },
        close: () => {},
      }),
    });
    await using given = start({ webSockets: [pour], limits });
    const first = await given.client(viewer).webSocket("/v1/pour");
    const end = closeOf(first);
    await waitFor("it to be open", () => first.readyState === WebSocket.OPEN);
    expect(await closeOf(await given.client(viewer).webSocket("/v1/pour"))).toBe(1006);
    answers = [];
    first.send("go");
    await end;
    expect(answers.at(-1)).toBe("closed");
    await waitFor("its place to be free", async () => (await openOf(given, "web_sockets")) === 0);
  });

  test("of a browser is opened for its own pages alone", async () => {
    await using given = start();
    const upgrade = (origin: string) =>
      fetch(`${given.server.url}/v1/echo/hall`, {
        headers: { cookie: "__Host-hostler=cookie-token", origin },
        tls: { ca: given.certificate.certificate, checkServerIdentity: () => undefined },
      });
    expect((await upgrade("https://evil.example")).status).toBe(403);
    // It comes as far as being told that it is no WebSocket.
    expect((await upgrade(given.server.url)).status).toBe(400);
  });

  test("is told that the server stops", async () => {
    await using given = start();
    const socket = await given.client(viewer).webSocket("/v1/echo/hall");
    const end = closeOf(socket);
    await waitFor("it to be open", () => socket.readyState === WebSocket.OPEN);
    await given.server.stop();
    expect(await end).toBe(closeCodes.goingAway);
  });
});

describe("a certificate that is replaced", () => {
  test("is shown to who comes next; what is open goes on, and no call is lost", async () => {
    await using given = start();
    const next = makeCertificate("next");
    const client = given.client({ ...viewer, pins: [given.certificate.pin, next.pin] });
    const events = client.stream(
      numbers,
      { ending: "wait" },
      { signal: AbortSignal.timeout(20_000) },
    );
    await events.next();
    const socket = await client.webSocket("/v1/echo/hall");
    await waitFor("it to be open", () => socket.readyState === WebSocket.OPEN);
    let isOver = false;
    let calls = 0;
    const callers = Array.from({ length: 4 }, async () => {
      while (!isOver) {
        await given.client({ pins: [given.certificate.pin, next.pin] }).call(whoAmI, {});
        calls += 1;
      }
    });
    await waitFor("some calls", () => calls > 20);
    given.server.replaceCertificate(next);
    const then = calls;
    await waitFor("some more", () => calls > then + 40);
    isOver = true;
    await Promise.all(callers);
    const fresh = given.client({ pins: [next.pin] });
    await fresh.call(whoAmI, {});
    expect(fresh.certificateHash).toBe(next.pin);
    const stale = given.client();
    expect((await rejectionOf(stale.call(whoAmI, {}))).message).toContain(next.pin);
    expect((await events.next()).value?.data).toEqual({ number: 2 });
    expect(socket.readyState).toBe(WebSocket.OPEN);
    socket.close();
  }, 30_000);

  test("that is none changes nothing", async () => {
    await using given = start({ limits: {} });
    const wrong = { certificate: "none", key: "none" };
    expect(() => given.server.replaceCertificate(wrong)).toThrow();
    await given.client().call(whoAmI, {});
  });
});

function closeOf(socket: WebSocket): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  socket.addEventListener("close", ({ code }) => resolve(code));
  return withDeadline("the end of the WebSocket", promise);
}

function plainGet(given: TestServer, path: string, token: string): Promise<Response> {
  return fetch(`${given.server.url}${path}`, {
    headers: { authorization: `Bearer ${token}` },
    tls: { ca: given.certificate.certificate, checkServerIdentity: () => undefined },
  });
}

async function openOf(given: TestServer, what: string): Promise<number> {
  const text = await (await plainGet(given, "/metrics", "admin-token")).text();
  return Number(new RegExp(`^hostler_http_${what} (\\d+)$`, "m").exec(text)?.[1]);
}
