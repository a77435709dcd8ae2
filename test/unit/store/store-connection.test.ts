/** The server's side of one connection: who may do what, every limit, and slow readers. */
import { describe, expect, test } from "bun:test";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import type { Store } from "../../../src/store/store.ts";
import {
  closeCodes,
  limits,
  PROTOCOL_VERSION,
  type ServerMessage,
} from "../../../src/store/wire/protocol.ts";
import {
  StoreConnection,
  type StoreConnectionOptions,
} from "../../../src/store/wire/store-connection.ts";
import { falseTimers } from "../../support/false-timers.ts";
import { conformanceBuckets, freshWriteId } from "../../support/store-conformance.ts";
import { waitFor } from "../../support/wait-for.ts";

type Kind = ServerMessage["kind"];

function connect(options: Partial<StoreConnectionOptions> = {}) {
  const timers = falseTimers();
  const sent: ServerMessage[] = [];
  const seen = {
    sent,
    closed: undefined as { code: number; reason: string } | undefined,
    buffered: 0,
    failures: [] as unknown[],
    ends: [] as string[],
  };
  const store = options.store ?? new MemoryStore({ buckets: conformanceBuckets });
  const connection = new StoreConnection({
    store,
    loop: timers.loop,
    now: timers.now,
    incarnation: "first",
    permits: () => true,
    onFailure: (failure) => seen.failures.push(failure),
    onEnd: (reason) => seen.ends.push(reason),
    socket: {
      send: (text) => sent.push(JSON.parse(text)),
      bufferedAmount: () => seen.buffered,
      close: (code, reason) => {
        seen.closed = { code, reason };
      },
    },
    ...options,
  });
  const say = (message: Readonly<Record<string, unknown>>) =>
    connection.receive(JSON.stringify(message));
  const greet = () => say({ kind: "hello", version: PROTOCOL_VERSION });
  const answer = <Name extends Kind>(kind: Name, id?: number) =>
    waitFor(`${kind} ${id ?? ""}`, () =>
      sent.find(
        (message): message is Extract<ServerMessage, { kind: Name }> =>
          message.kind === kind && (id === undefined || ("id" in message && message.id === id)),
      ),
    );
  return { connection, store, timers, seen, sent, say, greet, answer };
}

/** A store that answers nothing, and counts what it is asked. */
function silentStore(): Store & { asked: number } {
  const memory = new MemoryStore({ buckets: conformanceBuckets });
  const never = () => {
    silent.asked += 1;
    return new Promise<never>(() => {});
  };
  const silent = Object.assign(memory, { asked: 0, get: never, put: never, delete: never });
  return silent;
}

const put = (id: number, key: string, value: string, more: object = {}) => ({
  kind: "put",
  id,
  bucket: "facts",
  key,
  value,
  write_id: freshWriteId(),
  ...more,
});

describe("the beginning of a connection", () => {
  test("a hello is answered with what the store is", async () => {
    const { greet, sent } = connect();
    greet();
    expect(sent).toEqual([
      {
        kind: "welcome",
        version: PROTOCOL_VERSION,
        server: "memory",
        acknowledgement: "memory",
        incarnation: "first",
      },
    ]);
  });

  const refusals: readonly [string, string | Uint8Array, RegExp][] = [
    ["another message first", JSON.stringify({ kind: "ping" }), /expected hello, received ping/],
    ["another version", JSON.stringify({ kind: "hello", version: 2 }), /version 1 .* received 2/],
    ["no JSON", "hello", /expected JSON/],
    ["an unknown kind", JSON.stringify({ kind: "bye" }), /expected .* received "bye"/],
    ["bytes", new Uint8Array(3), /expected text, received bytes/],
    ["a message over its limit", "x".repeat(limits.messageBytes + 1), /at most 4194304 bytes/],
  ];
  for (const [what, message, reason] of refusals) {
    test(`${what} is refused, with what was expected`, () => {
      const { connection, seen } = connect();
      connection.receive(message);
      expect(seen.closed?.code).toBe(closeCodes.violation);
      expect(seen.closed?.reason).toMatch(reason);
      expect(seen.ends).toHaveLength(1);
    });
  }

  test("a second hello ends it", () => {
    const { greet, seen } = connect();
    greet();
    greet();
    expect(seen.closed?.code).toBe(closeCodes.violation);
  });

  test("who says no hello is let go after 10 s", () => {
    const { timers, seen } = connect();
    timers.advance(limits.helloTime - 1);
    expect(seen.closed).toBeUndefined();
    timers.advance(1);
    expect(seen.closed?.code).toBe(closeCodes.violation);
    expect(timers.waiting).toBe(0);
  });

  test("who says nothing any more is let go, who pings is not", () => {
    const { timers, seen, greet, say, sent } = connect();
    greet();
    for (let round = 0; round < 5; round += 1) {
      timers.advance(limits.silence - 1);
      say({ kind: "ping" });
    }
    expect(sent.at(-1)).toEqual({ kind: "pong" });
    expect(seen.closed).toBeUndefined();
    timers.advance(limits.silence);
    expect(seen.closed?.code).toBe(closeCodes.silent);
    expect(timers.waiting).toBe(0);
  });
});

