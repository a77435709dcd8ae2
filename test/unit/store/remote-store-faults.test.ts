/** A store over the wire whose server lies, is silent, denies, is another, or lets nobody in. */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import type { LinkState } from "../../../src/store/store.ts";
import { limits, PROTOCOL_VERSION } from "../../../src/store/wire/protocol.ts";
import { RemoteStore, type RemoteStoreOptions } from "../../../src/store/wire/remote-store.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import {
  conformanceBuckets,
  freshWriteId,
  problemOf,
  WatchReader,
} from "../../support/store-conformance.ts";
import { type StoreServer, serveStore, unixAddress } from "../../support/store-server.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf, waitFor, withDeadline } from "../../support/wait-for.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

let folder: TemporaryFolder;
let stack: AsyncDisposableStack;
let reasons: string[];
beforeEach(() => {
  stack = new AsyncDisposableStack();
  folder = stack.use(temporaryFolder());
  reasons = [];
});
afterEach(() => stack.disposeAsync());

const path = () => folder.file("store");

function remote(options: Partial<RemoteStoreOptions> = {}): RemoteStore {
  const onFailure = (reason: string) => reasons.push(reason);
  const address = unixAddress(path());
  return stack.use(new RemoteStore(loop, { address, onFailure, deadline: 5_000, ...options }));
}

const memory = () => new MemoryStore({ buckets: conformanceBuckets });

function serve(options: Partial<Parameters<typeof serveStore>[0]> = {}): StoreServer {
  return serveStore({ loop, store: memory(), unix: path(), ...options });
}

/** A server that says what the test has it say, and does nothing of itself but welcome. */
function scripted(onMessage: (text: string, say: (body: unknown) => void) => void) {
  const server = Bun.serve({
    unix: path(),
    fetch: (request, self) =>
      self.upgrade(request) ? undefined : new Response("", { status: 400 }),
    websocket: {
      message(socket, message) {
        const say = (body: unknown) => {
          socket.send(typeof body === "string" ? body : JSON.stringify(body));
        };
        if (String(message).includes('"hello"')) say(welcome);
        else onMessage(String(message), say);
      },
    },
  });
  const end = () => server.stop(true);
  stack.defer(end);
  return { end };
}

const welcome = {
  kind: "welcome",
  version: PROTOCOL_VERSION,
  server: "scripted",
  acknowledgement: "fsync",
  incarnation: "first",
};

async function until(store: RemoteStore, wanted: LinkState): Promise<void> {
  const end = new AbortController();
  const reached = (async () => {
    for await (const state of store.link(end.signal)) if (state === wanted) return;
  })();
  await withDeadline(`the link to be ${wanted}`, reached);
  end.abort();
}

