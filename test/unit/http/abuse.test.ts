/** What clients do that mean harm, or speak something else: a server goes on serving others. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { connect, type Socket } from "node:net";
import * as v from "valibot";
import type { HttpRefusal } from "../../../src/http/client-error.ts";
import { withinDescriptors } from "../../../src/http/front.ts";
import { defaultHttpLimits } from "../../../src/http/limits.ts";
import { defineRoute } from "../../../src/http/route.ts";
import { ListenRefused } from "../../../src/http/server.ts";
import { startTestServer, type TestServer, whoAmI } from "../../support/http-server.ts";
import { ended, MEBIBYTE, openTls, pour } from "../../support/raw-socket.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf, waitFor } from "../../support/wait-for.ts";

describe("TLS", () => {
  test("is not spoken below 1.3", async () => {
    await using given = startTestServer();
    const failure = await openTls(given.server.port, "TLSv1.2").then(
      () => undefined,
      (reason: Error) => reason,
    );
    expect(failure).toBeInstanceOf(Error);
    (await openTls(given.server.port)).destroy();
  });

  test("is asked of who speaks plain HTTP: it is cut off, and others are served", async () => {
    await using given = startTestServer();
    const socket = connect(given.server.port, "127.0.0.1");
    socket.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(await ended(socket)).not.toContain("HTTP/1.1");
    expect((await given.client().call(whoAmI, {})).who).toEqual({ kind: "anonymous" });
  });

  test.each(["0.0.0.0", "192.0.2.1", "localhost", "::"])("is not left out at %s", (hostname) => {
    const listen = { hostname, port: 0 };
    const start = () => startTestServer({ listen, certificate: undefined as never });
    expect(start).toThrow(ListenRefused);
    expect(start).toThrow("expected a certificate, or a loopback address");
  });

  test("a port that somebody has is refused", async () => {
    await using given = startTestServer();
    const listen = { hostname: "127.0.0.1", port: given.server.port };
    expect(() => startTestServer({ listen })).toThrow(ListenRefused);
  });
});

describe("a body of 1 GB", () => {
  const path = "/v1/things/a";
  const common = `PUT ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n`;
  const authorization = "Authorization: Bearer admin-token\r\n";
  test.each([
    ["announced", `${common}${authorization}Content-Length: 1000000000\r\n\r\n`, false],
    ["in chunks", `${common}${authorization}Transfer-Encoding: chunked\r\n\r\n`, true],
  ] as const)("%s is refused before it is there", async (_name, head, chunked) => {
    await using given = startTestServer();
    const before = process.memoryUsage.rss();
    const socket = await openTls(given.server.port);
    const { sent, answer } = await pour(socket, { head, bytes: 1_000 * MEBIBYTE, chunked });
    expect(answer).toContain("413");
    expect(answer).toContain("urn:hostler:problem:too-large");
    expect(sent).toBeLessThan(64 * MEBIBYTE);
    expect(process.memoryUsage.rss() - before).toBeLessThan(128 * MEBIBYTE);
    expect(given.records[0]?.result).toBe("The request is too large");
  });

  test("of one without credentials is not read at all", async () => {
    await using given = startTestServer();
    const socket = await openTls(given.server.port);
    const head = `${common}Transfer-Encoding: chunked\r\n\r\n`;
    const answered = await pour(socket, { head, bytes: 1_000 * MEBIBYTE, chunked: true });
    expect(answered.answer).toContain("401");
    expect(answered.sent).toBeLessThan(64 * MEBIBYTE);
  });
});

test("headers that are too long are refused", async () => {
  await using given = startTestServer();
  const socket = await openTls(given.server.port);
  socket.write(`GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ${"x".repeat(64 * 1024)}\r\n\r\n`);
  expect(await ended(socket)).toContain("431");
});

describe("half-open connections", () => {
  test("10,000 of one address leave others, and itself, served; all of them end", async () => {
    await using given = startTestServer({ limits: { unprovenTime: 2_000 } });
    const sockets: Socket[] = [];
    let closed = 0;
    for (let count = 0; count < 10_000; count += 1) {
      const socket = connect(given.server.port, "127.0.0.1");
      socket.on("error", () => {});
      socket.once("close", () => {
        closed += 1;
      });
      // Each third says half of a hello.
      if (count % 3 === 0) socket.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00]));
      sockets.push(socket);
      if (count % 500 === 499) {
        using client = given.client();
        const told = await client.call(whoAmI, {});
        expect(told.who).toEqual({ kind: "anonymous" });
      }
    }
    await waitFor("the front to have ended all but its share", () => closed >= 10_000 - 128);
    const text = await metricsOf(given);
    expect(numberIn(text, "hostler_http_connections")).toBeLessThanOrEqual(130);
    await waitFor("the rest to end by time", () => closed === 10_000);
    for (const socket of sockets) socket.destroy();
  }, 60_000);

  test("a client that asked once is not ended to make room", async () => {
    const limits = { unproven: 2, unprovenPerAddress: 2, connections: 4 };
    await using given = startTestServer({ limits });
    const known = await openTls(given.server.port);
    known.write("GET /v1/who HTTP/1.1\r\nHost: x\r\n\r\n");
    let received = "";
    known.on("data", (bytes) => {
      received += String(bytes);
    });
    await waitFor("the first answer", () => received.includes("anonymous"));
    const halves = Array.from({ length: 20 }, () => connect(given.server.port, "127.0.0.1"));
    await Promise.all(halves.slice(0, 18).map(ended));
    received = "";
    known.write("GET /v1/who HTTP/1.1\r\nHost: x\r\n\r\n");
    await waitFor("the second answer", () => received.includes("anonymous"));
    for (const half of halves) half.destroy();
    known.destroy();
  });

  test("connections that asked once have a limit too", async () => {
    await using given = startTestServer({ limits: { connectionsPerAddress: 3 } });
    const known = await Promise.all([1, 2, 3].map(() => openTls(given.server.port)));
    for (const socket of known) {
      let received = "";
      socket.on("data", (bytes) => {
        received += String(bytes);
      });
      socket.write("GET /v1/who HTTP/1.1\r\nHost: x\r\n\r\n");
      await waitFor("an answer", () => received.includes("anonymous"));
    }
    expect(await ended(connect(given.server.port, "127.0.0.1"))).toBe("");
    for (const socket of known) socket.destroy();
  });

  test("one that takes nothing of its answer is ended as well", async () => {
    const big = defineRoute({
      ...whoAmI,
      name: "test.big",
      output: v.string(),
      run: () => "x".repeat(40 * MEBIBYTE),
    });
    const limits = { unprovenTime: 500, idleTime: 1_000 };
    await using given = startTestServer({ routes: [big], limits });
    const socket = await openTls(given.server.port);
    socket.pause();
    socket.on("error", () => {});
    socket.write("GET /v1/who HTTP/1.1\r\nHost: x\r\n\r\n");
    const open = async () => numberIn(await metricsOf(given), "hostler_http_connections");
    await waitFor("the request", async () => {
      return (await metricsOf(given)).includes('route="test.big",status="200"');
    });
    // The one that asks is left.
    await waitFor("its end", async () => (await open()) === 1);
    socket.destroy();
  }, 40_000);

  test("fewer descriptors allow fewer connections", () => {
    const limits = withinDescriptors(defaultHttpLimits, 1_024);
    expect(limits).toMatchObject({ connections: 256, unproven: 128 });
    expect(withinDescriptors(defaultHttpLimits, 524_288)).toMatchObject({
      connections: defaultHttpLimits.connections,
    });
  });
});

async function metricsOf(given: TestServer): Promise<string> {
  const response = await fetch(`${given.server.url}/metrics`, {
    headers: { authorization: "Bearer view-token" },
    tls: { ca: given.certificate.certificate, checkServerIdentity: () => undefined },
  });
  return await response.text();
}

function numberIn(text: string, name: string): number {
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
}

describe("slowness", () => {
  const waiting: (() => void)[] = [];
  const wait = defineRoute({
    name: "test.wait",
    method: "POST",
    path: "/v1/wait",
    summary: "Waits",
    permission: "anyone",
    mutates: false,
    input: v.object({ a: v.optional(v.string()) }),
    output: v.object({}),
    run: async (call) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.push(resolve);
      call.signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      call.signal.throwIfAborted();
      return {};
    },
  });

  test("of a body has an end", async () => {
    await using given = startTestServer({ routes: [wait], limits: { requestTime: 100 } });
    const socket = await openTls(given.server.port);
    const head = "POST /v1/wait HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    socket.write(`${head}Content-Length: 100\r\n\r\n{`);
    const answer = await ended(socket);
    expect(answer).toContain("408");
    expect(answer).toContain("took longer than 100 ms");
  });

  test("of a handler is ended by its signal", async () => {
    await using given = startTestServer({ routes: [wait], limits: { requestTime: 50 } });
    const refusal = (await rejectionOf(given.client().call(wait, {}))) as HttpRefusal;
    expect(refusal.kind).toBe("slow");
  });

  test("of many handlers leaves no more than the limit running", async () => {
    await using given = startTestServer({ routes: [wait], limits: { concurrentRequests: 2 } });
    waiting.splice(0);
    const running = [1, 2].map(() => given.client().call(wait, {}));
    await waitFor("two calls", () => waiting.length === 2);
    const refusal = (await rejectionOf(given.client().call(wait, {}))) as HttpRefusal;
    expect(refusal.kind).toBe("unavailable");
    for (const go of waiting.splice(0)) go();
    expect(await Promise.all(running)).toEqual([{}, {}]);
  });

  test("of a client that went is told to the handler", async () => {
    await using given = startTestServer({ routes: [wait] });
    waiting.splice(0);
    const gone = new AbortController();
    const asked = rejectionOf(given.client().call(wait, {}, { signal: gone.signal }));
    await waitFor("the call", () => waiting.length === 1);
    gone.abort();
    expect(await asked).toBeInstanceOf(Error);
    await waitFor("it to be over", async () => {
      return numberIn(await metricsOf(given), "hostler_http_requests_running") === 1;
    });
  });
});

describe("a Unix socket", () => {
  test("of a server that lives is left to it", async () => {
    using folder = temporaryFolder();
    const listen = { unix: folder.file("http.sock") };
    const options = { listen, certificate: undefined as never };
    await using given = startTestServer(options);
    expect(() => startTestServer(options)).toThrow("somebody listens there");
    expect((await given.client().call(whoAmI, {})).from).toBe("unix socket");
  });

  test("of one that was killed is taken over", async () => {
    using folder = temporaryFolder();
    const unix = folder.file("http.sock");
    const source = `Bun.serve({ unix: ${JSON.stringify(unix)}, fetch: () => new Response() })`;
    const killed = Bun.spawn([process.execPath, "-e", source]);
    await waitFor("its socket", () => existsSync(unix));
    killed.kill("SIGKILL");
    await killed.exited;
    await using given = startTestServer({ listen: { unix }, certificate: undefined as never });
    expect((await given.client().call(whoAmI, {})).from).toBe("unix socket");
  });
});
