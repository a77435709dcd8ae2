import type { DiskHealth } from "../../hardware/disk/health.ts";
import { nameWarnings } from "../../hardware/disk/nvme-logs.ts";
import { milliseconds } from "../../units/units.ts";
import type { Coverage, Finding, Measurement, StageReport } from "../protocol-result.ts";
import type { StageSettings } from "../protocol-spec.ts";
import type { TaskEngine } from "../tasks/disk.ts";
import { SMART_TASK } from "../tasks/smart.ts";
import { engineList, isFinding, nameDisks, planSmart, smartReportOf, unseenOf } from "./disks.ts";
import { evidenceOf, finding, notSeen, stageReport } from "./findings.ts";
import { smartProperties } from "./properties.ts";
import type { StageContext, StageDefinition, StageDone, TaskPlan } from "./stage.ts";

/**
 * Each disk is asked how it is. What it does not tell is a SKIP with its name, or a FAIL where the
 * spec requires it, and a disk of which nobody can say that it is well never passes.
 */
export const smart: StageDefinition = { stage: "SMART", plan, judge };

type Settings = StageSettings["SMART"];

function plan({ settings, inventory }: StageContext): readonly TaskPlan[] {
  const own = settings.SMART;
  if (!own.enabled) return [];
  return nameDisks(inventory).map((disk) =>
    planSmart(disk, {
      deadline: milliseconds(own.deadline.base_s * 1_000),
      selfTest: own.self_test,
      engine: own.engine,
      group: 0,
      prefix: SMART_TASK,
    }),
  );
}

function judge({ settings }: StageContext, done: StageDone): StageReport {
  const own = settings.SMART;
  const findings: Finding[] = [];
  const measurements: Measurement[] = [];
  const engines: { task: string; engine: TaskEngine }[] = [];
  let seen = 0;
  for (const task of done.tasks) {
    const { component } = task.plan;
    const report = smartReportOf(task);
    if (isFinding(report)) {
      findings.push(report);
      continue;
    }
    engines.push({ task: SMART_TASK, engine: report.engine });
    if (report.health.healthy !== null) seen += 1;
    findings.push(...judgeDisk(report.health, component, own));
    measurements.push(...measure(report.health, component));
  }
  if (done.tasks.length === 0) findings.push(nothing(own));
  const total = done.tasks.length;
  const coverage: Coverage = {
    component: "host",
    unit: "devices",
    covered: seen,
    total,
    // What must be seen is what the spec requires, by name.
    least: 0,
  };
  return stageReport({
    summary: total === 0 ? "no disks" : `${seen} of ${total} disks tell how they are`,
    findings,
    coverage: [coverage],
    engines: engineList(engines),
    measurements,
    deltas: [...done.deltas],
    evidence: done.tasks.flatMap(evidenceOf),
  });
}

function nothing({ enabled, required }: Settings): Finding {
  const reason = enabled ? "the host has no disks" : "the spec leaves this stage out";
  const needed = smartProperties.find((property) => required.includes(property));
  if (needed !== undefined) return notSeen(needed, "host", reason, required);
  return finding("SKIP", enabled ? "no-disks" : "disabled", "host", `Nothing was asked: ${reason}`);
}

/** All that there is to say of one disk; one that is well says so itself, and nothing less. */
export function judgeDisk(health: DiskHealth, component: string, own: Settings): Finding[] {
  const found = [
    ...judgeVerdict(health, component),
    ...judgeCounts(health, component, own),
    ...judgeLife(health, component, own),
    ...judgeSelfTest(health, component, own),
    ...unseenOf(health, component, own.required, smartProperties),
  ];
  const isWell = health.healthy === true && found.every(({ outcome }) => outcome === "SKIP");
  if (!isWell) return found;
  return [finding("PASS", "smart-well", component, "The disk says that it is well"), ...found];
}

