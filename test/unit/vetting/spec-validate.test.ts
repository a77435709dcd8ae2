import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import type { Inventory } from "../../../src/hardware/inventory.ts";
import type { StageReport } from "../../../src/vetting/protocol-result.ts";
import {
  type Rule,
  ruleFindingSchema,
  specLimits,
  specSchema,
} from "../../../src/vetting/protocol-spec.ts";
import { specDiff } from "../../../src/vetting/spec/diff.ts";
import { isLike } from "../../../src/vetting/spec/match.ts";
import { CONDITIONS_LIMIT, parsePath, writeKey } from "../../../src/vetting/spec/path.ts";
import { listKeys } from "../../../src/vetting/spec/place.ts";
import { validateRequired } from "../../../src/vetting/spec/required.ts";
import { checkRules, findingLimits, validateSpec } from "../../../src/vetting/spec/validate.ts";
import { SeededChance } from "../../support/chance.ts";
import { exampleInventory, exampleSlot } from "../../support/vetting-inventory.ts";

const rule = (path: string, match: Rule["match"]): Rule => ({ path, match, outcome: "FAIL" });
const equal = (path: string, value: string | number | boolean) =>
  rule(path, { is: "equal", value });

function judged(one: Rule, inventory: Inventory = exampleInventory()) {
  const findings = validateSpec({ rules: [one] }, inventory);
  for (const finding of findings) v.parse(ruleFindingSchema, finding);
  return findings.map(({ path, found, outcome }) => [path, found, outcome]);
}

describe("a rule", () => {
  const fine: [path: string, match: Rule["match"], found: string][] = [
    ["memory.slots[DIMM_A1].serial", { is: "equal", value: "M1000" }, "M1000"],
    [
      "memory.slots[*].size_bytes",
      { is: "at-least", value: 1 },
      "34359738368 (32 GiB) (4 of them)",
    ],
    ["memory.slots.count", { is: "equal", value: 4 }, "4"],
    ['disks[model="SAMSUNG MZQL21T9HCJR"].count', { is: "at-least", value: 2 }, "2"],
    ["disks[S64ANX0R0].firmware", { is: "one-of", values: ["A", "GDC5602Q"] }, "GDC5602Q"],
    ["network[52:54:00:00:00:01].speed_mbps", { is: "at-most", value: 25_000 }, "25000"],
    ["graphics[0000:81:00.0].link.width", { is: "equal", value: 8 }, "8"],
    ["processors[CPU0].model", { is: "like", value: "Xeon * 6?30" }, "Xeon Gold 6430"],
    ["firmware.secure_boot", { is: "equal", value: true }, "true"],
    ["power_supplies[PSU2]", { is: "present" }, "present"],
    ["disks[GONE]", { is: "absent" }, "not there"],
    ["pci[0000:00:00.0].driver", { is: "absent" }, "not told by this host"],
    ["unseen.count", { is: "equal", value: 0 }, "0"],
  ];
  for (const [path, match, found] of fine) {
    test(`holds: ${path} ${match.is}`, () => {
      expect(judged(rule(path, match))).toEqual([[path, found, "PASS"]]);
    });
  }

  test("is broken by the place that is not so, and names it", () => {
    const host = exampleInventory();
    Object.assign(host.memory.slots[2] ?? {}, { size_bytes: 0, serial: null });
    expect(judged(rule("memory.slots[*].size_bytes", { is: "at-least", value: 1 }), host)).toEqual([
      ["memory.slots[DIMM_A3].size_bytes", "0", "FAIL"],
    ]);
    expect(judged(rule("memory.slots[*].serial", { is: "present" }), host)).toEqual([
      ["memory.slots[DIMM_A3].serial", "not told by this host", "FAIL"],
    ]);
    expect(judged({ ...equal("disks[X1].model", "A"), outcome: "WARN" }, host)).toEqual([
      ["disks[X1].model", "not there", "WARN"],
    ]);
  });

  test("of each of none is broken: what is not there proves nothing", () => {
    const host = exampleInventory();
    host.graphics = [];
    expect(judged(equal("graphics[*].vendor", "10de"), host)).toEqual([
      ["graphics[*].vendor", "not there", "FAIL"],
    ]);
  });

  test("tells rule, expected and why", () => {
    const because = "two modules a channel";
    const [found] = validateSpec(
      {
        rules: [{ ...rule("memory.installed_bytes", { is: "at-least", value: 2 ** 38 }), because }],
      },
      exampleInventory(),
    );
    expect(found).toEqual({
      path: "memory.installed_bytes",
      rule: "at-least 274877906944",
      expected: "at least 274877906944 (256 GiB)",
      found: "137438953472 (128 GiB)",
      outcome: "FAIL",
      because,
    });
  });
});

