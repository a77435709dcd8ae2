import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import * as v from "valibot";
import { readInventory } from "../../../src/hardware/read-inventory.ts";
import { testCards } from "../../../src/vetting/perform/tasks/gpu.ts";
import type { EngineChoice } from "../../../src/vetting/protocol-spec.ts";
import { gpu } from "../../../src/vetting/stages/gpu.ts";
import {
  type GpuCard,
  type GpuReport,
  gpuInputSchema,
  gpuReportSchema,
} from "../../../src/vetting/tasks/gpu.ts";
import { type FixturePciDevice, fixtureHost } from "../../support/hardware/fixture-host.ts";
import {
  diagnostics3,
  type SmiOutput,
  smiOutput,
  writeDcgmi,
  writeSmi,
  writeTool,
} from "../../support/hardware/nvidia-tools.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { hostInventory, judged, stageContext, told } from "../../support/vetting-stage.ts";

const link = { width: 16, width_most: 16, speed: 16, speed_most: 16 };
const graphics = (pci: string, vendor = "10de", device = "20b5") => ({
  ...{ pci, vendor, device, link, model: null, serial: null, driver: "nvidia" },
  ...{ firmware: null, memory_bytes: null },
});
const well: GpuCard = {
  ...{ pci: "0000:41:00.0", width: 16, width_most: 16, temperature_c: 40, power_w: 60 },
  ecc: { enabled: true, corrected: 0, uncorrected: 0 },
  rows: { remapped: 0, pending: false, failed: false },
  ...{ nvlink: null, throttle: [], broken: null },
};
const links = { links: 12, active: 12, inactive: [], replays: 0, recoveries: 0, checksums: 0 };
const report = (parts: Partial<GpuReport>): GpuReport => ({
  engines: [{ name: "nvidia-smi", version: "535" }],
  ...{ cards: [well], diagnostics: null, unseen: [] },
  ...parts,
});

type Settings = NonNullable<Parameters<typeof stageContext>[0]>["GPU"];
function judge(settings: Settings, found: GpuReport, cards = [graphics("0000:41:00.0")]) {
  const context = stageContext(settings === undefined ? {} : { GPU: settings }, {
    inventory: hostInventory({ graphics: cards }),
  });
  return judged(gpu, context, () => ({ kind: "report", report: found }));
}

