import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseJsonTree } from "../../../src/toml/json-tree.ts";
import { specLimits } from "../../../src/vetting/protocol-spec.ts";
import { readSpec } from "../../../src/vetting/spec/read-spec.ts";
import { stageProperties } from "../../../src/vetting/stages/properties.ts";
import { repositoryRoot } from "../../support/binary.ts";
import { SeededChance } from "../../support/chance.ts";

const toml = `name = "r1"
[[rules]]
path = "memory.slots.count"
match = { is = "equal", value = 4 }
[stages.Storage]
mode = "verify"
`;

test("every property that a stage names can be required of it", () => {
  const known = new Set(Object.values(stageProperties).flat());
  const folder = join(repositoryRoot, "src/vetting/stages");
  const named = readdirSync(folder).flatMap((file) => {
    const text = readFileSync(join(folder, file), "utf8");
    return [...text.matchAll(/notSeen\(\s*"([^"]+)"/g)].map(([, property = ""]) => property);
  });
  expect(named.length).toBeGreaterThan(10);
  expect(named.filter((property) => !known.has(property))).toEqual([]);
});

test("every property that the inventory may not have seen can be required of it", () => {
  const folder = join(repositoryRoot, "src/hardware");
  const named = readdirSync(folder, { recursive: true }).flatMap((file) => {
    if (!String(file).endsWith(".ts")) return [];
    const text = readFileSync(join(folder, String(file)), "utf8");
    const ofElement = /const of = \(property: string\) => \W(\w+)\[/.exec(text)?.[1];
    const direct = [...text.matchAll(/unseen\.(?:add|take)\(\s*(["\x60])(.+?)\1/g)];
    const below = ofElement === undefined ? [] : [...text.matchAll(/\bof\("([^"]+)"\)/g)];
    return [
      ...direct.map(([, , property = ""]) => property.replace(/\[[^\]]*\]/, "[*]")),
      ...below.map(([, word = ""]) => `${ofElement}[*].${word}`),
    ];
  });
  expect(named.length).toBeGreaterThan(20);
  // These are told as what contradicts itself: nobody requires a fault.
  const isFault = (property: string) => /^(processors\[\*\]|smbios\.fault .*)$/.test(property);
  const known = new Set(stageProperties.Inventory);
  const unknown = [...new Set(named)].filter((property) => !known.has(property));
  expect(unknown.filter((property) => !isFault(property))).toEqual([]);
});

test("one spec in TOML and in JSON is the same", () => {
  const read = readSpec(toml);
  if (read.kind !== "read") throw new Error(JSON.stringify(read.mistakes));
  expect(read.spec.stages.Storage.mode).toBe("verify");
  expect(read.spec.stages.SMART.used_warn_percent).toBe(80);
  expect(readSpec(JSON.stringify(read.spec, null, 2))).toEqual(read);
});

describe("a mistake has its place:", () => {
  const json = (text: string) => `{\n  "name": "a",\n  ${text}\n}`;
  const match = '"match": {"is": "present"}';
  const cases: [name: string, text: string, at: string, expected: RegExp][] = [
    ["a key that is not known", `${toml}modus = 1\n`, "7:1", /a known key|a key among/],
    ["a value of another kind", toml.replace('"verify"', "3"), "6:1", /read/],
    [
      "a property that no stage has",
      `${toml}[stages.SMART]\nrequired = ["disk.spare", "disk.helth"]\n`,
      "8:27",
      /one of disk\.health/,
    ],
    [
      "a property that no inventory has",
      `${toml}[stages.Inventory]\nrequired = ["disks[*].seral"]\n`,
      "8:13",
      /one of smbios, .*disks\[\*\]\.serial/,
    ],
    ["a path that no host has", toml.replace("slots", "slotz"), "3:1", /one of .* at letter 8/],
    ["a match that does not fit", toml.replace("value = 4", 'value = "4"'), "4:1", /a number/],
    ["no TOML", "name = \n", "1:7", /./],
    ["no JSON", '{\n  "name" "a"\n}', "2:10", /a colon/],
    ["JSON that ends", '{\n  "name": "a"', "2:14", /a comma, or }/],
    ["a text of JSON with a line break", '{"name": "a\n"}', "1:10", /without line breaks/],
    ["JSON and more", '{"name": "a"} x', "1:15", /the end of the text/],
    ["a key of JSON that stands twice", json('"name": "b"'), "3:3", /"name" once/],
    ["a rule in JSON", json(`"rules": [{"path": "x", ${match}}]`), "3:14", /one of system/],
    ["an unknown key in JSON", json('"rule": []'), "3:3", /a known key/],
    ["a name that is missing", "{}", "1:1", /a value/],
    ["a name of capitals", 'name = "R1"', "1:1", /a name of small letters/],
  ];
  for (const [name, text, at, expected] of cases) {
    test(name, () => {
      const read = readSpec(text);
      if (read.kind !== "refused") throw new Error("It was read");
      const [mistake] = read.mistakes;
      expect(`${mistake?.at.line}:${mistake?.at.column}`).toBe(at);
      expect(mistake?.expected).toMatch(expected);
    });
  }

  test("more bytes than a spec may have", () => {
    const read = readSpec(`#${"x".repeat(specLimits.bytes)}`);
    expect(read.kind === "refused" && read.mistakes[0]?.expected).toBe(
      `at most ${specLimits.bytes} bytes`,
    );
  });

  test("JSON that is nested too deep", () => {
    const read = readSpec(`{"a": ${"[".repeat(100_000)}`);
    expect(read.kind === "refused" && read.mistakes[0]?.expected).toMatch(/^at most 32/);
  });
});

test("JSON is read as JSON.parse reads it, or refused where that refuses", () => {
  const chance = new SeededChance(5);
  const pieces = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"a"',
    '"\\u00e9"',
    "1",
    "-0.5e3",
    "01",
    "true",
    " ",
  ];
  const texts = Array.from({ length: 20_000 }, () =>
    Array.from({ length: 1 + chance.below(7) }, () => chance.pick(pieces)).join(""),
  );
  let read = 0;
  for (const text of [...texts, '{"__proto__": {"x": 1}}', '"\ud800"', "nul", "'a'"]) {
    let expected: { readonly value: unknown } | undefined;
    try {
      expected = { value: JSON.parse(text) };
    } catch {
      expected = undefined;
    }
    const { value, refusals } = parseJsonTree(text);
    if (expected === undefined) expect([text, refusals.length]).toEqual([text, 1]);
    else if (refusals.length === 0) {
      read += 1;
      expect(JSON.stringify(value)).toEqual(JSON.stringify(expected.value));
    }
  }
  expect(read).toBeGreaterThan(500);
});