describe("requests", () => {
  test("wait for a server that comes late", async () => {
    const store = remote();
    const write = store.put("facts", "a", "1", { writeId: freshWriteId() });
    const read = store.get("facts", "a");
    await waitFor("a failed attempt", () => reasons.length > 0);
    stack.use(serve());
    const revision = await write;
    expect(await read).toMatchObject({ value: "1", revision });
    expect(store.capabilities).toEqual({ acknowledgement: "memory", server: "memory" });
  });

  test("are unavailable after the deadline, without any server", async () => {
    const store = remote({ deadline: 50 });
    const write = store.put("facts", "a", "1", { writeId: freshWriteId() });
    expect(await problemOf(write)).toEqual({ kind: "unavailable" });
    expect(await problemOf(store.get("facts", "a"))).toEqual({ kind: "unavailable" });
  });

  test("of a server that does not answer: a write is ambiguous, a read unavailable", async () => {
    scripted(() => {});
    const store = remote({ deadline: 100 });
    await until(store, "up");
    const write = store.put("facts", "a", "1", { writeId: freshWriteId() });
    const read = store.get("facts", "a");
    expect(await problemOf(write)).toEqual({ kind: "ambiguous" });
    expect(await problemOf(read)).toEqual({ kind: "unavailable" });
  });

  test("when the link is lost: a write is ambiguous, a read is asked again", async () => {
    const asked: string[] = [];
    const first = scripted((text) => asked.push(text));
    const store = remote();
    await until(store, "up");
    const write = store.delete("facts", "a", { writeId: freshWriteId() });
    const read = store.get("facts", "a");
    await waitFor("both requests", () => asked.length === 2);
    await first.end();
    expect(await problemOf(write)).toEqual({ kind: "ambiguous" });
    const there = memory();
    await there.put("facts", "a", "1", { writeId: freshWriteId() });
    stack.use(serve({ store: there }));
    expect(await read).toMatchObject({ value: "1" });
  });

  test("an ambiguous write is found by its write id, and its repetition lands once", async () => {
    const there = memory();
    const first = scripted((text) => {
      const { kind, write_id: writeId, value } = JSON.parse(text);
      // It lands, and the server is gone before it has said so.
      if (kind === "put") void there.put("facts", "a", value, { writeId }).then(() => first.end());
    });
    const store = remote();
    const writeId = freshWriteId();
    expect(await problemOf(store.put("facts", "a", "1", { writeId, expect: 0 }))).toEqual({
      kind: "ambiguous",
    });
    stack.use(serve({ store: there }));
    const found = await store.get("facts", "a");
    expect(found?.writeId).toBe(writeId);
    expect(await store.put("facts", "a", "1", { writeId, expect: 0 })).toBe(found?.revision ?? 0);
  });

  test("more than may be open are refused here, before the wire", async () => {
    scripted(() => {});
    const store = remote({ deadline: 200 });
    const open = Array.from({ length: limits.openRequests }, () =>
      store.get("facts", "a").catch(() => {}),
    );
    expect((await problemOf(store.get("facts", "a"))).kind).toBe("refused");
    await Promise.all(open);
    expect((await problemOf(store.get("facts", "a"))).kind).toBe("unavailable");
  });

  test("more bytes than may be open are refused here", async () => {
    const store = remote({ deadline: 100 });
    const value = "v".repeat(512 * 1024);
    const writes = Array.from({ length: 40 }, () =>
      problemOf(store.put("facts", "a", value, { writeId: freshWriteId() })),
    );
    const kinds = (await Promise.all(writes)).map(({ kind }) => kind);
    expect(new Set(kinds)).toEqual(new Set(["unavailable", "refused"]));
  });

  test("end with the store", async () => {
    scripted(() => {});
    const store = remote();
    await until(store, "up");
    const write = problemOf(store.put("facts", "a", "1", { writeId: freshWriteId() }));
    const read = problemOf(store.get("facts", "a"));
    await store[Symbol.asyncDispose]();
    expect([(await write).kind, (await read).kind]).toEqual(["ambiguous", "unavailable"]);
    expect((await problemOf(store.get("facts", "a"))).kind).toBe("unavailable");
  });
});

describe("a server that lies", () => {
  const lies: readonly [string, unknown, RegExp][] = [
    ["no JSON", "nonsense", /expected JSON/],
    ["an unknown kind", { kind: "surprise" }, /expected/],
    ["an entry of no bucket", { kind: "got", id: 1, entry: { key: "a" } }, /expected/],
    ["a revision below zero", { kind: "written", id: 1, revision: -1 }, /expected/],
    ["a message over its limit", "x".repeat(limits.messageBytes + 1), /expected/],
  ];
  for (const [what, lie, reason] of lies) {
    test(`${what}: the connection ends, and another follows`, async () => {
      let asked = 0;
      scripted((text, say) => {
        const { id } = JSON.parse(text);
        asked += 1;
        say(asked === 1 ? lie : { kind: "got", id, entry: null });
      });
      const store = remote();
      expect(await store.get("facts", "a")).toBeUndefined();
      expect(asked).toBe(2);
      expect(reasons.join("\n")).toMatch(reason);
    });
  }

  test("an answer of another kind is unavailable, not believed", async () => {
    scripted((text, say) => {
      const { id } = JSON.parse(text);
      say({ kind: "written", id, revision: 7 });
    });
    expect((await problemOf(remote().get("facts", "a"))).kind).toBe("unavailable");
  });
});