describe("what was not seen", () => {
  const hidden: [property: string, asked: Rule, found: string][] = [
    ["memory.slots", equal("memory.slots[DIMM_A1].part", "X"), "not seen: EIO"],
    ["memory.slots", equal("memory.slots.count", 0), "0; not seen: EIO"],
    ["disks[nvme0n1].model", equal("disks[S64ANX0R0].model", "X"), "not seen: EIO"],
    ["disks[S64ANX0R0]", equal("disks[*].model", "X"), "not seen: EIO"],
    ["bmc", rule("bmc", { is: "absent" }), "not seen: EIO"],
    [
      "graphics[*].serial",
      rule("graphics[0000:81:00.0].serial", { is: "present" }),
      "not seen: EIO",
    ],
    [
      "disks[sdb].serial",
      rule("disks[GONE]", { is: "present" }),
      "not there; disks[sdb].serial was not seen: EIO",
    ],
  ];
  for (const [property, asked, found] of hidden) {
    test(`breaks ${asked.path}, because of ${property}`, () => {
      const host = exampleInventory();
      host.unseen = [{ property, reason: "EIO" }];
      host.bmc = null;
      if (property === "memory.slots") host.memory.slots = [];
      for (const disk of host.disks) disk.model = null;
      for (const card of host.graphics) card.serial = null;
      const [first] = judged(asked, host);
      expect(first?.slice(1)).toEqual([found, "FAIL"]);
    });
  }

  test("does not break what is proven by less", () => {
    const host = exampleInventory();
    host.unseen = [{ property: "disks", reason: "3 more than can be told" }];
    expect(judged(rule("disks.count", { is: "at-least", value: 2 }), host)[0]?.[2]).toBe("PASS");
    expect(judged(equal("disks.count", 2), host)[0]?.[2]).toBe("FAIL");
  });

  test("of another disk hides nothing of this one", () => {
    const host = exampleInventory();
    host.unseen = [{ property: "disks[nvme1n1].firmware", reason: "EIO" }];
    for (const disk of host.disks) disk.firmware = null;
    const found = judged(rule("disks[*].firmware", { is: "present" }), host);
    expect(found.map((one) => one[1])).toEqual(["not told by this host", "not seen: EIO"]);
  });
});

