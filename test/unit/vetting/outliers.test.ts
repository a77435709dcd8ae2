import { describe, expect, test } from "bun:test";
import type { Measurement } from "../../../src/vetting/protocol-result.ts";
import {
  type HostFacts,
  medianOf,
  outlierRules,
  outliers,
} from "../../../src/vetting/spec/outliers.ts";
import { exampleInventory } from "../../support/vetting-inventory.ts";

const measured = (value: number, component = "disk S64ANX0R0"): Measurement => ({
  name: "sequential-read",
  component,
  value,
  unit: "MB/s",
});

function host(run: number, ...measurements: Measurement[]): HostFacts {
  const mac = `52:54:00:00:01:${run.toString(16).padStart(2, "0")}`;
  return { run, mac, inventory: exampleInventory(), measurements };
}

const fleet = [3000, 3010, 2990, 3020, 2980, 3005].map((value, index) =>
  host(index + 1, measured(value)),
);

describe("a measurement", () => {
  test("that is far from the others is told, with how far", () => {
    const [found, ...more] = outliers(host(99, measured(1500)), fleet);
    expect(more).toEqual([]);
    if (found?.kind !== "measurement") throw new Error("It is a measurement");
    expect(found).toMatchObject({ value: 1500, median: 3002.5, hosts: 6 });
    expect(found.deviations).toBeLessThan(-outlierRules.deviations);
  });

  test("that is near is not", () => {
    expect(outliers(host(99, measured(3050)), fleet)).toEqual([]);
  });

  test("is not hidden by some bad hosts among the others", () => {
    const bad = [host(50, measured(1)), host(51, measured(2))];
    expect(outliers(host(99, measured(1500)), [...fleet, ...bad])).toHaveLength(1);
  });

  test("of hosts that are all equal may be off by a little", () => {
    const equal = fleet.map((one) => ({ ...one, measurements: [measured(3000)] }));
    expect(outliers(host(99, measured(3010)), equal)).toEqual([]);
    expect(outliers(host(99, measured(2500)), equal)).toHaveLength(1);
  });

  test("is compared with disks of the same model alone", () => {
    const other = host(99, measured(1500));
    for (const disk of other.inventory?.disks ?? []) disk.model = "OTHER";
    const found = outliers(other, fleet);
    expect(found.filter(({ kind }) => kind === "measurement")).toEqual([]);
  });

  test("says nothing below the minimum of hosts, nor by runs of the host itself", () => {
    const few = fleet.slice(0, outlierRules.hosts - 1);
    expect(outliers(host(99, measured(1500)), few)).toEqual([]);
    const repeated = [...few, { ...host(7, measured(3000)), mac: few[0]?.mac ?? "" }];
    expect(outliers(host(99, measured(1500)), repeated)).toEqual([]);
    const own = fleet.map((one) => ({ ...one, mac: host(99).mac }));
    expect(outliers(host(99, measured(1500)), own)).toEqual([]);
  });

  test("farthest first, and no more than can be told", () => {
    const many = Array.from({ length: outlierRules.most + 10 }, (_, index) =>
      measured(100 + index, `sensor ${index}`),
    );
    const all = fleet.map((one) => ({
      ...one,
      measurements: many.map((single) => ({ ...single, value: 5_000 })),
    }));
    const found = outliers(host(99, ...many), all);
    expect(found).toHaveLength(outlierRules.most);
    expect(found[0]).toMatchObject({ value: 100 });
  });
});

describe("a fact", () => {
  test("that nearly all others have otherwise is told", () => {
    const odd = host(99);
    if (odd.inventory !== null) odd.inventory.firmware.version = "1.0";
    expect(outliers(odd, fleet)).toEqual([
      { kind: "fact", path: "firmware.version", found: "1.0", usual: "2.1", agreeing: 6, hosts: 6 },
    ]);
  });

  test("of which the others do not agree is not", () => {
    const odd = host(99);
    if (odd.inventory !== null) odd.inventory.firmware.version = "1.0";
    const mixed = structuredClone(fleet);
    for (const { inventory } of mixed.slice(0, 2)) {
      if (inventory !== null) inventory.firmware.version = "2.0";
    }
    expect(outliers(odd, mixed)).toEqual([]);
  });
});

test("the median", () => {
  expect([[1], [3, 1], [3, 1, 2], []].map(medianOf)).toEqual([1, 2, 2, 0]);
});
