/** Which connections a client keeps, what goes over them, and what is repeated. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { defaultHttpClientLimits, type HttpClientOptions } from "../../../src/http/client.ts";
import { HttpPinRefused, HttpUnreachable } from "../../../src/http/client-error.ts";
import { defaultHttpLimits } from "../../../src/http/limits.ts";
import { type DefinedRoute, defineRoute } from "../../../src/http/route.ts";
import type { HttpServerOptions } from "../../../src/http/server.ts";
import { makeCertificate } from "../../support/certificate.ts";
import { type CuttingProxy, startCuttingProxy } from "../../support/cutting-proxy.ts";
import { startTestServer, type TestServer } from "../../support/http-server.ts";
import { rejectionOf, waitFor } from "../../support/wait-for.ts";

const schema = v.object({ word: v.string() });
type WordRoute = DefinedRoute<typeof schema, typeof schema>;

/** What the routes of one test were asked, and what happens while they answer. */
interface Asked {
  readonly words: string[];
  meanwhile: () => Promise<void> | void;
}

function wordRoute(asked: Asked, method: "GET" | "POST" | "PUT" | "DELETE", mutates: boolean) {
  const name = `test.${method.toLowerCase()}.${mutates ? "change" : "look"}`;
  return defineRoute({
    ...{ name, method, mutates, summary: "Says the word once more" },
    permission: "anyone",
    path: `/v1/${name}/:word`,
    ...{ input: schema, output: schema },
    async run(_call, { word }) {
      asked.words.push(word);
      await asked.meanwhile();
      return { word };
    },
  });
}

interface World extends AsyncDisposable {
  readonly given: TestServer;
  readonly proxy: CuttingProxy;
  readonly asked: Asked;
  readonly look: WordRoute;
  readonly lookByPost: WordRoute;
  readonly changes: readonly WordRoute[];
  client(options?: Partial<HttpClientOptions>): ReturnType<TestServer["client"]>;
}

async function world(options: Partial<HttpServerOptions> = {}): Promise<World> {
  const asked: Asked = { words: [], meanwhile: () => {} };
  const look = wordRoute(asked, "GET", false);
  const lookByPost = wordRoute(asked, "POST", false);
  const changes = (["POST", "PUT", "DELETE"] as const).map((method) =>
    wordRoute(asked, method, true),
  );
  const given = startTestServer({ ...options, routes: [look, lookByPost, ...changes] });
  const proxy = await startCuttingProxy({ listen: 0, target: () => given.server.port });
  const url = `https://127.0.0.1:${proxy.place}`;
  return {
    ...{ given, proxy, asked, look, lookByPost, changes },
    client: (more) => given.client({ url, ...more }),
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      await given[Symbol.asyncDispose]();
    },
  };
}

/** Once, the whole way is ended while the server answers: it has done it, and nobody hears that. */
function loseOneAnswer({ asked, proxy }: Pick<World, "asked" | "proxy">): void {
  asked.meanwhile = () => {
    asked.meanwhile = () => {};
    proxy.drop();
  };
}

/** A client that has looked at the certificate (a connection of its own), and keeps one. */
async function warm(given: World, options: Partial<HttpClientOptions> = {}) {
  const client = given.client(options);
  await client.call(given.look, { word: "first" });
  given.asked.words.splice(0);
  return client;
}

describe("a client", () => {
  test("asks by one connection what changes nothing, by whatever method", async () => {
    await using given = await world();
    const client = await warm(given);
    const before = given.proxy.accepted;
    for (let call = 0; call < 20; call += 1) {
      await client.call(call % 2 === 0 ? given.look : given.lookByPost, { word: `w${call}` });
    }
    expect(given.asked.words).toHaveLength(20);
    expect(given.proxy.accepted).toBe(before);
  });

  test("opens one for each call that changes something, and keeps it not", async () => {
    await using given = await world();
    const client = await warm(given);
    const before = given.proxy.accepted;
    for (const change of given.changes) await client.call(change, { word: "a" });
    expect(given.proxy.accepted - before).toBe(given.changes.length);
    await waitFor("them to be closed", () => given.proxy.open === 1);
    await client.call(given.look, { word: "b" });
    expect(given.proxy.accepted - before).toBe(given.changes.length);
  });

  test("shares its connections with no other one, of the same pins neither", async () => {
    await using given = await world();
    const one = await warm(given);
    await warm(given);
    expect(given.proxy.open).toBe(2);
    const other = given.client({ pins: [makeCertificate("other").pin] });
    const refusal = await rejectionOf(other.call(given.look, { word: "never" }));
    expect(refusal).toBeInstanceOf(HttpPinRefused);
    expect(given.asked.words).toEqual([]);
    one[Symbol.dispose]();
    await waitFor("the one's to be closed, and not the other's", () => given.proxy.open === 1);
  });

  test("can be used on after it was disposed of", async () => {
    await using given = await world();
    const client = await warm(given);
    client[Symbol.dispose]();
    await waitFor("its connection to be closed", () => given.proxy.open === 0);
    expect(await client.call(given.look, { word: "on" })).toEqual({ word: "on" });
  });

  test("closes an idle connection before the server does, with what Bun adds", async () => {
    const bunAdds = 3 * 4_000;
    expect(defaultHttpClientLimits.idleTime + bunAdds).toBeLessThan(defaultHttpLimits.idleTime);
    await using given = await world();
    await warm(given, { limits: { idleTime: 1_000 } });
    expect(given.proxy.open).toBe(1);
    await waitFor("it to be closed", () => given.proxy.open === 0);
  }, 30_000);
});

