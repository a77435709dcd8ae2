/** A write that is ambiguous is read back by its write id, and lands once. */
import { describe, expect, test } from "bun:test";
import { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import { newWriteId, patienceFor, putOnce, putOnceLimits } from "../../../src/store/put-once.ts";
import { isWriteId, type Store, StoreError, type StoreProblem } from "../../../src/store/store.ts";
import { bucket } from "../../support/embedded-store.ts";
import { problemOf } from "../../support/store-conformance.ts";

type Fate = "lands" | "lands, ambiguous" | "lost, ambiguous" | "unavailable" | "denied";

/** A store whose writes have these fates, one after the other. */
function fated(fates: Fate[]): { store: Store; puts: () => number } {
  const memory = new MemoryStore({ buckets: [bucket({ name: "b" })] });
  let puts = 0;
  const fail = (problem: StoreProblem) => new StoreError(problem.kind, problem);
  const act = async (write: () => Promise<number>) => {
    const fate = fates[puts] ?? "lands";
    puts += 1;
    if (fate === "unavailable" || fate === "denied") throw fail({ kind: fate });
    if (fate === "lost, ambiguous") throw fail({ kind: "ambiguous" });
    const revision = await write();
    if (fate === "lands, ambiguous") throw fail({ kind: "ambiguous" });
    return revision;
  };
  const store: Store = {
    capabilities: memory.capabilities,
    get: (...query) => memory.get(...query),
    put: (...write) => act(() => memory.put(...write)),
    delete: (...write) => act(() => memory.delete(...write)),
    watch: (...query) => memory.watch(...query),
    link: (signal) => memory.link(signal),
    [Symbol.asyncDispose]: () => memory[Symbol.asyncDispose](),
  };
  return { store, puts: () => puts };
}

/** Waits without waiting, and gives up after so many. */
function patience(waits = 100) {
  const end = new AbortController();
  const waited: number[] = [];
  const wait = async (duration: number) => {
    waited.push(duration);
    if (waited.length >= waits) end.abort();
  };
  return { signal: end.signal, wait, waited };
}

const write = { bucket: "b", key: "k", value: "v", expect: 0 };

describe("putOnce", () => {
  test("ambiguous, and it had landed: it is not written again", async () => {
    const { store, puts } = fated(["lands, ambiguous"]);
    const revision = await putOnce(store, write, patience());
    expect(puts()).toBe(1);
    expect((await store.get("b", "k"))?.revision).toBe(revision);
  });

  test("ambiguous, and it was lost: it is written again with the same write id", async () => {
    const { store, puts } = fated(["lost, ambiguous", "unavailable", "lands, ambiguous"]);
    const writeId = newWriteId();
    const revision = await putOnce(store, { ...write, writeId }, patience());
    expect(puts()).toBe(3);
    expect(await store.get("b", "k")).toMatchObject({ revision, writeId });
  });

  test("a deletion too", async () => {
    const { store } = fated(["lands", "lands, ambiguous"]);
    const first = await putOnce(store, write, patience());
    const gone = { ...write, operation: "delete", expect: first } as const;
    const revision = await putOnce(store, gone, patience());
    expect(await store.get("b", "k")).toMatchObject({ revision, operation: "delete" });
  });

  test("what cannot pass is told at once", async () => {
    const { store, puts } = fated(["denied"]);
    expect(await problemOf(putOnce(store, write, patience()))).toEqual({ kind: "denied" });
    expect(puts()).toBe(1);
    await store.put("b", "k", "other", { writeId: newWriteId() });
    expect((await problemOf(putOnce(store, write, patience()))).kind).toBe("conflict");
  });

  test("the deadline tells what is known: ambiguous once it was", async () => {
    const doubt = fated(["unavailable", "lost, ambiguous", ...Array(9).fill("unavailable")]);
    expect(await problemOf(putOnce(doubt.store, write, patience(3)))).toEqual({
      kind: "ambiguous",
    });
    const away = fated(Array(9).fill("unavailable"));
    expect(await problemOf(putOnce(away.store, write, patience(3)))).toEqual({
      kind: "unavailable",
    });
    expect(away.puts()).toBe(3);
  });

  test("waits grow up to their limit", async () => {
    const { store } = fated(Array(12).fill("unavailable"));
    const waiting = patience();
    await putOnce(store, write, waiting);
    expect(waiting.waited.slice(0, 3)).toEqual([50, 100, 200]);
    expect(Math.max(...waiting.waited)).toBe(putOnceLimits.longestWait);
  });

  test("patience ends by the monotonic clock, also in the middle of a pause", async () => {
    using loop = new EventLoop(() => {
      throw new Error("This test needs a kernel with IOCB_CMD_POLL.");
    });
    const { store, puts } = fated(Array(9).fill("unavailable"));
    using short = patienceFor(loop, 60);
    expect((await problemOf(putOnce(store, write, short))).kind).toBe("unavailable");
    expect(puts()).toBe(2);
    using enough = patienceFor(loop, 20_000);
    const later = fated(["unavailable", "lost, ambiguous"]);
    await putOnce(later.store, write, enough);
    expect(later.puts()).toBe(3);
  });

  test("write ids are ones", () => {
    expect(isWriteId(newWriteId())).toBe(true);
    expect(newWriteId()).not.toBe(newWriteId());
  });
});