describe("a rule that says nothing of a host is refused:", () => {
  const refusals: [path: string, match: Rule["match"], column: number, expected: RegExp][] = [
    ["", { is: "present" }, 1, /a word/],
    ["Memory", { is: "present" }, 1, /a word/],
    ["memory.", { is: "present" }, 8, /a word/],
    ["memory.slot.count", { is: "present" }, 8, /one of installed_bytes/],
    ["memory.slots", { is: "present" }, 8, /memory.slots\[KEY\]/],
    ["memory.slots[].part", { is: "present" }, 14, /a key/],
    ["memory.slots[A", { is: "present" }, 15, /\] or =/],
    ['memory.slots["A].part', { is: "present" }, 14, /ends with a quote/],
    ['memory.slots["\\q"].part', { is: "present" }, 14, /as JSON has it/],
    ["memory.slots[A]x", { is: "present" }, 16, /the end/],
    ["memory[A].slots", { is: "present" }, 1, /no list/],
    ["unseen[A].reason", { is: "present" }, 1, /no key/],
    ['disks[modle="A"].count', { is: "at-least", value: 1 }, 1, /a condition on one of name/],
    ['disks[size_bytes="A"].count', { is: "at-least", value: 1 }, 1, /a number for size_bytes/],
    ["disks[model=A].count", { is: "at-least", value: 1 }, 13, /a text in quotes/],
    ["pci[link=1].count", { is: "at-least", value: 1 }, 1, /a condition on one of address/],
    ["disks.count.more", { is: "present" }, 1, /disks.count/],
    ["system.serial.more", { is: "present" }, 15, /nothing below/],
    ["disks.count", { is: "present" }, 0, /for a count/],
    ["disks.count", { is: "equal", value: "2" }, 0, /a number there/],
    ["system.serial", { is: "at-least", value: 2 }, 0, /that a text can have/],
    ["disks[*].size_bytes", { is: "like", value: "2*" }, 0, /that a number can have/],
    ["system", { is: "equal", value: "2" }, 0, /that a table can have/],
    ["firmware.secure_boot", { is: "one-of", values: [true, "yes"] }, 0, /a flag there/],
  ];
  for (const [path, match, column, expected] of refusals) {
    test(`${JSON.stringify(path)} ${match.is}`, () => {
      const [mistake] = checkRules([rule(path, match)]);
      expect(mistake?.expected).toMatch(expected);
      expect(mistake?.column).toBe(column);
      const [finding] = validateSpec({ rules: [rule(path, match)] }, exampleInventory());
      expect(finding?.outcome).toBe("ERROR");
    });
  }

  test("one condition more than a selector may have", () => {
    const conditions = Array.from({ length: CONDITIONS_LIMIT + 1 }, () => "size_bytes=1");
    const path = `disks[${conditions.join(", ")}].count`;
    const [mistake] = checkRules([rule(path, { is: "equal", value: 1 })]);
    expect(mistake?.expected).toBe(`at most ${CONDITIONS_LIMIT} conditions`);
  });

  test("and says what was most likely meant", () => {
    expect(checkRules([rule("memory.slotz.count", { is: "equal", value: 1 })])[0]?.mend).toBe(
      "Did you mean slots?",
    );
  });
});

test("keys are read as they are written, whatever is in them", () => {
  const chance = new SeededChance(3);
  const letters = [...'ab]"=,*\\ \n\u0000é🦉['];
  for (let turn = 0; turn < 2_000; turn += 1) {
    const key = Array.from({ length: chance.below(6) }, () => chance.pick(letters)).join("");
    const parsed = parsePath(`disks${writeKey(key)}.model`);
    if (parsed.kind === "refused") throw new Error(`${JSON.stringify(key)}: ${parsed.expected}`);
    expect(parsed.steps[0]?.selector).toEqual({ kind: "key", key });
  }
});

test("every list but that of what was not seen has a key", () => {
  const host = exampleInventory();
  const lists = Object.entries(host).filter(([, value]) => Array.isArray(value));
  const names = [...lists.map(([name]) => name), "memory.slots"];
  expect(names.filter((name) => !Object.hasOwn(listKeys, name))).toEqual(["unseen"]);
});

describe("a pattern", () => {
  const cases: [text: string, pattern: string, fits: boolean][] = [
    ["", "", true],
    ["", "*", true],
    ["", "?", false],
    ["abc", "abc", true],
    ["abc", "ab", false],
    ["abc", "a*", true],
    ["abc", "*c", true],
    ["abc", "a?c", true],
    ["ac", "a?c", false],
    ["abbbc", "a*b*c", true],
    ["🦉", "?", true],
    ["a.c", "a.c", true],
    ["abc", "a.c", false],
    ["ABC", "abc", false],
    ["mississippi", "m*iss*ip*i", true],
    ["mississippi", "m*iss*iss*iss*", false],
  ];
  for (const [text, pattern, fits] of cases) {
    test(`${pattern} ${fits ? "fits" : "does not fit"} ${text}`, () => {
      expect(isLike(text, pattern)).toBe(fits);
    });
  }

  test("agrees with a regular expression", () => {
    const chance = new SeededChance(11);
    for (let turn = 0; turn < 5_000; turn += 1) {
      const draw = (letters: string) =>
        Array.from({ length: chance.below(8) }, () => chance.pick([...letters])).join("");
      const [text, pattern] = [draw("ab"), draw("ab*?")];
      const expression = pattern.replaceAll("*", ".*").replaceAll("?", ".");
      expect([text, pattern, isLike(text, pattern)]).toEqual([
        text,
        pattern,
        new RegExp(`^${expression}$`).test(text),
      ]);
    }
  });

  test("that would take a regular expression for ever is answered", () => {
    expect(isLike("a".repeat(256), `${"*a".repeat(127)}*b`)).toBe(false);
  });
});