describe("the stage GPU", () => {
  test("of a card that is well passes", () => {
    const result = judge({ expected: 1 }, report({}));
    expect(result.outcome).toBe("PASS");
    expect(told(result)).toEqual(["PASS gpu-count host", "PASS gpu-well gpu 0000:41:00.0"]);
    expect(result.measurements.map(({ name, value }) => [name, value])).toEqual([
      ["gpu-temperature", 40],
      ["gpu-power", 60],
      ["gpu-memory-corrected", 0],
    ]);
  });

  test.each<[string, Partial<GpuCard>, Settings, string]>([
    ["a narrow link", { width: 8 }, { width_least: 16 }, "FAIL gpu-link-width"],
    [
      "too few links to other cards",
      { nvlink: { ...links, active: 11, inactive: [3] } },
      { nvlinks_least: 12 },
      "FAIL gpu-nvlink",
    ],
    [
      "a link to another card that is not active",
      { nvlink: { ...links, active: 11, inactive: [3] } },
      {},
      "WARN gpu-nvlink",
    ],
    [
      "links that were trained anew",
      { nvlink: { ...links, recoveries: 1 } },
      {},
      "FAIL gpu-nvlink-errors",
    ],
    ["packets sent again", { nvlink: { ...links, replays: 1 } }, {}, "WARN gpu-nvlink-errors"],
    ["wrong checksums", { nvlink: { ...links, checksums: 1 } }, {}, "WARN gpu-nvlink-errors"],
    ["a link below what it can", { width: 8 }, {}, "WARN gpu-link-width"],
    [
      "uncorrected errors",
      { ecc: { enabled: true, corrected: 0, uncorrected: 1 } },
      {},
      "FAIL gpu-uncorrected",
    ],
    [
      "no ECC",
      { ecc: { enabled: false, corrected: null, uncorrected: null } },
      {},
      "WARN gpu-ecc-off",
    ],
    [
      "remapped rows",
      { rows: { remapped: 1, pending: false, failed: false } },
      {},
      "FAIL gpu-rows-remapped",
    ],
    [
      "rows that wait",
      { rows: { remapped: 0, pending: true, failed: false } },
      {},
      "FAIL gpu-rows-pending",
    ],
    [
      "rows that failed",
      { rows: { remapped: 0, pending: false, failed: true } },
      {},
      "FAIL gpu-rows-failed",
    ],
    ["a slowdown", { throttle: ["power brake"] }, {}, "WARN gpu-throttled"],
    ["a lost card", { broken: "GPU is lost" }, {}, "FAIL gpu-lost"],
  ])("sees %s", (_, parts, settings, expected) => {
    const result = judge(settings, report({ cards: [{ ...well, ...parts }] }));
    expect(told(result)[0]).toBe(`${expected} gpu 0000:41:00.0`);
    expect(result.outcome).toBe(expected.split(" ", 1)[0] as typeof result.outcome);
  });

  test("limits of the spec let through what it allows", () => {
    const cards = [
      {
        ...well,
        ecc: { enabled: true, corrected: 9, uncorrected: 2 },
        rows: { remapped: 3, pending: false, failed: false },
      },
    ];
    expect(judge({ uncorrected_errors: 2, remapped_rows: 3 }, report({ cards })).outcome).toBe(
      "PASS",
    );
  });

  test.each([
    [2, 1],
    [1, 2],
    [0, 1],
  ])("with %d expected and %d found fails", (expected, found) => {
    const cards = Array.from({ length: found }, (_, at) => graphics(`0000:4${at}:00.0`));
    const result = judge({ expected }, report({}), cards);
    expect(result.outcome).toBe("FAIL");
    expect(told(result)).toContain("FAIL gpu-count host");
  });

  test("with none expected, and none there, is SKIP and has no task; one expected fails", () => {
    for (const expected of [0, null]) {
      const context = stageContext({ GPU: { expected } });
      expect(gpu.plan(context)).toEqual([]);
      const result = judged(gpu, context, () => ({ kind: "cancelled" }));
      expect(result.outcome).toBe("SKIP");
      expect(told(result)).toEqual(["SKIP no-gpu host"]);
    }
    const wanting = stageContext({ GPU: { expected: 1 } });
    expect(judged(gpu, wanting, () => ({ kind: "cancelled" })).outcome).toBe("FAIL");
  });

  test("links to other cards that the spec wants and nobody tells of fail", () => {
    for (const settings of [{ nvlinks_least: 1 }, { required: ["gpu.nvlink"] }]) {
      expect(told(judge(settings, report({})))).toContain(
        "FAIL required-not-seen gpu 0000:41:00.0",
      );
    }
    // A card that stands alone has links that nothing is at the other end of.
    const alone = { ...well, nvlink: { ...links, active: 0, inactive: [0] } };
    expect(judge({}, report({ cards: [alone] })).outcome).toBe("PASS");
    const some = { ...well, nvlink: { ...links, replays: 5 } };
    expect(judge({ nvlink_errors: 5 }, report({ cards: [some] })).outcome).toBe("PASS");
  });

  test("a service processor's screen is no card", () => {
    const inventory = hostInventory({ graphics: [graphics("0000:05:00.0", "1a03", "2000")] });
    const context = stageContext({ GPU: { expected: 0 } }, { inventory });
    expect(judged(gpu, context, () => ({ kind: "cancelled" })).outcome).toBe("SKIP");
  });

  test("what was not seen is named, fails where it is required, and alone is no PASS", () => {
    const bare = { ...well, width: null, ecc: null, rows: null, throttle: null };
    const unseen = [{ property: "gpu.ecc", component: well.pci, reason: "no nvidia-smi" }];
    const skipped = judge({}, report({ cards: [bare], unseen }));
    expect(skipped.outcome).toBe("SKIP");
    expect(told(skipped)).toEqual(["SKIP not-seen gpu 0000:41:00.0"]);
    const required = judge({ required: ["gpu.ecc"] }, report({ cards: [well], unseen }));
    expect(required.outcome).toBe("FAIL");
  });

  test("a card that the report leaves out is too little looked at", () => {
    const two = [graphics("0000:41:00.0"), graphics("0000:c1:00.0")];
    const result = judge({ expected: 2 }, report({}), two);
    expect(result.outcome).toBe("WARN");
    expect(told(result)[0]).toBe("WARN coverage host");
  });

  test("diagnostics: each that failed is told, and none that passed is no PASS", () => {
    const one = { name: "memory", card: 1, message: "bad" };
    const failed = judge({}, report({ diagnostics: [{ ...one, outcome: "fail" }] }));
    expect(failed.outcome).toBe("FAIL");
    expect(told(failed)[0]).toBe("FAIL gpu-diagnostic gpu number 1");
    expect(told(failed)).toContain("SKIP gpu-diagnostic host");
    const passed = judge({}, report({ diagnostics: [{ ...one, outcome: "pass" }] }));
    expect(told(passed)).toContain("PASS gpu-diagnostic host");
  });

  test("errors of PCI Express while it ran count, and a slot is named", () => {
    const pci = { address: "0000:41:00.0", class: "030200", vendor: "10de", device: "20b5" };
    const rest = { subsystem_vendor: null, subsystem_device: null, driver: null, link };
    const inventory = hostInventory({
      graphics: [graphics("0000:41:00.0")],
      pci: [{ ...pci, ...rest, slot: "Slot 3" }],
    });
    const delta = { source: "pcie-fatal" as const, component: "0000:41:00.0", before: 0, after: 1 };
    const result = judged(
      gpu,
      stageContext({}, { inventory }),
      () => ({ kind: "report", report: report({}) }),
      { deltas: [delta] },
    );
    expect(told(result)).toEqual([
      "FAIL pcie-fatal 0000:41:00.0",
      "PASS gpu-well gpu 0000:41:00.0 (Slot 3)",
    ]);
  });
});