function* judgeVerdict(health: DiskHealth, component: string): Generator<Finding> {
  const { critical_warning: warning } = health;
  if (warning !== null && warning !== 0) {
    const message = `The controller warns: ${nameWarnings(warning)}`;
    yield finding("FAIL", "nvme-critical-warning", component, message, {
      expected: "0",
      found: `${warning}`,
    });
  } else if (health.healthy === false) {
    yield finding("FAIL", "smart-failing", component, "The disk says of itself that it is failing");
  }
  for (const { name, value, threshold, failure_expected } of health.failing_attributes) {
    const expected = `over ${threshold}`;
    const found = `${value}`;
    yield failure_expected
      ? finding("FAIL", "attribute-failing", component, `${name} is past its maker's threshold`, {
          expected,
          found,
        })
      : finding("WARN", "attribute-old", component, `${name} says that the disk is old`, {
          expected,
          found,
        });
  }
}

function* judgeCounts(health: DiskHealth, component: string, own: Settings): Generator<Finding> {
  const most = [
    ["media-errors", "errors that it could not correct", health.media_errors, own.media_errors],
    [
      "pending-sectors",
      "sectors that wait to be given up",
      health.pending_sectors,
      own.pending_sectors,
    ],
    [
      "uncorrectable-sectors",
      "sectors that cannot be read",
      health.uncorrectable_sectors,
      own.uncorrectable_sectors,
    ],
  ] as const;
  for (const [code, words, count, limit] of most) {
    if (count === null || count <= limit) continue;
    yield finding("FAIL", code, component, `The disk has had ${count} ${words}`, {
      expected: `at most ${limit}`,
      found: `${count}`,
    });
  }
  const { reallocated_sectors: reallocated } = health;
  const limit = own.reallocated_sectors_warn;
  if (reallocated !== null && limit > 0 && reallocated >= limit) {
    const message = `The disk has replaced ${reallocated} sectors`;
    yield finding("WARN", "reallocated-sectors", component, message, {
      expected: `fewer than ${limit}`,
      found: `${reallocated}`,
    });
  }
}

function* judgeLife(health: DiskHealth, component: string, own: Settings): Generator<Finding> {
  const { spare_percent: spare, spare_least_percent: least, used_percent: used } = health;
  if (spare !== null && least !== null && spare < least) {
    yield finding("FAIL", "spare-below-threshold", component, "The spare blocks are used up", {
      expected: `at least ${least} %`,
      found: `${spare} %`,
    });
  }
  if (used !== null && used >= own.used_fail_percent) {
    yield finding("FAIL", "worn-out", component, "The disk's life is used up", {
      expected: `less than ${own.used_fail_percent} %`,
      found: `${used} %`,
    });
  } else if (used !== null && used > own.used_warn_percent) {
    yield finding("WARN", "worn", component, "Most of the disk's life is used up", {
      expected: `at most ${own.used_warn_percent} %`,
      found: `${used} %`,
    });
  }
  const { temperature_c: temperature } = health;
  if (temperature !== null && temperature >= own.temperature_fail_c) {
    yield finding("FAIL", "too-hot", component, "The disk is too hot", {
      expected: `below ${own.temperature_fail_c} °C`,
      found: `${temperature} °C`,
    });
  }
}

/** A failed one counts for ever; that one was asked for and did not end well is "not seen". */
function* judgeSelfTest(health: DiskHealth, component: string, own: Settings): Generator<Finding> {
  const { self_test: test } = health;
  if (test === null) return;
  if (test.result === "failed") {
    yield finding("FAIL", "self-test-failed", component, `Its self-test: ${test.detail}`, {
      expected: "passed",
      found: test.detail,
    });
  } else if (test.result !== "passed" && own.self_test !== "none") {
    const reason = `the ${own.self_test} one is ${test.result}: ${test.detail}`;
    yield notSeen("disk.self-test", component, reason, own.required);
  }
}

function measure(health: DiskHealth, component: string): Measurement[] {
  const all = [
    ["disk-used", health.used_percent, "%"],
    ["disk-spare", health.spare_percent, "%"],
    ["disk-temperature", health.temperature_c, "°C"],
    ["disk-power-on", health.power_on_hours, "h"],
    ["disk-media-errors", health.media_errors, ""],
    ["disk-reallocated", health.reallocated_sectors, ""],
    ["disk-link-errors", health.link_errors, ""],
    ["disk-logged-errors", health.logged_errors, ""],
  ] as const;
  return all.flatMap(([name, value, unit]) =>
    value === null ? [] : [{ name, component, value, unit }],
  );
}