describe("watches over lost links", () => {
  test("go on behind what they knew, and hear nothing twice", async () => {
    const there = memory();
    const first = serve({ store: there });
    const store = remote();
    await using watch = new WatchReader(store, "facts", "");
    await watch.synced();
    await there.put("facts", "a", "1", { writeId: freshWriteId() });
    expect((await watch.entry()).value).toBe("1");
    await first[Symbol.asyncDispose]();
    await until(store, "down");
    await there.put("facts", "b", "2", { writeId: freshWriteId() });
    await there.delete("facts", "a", { writeId: freshWriteId() });
    stack.use(serve({ store: there }));
    expect(await watch.entry()).toMatchObject({ key: "b", value: "2" });
    expect(await watch.entry()).toMatchObject({ key: "a", operation: "delete" });
    await there.put("facts", "c", "3", { writeId: freshWriteId() });
    expect(await watch.entry()).toMatchObject({ key: "c", value: "3" });
  });

  test("are reset by another store, whose revisions say nothing", async () => {
    const first = serve();
    const store = remote();
    await store.put("facts", "a", "old", { writeId: freshWriteId() });
    await using watch = new WatchReader(store, "facts", "");
    expect((await watch.synced()).values.get("a")).toBe("old");
    await first[Symbol.asyncDispose]();
    const another = memory();
    for (const key of ["x", "y", "z"]) {
      await another.put("facts", key, "new", { writeId: freshWriteId() });
    }
    stack.use(serve({ store: another, incarnation: "second" }));
    const { values, resets } = await watch.synced();
    expect(resets).toBe(1);
    expect([...values.keys()]).toEqual(["x", "y", "z"]);
  });

  test("are reset when the list had not come whole", async () => {
    const entry = { bucket: "facts", operation: "put", value: "1", write_id: "w", time: 0 };
    const first = scripted((text, say) => {
      const { kind, id } = JSON.parse(text);
      const entries = [{ ...entry, key: "gone", revision: 5 }];
      if (kind === "watch") say({ kind: "entries", id, entries });
    });
    const store = remote();
    await using watch = new WatchReader(store, "facts", "");
    expect((await watch.entry()).key).toBe("gone");
    await first.end();
    stack.use(serve());
    expect((await watch.next()).kind).toBe("reset");
    expect((await watch.next()).kind).toBe("synced");
  });

  test("one too many is refused", async () => {
    stack.use(serve());
    const store = remote();
    const end = new AbortController();
    const { signal } = end;
    for (let count = 0; count < limits.watches; count += 1) {
      const events = store.watch("facts", "a", { signal })[Symbol.asyncIterator]();
      expect((await events.next()).value?.kind).toBe("synced");
    }
    expect((await problemOf(new WatchReader(store, "facts", "a").next())).kind).toBe("refused");
    end.abort();
  });
});

