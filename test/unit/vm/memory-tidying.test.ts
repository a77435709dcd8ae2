/** When a worker gives memory back: after a time in which nothing happened, and once. */
import { beforeEach, expect, test } from "bun:test";
import { MemoryTidying, TIDY_AFTER } from "../../../src/vm/perform/memory-tidying.ts";
import { type FalseTimers, falseTimers } from "../../support/false-timers.ts";

let timers: FalseTimers;
let collected: number[] = [];

const tidying = () => new MemoryTidying(timers.loop, () => collected.push(timers.now()));

beforeEach(() => {
  timers = falseTimers();
  collected = [];
});

test("nothing is collected where nothing happened", () => {
  using _made = tidying();
  timers.advance(10 * TIDY_AFTER);
  expect(collected).toEqual([]);
});

test("once, after the last of many things", () => {
  using made = tidying();
  for (let count = 0; count < 50; count += 1) {
    made.later();
    timers.advance(TIDY_AFTER - 1);
  }
  expect(collected).toEqual([]);
  timers.advance(1);
  expect(collected).toEqual([timers.now()]);
  timers.advance(10 * TIDY_AFTER);
  expect(collected).toHaveLength(1);
});

test("again after what happens then", () => {
  using made = tidying();
  made.later();
  timers.advance(TIDY_AFTER);
  expect(collected).toHaveLength(1);
  made.later();
  timers.advance(TIDY_AFTER);
  expect(collected).toHaveLength(2);
});

test("not for a worker that ends, nor after its end", () => {
  const made = tidying();
  made.later();
  made[Symbol.dispose]();
  made.later();
  timers.advance(10 * TIDY_AFTER);
  expect(collected).toEqual([]);
  expect(timers.waiting).toBe(0);
});

test("as it is made for the worker, it collects what nobody has any more", async () => {
  const collections = Promise.withResolvers<void>();
  const registry = new FinalizationRegistry(() => collections.resolve());
  // Many: a conservative collector may take a word on the stack for one of them.
  for (let count = 0; count < 100; count += 1) registry.register({ count }, count);
  using made = new MemoryTidying(timers.loop);
  made.later();
  timers.advance(TIDY_AFTER);
  await collections.promise;
});
