/** Lines on their way to a file: bounded, whole, counted. */
import { describe, expect, test } from "bun:test";
import { CHUNK_BYTES, LogQueue, QueueRoom, wholeLines } from "../../src/process/log-queue.ts";

const line = (text: string, at = 1, stream: "stdout" | "stderr" = "stdout") => ({
  ...{ sequence: 1, at, stream, line: text },
});
const textOf = (chunk: { readonly bytes: Uint8Array } | undefined) =>
  chunk && new TextDecoder().decode(chunk.bytes);
const everything = Number.MAX_SAFE_INTEGER;

describe("lines are taken", () => {
  test("in order and whole, with what stands before them", () => {
    const queue = new LogQueue(({ at, stream }) => `${at} ${stream} `, new QueueRoom());
    for (const one of [line("a"), line("b", 1, "stderr"), line("c", 2)]) queue.add(one);
    expect(queue.length).toBe(3);
    const chunk = queue.take(everything);
    expect([textOf(chunk), chunk?.lines]).toEqual(["1 stdout a\n1 stderr b\n2 stdout c\n", 3]);
    expect([queue.length, queue.take(everything)]).toEqual([0, undefined]);
  });

  test("as many as have room, counted in bytes", () => {
    const queue = new LogQueue(() => "", new QueueRoom());
    for (const text of ["ab", "äö", "c"]) queue.add(line(text));
    expect(textOf(queue.take(7))).toBe("ab\n");
    expect(queue.take(4)).toBeUndefined();
    expect(textOf(queue.take(5))).toBe("äö\n");
    expect(textOf(queue.take(2))).toBe("c\n");
  });

  test("at most a chunk at once", () => {
    const queue = new LogQueue(() => "", new QueueRoom());
    const text = "x".repeat(CHUNK_BYTES / 4 - 1);
    for (let count = 0; count < 6; count += 1) queue.add(line(text));
    expect([queue.take(everything)?.lines, queue.take(everything)?.lines]).toEqual([4, 2]);
  });

  test("the words of a time are made once for all lines that came at once", () => {
    const asked: number[] = [];
    const queue = new LogQueue(({ at }) => `${asked.push(at)} `, new QueueRoom());
    for (const at of [1, 1, 1, 2]) queue.add(line("x", at));
    expect(asked).toEqual([1, 2]);
  });
});

test("one more than has room is not taken, until others have gone", () => {
  const queue = new LogQueue(() => "", new QueueRoom(), 6);
  expect([queue.add(line("ab")), queue.add(line("cd")), queue.add(line("ef"))]).toEqual([
    ...[true, true, false],
  ]);
  queue.take(3);
  expect(queue.add(line("gh"))).toBe(true);
  expect(queue.clear()).toBe(2);
  expect([queue.length, queue.add(line("ij"))]).toEqual([0, true]);
});

test("several share a room, and what one has written is room for the other", () => {
  const room = new QueueRoom(6);
  const [one, other] = [new LogQueue(() => "", room), new LogQueue(() => "", room)];
  expect([one.add(line("ab")), one.add(line("cd")), other.add(line("ef"))]).toEqual([
    ...[true, true, false],
  ]);
  one.take(3);
  expect([other.add(line("ef")), other.add(line("gh"))]).toEqual([true, false]);
  one.clear();
  expect(other.add(line("gh"))).toBe(true);
});

test("another program writes what waits, as it would have been written", () => {
  const queue = new LogQueue(({ at }) => `${at} `, new QueueRoom());
  for (const text of ["a", "b", "c"]) queue.add(line(text));
  queue.take(4);
  const next = new LogQueue(() => "never ", new QueueRoom());
  next.restore(queue.save());
  expect(textOf(next.take(everything))).toBe("1 b\n1 c\n");
});

test.each([
  [0, { end: 0, lines: 0 }],
  [2, { end: 0, lines: 0 }],
  [3, { end: 3, lines: 1 }],
  [5, { end: 3, lines: 1 }],
  [6, { end: 6, lines: 2 }],
])("of two lines, written to byte %d: whole lines are known", (written, whole) => {
  expect(wholeLines(new TextEncoder().encode("ab\ncd\n"), written)).toEqual(whole);
});
