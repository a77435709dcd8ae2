/** Paths, rates, metrics, browsers and the OpenAPI document. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import {
  HttpAnswerRefused,
  HttpUnreachable,
  translateFailure,
} from "../../../src/http/client-error.ts";
import {
  COOKIE_NAME,
  credentialsOf,
  csrfTokenOf,
  equalInConstantTime,
  TOKEN_LENGTH,
} from "../../../src/http/credentials.ts";
import { MetricsRegistry, SERIES_LIMIT } from "../../../src/http/metrics.ts";
import type { Page } from "../../../src/http/pages.ts";
import { describePrincipal } from "../../../src/http/principal.ts";
import { ProblemError } from "../../../src/http/problem.ts";
import { RateLimiter, rateKeyOf } from "../../../src/http/rate-limiter.ts";
import { defineRoute } from "../../../src/http/route.ts";
import { PATH_BYTES, Router } from "../../../src/http/router.ts";
import {
  operators,
  readThing,
  setThing,
  startTestServer,
  type TestServer,
  whoAmI,
} from "../../support/http-server.ts";
import { validate } from "../../support/json-schema.ts";
import { rejectionOf } from "../../support/wait-for.ts";

describe("paths", () => {
  const place = (name: string, path: string, method: "GET" | "PUT" = "GET") => ({
    name,
    method,
    path,
    summary: "",
    permission: "anyone" as const,
  });
  const router = new Router([
    place("one", "/v1/hosts/:name"),
    place("all", "/v1/hosts/all"),
    place("set", "/v1/hosts/:name", "PUT"),
    place("deep", "/v1/:kind/:name/log"),
  ]);

  test.each([
    ["/v1/hosts/all", "all"],
    ["/v1/hosts/web-1", "one"],
    ["/v1/hosts/a%2Fb", "one"],
    ["/v1/x/y/log", "deep"],
  ])("%s is %s", (path, name) => {
    expect(router.find("GET", path)).toMatchObject({ kind: "found", place: { name } });
  });

  test.each([
    "/",
    "/v1/hosts",
    "/v1/hosts/",
    "/v1/hosts/%ff",
    "/v1/hosts/a/b",
    `/v1/hosts/${"a".repeat(PATH_BYTES)}`,
    "/v1//y/log",
  ])("%s is nothing", (path) => {
    expect(router.find("GET", path)).toEqual({ kind: "nothing" });
  });

  test("of the root, and with a slash at the end, are places of their own", () => {
    const named = new Router([
      place("root", "/"),
      place("slash", "/page/"),
      place("page", "/page"),
    ]);
    const names = ["/", "/page/", "/page"].map((path) => named.find("GET", path));
    expect(names).toMatchObject(["root", "slash", "page"].map((name) => ({ place: { name } })));
    expect(named.find("GET", "/page//")).toEqual({ kind: "nothing" });
  });

  test("for another method say which ones there are", () => {
    expect(router.find("DELETE", "/v1/hosts/a")).toEqual({
      kind: "method",
      allowed: ["GET", "PUT"],
    });
  });

  test("that two could mean are a bug, and so are names", () => {
    expect(() => new Router([place("a", "/x/:a"), place("b", "/x/:b")])).toThrow("one path");
    expect(() => new Router([place("a", "/x"), place("a", "/y")])).toThrow("named a");
    for (const wrong of ["x y", "", "//", "/a//b"]) {
      expect(() => new Router([place("a", wrong)])).toThrow("path that is none");
    }
  });
});

describe("rates", () => {
  test("let a burst through, then so many a second, of each caller", () => {
    const limiter = new RateLimiter({ burst: 3, perSecond: 2 }, 10);
    const takes = (now: number, who = "a") => limiter.take(who, now);
    expect([takes(0), takes(0), takes(0), takes(0)]).toEqual([0, 0, 0, 500]);
    expect(takes(0, "b")).toBe(0);
    expect([takes(500), takes(500)]).toEqual([0, 500]);
    expect([takes(60_000), takes(60_000), takes(60_000), takes(60_000)]).toEqual([0, 0, 0, 500]);
  });

  test("are remembered of so many callers, the latest", () => {
    const limiter = new RateLimiter({ burst: 1, perSecond: 1 }, 100);
    for (let caller = 0; caller < 1_000; caller += 1) limiter.take(`c${caller}`, 0);
    expect(limiter.size).toBe(100);
    expect(limiter.take("c999", 0)).toBeGreaterThan(0);
    expect(limiter.take("c0", 0)).toBe(0);
  });

  test.each([
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["2001:db8:0:1:a:b:c:d", "2001:db8:0:1::/64"],
    ["2001:DB8:0:1::9", "2001:db8:0:1::/64"],
    ["2001:db8::9", "2001:db8:0:0::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
  ])("%s counts as %s", (address, key) => {
    expect(rateKeyOf(address)).toBe(key);
  });

  test("over them the server says when to come again", async () => {
    const addressRate = { burst: 2, perSecond: 0.1 };
    await using given = startTestServer({ limits: { addressRate } });
    const asked = await Promise.all([1, 2, 3].map(() => get(given, "/healthz")));
    expect(asked.map(({ status }) => status).toSorted()).toEqual([200, 200, 429]);
    expect(asked.find(({ status }) => status === 429)?.headers.get("retry-after")).toBe("10");
  });

  test("of a principal hold whatever address it has", async () => {
    const principalRate = { burst: 1, perSecond: 0.1 };
    await using given = startTestServer({ limits: { principalRate } });
    const statuses: number[] = [];
    for (const token of ["view-token", "view-token", "admin-token"]) {
      statuses.push((await get(given, "/v1/who", { authorization: `Bearer ${token}` })).status);
    }
    expect(statuses).toEqual([200, 429, 200]);
  });
});

describe("metrics", () => {
  test("what is read anew is told as it is then, and within the limit", () => {
    const registry = new MetricsRegistry();
    let samples = [{ labels: { x: 'q"' }, value: 1 }];
    registry.collect({ name: "a_total", help: "A" }, "counter", () => samples);
    const head = "# HELP a_total A\n# TYPE a_total counter\n";
    expect(registry.toText()).toBe(`${head}a_total{x="q\\""} 1\n`);
    samples = [];
    expect(registry.toText()).toBe(head);
    samples = Array.from({ length: SERIES_LIMIT + 1 }, (_value, index) => {
      return { labels: { x: String(index) }, value: index };
    });
    expect(registry.toText().match(/a_total\{/g)).toHaveLength(SERIES_LIMIT);
  });

  test("are told as Prometheus takes them", () => {
    const registry = new MetricsRegistry();
    const counter = registry.counter({ name: "a_total", help: "A\nb", labels: ["x"] });
    counter.add({ x: 'q"\\\n' }, 2);
    registry.gauge({ name: "b", help: "B" }, () => 7);
    const histogram = registry.histogram({ name: "c", help: "C", labels: ["r"] }, [1, 2]);
    for (const value of [0.5, 1, 1.5, 9]) histogram.observe(value, { r: "z" });
    expect(registry.toText()).toBe(
      [
        "# HELP a_total A\\nb",
        "# TYPE a_total counter",
        'a_total{x="q\\"\\\\\\n"} 2',
        "# HELP b B",
        "# TYPE b gauge",
        "b 7",
        "# HELP c C",
        "# TYPE c histogram",
        'c_bucket{r="z",le="1"} 2',
        'c_bucket{r="z",le="2"} 3',
        'c_bucket{r="z",le="+Inf"} 4',
        'c_sum{r="z"} 12',
        'c_count{r="z"} 4',
        "",
      ].join("\n"),
    );
    expect(() => registry.gauge({ name: "b", help: "" })).toThrow("Two metrics");
    expect(() => registry.gauge({ name: "B-x", help: "" })).toThrow("no name");
  });

  test("of more labels than the limit share one series", () => {
    const registry = new MetricsRegistry();
    const counter = registry.counter({ name: "a_total", help: "A", labels: ["x"] });
    for (let index = 0; index < SERIES_LIMIT + 50; index += 1) counter.add({ x: `${index}` });
    expect(registry.toText()).toContain('a_total{x="others"} 50\n');
    expect(registry.toText().split("\n").length).toBeLessThan(SERIES_LIMIT + 10);
  });

  test("count what the server answered, and are not for everybody", async () => {
    await using given = startTestServer();
    await given.client().call(whoAmI, {});
    expect((await get(given, "/metrics")).status).toBe(401);
    const text = await (
      await get(given, "/metrics", { authorization: "Bearer view-token" })
    ).text();
    expect(text).toContain('hostler_http_requests_total{route="test.who",status="200"} 1');
    expect(text).toContain('hostler_http_request_seconds_count{route="test.who"} 1');
  });
});

test("health is told with what is wrong", async () => {
  const reasons: string[] = [];
  await using given = startTestServer({ health: () => reasons });
  expect(await (await get(given, "/healthz")).json()).toEqual({ status: "well", reasons: [] });
  reasons.push("the store is away");
  const answer = await get(given, "/healthz");
  expect([answer.status, await answer.json()]).toEqual([503, { status: "unwell", reasons }]);
});

describe("a browser", () => {
  const browserSessions = {
    open: (token: string) => {
      if (token !== "operator-token") throw new ProblemError("unauthenticated", "No such token");
      const principal = operators["cookie-token"];
      if (principal === undefined) throw new Error("no such operator");
      return Promise.resolve({ principal, sessionToken: "cookie-token", lifetime: 3_600_000 });
    },
    close: () => {},
  };
  const body = JSON.stringify({ value: 1 });
  const json = { "content-type": "application/json" };
  const cookie = `${COOKIE_NAME}=cookie-token`;

  test("logs in with a token, and its cookie is out of reach of scripts", async () => {
    await using given = startTestServer({ browserSessions });
    const answer = await send(given, "/v1/browser-session", {
      method: "POST",
      body: JSON.stringify({ token: "operator-token" }),
      headers: json,
    });
    expect(answer.headers.get("set-cookie")).toBe(
      `${COOKIE_NAME}=cookie-token; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Strict`,
    );
    const told = { who: "operator carol", csrfToken: csrfTokenOf("cookie-token") };
    expect(await answer.json()).toEqual(told);
    expect(await (await get(given, "/v1/browser-session", { cookie })).json()).toEqual(told);
    expect((await get(given, "/v1/browser-session")).status).toBe(401);
    expect(JSON.stringify(given.records)).not.toContain("token");
    const headers = { cookie, "x-csrf-token": told.csrfToken };
    const out = await send(given, "/v1/browser-session", { method: "DELETE", headers });
    expect([out.status, out.headers.get("set-cookie")]).toEqual([
      200,
      expect.stringContaining("Max-Age=0"),
    ]);
  });

  test.each([
    ["its token", { "x-csrf-token": csrfTokenOf("cookie-token") }, 200],
    ["no token", {}, 403],
    ["the token of another session", { "x-csrf-token": csrfTokenOf("other") }, 403],
    [
      "another origin",
      { "x-csrf-token": csrfTokenOf("cookie-token"), origin: "https://evil" },
      403,
    ],
    [
      "another site",
      { "x-csrf-token": csrfTokenOf("cookie-token"), "sec-fetch-site": "cross-site" },
      403,
    ],
  ])("that changes something with %s: %j is %d", async (_name, headers, status) => {
    await using given = startTestServer({ browserSessions });
    const sent = { cookie, ...json, ...headers } as Record<string, string>;
    const answer = await send(given, "/v1/things/a", { method: "PUT", body, headers: sent });
    expect(answer.status).toBe(status);
    expect(given.records).toHaveLength(1);
    expect((await get(given, "/v1/things/a", { cookie })).status).toBeOneOf([200, 404]);
  });

  test("logs in again with a cookie that is over: of another process, or another day", async () => {
    await using given = startTestServer({ browserSessions });
    const old = { cookie: `${COOKIE_NAME}=of-yesterday`, "x-csrf-token": csrfTokenOf("x") };
    expect((await get(given, "/healthz", old)).status).toBe(200);
    const asked = await get(given, "/v1/browser-session", old);
    expect([asked.status, await asked.json()]).toEqual([
      401,
      expect.objectContaining({ received: "one that does not hold" }),
    ]);
    const body = JSON.stringify({ token: "operator-token" });
    const headers = { ...json, ...old };
    const answer = await send(given, "/v1/browser-session", { method: "POST", body, headers });
    expect([answer.status, answer.headers.get("set-cookie")]).toEqual([
      200,
      expect.stringContaining("cookie-token"),
    ]);
    // Whatever else it asks, it is told that its session is over: a route for anybody as well.
    expect((await get(given, "/v1/who", old)).status).toBe(401);
    expect((await get(given, "/metrics", old)).status).toBe(401);
    const bearer = { authorization: "Bearer of-yesterday" };
    expect((await get(given, "/healthz", bearer)).status).toBe(401);
  });

  test("cannot be made to send JSON as a form", async () => {
    await using given = startTestServer();
    const headers = { authorization: "Bearer admin-token", "content-type": "text/plain" };
    const answer = await send(given, "/v1/things/a", { method: "PUT", body, headers });
    expect(answer.status).toBe(415);
  });

  test("credentials that are none are refused", () => {
    const of = (headers: Record<string, string>) => () => credentialsOf(new Headers(headers));
    expect(of({})()).toEqual({ kind: "none" });
    expect(of({ authorization: "Bearer a", cookie })()).toEqual({ kind: "bearer", token: "a" });
    expect(of({ cookie: `x=y; ${cookie}` })()).toEqual({ kind: "cookie", token: "cookie-token" });
    expect(of({ authorization: "Basic abc" })).toThrow("none that is taken");
    expect(of({ authorization: `Bearer ${"a".repeat(TOKEN_LENGTH + 1)}` })).toThrow("too long");
    expect([equalInConstantTime("a", "a"), equalInConstantTime("a", "ab")]).toEqual([true, false]);
  });
});

describe("an input", () => {
  const headers = { authorization: "Bearer admin-token", "content-type": "application/json" };
  test.each([
    ["{", "JSON in UTF-8"],
    ["[1]", "an object"],
    ['{"value":1,"name":"b"}', "each name once in path, query and body"],
    ['{"value":1,"__proto__":{"x":1}}', undefined],
  ])("of %s", async (body, expected) => {
    await using given = startTestServer();
    const answer = await send(given, "/v1/things/a", { method: "PUT", body, headers });
    const told = (await answer.json()) as { expected?: string };
    expect([answer.status, told.expected]).toEqual([expected === undefined ? 200 : 400, expected]);
  });
});

describe("a client", () => {
  test("says nothing of what Bun advises whoever wrote the program", () => {
    const advice = "For more information, pass `verbose: true` in the second argument to fetch()";
    const asked = { url: "https://a:1", mutates: false };
    const failure = Object.assign(new Error(`It broke. ${advice}`), { code: "Odd" });
    expect(translateFailure(failure, asked).message).toBe("Cannot reach https://a:1: It broke");
  });

  const big = defineRoute({
    name: "test.big",
    method: "GET",
    path: "/v1/big",
    summary: "Much",
    permission: "anyone",
    mutates: false,
    input: v.object({}),
    output: v.string(),
    run: () => "x".repeat(100_000),
  });
  const never = defineRoute({
    ...setThing,
    name: "test.never",
    path: "/v1/never",
    permission: "anyone",
    input: v.object({}),
    run: async (call) => {
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
      return { before: null };
    },
  });

  test("takes no answer over its limit, nor one of another schema", async () => {
    await using given = startTestServer({ routes: [big, whoAmI] });
    const client = given.client({ limits: { answerBytes: 50_000 } });
    const refusal = await rejectionOf(client.call(big, {}));
    expect(refusal).toBeInstanceOf(HttpAnswerRefused);
    expect(refusal.message).toContain("at most 48.8 KiB");
    const other = { ...big, output: v.number() };
    expect(await rejectionOf(given.client().call(other, {}))).toBeInstanceOf(HttpAnswerRefused);
  });

  test("waits so long for an answer, and says that it may have been done", async () => {
    await using given = startTestServer({ routes: [never] });
    const client = given.client({ limits: { answerTime: 100 } });
    const lost = (await rejectionOf(client.call(never, {}))) as HttpUnreachable;
    expect(lost).toBeInstanceOf(HttpUnreachable);
    expect([lost.message, lost.ambiguous]).toEqual([
      `No answer at ${given.server.url} within 100 ms`,
      true,
    ]);
  });
});

test("the OpenAPI document has every route, with the schemas that check it", async () => {
  await using given = startTestServer();
  const document = (await (await get(given, "/openapi.json")).json()) as OpenApi;
  expect(document.openapi).toBe("3.1.1");
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );
  expect(operations.map(({ operation }) => operation.operationId).toSorted()).toEqual([
    "http.health",
    "http.metrics",
    "http.openapi",
    "test.things.read",
    "test.things.set",
    "test.who",
  ]);
  for (const { path, operation } of operations) {
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    const named = (operation.parameters ?? []).filter((parameter) => parameter.in === "path");
    expect(named.map(({ name }) => name)).toEqual(inPath as string[]);
    expect(operation.responses["default"]).toBeDefined();
    expect(operation.summary).not.toBe("");
  }
  const set = document.paths["/v1/things/{name}"]?.["put"];
  const schema = set?.requestBody?.content["application/json"].schema;
  expect(validate({ value: 1 }, schema)).toEqual([]);
  expect(validate({ value: "1" }, schema)).not.toEqual([]);
  expect(validate({}, schema)).not.toEqual([]);
  const read = document.paths["/v1/things/{name}"]?.["get"];
  expect(read?.parameters).toContainEqual({
    name: "unit",
    in: "query",
    required: false,
    schema: { type: "string", enum: ["one", "ten"] },
  });
  expect(read?.["x-permission"]).toBe(readThing.permission);
});

interface OpenApi {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
}

interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly "x-permission": string;
  readonly parameters?: { readonly name: string; readonly in: string; [key: string]: unknown }[];
  readonly requestBody?: { readonly content: Record<"application/json", { schema: unknown }> };
  readonly responses: Record<string, unknown>;
}

function send(given: TestServer, path: string, init: BunFetchRequestInit): Promise<Response> {
  const tls = { ca: given.certificate.certificate, checkServerIdentity: () => undefined };
  return fetch(`${given.server.url}${path}`, { ...init, tls });
}

function get(
  given: TestServer,
  path: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> {
  return send(given, path, { headers });
}

describe("a page", () => {
  const page: Page = {
    name: "test.page",
    method: "GET",
    path: "/v1/things/:name/page.html",
    summary: "A thing to look at",
    permission: "view",
    output: v.string(),
    mediaType: "text/html",
    serve: ({ parameters, principal }) => {
      if (parameters["name"] === "none") throw new ProblemError("not-found", "There is none");
      const text = `${parameters["name"]} for ${describePrincipal(principal)}`;
      return new Response(text, { headers: { "content-type": "text/html" } });
    },
  };

  test("is told what of its path was asked for, and by whom", async () => {
    await using given = startTestServer({ pages: [page] });
    const headers = { authorization: "Bearer view-token" };
    const answer = await get(given, "/v1/things/a%2Fb/page.html", headers);
    expect(await answer.text()).toBe("a/b for operator bob");
    expect(answer.headers.get("content-type")).toBe("text/html");
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expect((await get(given, "/v1/things/none/page.html", headers)).status).toBe(404);
    expect((await get(given, "/v1/things/a/page.html")).status).toBe(401);
  });
});
