/** What waits for whoever watches: the latest of each key, in order, and not without bounds. */
import { describe, expect, test } from "bun:test";
import type { Entry, WatchEvent } from "../../../src/store/store.ts";
import { WatchQueue } from "../../../src/store/wire/watch-queue.ts";

const entry = (key: string, revision: number, value = ""): Entry => ({
  bucket: "facts",
  key,
  revision,
  operation: "put",
  value,
  writeId: "w",
  time: 0,
});

function makeQueue(limit = 10_000) {
  const seen = { overflows: 0 };
  const onOverflow = () => {
    seen.overflows += 1;
  };
  return { queue: new WatchQueue({ limit, onOverflow }), seen };
}

function drain(queue: WatchQueue): string[] {
  const words: string[] = [];
  for (let event = queue.take(); event !== undefined; event = queue.take()) words.push(say(event));
  return words;
}

function say(event: WatchEvent): string {
  if (event.kind === "entry") return `${event.entry.key}:${event.entry.revision}`;
  return event.kind === "synced" ? `synced ${event.revision}` : "reset";
}

describe("a watch's queue", () => {
  test("keeps the latest of each key, in the order of the last change", () => {
    const { queue } = makeQueue();
    queue.entry(entry("a", 1));
    queue.entry(entry("b", 2));
    queue.entry(entry("a", 3));
    expect(drain(queue)).toEqual(["b:2", "a:3"]);
  });

  test("tells before synced what was listed, and the change of it, and behind it the rest", () => {
    const { queue } = makeQueue();
    queue.entry(entry("a", 1));
    queue.synced(1);
    queue.entry(entry("a", 2));
    queue.entry(entry("b", 3));
    expect(drain(queue)).toEqual(["a:2", "synced 1", "b:3"]);
  });

  test("an older entry does not take a newer one's place", () => {
    const { queue } = makeQueue();
    queue.entry(entry("a", 5));
    queue.entry(entry("a", 4));
    expect(drain(queue)).toEqual(["a:5"]);
  });

  test("a reset takes with it what waits, and comes first", () => {
    const { queue } = makeQueue();
    queue.entry(entry("a", 1));
    queue.synced(1);
    queue.reset();
    queue.entry(entry("b", 2));
    queue.synced(2);
    expect(drain(queue)).toEqual(["reset", "b:2", "synced 2"]);
  });

  test("over its limit it keeps nothing but a reset, and says so", () => {
    const { queue, seen } = makeQueue(100);
    for (let key = 0; key < 10; key += 1) queue.entry(entry(`k${key}`, key + 1, "v".repeat(10)));
    expect(seen.overflows).toBeGreaterThan(0);
    expect(queue.bytes).toBeLessThanOrEqual(100);
    expect(drain(queue)[0]).toBe("reset");
  });

  test("one key that changes for ever takes the room of one", () => {
    const { queue, seen } = makeQueue(100);
    for (let revision = 1; revision < 1_000; revision += 1) {
      queue.entry(entry("a", revision, "v".repeat(30)));
    }
    expect(seen.overflows).toBe(0);
    expect(drain(queue)).toEqual(["a:999"]);
    expect(queue.bytes).toBe(0);
  });

  test("ends behind what waits, with its failure", async () => {
    const { queue } = makeQueue();
    queue.entry(entry("a", 1));
    queue.end(new Error("denied"));
    const words: string[] = [];
    const read = async () => {
      for await (const event of queue.events()) words.push(say(event));
    };
    const failure = await read().then(
      () => "none",
      (error: Error) => error.message,
    );
    expect(words).toEqual(["a:1"]);
    expect(failure).toBe("denied");
  });
});
