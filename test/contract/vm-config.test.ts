/** vm-config.json against cloud-hypervisor's published API: every key of it is known here. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseVmConfig } from "../../src/vm/vm-config.ts";
import { repositoryRoot } from "../support/binary.ts";
import { feature, skipUnless } from "../support/skips.ts";

const schemaPath = join(
  process.env["HOSTLER_SCHEMAS"] ?? "",
  "cloud-hypervisor/cloud-hypervisor.yaml",
);
const schemas = feature("no schemas (HOSTLER_SCHEMAS)", () => existsSync(schemaPath));

/** The tables of vm-config.json, by the names that the API has for them. */
const tables = [
  ["VmConfig", ""],
  ["PayloadConfig", "payload"],
  ["CpusConfig", "cpus"],
  ["MemoryConfig", "memory"],
  ["DiskConfig", "disks"],
  ["NetConfig", "net"],
  ["RngConfig", "rng"],
  ["SerialConfig", "serial"],
  ["ConsoleConfig", "console"],
] as const;

skipUnless("vm-config.json by cloud-hypervisor's schema", schemas, () => {
  test.each(tables)("of %s nothing is unknown", (name, key) => {
    const api = Bun.YAML.parse(readFileSync(schemaPath, "utf8")) as {
      components: { schemas: Record<string, { properties: Record<string, unknown> }> };
    };
    const names = Object.keys(api.components.schemas[name]?.properties ?? {});
    expect(names.length).toBeGreaterThan(1);
    // Whatever its value is worth: an unknown key is refused by its own name.
    const content = Object.fromEntries(names.map((property) => [property, false]));
    const table = key === "disks" || key === "net" ? [content] : content;
    const text = JSON.stringify(key === "" ? content : { [key]: table });
    const outcome = parseVmConfig(text, { folder: "/image", hypervisor: undefined });
    const errors = outcome.kind === "refused" ? outcome.errors : [];
    expect(errors.filter(({ expected }) => /a known key|a key among/.test(expected))).toEqual([]);
  });
});

describe("what src/vm/CONFIGURATION.md says", () => {
  const text = readFileSync(join(repositoryRoot, "src/vm/CONFIGURATION.md"), "utf8");

  test.each(["cpus", "memory", "payload", "disks", "net", "rng", "serial", "hostler"])(
    "it speaks of %s",
    (key) => expect(text).toContain(`\`${key}`),
  );
});
