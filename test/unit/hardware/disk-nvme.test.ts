/** NVMe's pages, whole, odd and broken. */
import { describe, expect, test } from "bun:test";
import { withUnseen } from "../../../src/hardware/disk/health.ts";
import {
  decodeNvmeController,
  decodeNvmeErrors,
  decodeNvmeHealth,
  decodeNvmeSelfTests,
  nameWarnings,
} from "../../../src/hardware/disk/nvme-logs.ts";
import {
  nvmeControllerPage,
  nvmeHealthPage,
  nvmeSelfTestPage,
} from "../../support/vetting/disk-answers.ts";

describe("the health page", () => {
  test("of a healthy disk", () => {
    expect(decodeNvmeHealth(nvmeHealthPage())).toMatchObject({
      protocol: "nvme",
      healthy: true,
      critical_warning: 0,
      temperature_c: 40,
      spare_percent: 100,
      spare_least_percent: 10,
      used_percent: 2,
      power_on_hours: 1_234,
      media_errors: 0,
      logged_errors: 7,
    });
  });

  test("a warning is no health, and has a name", () => {
    const health = decodeNvmeHealth(nvmeHealthPage({ criticalWarning: 4 }));
    expect(health).toMatchObject({ healthy: false, critical_warning: 4 });
    expect(nameWarnings(4)).toBe("reliability-degraded");
    expect(nameWarnings(0x81)).toBe("spare-below-threshold, bits 0x80");
  });

  test("128 bits are no wrong number", () => {
    const health = decodeNvmeHealth(nvmeHealthPage({ mediaErrors: 1n << 100n, hours: 1n << 60n }));
    expect(health).toMatchObject({
      media_errors: Number.MAX_SAFE_INTEGER,
      power_on_hours: Number.MAX_SAFE_INTEGER,
    });
  });

  test("more than all of its life used is told as it is", () => {
    expect(decodeNvmeHealth(nvmeHealthPage({ used: 255 }))?.used_percent).toBe(255);
  });

  test("0 kelvin is a sensor that is not there", () => {
    expect(decodeNvmeHealth(nvmeHealthPage({ kelvin: 0 }))?.temperature_c).toBeNull();
    expect(decodeNvmeHealth(nvmeHealthPage({ kelvin: 253 }))?.temperature_c).toBe(-20);
  });

  test.each([
    ["too few bytes", nvmeHealthPage().subarray(0, 511)],
    ["nothing but ones: the link is gone", new Uint8Array(512).fill(0xff)],
    ["nothing but zeros", new Uint8Array(512)],
  ])("%s: no answer", (_name, bytes) => {
    expect(decodeNvmeHealth(bytes)).toBeUndefined();
  });

  test("what it does not tell is named", () => {
    const health = decodeNvmeHealth(nvmeHealthPage({ kelvin: 0 }));
    if (health === undefined) throw new Error("no answer");
    const named = withUnseen(health, "it does not say");
    expect(named.unseen).toEqual([
      { property: "disk.temperature", reason: "it does not say" },
      { property: "disk.self-test", reason: "it does not say" },
    ]);
  });
});

describe("Identify Controller", () => {
  test("names and abilities", () => {
    expect(decodeNvmeController(nvmeControllerPage({ hasSelfTest: true }))).toEqual({
      serial: "S64ANX0R",
      model: "A Drive 1T",
      firmware: "2B2QEXM7",
      errorEntries: 63,
      hasSelfTest: true,
      extendedMinutes: 35,
    });
  });

  test("no letters are taken for letters", () => {
    expect(decodeNvmeController(nvmeControllerPage({ serial: "S\u0001\u001b[2J" }))?.serial).toBe(
      "S??[2J",
    );
  });

  test.each([
    ["nothing but zeros", new Uint8Array(4_096)],
    ["too few bytes", new Uint8Array(64)],
  ])("%s: no answer", (_name, bytes) => {
    expect(decodeNvmeController(bytes)).toBeUndefined();
  });
});

describe("the self-test log", () => {
  test.each([
    [0x10, "short", "passed", "completed without error"],
    [0x20, "extended", "passed", "completed without error"],
    [0x17, "short", "failed", "failed, in a segment 3"],
    [0x25, "extended", "failed", "a fatal error"],
    [0x21, "extended", "aborted", "aborted by a command"],
    [0x2a, "extended", "aborted", "result 10"],
    [0xe0, "other", "passed", "completed without error"],
  ] as const)("status %d is %s, %s: %s", (status, kind, result, detail) => {
    expect(decodeNvmeSelfTests(nvmeSelfTestPage(status))).toEqual({
      running: null,
      last: { kind, result, detail, power_on_hours: 99 },
    });
  });

  test("an entry that was never used is none", () => {
    expect(decodeNvmeSelfTests(nvmeSelfTestPage(0x0f))?.last).toBeNull();
    expect(decodeNvmeSelfTests(nvmeSelfTestPage(0))?.last).toBeNull();
  });

  test("one that runs", () => {
    expect(decodeNvmeSelfTests(nvmeSelfTestPage(0x10, 1))?.running).toBe(40);
  });
});

test("the error log has its newest entries, and no empty ones", () => {
  const log = new Uint8Array(3 * 64);
  const view = new DataView(log.buffer);
  view.setBigUint64(0, 12n, true);
  view.setUint16(12, (0x281 << 1) | 1, true);
  view.setBigUint64(16, 4_096n, true);
  view.setUint32(24, 1, true);
  view.setBigUint64(64, 11n, true);
  expect(decodeNvmeErrors(log)).toEqual([
    { number: 12, status: 0x281, block: 4_096, namespace: 1 },
    { number: 11, status: 0, block: 0, namespace: 0 },
  ]);
});