describe("credentials", () => {
  test("are asked for anew at each attempt, and let in when they are good", async () => {
    const session = new AbortController();
    stack.use(
      serve({
        session: (headers) =>
          headers.get("authorization") === "Bearer third" ? session.signal : undefined,
      }),
    );
    const given = ["first", "second", "third", "fourth"];
    let attempts = 0;
    const store = remote({
      headers: async () => ({ authorization: `Bearer ${given[attempts++]}` }),
    });
    await store.put("facts", "a", "1", { writeId: freshWriteId() });
    expect(attempts).toBe(3);
    expect(reasons).toHaveLength(2);
  });

  test("that cannot be had are a failed attempt", async () => {
    stack.use(serve());
    let attempts = 0;
    const store = remote({
      headers: async () => {
        attempts += 1;
        if (attempts === 1) throw new Error("the key is locked");
        return {};
      },
    });
    await until(store, "up");
    expect(reasons[0]).toBe("no credentials: the key is locked");
  });

  test("that take longer than they may are given up, and asked for anew", async () => {
    stack.use(serve());
    let attempts = 0;
    const store = remote({
      credentialsTime: 30,
      headers: () => {
        attempts += 1;
        return attempts === 1 ? new Promise(() => {}) : Promise.resolve({});
      },
    });
    await until(store, "up");
    expect([attempts, reasons]).toEqual([2, ["no credentials within 30 ms"]]);
  });

  test("that are revoked end the connection at once, and writes are ambiguous", async () => {
    const session = new AbortController();
    let isRevoked = false;
    const silent = Object.assign(memory(), { put: () => new Promise<never>(() => {}) });
    stack.use(serve({ store: silent, session: () => (isRevoked ? undefined : session.signal) }));
    const store = remote();
    await until(store, "up");
    await using watch = new WatchReader(store, "facts", "");
    await watch.synced();
    const write = problemOf(store.put("facts", "a", "1", { writeId: freshWriteId() }));
    await store.get("facts", "a");
    isRevoked = true;
    session.abort();
    expect(await write).toEqual({ kind: "ambiguous" });
    await waitFor("a refusal", () => reasons.length > 1);
    expect(reasons[0]).toMatch(/the session has ended \(4001\)/);
    expect((await problemOf(remote({ deadline: 50 }).get("facts", "a"))).kind).toBe("unavailable");
  });

  test("keys that are denied: reads, writes and watches, and no other", async () => {
    const permits = (_operation: string, bucket: string, place: string) =>
      bucket === "facts" && place.startsWith("own.");
    stack.use(serve({ permits }));
    const store = remote();
    await store.put("facts", "own.a", "1", { writeId: freshWriteId() });
    const tries = [
      store.put("facts", "other", "1", { writeId: freshWriteId() }),
      store.delete("facts", "other", { writeId: freshWriteId() }),
      store.get("records", "own.a"),
      new WatchReader(store, "facts", "").next(),
    ];
    for (const attempt of tries) expect(await problemOf(attempt)).toEqual({ kind: "denied" });
    await using watch = new WatchReader(store, "facts", "own.");
    expect((await watch.synced()).values.get("own.a")).toBe("1");
  });
});

describe("the state of the link", () => {
  test("is stale while a server that is connected says nothing, and up by a word", async () => {
    let isSilent = true;
    scripted((_text, say) => {
      if (!isSilent) say({ kind: "pong" });
    });
    const store = remote({ staleAfter: 60 });
    const states: LinkState[] = [];
    const end = new AbortController();
    const following = (async () => {
      for await (const state of store.link(end.signal)) states.push(state);
    })();
    await waitFor("stale", () => states.includes("stale"));
    isSilent = false;
    await waitFor("up again", () => states.at(-1) === "up");
    end.abort();
    await following;
    expect(states).toEqual(["down", "up", "stale", "up"]);
  });

  test("a link that stays silent is given up for a new one", async () => {
    scripted(() => {});
    remote({ staleAfter: 30 });
    await waitFor("a link given up", () => reasons.some((reason) => /no word/.test(reason)));
  });

  test("a server that never says welcome, or another thing, is none", async () => {
    const server = Bun.serve({
      unix: path(),
      fetch: (request, self) =>
        self.upgrade(request) ? undefined : new Response("", { status: 400 }),
      websocket: {
        message: (socket) => {
          socket.send(JSON.stringify({ kind: "pong" }));
        },
      },
    });
    stack.defer(() => server.stop(true));
    remote();
    await waitFor("a refusal", () => reasons.length > 0);
    expect(reasons[0]).toBe("expected welcome, received pong");
  });
});

test("a store that was closed connects no more", async () => {
  const store = remote();
  await store[Symbol.asyncDispose]();
  const server = stack.use(serve());
  const error = await rejectionOf(store.get("facts", "a"));
  expect(error.message).toMatch(/closed/);
  expect(server.connections.size).toBe(0);
});
