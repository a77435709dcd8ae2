/** The faults that the tester is proven by, and what is taken for a proof. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import type { Dossier } from "../../../src/vetting/protocol-operator.ts";
import type { Finding, Outcome } from "../../../src/vetting/protocol-result.ts";
import { specSchema } from "../../../src/vetting/protocol-spec.ts";
import {
  type Expected,
  faults,
  healthySensors,
  proverSpec,
} from "../../../src/vetting/prove/faults.ts";
import { type GuestPlan, guestSerials, guestWords } from "../../../src/vetting/prove/guest.ts";
import { makeSensorRecords } from "../../../src/vetting/prove/sensor-records.ts";
import { proofOf } from "../../../src/vetting/prove/verdict.ts";

const plan: GuestPlan = {
  files: {
    kernel: "K",
    initramfs: "I",
    nvme: "N",
    sata: "S",
    errorRecords: "R",
    sensorRecords: "D",
    qmpSocket: "Q",
  },
  kernelWords: ["hostler.vetting.run=1"],
  mac: "52:54:00:76:00:01",
  change: {},
  memoryMebibytes: 1_536,
};
const wordsOf = (change: GuestPlan["change"]) => guestWords({ ...plan, change }).join("\n");

describe("the table of faults", () => {
  test("each has its own name, and does something", () => {
    expect(new Set(faults.map(({ name }) => name)).size).toBe(faults.length);
    for (const { change, sensors, during, atPower } of faults) {
      expect([change, sensors, during, atPower].filter((one) => one !== undefined)).not.toEqual([]);
    }
  });

  test("each that changes the host changes its command line", () => {
    for (const { change } of faults) {
      if (change !== undefined) expect(wordsOf(change)).not.toBe(wordsOf({}));
    }
  });

  test("each that is found by a rule breaks one that there is", () => {
    for (const { expected } of faults) {
      if (expected.by !== "SpecValidate") continue;
      const { place } = expected;
      expect(proverSpec.rules.filter(({ path }) => path.startsWith(place))).not.toEqual([]);
    }
  });

  test("the spec of the proof is one that an orchestrator takes, as it is", () => {
    expect(v.parse(specSchema, proverSpec)).toEqual(proverSpec);
  });
});

describe("the emulated host", () => {
  test("an empty bay is no disk at all", () => {
    expect(wordsOf({})).toContain(guestSerials.sata);
    expect(wordsOf({ sata: false })).not.toContain(guestSerials.sata);
    expect(wordsOf({ sata: false })).not.toContain('"filename":"S"');
  });

  test("a sector that cannot be read is told to the disk that has it", () => {
    const words = guestWords({ ...plan, change: { sataMediaError: 4_096 } });
    const disks = words.filter((word) => word.startsWith("{")).map((word) => JSON.parse(word));
    expect(disks).toMatchObject([
      { "node-name": "nvme", file: { driver: "file" } },
      { "node-name": "sata", file: { driver: "blkdebug", "inject-error": [{ sector: 8 }] } },
    ]);
  });

  test("a sector of the disk in its memory is told to the module that is that disk", () => {
    const words = guestWords({ ...plan, change: { scsiMediaError: 4_096 } });
    expect(words[words.indexOf("-append") + 1]).toBe(
      "console=ttyS0 panic=1 hostler.vetting.run=1 hostler.live.module=scsi_debug " +
        "scsi_debug.dev_size_mb=64 scsi_debug.opts=2 scsi_debug.medium_error_start=8 " +
        "scsi_debug.medium_error_count=1",
    );
    expect(wordsOf({})).not.toContain("scsi_debug");
  });

  test("a comma in a value is none between values", () => {
    expect(wordsOf({ smbios: { product: "One, two" } })).toContain("product=One,, two");
  });
});

test("sensor records are as long as they say, and numbered from 1", () => {
  const bytes = makeSensorRecords([
    ...healthySensors,
    { number: 9, name: "0123456789abcdef", supply: 2, tells: "presence" },
  ]);
  const records: number[][] = [];
  for (let at = 0; at < bytes.length; at += 5 + (bytes[at + 4] ?? 0)) {
    records.push([...bytes.subarray(at, at + 5 + (bytes[at + 4] ?? 0))]);
  }
  expect(records.map(([id]) => id)).toEqual([1, 2, 3]);
  // Offsets of IPMI 2.0, 43.2: number, type of the sensor, type of the reading, name.
  expect(records.map((record) => [record[7], record[12], record[13]])).toEqual([
    [1, 0x08, 0x01],
    [2, 0x08, 0x01],
    [9, 0x08, 0x6f],
  ]);
  for (const record of records) expect(record.length).toBe(32 + ((record[31] ?? 0) & 0x1f));
  expect(() =>
    makeSensorRecords([{ number: 1, name: "a".repeat(17), supply: 1, tells: "presence" }]),
  ).toThrow(RangeError);
});

const smart: Expected = {
  by: "SMART",
  code: "nvme-critical-warning",
  also: ["smart-failing"],
};
const rule: Expected = { by: "SpecValidate", place: "disks[A]" };

interface Told {
  readonly state?: string;
  readonly verdict?: string | null;
  readonly findings?: readonly (readonly [Outcome, string])[];
  readonly rules?: readonly (readonly [Outcome, string])[];
}

/** Of a dossier, what a proof looks at. */
function told({
  state = "FailedHolding",
  verdict = null,
  findings = [],
  rules = [],
}: Told): Dossier {
  const found = findings.map(([outcome, code]): Finding => {
    return { outcome, code, component: "disk", message: code, expected: null, found: null };
  });
  return {
    view: { state, verdict, reason: "why" },
    rules: rules.map(([outcome, path]) => ({ outcome, path, expected: "1", found: "2" })),
    results: [{ stage: "SMART", report: { findings: found } }],
  } as unknown as Dossier;
}