const card = (address: string, parts: Partial<FixturePciDevice> = {}): FixturePciDevice => ({
  ...{ address, class: "030200", vendor: "10de", device: "20b5", driver: "nvidia" },
  link: ["16.0 GT/s PCIe", "16", "16.0 GT/s PCIe", "16"],
  ...parts,
});

/** The cards of a fixture, tested with these tools. */
async function run(
  cards: FixturePciDevice[],
  tools: { smi?: string; dcgmi?: string },
  level = 1,
  engine: EngineChoice = "default",
) {
  using host = fixtureHost({ pci: cards });
  const found = readInventory(host.tree).graphics;
  const input = v.parse(gpuInputSchema, {
    root: host.root,
    cards: found.map(({ pci, vendor, driver }) => ({ pci, vendor, driver })),
    dcgm_level: level,
    engine,
    diagnostics_s: 60,
  });
  const paths = { nvidiaSmi: tools.smi ?? null, dcgmi: tools.dcgmi ?? null };
  return v.parse(gpuReportSchema, await testCards(input, paths, new AbortController().signal));
}

describe("the task gpu", () => {
  const two = [card("0000:41:00.0"), card("0000:c1:00.0")];

  test("puts nvidia-smi's tables, the links and the diagnostics together", async () => {
    using folder = temporaryFolder();
    const smi = writeSmi(folder, smiOutput);
    const dcgmi = writeDcgmi(folder, JSON.stringify(diagnostics3), 226);
    const found = await run(two, { smi, dcgmi });
    expect(found.engines).toEqual([
      { name: "hostler", version: null },
      { name: "nvidia-smi", version: "535.183.01" },
      { name: "dcgmi", version: null },
    ]);
    expect(found.unseen).toEqual([]);
    expect(found.diagnostics).toHaveLength(4);
    expect(found.cards[1]).toEqual({
      ...{ pci: "0000:c1:00.0", width: 16, width_most: 16, temperature_c: 41, power_w: 64.02 },
      ecc: { enabled: true, corrected: 3, uncorrected: 2 },
      rows: { remapped: 2, pending: true, failed: false },
      nvlink: null,
      throttle: ["hardware slowdown", "hardware thermal slowdown"],
      broken: null,
    });
    expect(found.cards[0]?.nvlink).toMatchObject({ links: 3, active: 2, replays: 3 });
  });

  test("asks no tool where the spec wants our own engine", async () => {
    using folder = temporaryFolder();
    const smi = writeTool(folder, "nvidia-smi", `touch ${folder.file("asked")}`);
    const dcgmi = writeTool(folder, "dcgmi", `touch ${folder.file("asked")}`);
    const found = await run(two, { smi, dcgmi }, 1, "own");
    expect(found.engines).toEqual([{ name: "hostler", version: null }]);
    expect(existsSync(folder.file("asked"))).toBe(false);
    const reasons = new Set(found.unseen.map(({ reason }) => reason));
    expect([...reasons]).toEqual([
      "nvidia-smi is not asked: the spec wants no tool",
      "dcgmi is not asked: the spec wants no tool",
    ]);
  });

  test("with nothing installed has the links, and names the rest", async () => {
    const found = await run([two[0] as FixturePciDevice], {});
    expect(found.cards[0]?.width).toBe(16);
    expect(found.unseen.map(({ property, reason }) => `${property}: ${reason}`)).toEqual([
      "gpu.ecc: nvidia-smi is not installed",
      "gpu.rows: nvidia-smi is not installed",
      "gpu.throttle: nvidia-smi is not installed",
      "gpu.diagnostics: dcgmi is not installed",
    ]);
  });

  test("a card that nvidia-smi does not list is lost", async () => {
    using folder = temporaryFolder();
    const found = await run(
      [...two, card("0000:e1:00.0")],
      { smi: writeSmi(folder, smiOutput) },
      0,
    );
    expect(found.cards.map(({ broken }) => broken)).toEqual([
      null,
      null,
      "nvidia-smi does not list it",
    ]);
    expect(found.diagnostics).toBeNull();
  });

  test("pages are counted where there are no rows", async () => {
    using folder = temporaryFolder();
    const pages = smiOutput.pages.replace("[N/A], [N/A], [N/A]", "4, 1, Yes");
    const output: SmiOutput = {
      ...smiOutput,
      rows: "Invalid combination of input arguments.",
      pages,
    };
    const found = await run(two, { smi: writeSmi(folder, output) }, 0);
    expect(found.cards[0]?.rows).toEqual({ remapped: 5, pending: true, failed: false });
    expect(found.cards[1]?.rows).toBeNull();
  });

  test.each([
    ["exit 9", "nvidia-smi ended with 9: "],
    ["echo 'No devices were found'; exit 6", "nvidia-smi ended with 6: No devices were found"],
    ["kill -9 $$", "ended by SIGKILL"],
  ])("an nvidia-smi that does `%s` sees nothing, and that is told", async (body, why) => {
    using folder = temporaryFolder();
    const found = await run(two, { smi: writeTool(folder, "nvidia-smi", body) }, 0);
    expect(found.cards.map(({ broken, ecc }) => [broken, ecc])).toEqual([
      [null, null],
      [null, null],
    ]);
    expect(found.unseen[0]?.reason).toContain(why);
    expect(found.engines).toHaveLength(1);
  });

  test("a dcgmi without its engine is told", async () => {
    using folder = temporaryFolder();
    const dcgmi = writeTool(folder, "dcgmi", "echo 'Error: unable to connect'; exit 1");
    const found = await run(two, { smi: writeSmi(folder, smiOutput), dcgmi });
    expect(found.unseen.at(-1)?.reason).toMatch(/dcgmi printed no JSON.*ended with 1/);
  });

  test("amdgpu's counters come from /sys", async () => {
    const files = { "ras/umc_err_count": "ue: 2\nce: 7" };
    const amd = { class: "120000", vendor: "1002", device: "740f", driver: "amdgpu" };
    const found = await run([card("0000:03:00.0", { ...amd, files })], {});
    expect(found.cards[0]?.ecc).toEqual({ enabled: true, corrected: 7, uncorrected: 2 });
    expect(found.unseen.map(({ property }) => property)).toEqual([
      "gpu.throttle",
      "gpu.diagnostics",
    ]);
  });
});
