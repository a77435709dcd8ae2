/** The file that declares machines: both notations, every mistake in its place. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  desiredOf,
  parseClusterDeclaration,
  parseDeclaration,
} from "../../../src/vm/declaration.ts";
import { vmSpecSchema } from "../../../src/vm/protocol.ts";
import { repositoryRoot } from "../../support/binary.ts";

const hash = `sha256-${"A".repeat(43)}=`;
const toml = `generation = 4

[[machine]]
name = "web"
imagePath = "/images/web"
hash = "${hash}"
memoryMb = 64

[[machine]]
name = "db"
imagePath = "/images/db"
hash = "${hash}"
power = "paused"
`;

/** What a file is refused with: "line:column key: expected …; received …". */
function mistakesOf(text: string): string[] {
  const outcome = parseDeclaration("vms.toml", text);
  if (outcome.kind === "ok") throw new Error("Expected a refusal");
  return outcome.errors.map(
    ({ line, column, key_path, expected, received, mend }) =>
      `${line}:${column} ${key_path}: expected ${expected}; received ${received}` +
      (mend === undefined ? "" : ` (${mend})`),
  );
}

describe("a declaration", () => {
  test("in TOML and in JSON says the same", () => {
    const machine = [
      { name: "web", imagePath: "/images/web", hash, memoryMb: 64 },
      { name: "db", imagePath: "/images/db", hash, power: "paused" },
    ];
    const json = JSON.stringify({ generation: 4, machine });
    const fromToml = parseDeclaration("vms.toml", toml);
    expect(fromToml).toEqual(parseDeclaration("vms.json", json));
    expect(fromToml).toMatchObject({ kind: "ok", desired: { generation: 4 } });
  });

  test("wants what it does not say otherwise to run", () => {
    const outcome = parseDeclaration("vms.toml", toml);
    if (outcome.kind === "refused") throw new Error("Expected no refusal");
    const { machines } = desiredOf(outcome.desired, 4);
    expect(machines.map(({ spec, power }) => `${spec.name} ${power}`)).toEqual([
      "web running",
      "db paused",
    ]);
  });

  test.each([
    ["a key that nobody knows", toml.replace("memoryMb", "memory"), "7:1 machine[0].memory"],
    ["a hash that is none", toml.replace(hash, "md5-x"), "6:1 machine[0].hash"],
    ["a name that is none", toml.replace('"web"', '"-web"'), "4:1 machine[0].name"],
    ["a name twice", toml.replace('"db"', '"web"'), "10:1 machine[1].name"],
    ["another power", toml.replace('"paused"', '"asleep"'), "13:1 machine[1].power"],
    [
      "an image without its hash",
      toml.replace(`hash = "${hash}"\nmemory`, "memory"),
      "3:1 machine",
    ],
    ["no TOML", "[[machine\n", "1:"],
    ["no JSON", "{", "0:0 "],
    [
      "a key that JSON says twice",
      '{"machine":\n  [{"name":"j", "hash":"{\\"[,", "\\u006eame" : "k"}]}',
      "2:33 machine[0].name: expected a key that stands once in its object",
    ],
  ])("%s is refused in its place", (_what, text, place) => {
    const [first = ""] = mistakesOf(text);
    expect(first).toStartWith(place);
  });

  test.each([
    [
      toml.replace("imagePath", "imagePth"),
      "5:1 machine[0].imagePth: expected a key that is known here; received imagePth " +
        "(did you mean imagePath?)",
    ],
    [
      `${toml}placement = {}\n`,
      "14:1 machine[1].placement: expected a key that is known here; received placement " +
        "(where it may run is a master's: apply it by --master)",
    ],
    [
      toml.replace(hash, "md5-x"),
      '6:1 machine[0].hash: expected "sha256-" and 44 characters of base64; received "md5-x"',
    ],
    [
      toml.replace("memoryMb = 64", 'forwards = ["tcp:1:2", "tcp:1:3"]'),
      "7:1 machine[0].forwards: expected each of the host's ports once; " +
        'received ["tcp:1:2","tcp:1:3"]',
    ],
    [
      "# nothing yet\n",
      "1:1 machine: expected [[machine]] for each, or machine = [] for none; received nothing",
    ],
  ])("is refused in words for people: %#", (text, words) => {
    expect(mistakesOf(text)).toContain(words);
  });

  test("names that stand twice are all told, beside whatever else is wrong", () => {
    const text =
      '[[machine]]\nname = "a"\nhash = 3\n[[machine]]\nname = "a"\n[[machine]]\nname = "a"\n';
    expect(mistakesOf(text)).toEqual(
      expect.arrayContaining([
        "3:1 machine[0].hash: expected string; received 3",
        "5:1 machine[1].name: expected a name that no other machine has; received a",
        "7:1 machine[2].name: expected a name that no other machine has; received a",
      ]),
    );
  });

  test("a master's is refused with the keys that it has there", () => {
    const text = `${toml}placement = { movble = true }\n`;
    const outcome = parseClusterDeclaration("vms.toml", text);
    expect(outcome).toMatchObject({ errors: [{ mend: "did you mean movable?" }] });
  });

  test("keys that JSON says twice are all told, up to a limit, whatever surrounds them", () => {
    const text = '{"a":1,"b":[{"a":1,"c":"\\\\"},[],{"c":{},"c":[{}]}],"a":2,"c":{"a":0}}';
    expect(mistakesOf(text)).toEqual([
      "1:41 b[2].c: expected a key that stands once in its object; received the same key once more",
      "1:52 a: expected a key that stands once in its object; received the same key once more",
    ]);
    expect(mistakesOf(`{${'"a":1,'.repeat(1_000)}"a":1}`)).toHaveLength(16);
  });
});

test("two machines of a master's file may want one port of the host, or one address", () => {
  const same =
    'forwards = ["tcp:8080:80"]\nnetworks = [{network = "default", address = "10.0.0.9"}]';
  const text = toml.replaceAll(`hash = "${hash}"`, `hash = "${hash}"\n${same}`);
  const { desired } = parseClusterDeclaration("vms.toml", text) as { desired?: unknown };
  expect(desired).toMatchObject({ machine: [{ name: "web" }, { name: "db" }] });
  const json = JSON.stringify(desired);
  expect(parseClusterDeclaration("vms.json", json).kind).toBe("ok");
  // On one host they cannot be.
  expect(mistakesOf(text)).toEqual([
    expect.stringMatching(/machine\[1\]\.forwards: .*received tcp port 8080 of db, which web has$/),
    expect.stringMatching(/machine\[1\]\.networks: .*received 10\.0\.0\.9 of default of db/),
  ]);
});

describe("what is written of it", () => {
  const readText = (path: string) => readFileSync(join(repositoryRoot, path), "utf8");

  test("the example is a declaration", () => {
    const outcome = parseDeclaration("machines.toml", readText("docs/machines.toml"));
    expect(outcome).toMatchObject({ kind: "ok" });
  });

  test("every key is in CONFIGURATION.md", () => {
    const [, part = ""] = readText("src/vm/CONFIGURATION.md").split("## Machines:");
    const [table = ""] = part.split("\n## ");
    const keys = [...Object.keys(vmSpecSchema.pipe[0].entries), "power", "generation"];
    expect(keys.filter((key) => !table.includes(`\`${key}\``))).toEqual([]);
  });
});
