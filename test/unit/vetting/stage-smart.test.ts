/** The stage SMART: what it plans, and what it makes of what disks say. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { type DiskHealth, untoldHealth, withUnseen } from "../../../src/hardware/disk/health.ts";
import { stageReportSchema } from "../../../src/vetting/protocol-result.ts";
import type { TaskEnding } from "../../../src/vetting/protocol-task.ts";
import { smart } from "../../../src/vetting/stages/smart.ts";
import { smartInputSchema } from "../../../src/vetting/tasks/smart.ts";
import {
  codesOf,
  contextOf,
  diskOf,
  healthy,
  smartReport,
  walk,
} from "../../support/vetting/disk-stage.ts";

const virtio = withUnseen(untoldHealth("none"), "virtio disks have no SMART");

function judgeOne(health: DiskHealth, settings: object = {}) {
  return walk(smart, contextOf({ smart: settings }), () => smartReport(health)).report;
}

describe("plan", () => {
  test("every disk has a task, whatever its transport", () => {
    const disks = [
      diskOf(),
      diskOf({ name: "sda", serial: "A", transport: "sata" }),
      diskOf({ name: "vda", serial: null, transport: "virtio" }),
      diskOf({ name: "sdb", serial: "B", transport: "other" }),
    ];
    const plans = smart.plan(contextOf({ disks }));
    expect(plans.map((plan) => [plan.id, plan.component])).toEqual([
      ["smart/S64ANX0R", "disk S64ANX0R"],
      ["smart/A", "disk A"],
      ["smart/vda", "disk vda"],
      ["smart/B", "disk B"],
    ]);
    for (const plan of plans) expect(v.is(smartInputSchema, plan.input)).toBe(true);
  });

  test("two disks of one serial are told apart", () => {
    const disks = [diskOf(), diskOf({ name: "nvme1n1" })];
    expect(smart.plan(contextOf({ disks })).map((plan) => plan.id)).toEqual([
      "smart/S64ANX0R (nvme0n1)",
      "smart/S64ANX0R (nvme1n1)",
    ]);
  });

  test("the deadline is the spec's, and a self-test ends before it", () => {
    const settings = { self_test: "short", deadline: { base_s: 100 } };
    const [plan] = smart.plan(contextOf({ smart: settings }));
    expect(plan?.deadline).toBe(100_000);
    expect(plan?.input).toMatchObject({ self_test: "short", self_test_most_s: 90 });
  });

  test("a stage that is left out plans nothing", () => {
    expect(smart.plan(contextOf({ smart: { enabled: false } }))).toEqual([]);
  });
});

describe("judge", () => {
  test("a healthy disk passes", () => {
    const report = judgeOne(healthy());
    expect(codesOf(report)).toEqual(["PASS smart-well"]);
    expect(report.outcome).toBe("PASS");
    expect(report.coverage).toEqual([
      { component: "host", unit: "devices", covered: 1, total: 1, least: 0 },
    ]);
    expect(report.engines).toEqual([{ task: "smart", engine: "hostler", version: "0.1.0" }]);
    expect(v.is(stageReportSchema, report)).toBe(true);
  });

  test.each<[string, Partial<DiskHealth>, object]>([
    ["FAIL smart-failing", { healthy: false, critical_warning: null }, {}],
    ["FAIL nvme-critical-warning", { healthy: false, critical_warning: 4 }, {}],
    ["FAIL media-errors", { media_errors: 1 }, {}],
    ["FAIL spare-below-threshold", { spare_percent: 9 }, {}],
    ["WARN worn", { used_percent: 81 }, {}],
    ["FAIL worn-out", { used_percent: 100 }, {}],
    ["FAIL worn-out", { used_percent: 60 }, { used_fail_percent: 60 }],
    ["FAIL pending-sectors", { pending_sectors: 1 }, {}],
    ["FAIL uncorrectable-sectors", { uncorrectable_sectors: 3 }, { uncorrectable_sectors: 2 }],
    ["WARN reallocated-sectors", { reallocated_sectors: 1 }, {}],
    ["FAIL too-hot", { temperature_c: 70 }, {}],
    [
      "FAIL self-test-failed",
      { self_test: { kind: "short", result: "failed", detail: "read", power_on_hours: 1 } },
      {},
    ],
    [
      "FAIL attribute-failing",
      {
        failing_attributes: [
          { id: 5, name: "Reallocated", value: 1, threshold: 10, failure_expected: true },
        ],
      },
      {},
    ],
    [
      "WARN attribute-old",
      {
        failing_attributes: [
          { id: 9, name: "Hours", value: 1, threshold: 10, failure_expected: false },
        ],
      },
      {},
    ],
  ])("%s", (expected, given, settings) => {
    const report = judgeOne(healthy(given), settings);
    expect(codesOf(report)).toContain(expected);
    expect(report.outcome).toBe(expected.startsWith("FAIL") ? "FAIL" : "WARN");
    expect(codesOf(report)).not.toContain("PASS smart-well");
  });

  test.each<[string, Partial<DiskHealth>, object]>([
    ["media errors that the spec allows", { media_errors: 2 }, { media_errors: 2 }],
    ["spare at its threshold", { spare_percent: 10 }, {}],
    ["as much used as is not yet warned of", { used_percent: 80 }, {}],
    ["one degree below", { temperature_c: 69 }, {}],
    [
      "reallocations that nobody asks for",
      { reallocated_sectors: 9 },
      { reallocated_sectors_warn: 0 },
    ],
  ])("%s: well", (_name, given, settings) => {
    expect(judgeOne(healthy(given), settings).outcome).toBe("PASS");
  });

  test("what a disk does not tell is skipped by name, and hides not that it is well", () => {
    const report = judgeOne(healthy({ self_test: null, temperature_c: null }));
    expect(codesOf(report)).toEqual(["SKIP not-seen", "SKIP not-seen", "PASS smart-well"]);
    expect(report.findings.map(({ expected }) => expected)).toContain("disk.self-test");
    expect(report.outcome).toBe("PASS");
  });

  test("what the spec requires and nobody saw fails", () => {
    const report = judgeOne(healthy({ spare_least_percent: null }), { required: ["disk.spare"] });
    expect(codesOf(report)).toEqual(["FAIL required-not-seen"]);
    expect(report.outcome).toBe("FAIL");
  });

  test("required of a disk whose protocol has no place for it", () => {
    const ata = withUnseen({ ...untoldHealth("ata"), healthy: true }, "it does not say");
    const report = judgeOne(ata, { required: ["disk.spare"] });
    expect(report.findings[0]).toMatchObject({
      code: "required-not-seen",
      message: "disk.spare is required, and was not seen: disks of ata do not tell it",
    });
  });

  test("a virtio disk is skipped, and never passes", () => {
    const report = judgeOne(virtio);
    expect(report.findings).toEqual([
      {
        outcome: "SKIP",
        code: "not-seen",
        component: "disk S64ANX0R",
        message: "disk.health was not seen: virtio disks have no SMART",
        expected: "disk.health",
        found: null,
      },
    ]);
    expect(report.outcome).toBe("SKIP");
    expect(report.summary).toBe("0 of 1 disks tell how they are");
    expect(judgeOne(virtio, { required: ["disk.health"] }).outcome).toBe("FAIL");
  });

  test("one disk that passes does not hide one that is skipped", () => {
    const disks = [diskOf(), diskOf({ name: "vda", serial: "V", transport: "virtio" })];
    const { report } = walk(smart, contextOf({ disks }), (plan) =>
      smartReport(plan.component === "disk V" ? virtio : healthy()),
    );
    expect(codesOf(report)).toEqual(["SKIP not-seen", "PASS smart-well"]);
    expect(report.outcome).toBe("PASS");
  });

  test("a disk that answers without a verdict does not pass", () => {
    const report = judgeOne(healthy({ healthy: null, critical_warning: null }));
    expect(report.outcome).toBe("SKIP");
  });

  test("no disks at all are no pass", () => {
    const none = contextOf({ disks: [] });
    expect(walk(smart, none, () => smartReport()).report).toMatchObject({ outcome: "SKIP" });
    const required = contextOf({ disks: [], smart: { required: ["disk.health"] } });
    expect(walk(smart, required, () => smartReport()).report.outcome).toBe("FAIL");
  });

  test.each<[string, TaskEnding]>([
    ["ERROR task-failed", { kind: "failure", message: "it went" }],
    ["ERROR task-died", { kind: "died", how: "SIGSEGV", lastWords: "a stack" }],
    ["ERROR stuck-in-kernel", { kind: "stuck", stack: "nvme_submit", wait: "blk_execute_rq" }],
    ["ERROR overdue", { kind: "overdue", done: 0, total: 0 }],
    ["ERROR bad-report", { kind: "report", report: { health: "good" } }],
  ])("%s", (expected, ending) => {
    const { report } = walk(smart, contextOf(), () => ending);
    expect(codesOf(report)).toEqual([expected]);
    expect(report.outcome).toBe("ERROR");
  });

  test("the stack of one that is stuck is evidence", () => {
    const { report } = walk(smart, contextOf(), () => ({ kind: "stuck", stack: "x\ny", wait: "" }));
    expect(report.evidence).toEqual([{ name: "stack", component: "disk S64ANX0R", text: "x\ny" }]);
  });

  test("a self-test that was asked for and did not end is not seen", () => {
    const running = {
      self_test: { kind: "short", result: "running", detail: "40 %", power_on_hours: null },
    } as const;
    const required = { self_test: "short", required: ["disk.self-test"] };
    expect(codesOf(judgeOne(healthy(running), { self_test: "short" }))).toContain("SKIP not-seen");
    expect(judgeOne(healthy(running), required).outcome).toBe("FAIL");
  });

  test("more findings than a result has room for: the worst stay", () => {
    const disks = Array.from({ length: 1_024 }, (_, index) =>
      diskOf({ name: `sd${index}`, serial: `S${index}` }),
    );
    const { report } = walk(smart, contextOf({ disks }), (plan) =>
      smartReport(plan.component === "disk S1023" ? healthy({ media_errors: 1 }) : virtio),
    );
    expect(report.outcome).toBe("FAIL");
    expect(report.findings[0]?.component).toBe("disk S1023");
    expect(v.is(stageReportSchema, report)).toBe(true);
  });
});