describe("a kept connection that ends", () => {
  test("before the next call, is replaced", async () => {
    await using given = await world({ limits: { idleTime: 1_000 } });
    const client = await warm(given);
    await waitFor("the server to close it", () => given.proxy.open === 0);
    await client.call(given.lookByPost, { word: "a" });
    expect(given.asked.words).toEqual(["a"]);
  }, 30_000);

  test("under a call that changes nothing, is replaced, and the call repeated", async () => {
    await using given = await world();
    const client = await warm(given);
    for (const route of [given.look, given.lookByPost]) {
      given.asked.words.splice(0);
      loseOneAnswer(given);
      expect(await client.call(route, { word: "a" })).toEqual({ word: "a" });
      expect(given.asked.words).toEqual(["a", "a"]);
    }
  });

  test.each([0, 1, 2])("never has a call repeated that changes something: %i", async (place) => {
    await using given = await world();
    const client = await warm(given);
    const change = given.changes[place] as WordRoute;
    loseOneAnswer(given);
    const failure = await rejectionOf(client.call(change, { word: "a" }));
    expect(failure).toBeInstanceOf(HttpUnreachable);
    expect((failure as HttpUnreachable).ambiguous).toBe(true);
    expect(given.asked.words).toEqual(["a"]);
    await client.call(change, { word: "b" });
    expect(given.asked.words).toEqual(["a", "b"]);
  });

  test("is not one whose call was given up: a late answer is nobody's", async () => {
    await using given = await world();
    const client = await warm(given);
    const late = Promise.withResolvers<void>();
    given.asked.meanwhile = () => late.promise;
    const failure = await rejectionOf(
      client.call(given.lookByPost, { word: "late" }, { answerTime: 50 }),
    );
    expect(failure.message).toContain("50 ms");
    given.asked.meanwhile = () => {};
    late.resolve();
    expect(await client.call(given.lookByPost, { word: "next" })).toEqual({ word: "next" });
  });
});

describe("a certificate that is replaced under kept connections", () => {
  test("loses no call, and is checked where a connection is new", async () => {
    await using given = await world();
    const next = makeCertificate("next");
    const pins = [given.given.certificate.pin, next.pin];
    const client = await warm(given, { pins });
    const changer = await warm(given, { pins });
    given.given.server.replaceCertificate(next);
    await waitFor("the old listener to end, and a read by the new one", async () => {
      await client.call(given.look, { word: "read" });
      await client.call(given.lookByPost, { word: "told" });
      await changer.call(given.changes[0] as WordRoute, { word: "changed" });
      return client.certificateHash === next.pin;
    });
    const before = given.proxy.accepted;
    await client.call(given.look, { word: "kept" });
    expect(given.proxy.accepted).toBe(before);
  });

  test("by one that is not pinned ends what is kept, and is refused", async () => {
    await using given = await world();
    const client = await warm(given);
    const next = makeCertificate("next");
    given.given.server.replaceCertificate(next);
    await waitFor("the old listener to end", () => given.proxy.open === 0);
    given.asked.words.splice(0);
    const failure = await rejectionOf(client.call(given.look, { word: "never" }));
    expect(failure).toBeInstanceOf(HttpPinRefused);
    expect(failure.message).toContain(next.pin);
    expect(given.asked.words).toEqual([]);
  });
});

test("a server that stops waits for no connection that is idle", async () => {
  await using given = await world();
  await warm(given);
  const began = performance.now();
  await given.given.server.stop(15_000);
  expect(performance.now() - began).toBeLessThan(10_000);
});
