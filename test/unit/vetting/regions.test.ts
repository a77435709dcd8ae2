/** Which part of a disk is read where not all of it is. */
import { describe, expect, test } from "bun:test";
import { draw, regionsOf, type Spread } from "../../../src/vetting/stages/regions.ts";

const MEBIBYTE = 1024 ** 2;
const sum = (spread: Spread) => regionsOf(spread).reduce((total, { length }) => total + length, 0);

describe("regions", () => {
  test("all of it is one", () => {
    expect(regionsOf({ size: 10 * MEBIBYTE + 512, block: MEBIBYTE, extent: 1, seed: "S" })).toEqual(
      [{ offset: 0, length: 10 * MEBIBYTE + 512 }],
    );
  });

  test("of nothing there is nothing", () => {
    expect(regionsOf({ size: 0, block: 512, extent: 1, seed: "S" })).toEqual([]);
    expect(regionsOf({ size: 512, block: 512, extent: 0, seed: "S" })).toEqual([]);
  });

  const sizes = [512, MEBIBYTE, 10 * MEBIBYTE + 512, 1024 ** 3, 4e12 - (4e12 % 4_096), 30e12];
  const extents = [0.000_001, 0.01, 0.1, 0.5, 0.999];
  test.each(sizes.flatMap((size) => extents.map((extent) => [size, extent] as const)))(
    "of %d bytes the part %d: at least that, in order, aligned, both ends in it",
    (size, extent) => {
      const regions = regionsOf({ size, block: MEBIBYTE, extent, seed: "S64ANX0R" });
      expect(regions.length).toBeGreaterThan(0);
      expect(regions.length).toBeLessThanOrEqual(4_096);
      let end = 0;
      for (const { offset, length } of regions) {
        expect(offset).toBeGreaterThanOrEqual(end);
        expect(offset % MEBIBYTE).toBe(0);
        expect(length).toBeGreaterThan(0);
        end = offset + length;
      }
      expect(end).toBeLessThanOrEqual(size);
      const total = regions.reduce((all, { length }) => all + length, 0);
      expect(total).toBeGreaterThanOrEqual(size * extent);
      expect(regions[0]?.offset).toBe(0);
      if (regions.length > 1) expect(end).toBe(size);
    },
  );

  test("of so many at most, as a tool takes them: as much of the disk, both ends in it", () => {
    const size = 30e12;
    const spread = { size, block: MEBIBYTE, extent: 0.1, seed: "S64ANX0R" };
    const regions = regionsOf({ ...spread, most: 64 });
    expect(regions).toHaveLength(64);
    expect(sum({ ...spread, most: 64 })).toBeGreaterThanOrEqual(size * 0.1);
    expect(regions[0]?.offset).toBe(0);
    expect((regions.at(-1)?.offset ?? 0) + (regions.at(-1)?.length ?? 0)).toBe(size);
  });

  test("it is not much more than was asked for", () => {
    const size = 1024 ** 4;
    expect(sum({ size, block: MEBIBYTE, extent: 0.01, seed: "S" })).toBeLessThan(size * 0.011);
  });

  test("a serial's are always the same, and another's are others", () => {
    const spread = { size: 1024 ** 4, block: MEBIBYTE, extent: 0.05 };
    expect(regionsOf({ ...spread, seed: "A" })).toEqual(regionsOf({ ...spread, seed: "A" }));
    expect(regionsOf({ ...spread, seed: "A" })).not.toEqual(regionsOf({ ...spread, seed: "B" }));
  });

  test("what is drawn is spread", () => {
    const buckets = new Array<number>(16).fill(0);
    for (let index = 0; index < 16_000; index++) {
      const bucket = draw(`S/${index}`) % 16;
      buckets[bucket] = (buckets[bucket] ?? 0) + 1;
    }
    for (const bucket of buckets) {
      expect(bucket).toBeGreaterThan(800);
      expect(bucket).toBeLessThan(1_200);
    }
  });
});