describe("permissions", () => {
  test("every operation is asked for, with its place, and denied without asking the store", () => {
    const asked: string[] = [];
    const store = silentStore();
    const permits = (...words: readonly string[]) => {
      asked.push(words.join(" "));
      return false;
    };
    const { greet, say, sent } = connect({ store, permits });
    greet();
    say({ kind: "get", id: 1, bucket: "facts", key: "a" });
    say(put(2, "b", "1"));
    say({ kind: "delete", id: 3, bucket: "facts", key: "c", write_id: "w" });
    say({ kind: "watch", id: 4, bucket: "facts", pattern: "d." });
    expect(asked).toEqual(["get facts a", "put facts b", "delete facts c", "watch facts d."]);
    const denied = sent.slice(1);
    expect(denied.map((message) => [message.kind, "id" in message && message.id])).toEqual([
      ["refused", 1],
      ["refused", 2],
      ["refused", 3],
      ["refused", 4],
    ]);
    for (const message of denied) expect(message).toMatchObject({ problem: { kind: "denied" } });
    expect(store.asked).toBe(0);
  });

  test("a session that ends takes the connection and its watches with it, at once", async () => {
    const session = new AbortController();
    const { greet, say, answer, seen, store, sent } = connect({ signal: session.signal });
    greet();
    say({ kind: "watch", id: 1, bucket: "facts", pattern: "" });
    await answer("synced", 1);
    session.abort();
    expect(seen.closed).toEqual({
      code: closeCodes.sessionEnded,
      reason: "the session has ended",
    });
    const told = sent.length;
    await store.put("facts", "a", "1", { writeId: freshWriteId() });
    expect(sent).toHaveLength(told);
  });

  test("a session that had ended before is let in nowhere", () => {
    const { connection, greet, sent } = connect({ signal: AbortSignal.abort() });
    greet();
    expect(connection.isOpen).toBe(false);
    expect(sent).toEqual([]);
  });
});

describe("limits of a connection", () => {
  test("open requests", () => {
    const store = silentStore();
    const { greet, say, sent } = connect({ store });
    greet();
    for (let id = 1; id <= limits.openRequests; id += 1) {
      say({ kind: "get", id, bucket: "facts", key: "a" });
    }
    expect(sent).toHaveLength(1);
    say({ kind: "get", id: 5_000, bucket: "facts", key: "a" });
    expect(store.asked).toBe(limits.openRequests);
    expect(sent.at(-1)).toMatchObject({ kind: "refused", id: 5_000, problem: { kind: "refused" } });
  });

  test("bytes in open requests", () => {
    const store = silentStore();
    const { greet, say, sent } = connect({ store });
    greet();
    const value = "v".repeat(512 * 1024);
    for (let id = 1; id <= 31; id += 1) say(put(id, "a", value));
    expect(sent).toHaveLength(1);
    say(put(32, "a", value));
    expect(sent.at(-1)).toMatchObject({ kind: "refused", id: 32, problem: { kind: "refused" } });
  });

  test("watches", async () => {
    const { greet, say, answer } = connect();
    greet();
    for (let id = 1; id <= limits.watches + 1; id += 1) {
      say({ kind: "watch", id, bucket: "facts", pattern: "a" });
    }
    expect((await answer("refused", limits.watches + 1)).problem.kind).toBe("refused");
    // An end makes room for another.
    say({ kind: "unwatch", id: 1 });
    say({ kind: "watch", id: 1_000, bucket: "facts", pattern: "a" });
    await answer("synced", 1_000);
  });

  test("a value over the store's limit is refused before it is a request", () => {
    const { greet, say, seen } = connect();
    greet();
    say(put(1, "a", "ü".repeat(300_000)));
    expect(seen.closed?.code).toBe(closeCodes.violation);
  });

  test("the same id for two watches ends it", () => {
    const { greet, say, seen } = connect();
    greet();
    say({ kind: "watch", id: 1, bucket: "facts", pattern: "" });
    say({ kind: "watch", id: 1, bucket: "facts", pattern: "" });
    expect(seen.closed?.code).toBe(closeCodes.violation);
  });
});

