/** What smartctl prints, of smartmontools 7.3, of disks that are well, odd and broken. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { diskHealthSchema } from "../../../src/hardware/disk/health.ts";
import { decodeSmartctl } from "../../../src/hardware/disk/smartctl.ts";

const head = (protocol: string, exit = 0) => ({
  json_format_version: [1, 0],
  smartctl: { version: [7, 3], exit_status: exit, messages: [] as unknown[] },
  device: { name: "/dev/sda", info_name: "/dev/sda", type: "sat", protocol },
  model_name: "A Disk",
  serial_number: "S1",
  firmware_version: "F1",
});

function healthOf(json: object, status = 0) {
  const answer = decodeSmartctl(JSON.stringify(json), status);
  if (answer.kind !== "health") throw new Error(answer.reason);
  // Whatever it printed, what we tell of it is what a result may carry.
  return v.parse(diskHealthSchema, answer.health);
}

const row = (id: number, text: string, value: number, more: object = {}) => ({
  id,
  name: `Name_${id}`,
  value: 100,
  worst: 100,
  thresh: 10,
  when_failed: "",
  flags: { value: 50, prefailure: true },
  raw: { value, string: text },
  ...more,
});

describe("NVMe", () => {
  const log = {
    critical_warning: 0,
    temperature: 38,
    available_spare: 100,
    available_spare_threshold: 10,
    percentage_used: 3,
    media_errors: 0,
    num_err_log_entries: 12,
  };
  const nvme = {
    ...head("NVMe"),
    smart_status: { passed: true, nvme: { value: 0 } },
    nvme_smart_health_information_log: log,
    temperature: { current: 38 },
    power_on_time: { hours: 77 },
  };

  test("a healthy disk", () => {
    expect(healthOf(nvme)).toMatchObject({
      protocol: "nvme",
      serial: "S1",
      healthy: true,
      critical_warning: 0,
      spare_percent: 100,
      spare_least_percent: 10,
      used_percent: 3,
      media_errors: 0,
      logged_errors: 12,
      temperature_c: 38,
      power_on_hours: 77,
      self_test: null,
    });
  });

  test("a critical warning: exit status 8, as QEMU's disk has it", () => {
    const failing = {
      ...nvme,
      smart_status: { passed: false, nvme: { value: 4, reliability_degraded: true } },
      nvme_smart_health_information_log: { ...log, critical_warning: 4 },
    };
    expect(healthOf(failing, 8)).toMatchObject({ healthy: false, critical_warning: 4 });
  });

  test("a verdict that is not there is made of the warning, and never of nothing", () => {
    const { smart_status: _, ...rest } = nvme;
    expect(healthOf(rest).healthy).toBe(true);
    const { nvme_smart_health_information_log: __, ...less } = rest;
    expect(healthOf(less)).toMatchObject({ healthy: null, spare_percent: null });
  });

  test("counts beyond what a number holds, below zero, and of another type", () => {
    const odd = { ...log, media_errors: 1e30, percentage_used: -1, available_spare: "100" };
    expect(healthOf({ ...nvme, nvme_smart_health_information_log: odd })).toMatchObject({
      media_errors: Number.MAX_SAFE_INTEGER,
      used_percent: null,
      spare_percent: null,
    });
  });

  test("the self-test log of 7.4", () => {
    const table = [
      {
        self_test_code: { value: 2, string: "Extended" },
        self_test_result: { value: 7, string: "Completed: failed segments" },
        power_on_hours: 70,
      },
    ];
    expect(healthOf({ ...nvme, nvme_self_test_log: { table } }).self_test).toEqual({
      kind: "extended",
      result: "failed",
      detail: "Completed: failed segments",
      power_on_hours: 70,
    });
  });
});

describe("ATA", () => {
  const table = [
    row(5, "8 (0 3)", 196_616),
    row(9, "12345h+10m+01.2s", 999_999),
    row(187, "4", 4),
    row(194, "29 (Min/Max 21/43)", 184_683_593_757),
    row(197, "1", 1),
    row(198, "2", 2),
    row(199, "3", 3),
  ];
  const ata = {
    ...head("ATA"),
    smart_status: { passed: true },
    ata_smart_attributes: { revision: 16, table },
    temperature: { current: 29 },
    power_on_time: { hours: 12_345, minutes: 10 },
  };

  test("the count that it prints is taken, and not all of the raw value", () => {
    expect(healthOf(ata)).toMatchObject({
      protocol: "ata",
      healthy: true,
      reallocated_sectors: 8,
      media_errors: 4,
      pending_sectors: 1,
      uncorrectable_sectors: 2,
      link_errors: 3,
      power_on_hours: 12_345,
      failing_attributes: [],
    });
  });

  test("device statistics count where they are valid", () => {
    const entry = (offset: number, value: number, valid: boolean) => ({
      offset,
      value,
      flags: { valid },
    });
    const pages = [
      { number: 3, table: [entry(32, 40, true), entry(56, 50, false)] },
      { number: 4, table: [entry(8, 60, true)] },
      { number: 7, table: [entry(8, 91, true)] },
    ];
    expect(healthOf({ ...ata, ata_device_statistics: { pages } })).toMatchObject({
      reallocated_sectors: 40,
      pending_sectors: 1,
      media_errors: 60,
      used_percent: 91,
    });
  });

  test("an attribute that fails now", () => {
    const failing = row(5, "9000", 9_000, { value: 5, thresh: 10, when_failed: "now" });
    const past = row(10, "1", 1, { when_failed: "past" });
    const json = { ...ata, ata_smart_attributes: { table: [failing, past] } };
    expect(healthOf(json, 0b11_1000)).toMatchObject({
      healthy: false,
      failing_attributes: [
        { id: 5, name: "Name_5", value: 5, threshold: 10, failure_expected: true },
      ],
    });
  });

  test.each([
    [{ value: 0, string: "Completed without error", passed: true }, "passed"],
    [{ value: 112, string: "Completed: read failure", passed: false }, "failed"],
    [{ value: 25, string: "Aborted by host" }, "aborted"],
    [{ value: 249, string: "Self-test routine in progress" }, "running"],
  ] as const)("self-test %j is %s", (status, result) => {
    const entry = { type: { value: 1, string: "Short offline" }, status, lifetime_hours: 5 };
    const log = { extended: { table: [entry] } };
    expect(healthOf({ ...ata, ata_smart_self_test_log: log }).self_test).toEqual({
      kind: "short",
      result,
      detail: status.string,
      power_on_hours: 5,
    });
  });

  test("a disk with SMART off tells no verdict", () => {
    const off = { ...head("ATA", 4), smart_support: { available: true, enabled: false } };
    expect(healthOf(off, 4)).toMatchObject({ healthy: null, pending_sectors: null });
  });
});

test("SCSI", () => {
  const json = {
    ...head("SCSI"),
    smart_status: { passed: true },
    temperature: { current: 30 },
    scsi_grown_defect_list: 3,
    scsi_percentage_used_endurance_indicator: 9,
    scsi_error_counter_log: {
      read: { total_uncorrected_errors: 2 },
      write: { total_uncorrected_errors: 1 },
    },
    scsi_self_test_0: {
      code: { value: 2, string: "Background long" },
      result: { value: 5, string: "Failed in first segment" },
      power_on_time: { hours: 88 },
    },
  };
  expect(healthOf(json)).toMatchObject({
    protocol: "scsi",
    healthy: true,
    media_errors: 3,
    reallocated_sectors: 3,
    used_percent: 9,
    self_test: { kind: "extended", result: "failed", power_on_hours: 88 },
  });
});

describe("no answer", () => {
  const bad = {
    ...head("", 1),
    smartctl: {
      version: [7, 3],
      exit_status: 1,
      messages: [
        { string: "a hint", severity: "information" },
        { string: "/dev/vda: Unable to detect device type", severity: "error" },
      ],
    },
  };

  test("a disk that it cannot ask, in its own words", () => {
    expect(decodeSmartctl(JSON.stringify(bad), 1)).toEqual({
      kind: "no-answer",
      reason: "/dev/vda: Unable to detect device type",
    });
  });

  test("its JSON says that it could not open the disk, and its exit status does not", () => {
    expect(decodeSmartctl(JSON.stringify({ ...head("ATA", 2) }), 0).kind).toBe("no-answer");
  });

  test.each([
    ["nothing", ""],
    ["text", "smartctl: command line error"],
    ["a cut-off object", '{"smartctl": {'],
    ["a list", "[]"],
    ["null", "null"],
    ["a number", "7"],
    ["an object that says nothing", "{}"],
    ["an unknown protocol", JSON.stringify(head("SATA over pigeon"))],
  ])("%s", (_name, output) => {
    expect(decodeSmartctl(output, 0).kind).toBe("no-answer");
  });

  test("parts of another type than they are to be are left out", () => {
    const odd = {
      ...head("ATA"),
      model_name: 7,
      serial_number: "x".repeat(10_000),
      smart_status: "passed",
      temperature: [1],
      ata_smart_attributes: { table: { 0: "row" } },
      ata_device_statistics: { pages: [null, 5, { number: 3 }] },
      ata_smart_self_test_log: { extended: { table: [{ status: null }] } },
    };
    const health = healthOf(odd);
    expect(health).toMatchObject({ model: null, healthy: null, temperature_c: null });
    expect(health.serial).toHaveLength(256);
  });

  test("more attributes that fail than a result has room for", () => {
    const table = Array.from({ length: 300 }, (_, id) => row(id, "1", 1, { when_failed: "now" }));
    const json = { ...head("ATA"), ata_smart_attributes: { table } };
    expect(healthOf(json).failing_attributes).toHaveLength(64);
  });
});
