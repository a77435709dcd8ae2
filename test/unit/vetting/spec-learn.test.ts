import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { type Inventory, inventorySchema } from "../../../src/hardware/inventory.ts";
import { specLimits, specSchema, stageSettingsSchema } from "../../../src/vetting/protocol-spec.ts";
import { learnSpec } from "../../../src/vetting/spec/learn.ts";
import { readSpec } from "../../../src/vetting/spec/read-spec.ts";
import { checkRules, validateSpec } from "../../../src/vetting/spec/validate.ts";
import { SeededChance } from "../../support/chance.ts";
import { exampleDisk, exampleInventory, randomInventory } from "../../support/vetting-inventory.ts";

const stages = v.parse(stageSettingsSchema, {});

function learned(inventories: readonly [Inventory, ...Inventory[]], serials = false) {
  const outcome = learnSpec(inventories, { name: "golden", serials, stages });
  if (outcome.kind !== "learned") throw new Error(JSON.stringify(outcome));
  return outcome;
}

const brokenPaths = (spec: Parameters<typeof validateSpec>[0], host: Inventory) =>
  validateSpec(spec, host)
    .filter(({ outcome }) => outcome !== "PASS")
    .map(({ path }) => path);

describe("a spec learned from a host", () => {
  test("holds on that host, whatever it is made of", () => {
    const chance = new SeededChance(20_261_130);
    for (let turn = 0; turn < 150; turn += 1) {
      const host = randomInventory(chance);
      const serials = chance.happens(0.5);
      const { spec } = learned([host], serials);
      expect(brokenPaths(spec, host)).toEqual([]);
      expect(checkRules(spec.rules)).toEqual([]);
      expect(v.safeParse(specSchema, spec).success).toBe(true);
      const read = readSpec(JSON.stringify(spec));
      expect(read.kind === "read" && read.spec).toEqual(spec);
    }
  });

  test("of several holds on each of them, and says what they share", () => {
    const chance = new SeededChance(7);
    for (let turn = 0; turn < 100; turn += 1) {
      const first = randomInventory(chance);
      const hosts = [first, randomInventory(chance), randomInventory(chance)] as const;
      const { spec } = learned([...hosts], true);
      for (const host of hosts) expect(brokenPaths(spec, host)).toEqual([]);
    }
    const [good, other] = [exampleInventory(), exampleInventory()];
    other.firmware.version = "2.2";
    const { spec } = learned([good, other]);
    const paths = spec.rules.map(({ path }) => path);
    expect(paths).toContain("firmware.vendor");
    expect(paths).not.toContain("firmware.version");
  });

  test("has serials where they were asked for alone", () => {
    const host = exampleInventory();
    const without = JSON.stringify(learned([host]).spec);
    for (const own of ["SYS1", "u-1", "BRD1", "CH1", "M1000", "S64ANX0R0", "52:54", "P1"]) {
      expect(without).not.toContain(`"${own}`);
    }
    const { spec } = learned([host], true);
    expect(spec.expected_disks).toEqual([
      { serial: "S64ANX0R0", size_bytes: 1_920_383_410_176 },
      { serial: "S64ANX0R1", size_bytes: 1_920_383_410_176 },
    ]);
    expect(spec.stages.Network.speeds).toHaveLength(2);
    expect(spec.rules.map(({ path }) => path)).toContain("memory.slots[DIMM_A1].serial");
  });

  test("of a host that was not seen whole says what it left out", () => {
    const host = exampleInventory();
    host.memory.slots = [];
    host.unseen = [{ property: "memory.slots", reason: "no SMBIOS table" }];
    const { spec, leftOut } = learned([host]);
    expect(leftOut).toContain("memory.slots: not seen: no SMBIOS table");
    expect(spec.rules.map(({ path }) => path)).not.toContain("memory.slots.count");
  });

  test("is refused where it would have more rules than a spec can hold", () => {
    const host = exampleInventory();
    const [, device] = host.pci;
    if (device === undefined) throw new Error("The example has a device");
    host.pci = Array.from({ length: 1_000 }, (_, index) => ({
      ...device,
      address: `0000:${(index >> 3).toString(16).padStart(2, "0")}:00.${index & 7}`,
    }));
    const options = { name: "golden", serials: false, stages };
    const outcome = learnSpec([host], options);
    if (outcome.kind !== "too-many") throw new Error("It was learned");
    expect(outcome.rules.pci).toBeGreaterThan(specLimits.rules);
    expect(learnSpec([host], { ...options, without: ["pci"] }).kind).toBe("learned");
  });
});

