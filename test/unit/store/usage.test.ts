/** The day that something is full, by the line through its samples. */
import { expect, test } from "bun:test";
import { foretell } from "../../../src/store/usage.ts";

const hour = 3_600_000;
const day = 24 * hour;

test("too little is known: nothing is foretold", () => {
  expect(foretell([], 100).fullAfter).toBeUndefined();
  expect(foretell([{ clock: 0, bytes: 5 }], 100).fullAfter).toBeUndefined();
  const close = [
    { clock: 0, bytes: 0 },
    { clock: hour - 1, bytes: 1_000_000 },
  ];
  expect(foretell(close, 100).fullAfter).toBeUndefined();
});

test("a steady growth meets the limit", () => {
  const samples = Array.from({ length: 48 }, (_, at) => ({ clock: at * hour, bytes: at * 100 }));
  const { bytesPerDay, fullAfter } = foretell(samples, 24_000);
  expect(bytesPerDay).toBeCloseTo(2_400, 6);
  expect((fullAfter ?? 0) / day).toBeCloseTo(10, 6);
  expect(foretell(samples, -5).fullAfter).toBe(0);
});

test("where there is no room it is full now, also when nothing is known, or it shrinks", () => {
  expect(foretell([], 0).fullAfter).toBe(0);
  const falling = [
    { clock: 0, bytes: 100 },
    { clock: day, bytes: 50 },
  ];
  expect(foretell(falling, 0)).toEqual({ bytesPerDay: -50, fullAfter: 0 });
  expect(foretell(falling, 1).fullAfter).toBeUndefined();
});

test("a growth with noise is told within a tenth", () => {
  const samples = Array.from({ length: 200 }, (_, at) => ({
    clock: at * hour,
    bytes: at * 100 + 500 * Math.sin(at * 12.9898),
  }));
  expect(Math.abs(foretell(samples, 0).bytesPerDay - 2_400)).toBeLessThan(240);
});

test("what shrinks, or stays, is never full", () => {
  const falling = [
    { clock: 0, bytes: 100 },
    { clock: day, bytes: 50 },
  ];
  expect(foretell(falling, 10)).toEqual({ bytesPerDay: -50, fullAfter: undefined });
  expect(
    foretell(
      falling.map((one) => ({ ...one, bytes: 7 })),
      10,
    ).fullAfter,
  ).toBeUndefined();
});
