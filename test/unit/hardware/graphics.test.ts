import { describe, expect, test } from "bun:test";
import { isAccelerator } from "../../../src/hardware/accelerators.ts";
import { parseBadPages, parseRasCounts, readRas } from "../../../src/hardware/graphics-health.ts";
import {
  parseDiagnostics,
  parseSmiTable,
  parseThrottle,
  smiCount,
  smiLimits,
} from "../../../src/hardware/nvidia-smi.ts";
import { shortDomain } from "../../../src/hardware/pci-address.ts";
import { fixtureHost } from "../../support/hardware/fixture-host.ts";
import { diagnostics3, diagnostics4, smiOutput } from "../../support/hardware/nvidia-tools.ts";

describe("what nvidia-smi prints", () => {
  test("is a table by PCI address, without units in its head", () => {
    const { cards, broken } = parseSmiTable(smiOutput.base);
    expect([...cards.keys()]).toEqual(["0000:41:00.0", "0000:c1:00.0"]);
    expect(cards.get("0000:41:00.0")?.get("power.draw")).toBe("62.31");
    expect(broken.size).toBe(0);
  });

  test("what a card does not have is not there", () => {
    const { cards } = parseSmiTable(smiOutput.pages);
    expect([...(cards.get("0000:41:00.0") ?? [])]).toEqual([["pci.bus_id", "00000000:41:00.0"]]);
  });

  test.each([
    "Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error",
    "Unable to determine the device handle for GPU0: 0000:3B:00.0: GPU is lost.  Reboot",
  ])("a card that is lost is named: %s", (line) => {
    const { cards, broken } = parseSmiTable(`${smiOutput.base}${line}\n`);
    expect(cards.size).toBe(2);
    expect([...broken]).toEqual([["0000:3b:00.0", line]]);
  });

  test.each(["[Unknown Error]", "[GPU is lost]", "[GPU requires reset]", "ERR!", "Reset Required"])(
    "a value of %s is a card that is lost",
    (word) => {
      const { broken } = parseSmiTable(`pci.bus_id, name\n00000000:3B:00.0, ${word}\n`);
      expect([...broken.keys()]).toEqual(["0000:3b:00.0"]);
    },
  );

  test.each([
    "",
    "No devices were found\n",
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
    'Field "x" is not a valid field to query.\n',
    "pci.bus_id, name\n",
    "pci.bus_id, name\nhello, x\n",
    `pci.bus_id, name\n${" ".repeat(100_000)}x, y\n`,
    "00000000:3B:00.0, no head\n".slice(0, 0),
  ])("%j has no card", (output) => {
    const { cards, broken } = parseSmiTable(output);
    expect(cards.size + broken.size).toBe(0);
  });

  test("of more cards than the limit the rest is left out", () => {
    const lines = Array.from(
      { length: smiLimits.cards + 9 },
      (_, at) => `00000000:${(at % 256).toString(16).padStart(2, "0")}:00.0, x`,
    );
    expect(parseSmiTable(["pci.bus_id, name", ...lines].join("\n")).cards.size).toBe(
      smiLimits.cards,
    );
  });

  test("numbers are numbers alone", () => {
    expect(smiCount("12")).toBe(12);
    expect([smiCount("-1"), smiCount("1e9"), smiCount("x"), smiCount(undefined)]).toEqual(
      Array.from({ length: 4 }, () => undefined),
    );
  });

  test.each<[string | undefined, string[] | null]>([
    ["0x0000000000000000", []],
    ["0x0000000000000005", []],
    ["0x0000000000000048", ["hardware slowdown", "hardware thermal slowdown"]],
    ["0xa0", ["software thermal slowdown", "power brake"]],
    ["Active", null],
    [undefined, null],
  ])("the mask %j", (mask, reasons) => expect(parseThrottle(mask)).toEqual(reasons));
});

describe("what dcgmi prints", () => {
  test("of version 3", () => {
    const found = parseDiagnostics(`Starting...\n${JSON.stringify(diagnostics3)}`);
    expect(found).toEqual([
      { name: "Deployment/Denylist", card: null, outcome: "pass", message: "Pass" },
      { name: "Deployment/NVML Library", card: null, outcome: "pass", message: "Pass" },
      { name: "Integration/PCIe", card: 0, outcome: "pass", message: "Pass" },
      {
        name: "Integration/PCIe",
        card: 1,
        outcome: "fail",
        message: "PCIe replay rate is too high",
      },
    ]);
  });

  test("of version 4", () => {
    expect(parseDiagnostics(JSON.stringify(diagnostics4))).toEqual([
      { name: "Hardware/memory", card: 0, outcome: "pass", message: "Pass" },
      { name: "Hardware/memory", card: 1, outcome: "fail", message: "A DBE was found" },
      { name: "Hardware/diagnostic", card: null, outcome: "skip", message: "Skip" },
    ]);
  });

  test("a status that nobody knows does not pass", () => {
    const odd = structuredClone(diagnostics3);
    const first = odd["DCGM GPU Diagnostic"].test_categories[0]?.tests[0]?.results[0];
    if (first !== undefined) first.status = "Purple";
    const found = parseDiagnostics(JSON.stringify(odd));
    expect(typeof found !== "string" && found[0]?.outcome).toBe("fail");
  });

  test.each([
    ["", /printed no JSON/],
    ["Error: unable to establish a connection to the specified host: localhost", /no JSON/],
    ["{", /printed no JSON/],
    ["{}", /not what it was/],
    ['{"DCGM Diagnostic": {"test_categories": [{"category": 1}]}}', /not what it was/],
  ])("%j is told as none", (output, why) => expect(parseDiagnostics(output)).toMatch(why));
});

describe("what amdgpu tells", () => {
  test("of all blocks is summed up, and pages are counted", () => {
    const files = {
      "ras/umc_err_count": "ue: 1\nce: 12",
      "ras/gfx_err_count": "ue: 0\nce: 3",
      "ras/gpu_vram_bad_pages": "0x1000 : 0x1000 : R\n0x2000 : 0x1000 : R\n0x3000 : 0x1000 : P",
    };
    const card = { class: "120000", vendor: "1002", device: "740f", driver: "amdgpu" };
    using host = fixtureHost({ pci: [{ ...card, address: "0000:03:00.0", files }] });
    expect(readRas(host.tree, "0000:03:00.0")).toEqual({
      ...{ corrected: 15, uncorrected: 1, retired: 2, pending: 1 },
    });
    expect(readRas(host.tree, "0000:04:00.0")).toBeNull();
  });

  test("that is none counts nothing", () => {
    expect(parseRasCounts("ue: many\nxce: 3\n")).toEqual({ corrected: 0, uncorrected: 0 });
    expect(parseBadPages("")).toEqual({ retired: 0, pending: 0 });
  });
});

describe("a graphics card", () => {
  test.each([
    ["10de", "20b5", true],
    ["1002", "740f", true],
    ["8086", "0bd5", true],
    ["1a03", "2000", false],
    ["102b", "0536", false],
    ["1234", "1111", false],
    ["19e5", "1711", false],
    ["1af4", "1050", false],
  ])("%s:%s computes: %j", (vendor, device, computes) =>
    expect(isAccelerator({ vendor, device })).toBe(computes),
  );

  test("has one address, however long its domain is written", () => {
    expect(shortDomain("00000000:3B:00.0")).toBe("0000:3b:00.0");
    expect(shortDomain("00010000:3B:00.0")).toBe("00010000:3b:00.0");
    expect(shortDomain("0001:3b:00.0")).toBe("0001:3b:00.0");
  });
});