describe("more than can be told", () => {
  test("of one rule is counted", () => {
    const host = exampleInventory();
    host.memory.slots = Array.from({ length: 512 }, (_, index) => exampleSlot(index));
    const found = judged(equal("memory.slots[*].part", "X"), host);
    expect(found).toHaveLength(findingLimits.perRule + 1);
    expect(found.at(-1)).toEqual([
      "memory.slots[*].part",
      `${512 - findingLimits.perRule} more`,
      "FAIL",
    ]);
  });

  test("of all rules is one place, and the count, for each", () => {
    const host = exampleInventory();
    host.memory.slots = Array.from({ length: 64 }, (_, index) => exampleSlot(index));
    const rules = Array.from({ length: specLimits.rules }, () =>
      equal("memory.slots[*].part", "X"),
    );
    const { length } = validateSpec({ rules }, host);
    expect(length).toBeLessThan(findingLimits.total + findingLimits.perRule + 2 * specLimits.rules);
  });
});

describe("what a stage must have seen", () => {
  const report: StageReport = {
    outcome: "PASS",
    summary: "",
    findings: [],
    coverage: [],
    engines: [],
    measurements: [],
    deltas: [],
    evidence: [],
  };
  const spec = v.parse(specSchema, { name: "a", stages: { GPU: { required: ["gpu.ecc"] } } });
  const missed = (code: string): StageReport => ({
    ...report,
    findings: [
      {
        outcome: "SKIP",
        code,
        component: "gpu 0",
        message: "no tool",
        expected: "gpu.ecc",
        found: null,
      },
    ],
  });
  const cases: [string, Parameters<typeof validateRequired>[1], string, string][] = [
    ["was seen", { GPU: report }, "seen", "PASS"],
    ["was not", { GPU: missed("not-seen") }, "not seen: gpu 0: no tool", "FAIL"],
    ["was required", { GPU: missed("required-not-seen") }, "not seen: gpu 0: no tool", "FAIL"],
    ["has no result", {}, "not seen: the stage has no result", "FAIL"],
    [
      "was skipped",
      { GPU: { ...report, outcome: "SKIP", summary: "no card" } },
      "not seen: the stage was skipped: no card",
      "FAIL",
    ],
  ];
  for (const [name, reports, found, outcome] of cases) {
    test(name, () => {
      const [finding, ...others] = validateRequired(spec, reports);
      expect(others).toEqual([]);
      expect([finding?.found, finding?.outcome]).toEqual([found, outcome]);
    });
  }

  test("fails where its stage is not walked", () => {
    const off = {
      ...spec,
      stages: { ...spec.stages, GPU: { ...spec.stages.GPU, enabled: false } },
    };
    expect(validateRequired(off, { GPU: report })[0]?.found).toBe(
      "not seen: the stage is not walked",
    );
  });
});

test("a host beside its spec: what is broken first, then what no rule is about", () => {
  const host = exampleInventory();
  const rules = [
    equal("memory.slots.count", 4),
    equal("memory.slots[DIMM_A1].part", "OTHER"),
    rule("disks[*].firmware", { is: "present" }),
    equal("nowhere", 1),
  ];
  const diff = specDiff({ rules }, host);
  const memory = diff.find(({ part }) => part === "memory");
  expect(memory?.broken).toBe(1);
  expect(memory?.rows.map(({ path }) => path)).toEqual([
    "memory.slots[DIMM_A1].part",
    "memory.slots.count",
  ]);
  expect(memory?.free.map(({ path }) => path)).toContain("memory.slots[DIMM_A2].serial");
  expect(memory?.free.map(({ path }) => path)).not.toContain("memory.slots.count");
  const disks = diff.find(({ part }) => part === "disks");
  expect(disks?.free.map(({ path }) => path)).not.toContain("disks[S64ANX0R0].firmware");
  expect(diff.find(({ part }) => part === "other")?.broken).toBe(1);
});