describe("a proof", () => {
  test.each([
    ["it passed", told({ state: "Completed", verdict: "passed" }), "proven"],
    ["with warnings", told({ state: "Completed", verdict: "warned" }), "proven"],
    ["something was told", told({ findings: [["FAIL", "worn-out"]] }), "false-alarm"],
    ["a test broke", told({ findings: [["ERROR", "overdue"]] }), "false-alarm"],
    ["a rule is broken", told({ rules: [["FAIL", "system.serial"]] }), "false-alarm"],
    ["it did not end well, and nobody says why", told({}), "broken"],
    ["it is lost", told({ state: "Lost", verdict: "lost" }), "broken"],
    ["another verdict", told({ state: "Completed", verdict: "cancelled" }), "broken"],
  ])("of a healthy host: %s", (_name, dossier, kind) => {
    expect(proofOf(dossier, undefined).kind).toBe(kind as never);
  });

  test.each([
    ["its code", told({ findings: [["FAIL", "nvme-critical-warning"]] }), smart, "proven"],
    ["it passed", told({ state: "Completed", verdict: "passed" }), smart, "missed"],
    ["its other word alone", told({ findings: [["FAIL", "smart-failing"]] }), smart, "missed"],
    [
      "in two words",
      told({
        findings: [
          ["FAIL", "nvme-critical-warning"],
          ["FAIL", "smart-failing"],
        ],
      }),
      smart,
      "proven",
    ],
    ["another code", told({ findings: [["FAIL", "worn-out"]] }), smart, "missed"],
    ["a warning alone", told({ findings: [["WARN", "nvme-critical-warning"]] }), smart, "missed"],
    [
      "it and more",
      told({
        findings: [
          ["FAIL", "nvme-critical-warning"],
          ["FAIL", "worn-out"],
        ],
      }),
      smart,
      "false-alarm",
    ],
    [
      "it, and the run goes on as if not",
      told({
        state: "Completed",
        verdict: "passed",
        findings: [["FAIL", "nvme-critical-warning"]],
      }),
      smart,
      "missed",
    ],
    [
      "its rule",
      told({
        rules: [
          ["FAIL", "disks[A]"],
          ["PASS", "x"],
        ],
      }),
      rule,
      "proven",
    ],
    ["another rule", told({ rules: [["FAIL", "disks[B]"]] }), rule, "missed"],
  ])("of a fault: %s", (_name, dossier, expected, kind) => {
    expect(proofOf(dossier, expected).kind).toBe(kind as never);
  });
});
