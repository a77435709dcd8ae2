/** A server of src/http in the test's own process, with routes that tests call. */
import * as v from "valibot";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { HttpClient, type HttpClientOptions } from "../../src/http/client.ts";
import type { Principal } from "../../src/http/principal.ts";
import { ProblemError } from "../../src/http/problem.ts";
import type { Authenticate } from "../../src/http/request-handler.ts";
import { type CallRecord, defineRoute } from "../../src/http/route.ts";
import { HttpServer, type HttpServerOptions } from "../../src/http/server.ts";
import { createLogger } from "../../src/logging/logger.ts";
import { makeCertificate, type TestCertificate } from "./certificate.ts";

export interface TestServer extends AsyncDisposable {
  readonly server: HttpServer;
  readonly certificate: TestCertificate;
  readonly records: CallRecord[];
  readonly log: string[];
  /** Ends the session of this token, as identity's revocation does. */
  revoke(token: string): void;
  client(options?: Partial<HttpClientOptions>): HttpClient;
}

export const operators: Readonly<Record<string, Principal>> = {
  "admin-token": { kind: "operator", name: "alice", role: "admin", special: [] },
  "view-token": { kind: "operator", name: "bob", role: "view", special: [] },
  "host-token": { kind: "host", name: "web-1", session: "s1" },
  "cookie-token": { kind: "operator", name: "carol", role: "admin", special: [] },
};

const name = v.pipe(v.string(), v.regex(/^[a-z0-9-]+$/));

/** What it was last set to, by name. */
export const things = new Map<string, number>();

export const readThing = defineRoute({
  name: "test.things.read",
  method: "GET",
  path: "/v1/things/:name",
  summary: "Read a thing",
  permission: "view",
  mutates: false,
  input: v.object({ name, unit: v.optional(v.picklist(["one", "ten"])) }),
  output: v.object({ name: v.string(), value: v.number() }),
  run: (_call, input) => {
    const value = things.get(input.name);
    if (value === undefined) throw new ProblemError("not-found", `No thing named ${input.name}`);
    return { name: input.name, value: input.unit === "ten" ? value / 10 : value };
  },
});

export const setThing = defineRoute({
  name: "test.things.set",
  method: "PUT",
  path: "/v1/things/:name",
  summary: "Set a thing",
  permission: "operate",
  mutates: true,
  input: v.object({ name, value: v.number(), note: v.optional(v.string()) }),
  output: v.object({ before: v.nullable(v.number()) }),
  run: (call, input) => {
    const before = things.get(input.name);
    things.set(input.name, input.value);
    call.changed({ object: `thing ${input.name}`, before, after: input.value });
    return { before: before ?? null };
  },
});

export const whoAmI = defineRoute({
  name: "test.who",
  method: "GET",
  path: "/v1/who",
  summary: "Who calls, and from where",
  permission: "anyone",
  mutates: false,
  input: v.object({}),
  output: v.object({ who: v.unknown(), from: v.string() }),
  run: (call) => ({ who: call.principal, from: call.from }),
});

export function testLoop(): EventLoop {
  return new EventLoop(() => {
    throw new Error("This test needs a kernel with IOCB_CMD_POLL.");
  });
}

/** Starts a server on loopback with TLS, unless the options say something else. */
export function startTestServer(options: Partial<HttpServerOptions> = {}): TestServer {
  const loop = options.loop ?? testLoop();
  const certificate = makeCertificate();
  const records: CallRecord[] = [];
  const log: string[] = [];
  const sessions = new Map<string, AbortController>();
  const authenticate: Authenticate = (credentials) => {
    if (credentials.kind === "none") return { principal: { kind: "anonymous" } };
    const principal = operators[credentials.token];
    if (principal === undefined) throw new ProblemError("unauthenticated", "No such token");
    const session = sessions.get(credentials.token) ?? new AbortController();
    sessions.set(credentials.token, session);
    if (session.signal.aborted) throw new ProblemError("unauthenticated", "It was revoked");
    return { principal, signal: session.signal };
  };
  const write = (lines: string) => log.push(lines) > 0;
  const server = HttpServer.start({
    listen: { hostname: "127.0.0.1", port: 0 },
    certificate,
    routes: [readThing, setThing, whoAmI],
    authenticate,
    onRecord: (record) => {
      records.push(record);
    },
    title: "test",
    version: "1",
    logger: createLogger("test", { write, journal: false }),
    loop,
    ...options,
  });
  return {
    server,
    certificate,
    records,
    log,
    revoke: (token) => sessions.get(token)?.abort(new ProblemError("ended", "revoked")),
    client: (given) =>
      new HttpClient({
        url: server.url,
        ...(server.url.startsWith("https:") && { pins: [certificate.pin] }),
        ...given,
      }),
    [Symbol.asyncDispose]: async () => {
      await server.stop();
      if (options.loop === undefined) loop[Symbol.dispose]();
    },
  };
}