describe("a client that is slow", () => {
  test("is told the latest of each key when it reads again", async () => {
    const { connection, greet, say, answer, seen, store, sent, timers } = connect();
    greet();
    say({ kind: "watch", id: 1, bucket: "facts", pattern: "" });
    await answer("synced", 1);
    seen.buffered = limits.behindBytes + 1;
    await store.put("facts", "a", "0", { writeId: freshWriteId() });
    await answer("entries", 1);
    for (let value = 1; value <= 1_000; value += 1) {
      await store.put("facts", "a", `${value}`, { writeId: freshWriteId() });
    }
    const told = () => sent.filter(({ kind }) => kind === "entries").length;
    // One more may have been under way.
    expect(told()).toBeLessThanOrEqual(2);
    seen.buffered = 0;
    connection.drained();
    await waitFor("the latest value", () =>
      sent.some((message) => message.kind === "entries" && message.entries[0]?.value === "1000"),
    );
    expect(told()).toBeLessThan(5);
    timers.advance(limits.behindTime);
    expect(seen.closed?.code).not.toBe(closeCodes.behind);
  });

  test("and does not read for 30 s is let go", async () => {
    const { greet, seen, timers, say } = connect();
    seen.buffered = limits.behindBytes + 1;
    greet();
    timers.advance(limits.behindTime - 1);
    say({ kind: "ping" });
    expect(seen.closed).toBeUndefined();
    timers.advance(1);
    expect(seen.closed?.code).toBe(closeCodes.behind);
  });

  test("and asks on without reading is let go at once, over the bytes that may wait", () => {
    const { greet, seen, say } = connect();
    greet();
    seen.buffered = limits.queuedBytes + 1;
    say({ kind: "ping" });
    expect(seen.closed?.code).toBe(closeCodes.behind);
  });
});

describe("what the store does", () => {
  test("entries that come in one go are told in one message, up to its limit", async () => {
    const { greet, say, answer, store, sent } = connect();
    for (let key = 0; key < 600; key += 1) {
      await store.put("facts", `k.${key}`, "v", { writeId: freshWriteId() });
    }
    greet();
    say({ kind: "watch", id: 1, bucket: "facts", pattern: "" });
    await answer("synced", 1);
    const counts = sent.flatMap((message) =>
      message.kind === "entries" ? [message.entries.length] : [],
    );
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(600);
    expect(Math.max(...counts)).toBeLessThanOrEqual(limits.batchEntries);
    expect(counts.length).toBeLessThan(20);
  });

  test("a failure that no store has is told to the owner, and a write is ambiguous", async () => {
    const store = Object.assign(new MemoryStore({ buckets: conformanceBuckets }), {
      put: () => Promise.reject(new TypeError("a bug")),
    });
    const { greet, say, answer, seen } = connect({ store });
    greet();
    say(put(1, "a", "1"));
    expect((await answer("refused", 1)).problem).toEqual({ kind: "ambiguous" });
    expect(seen.failures).toHaveLength(1);
  });

  test("a conflict goes out as it is", async () => {
    const { greet, say, answer } = connect();
    greet();
    say(put(1, "a", "1"));
    const { revision } = await answer("written", 1);
    say(put(2, "a", "2", { expect: 0 }));
    expect((await answer("refused", 2)).problem).toEqual({ kind: "conflict", received: revision });
  });
});
