import { describe, expect, test } from "bun:test";
import { casesOfTurn, rotating } from "../../support/rotation.ts";
import { isKernelAtLeast } from "../../support/skips.ts";

const cases = Array.from({ length: 25 }, (_value, index) => index);

describe("rotation", () => {
  test("ten turns in a row run every case once", () => {
    const run = Array.from({ length: 10 }, (_value, turn) =>
      casesOfTurn(cases, { outOf: 10, turn: 37 + turn }),
    ).flat();
    expect(run.toSorted((a, b) => a - b)).toEqual(cases);
  });

  test("a turn gives the same cases again", () => {
    const once = casesOfTurn(cases, { outOf: 10, turn: 4 });
    expect(once).toEqual([4, 14, 24]);
    expect(casesOfTurn(cases, { outOf: 10, turn: 14 })).toEqual(once);
  });

  test("a part that is no whole number is refused", () => {
    expect(() => casesOfTurn(cases, { outOf: 0, turn: 1 })).toThrow("outOf");
  });

  test("one part is everything", () => {
    expect(rotating("one part", cases, { outOf: 1 })).toEqual(cases);
  });
});

test("releases of kernels compare by number", () => {
  expect(isKernelAtLeast("6.15", "6.18.44-cloud")).toBe(true);
  expect(isKernelAtLeast("6.9", "6.18.44-cloud")).toBe(true);
  expect(isKernelAtLeast("6.15", "6.1.0-18-amd64")).toBe(false);
  expect(isKernelAtLeast("5.14", "5.14.0-427.el9")).toBe(true);
});