/** Facts that a spec is not about: they differ from one boot, or from one machine, to the next. */
const ofThisBoot =
  /^(kernel|unseen)|usable_bytes$|\.(name|carrier|duplex|source|bank|class|driver|pci|slot)$/;
const ofThisMachine = /\.(serial|uuid|asset_tag|wwn|mac)$/;
/** A speed that rises is as good. */
const mayRise = /\.link\.speed$/;

interface Leaf {
  readonly path: string;
  change(host: Inventory): void;
}

/** Every value of a host, and how it is changed to one that it was not. */
function leavesOf(value: unknown, path: string, reach: (host: Inventory) => unknown): Leaf[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]): Leaf[] => {
    const own = path === "" ? key : `${path}.${key}`;
    if (typeof inner === "object" && inner !== null) {
      return leavesOf(inner, own, (host) => (reach(host) as Record<string, unknown>)[key]);
    }
    if (inner === null) return [];
    const change = (host: Inventory) => {
      (reach(host) as Record<string, unknown>)[key] = changed(inner, own);
    };
    return [{ path: own, change }];
  });
}

function changed(value: unknown, path: string): unknown {
  if (typeof value === "boolean") return !value;
  if (typeof value === "number") return mayRise.test(path) ? value / 2 : value + 1;
  if (path.endsWith("transport")) return "sata";
  if (path.endsWith("firmware.boot")) return "bios";
  if (path.endsWith("address") || path.endsWith("pci")) return "0000:fe:00.0";
  return path.endsWith("mac") ? "52:54:00:00:00:99" : `${String(value)}X`;
}

describe("a spec learned from a host is broken by", () => {
  const host = exampleInventory();
  const leaves = leavesOf(host, "", (one) => one);
  const isAbout = (path: string) => !ofThisBoot.test(path) && !ofThisMachine.test(path);
  const graphicsDriver = /^graphics\.\d+\.(driver|pci)$|^network\.\d+\.driver$/;

  for (const serials of [false, true]) {
    const told = leaves.filter(
      ({ path }) =>
        isAbout(path) || graphicsDriver.test(path) || (serials && ofThisMachine.test(path)),
    );
    test(`each of ${told.length} changed facts, ${serials ? "with" : "without"} serials`, () => {
      const { spec } = learned([host], serials);
      const unnoticed = told.filter(({ path, change }) => {
        const other = structuredClone(host);
        change(other);
        v.parse(inventorySchema, other);
        return brokenPaths(spec, other).length === 0 && path !== "";
      });
      expect(unnoticed.map(({ path }) => path)).toEqual([]);
      expect(told.length).toBeGreaterThan(120);
    });
  }

  const lists = ["processors", "disks", "network", "graphics", "pci", "power_supplies"] as const;
  const { spec } = learned([host]);
  for (const list of lists) {
    test(`one of ${list} that is gone, and one that is new`, () => {
      const less = structuredClone(host);
      less[list].pop();
      expect(brokenPaths(spec, less)).toContain(`${list}.count`);
      const more = structuredClone(host);
      (more[list] as unknown[]).push(structuredClone(more[list][0]));
      expect(brokenPaths(spec, more)).toContain(`${list}.count`);
    });
  }

  test("a disk that has become as another one of the host is", () => {
    const mixed = exampleInventory();
    mixed.disks = [
      exampleDisk(0),
      { ...exampleDisk(1), firmware: "GDC5702Q" },
      { ...exampleDisk(2), model: "OTHER" },
    ];
    const { spec: golden } = learned([mixed]);
    for (const change of [{ firmware: "GDC5702Q" }, { model: "OTHER" }, { firmware: null }]) {
      const other = structuredClone(mixed);
      Object.assign(other.disks[0] ?? {}, change);
      expect(brokenPaths(golden, other)).not.toEqual([]);
    }
  });
});
