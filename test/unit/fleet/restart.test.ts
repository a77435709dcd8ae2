/** When a supervisor starts its agent again. */
import { expect, test } from "bun:test";
import { nextStart, restartLimits } from "../../../src/fleet/lifecycle-restart.ts";

const quick = { ran: 0, isWanted: false };

function waits(count: number, ended = quick): number[] {
  let setbacks = 0;
  return Array.from({ length: count }, () => {
    const next = nextStart(setbacks, ended);
    setbacks = next.setbacks;
    return next.wait;
  });
}

test("three starts come a second apart, then ever later, and none later than 30 s", () => {
  expect(waits(10)).toEqual([
    ...[1_000, 1_000, 1_000, 2_000, 4_000, 8_000, 16_000],
    ...[30_000, 30_000, 30_000],
  ]);
  expect(nextStart(100_000, quick).wait).toBe(restartLimits.longest);
});

test("what has run for long begins anew, at the edge as well", () => {
  const { steady } = restartLimits;
  expect(nextStart(9, { ran: steady, isWanted: false })).toEqual({ setbacks: 1, wait: 1_000 });
  expect(nextStart(9, { ran: steady - 1, isWanted: false }).setbacks).toBe(10);
  expect(new Set(waits(10, { ran: steady, isWanted: false }))).toEqual(new Set([1_000]));
});

test("one that was asked for comes at once, and begins anew", () => {
  expect(nextStart(9, { ran: 0, isWanted: true })).toEqual({ setbacks: 0, wait: 0 });
});
