import { type Milliseconds, milliseconds } from "../../units/units.ts";
import type { Coverage, Finding, Measurement, StageReport } from "../protocol-result.ts";
import type { StageSettings } from "../protocol-spec.ts";
import type { Pass, TaskEngine } from "../tasks/disk.ts";
import { SCAN_TASK, type ScanInput, scanReportSchema } from "../tasks/scan.ts";
import { SMART_TASK } from "../tasks/smart.ts";
import { VERIFY_TASK, type VerifyInput, verifyReportSchema } from "../tasks/verify.ts";
import {
  type Done,
  engineList,
  isFinding,
  type NamedDisk,
  nameDisks,
  plannedDisk,
  planSmart,
  reportOf,
} from "./disks.ts";
import { evidenceOf, finding, notSeen, percent, stageReport, tooLittle } from "./findings.ts";
import type { StageContext, StageDefinition, StageDone, TaskPlan } from "./stage.ts";
import { judgeChange } from "./storage-change.ts";

/**
 * Each disk is read, or written over and read back, and asked how it is before and after. A disk
 * is planned to be written only where the run may write, and the spec expects a disk of this
 * serial and size or an operator gave this serial up; the child looks at all of that again, and at
 * more, before its first write.
 */
export const storage: StageDefinition = { stage: "Storage", plan, judge };

type Settings = StageSettings["Storage"];

const TEBIBYTE = 1024 ** 4;
const BEFORE = "before";
const AFTER = "after";

export type Permission =
  | { readonly kind: "verify"; readonly by: "expected" | "wipe" }
  /** It is read, because nobody asked for more. */
  | { readonly kind: "read" }
  /** It was to be written, and is read: what is to be said of that. */
  | { readonly kind: "refused"; readonly finding: Finding };

/** Whether a disk may be written, as far as a plan can say. */
export function permissionOf(context: StageContext, named: NamedDisk): Permission {
  const { settings, nonDestructive, expectedDisks, wipe } = context;
  if (settings.Storage.mode !== "verify" || nonDestructive) return { kind: "read" };
  const { disk, component, isSerialUnique } = named;
  const { serial, size_bytes } = disk;
  const expected = expectedDisks.filter((one) => one.serial === serial && serial !== null);
  const isWiped = serial !== null && wipe.includes(serial);
  if (!isWiped && expected.length === 0) {
    const message =
      "It was read and not written over: the spec expects no disk of this serial. " +
      "Put it into expected_disks, or give it up by a wipe of its serial";
    return { kind: "refused", finding: finding("WARN", "not-verified", component, message) };
  }
  if (!isSerialUnique) {
    const message = "It was not written over: several disks of this host have this serial";
    return {
      kind: "refused",
      finding: finding("ERROR", "interlock-ambiguous", component, message),
    };
  }
  if (isWiped) return { kind: "verify", by: "wipe" };
  if (expected.some((one) => one.size_bytes === size_bytes)) {
    return { kind: "verify", by: "expected" };
  }
  const message = "It was not written over: the spec expects another size of this serial";
  return {
    kind: "refused",
    finding: finding("ERROR", "interlock-size", component, message, {
      expected: expected.map((one) => `${one.size_bytes} bytes`).join(" or "),
      found: `${size_bytes} bytes`,
    }),
  };
}

function plan(context: StageContext): readonly TaskPlan[] {
  const { settings, inventory } = context;
  if (!settings.Storage.enabled) return [];
  const disks = nameDisks(inventory).filter(({ disk }) => disk.size_bytes > 0);
  const ask = (prefix: string, group: number) =>
    disks.map((disk) =>
      planSmart(disk, {
        deadline: milliseconds(settings.SMART.deadline.base_s * 1_000),
        selfTest: "none",
        engine: settings.SMART.engine,
        group,
        prefix,
      }),
    );
  const transfers = disks.map((disk) => planTransfer(context, disk));
  return [...ask(BEFORE, 0), ...transfers, ...ask(AFTER, 2)];
}

function planTransfer(context: StageContext, named: NamedDisk): TaskPlan {
  const own = context.settings.Storage;
  const { disk, key, component } = named;
  const permission = permissionOf(context, named);
  const { block_bytes, depth, extent, engine } = own;
  if (permission.kind !== "verify" || disk.serial === null) {
    const deadline = deadlineOf(own, disk.size_bytes * extent);
    const input: ScanInput = {
      disk: plannedDisk(disk),
      block_bytes,
      depth,
      extent,
      most_s: mostSeconds(deadline),
      engine,
    };
    return { id: `${SCAN_TASK}/${key}`, task: SCAN_TASK, input, component, deadline, group: 1 };
  }
  // Once to write it, once to read it.
  const deadline = deadlineOf(own, disk.size_bytes * 2);
  const input: VerifyInput = {
    disk: { ...plannedDisk(disk), serial: disk.serial },
    block_bytes,
    depth,
    allowed: permission.by,
    most_s: mostSeconds(deadline),
    engine,
  };
  return { id: `${VERIFY_TASK}/${key}`, task: VERIFY_TASK, input, component, deadline, group: 1 };
}

function deadlineOf({ deadline }: Settings, bytes: number): Milliseconds {
  const seconds = deadline.base_s + (deadline.per_tebibyte_s * bytes) / TEBIBYTE;
  return milliseconds(Math.ceil(seconds * 1_000));
}

/** Before its deadline a child ends by itself, so that what it found is told. */
const mostSeconds = (deadline: Milliseconds): number => (deadline * 0.95) / 1_000;

interface Told {
  readonly findings: Finding[];
  readonly coverage: Coverage[];
  readonly measurements: Measurement[];
  readonly engines: { task: string; engine: TaskEngine }[];
}

function judge(context: StageContext, done: StageDone): StageReport {
  const told: Told = { findings: [], coverage: [], measurements: [], engines: [] };
  const own = context.settings.Storage;
  for (const named of nameDisks(context.inventory)) {
    told.findings.push(...judgeDisk(context, named, done, told));
  }
  if (told.findings.length === 0) told.findings.push(nothing(own));
  const covered = told.coverage.reduce((sum, one) => sum + one.covered, 0);
  const total = told.coverage.reduce((sum, one) => sum + (one.total ?? 0), 0);
  const disks = `${told.coverage.length} disks, ${percent(covered, total)} of their bytes`;
  return stageReport({
    findings: told.findings,
    coverage: told.coverage,
    measurements: told.measurements,
    summary: told.coverage.length === 0 ? "no disks" : disks,
    engines: engineList(told.engines),
    deltas: [...done.deltas],
    evidence: done.tasks.flatMap(evidenceOf),
  });
}

function nothing({ enabled, required }: Settings): Finding {
  const reason = enabled ? "the host has no disks" : "the spec leaves this stage out";
  const [needed] = required;
  if (needed !== undefined) return notSeen(needed, "host", reason, required);
  return finding("SKIP", enabled ? "no-disks" : "disabled", "host", `Nothing was read: ${reason}`);
}

/** The disk's own findings; one that is well says so itself, and only where all of it is said. */
function judgeDisk(
  context: StageContext,
  named: NamedDisk,
  done: StageDone,
  told: Told,
): Finding[] {
  const { disk, component, key } = named;
  if (disk.size_bytes === 0) return [finding("SKIP", "no-medium", component, "It has no medium")];
  const of = (id: string) => done.tasks.find((task) => task.plan.id === `${id}/${key}`);
  const transfer = of(VERIFY_TASK) ?? of(SCAN_TASK);
  if (transfer === undefined) return [];
  const found: Finding[] = [];
  const permission = permissionOf(context, named);
  if (permission.kind === "refused") found.push(permission.finding);
  const judged = judgeTransfer(context.settings.Storage, named, transfer, told);
  found.push(...judged.findings);
  const { required } = context.settings.Storage;
  const change = { before: of(BEFORE), after: of(AFTER), deltas: done.deltas };
  const changed = judgeChange(named, change, context.settings.Storage.read_errors, required);
  found.push(...changed.findings);
  for (const engine of changed.engines) told.engines.push({ task: SMART_TASK, engine });
  if (judged.well === undefined || found.some(({ outcome }) => outcome !== "SKIP")) return found;
  const code = transfer.plan.task === VERIFY_TASK ? "verified" : "read";
  return [finding("PASS", code, component, judged.well), ...found];
}

interface Judged {
  readonly findings: Finding[];
  /** What can be said where nothing else is found; undefined: nothing can. */
  readonly well: string | undefined;
}

function judgeTransfer(own: Settings, named: NamedDisk, task: Done, told: Told): Judged {
  const { disk, component } = named;
  const isVerify = task.plan.task === VERIFY_TASK;
  const cover = (covered: number): Finding[] => {
    const coverage: Coverage = {
      component,
      unit: "bytes",
      covered: Math.min(covered, disk.size_bytes),
      total: disk.size_bytes,
      // A verify goes over all of it, whatever the extent of a scan is.
      least: own.extent_least,
    };
    told.coverage.push(coverage);
    const little = tooLittle(coverage, `${component}`);
    return little === undefined ? [] : [little];
  };
  if (task.ending.kind === "overdue") {
    return { findings: [overdue(task), ...cover(overdueBytes(task))], well: undefined };
  }
  if (isVerify) return judgeVerify(own, named, task, told, cover);
  const report = reportOf(scanReportSchema, task, "Reading the disk");
  if (isFinding(report)) return { findings: [report, ...cover(0)], well: undefined };
  told.engines.push({ task: SCAN_TASK, engine: report.engine });
  told.measurements.push(...measure(report.read, component, "read"));
  const findings = [
    ...judgePass(own, report.read, component, "read"),
    ...cover(report.read.done_bytes),
  ];
  return { findings, well: `${percent(report.read.done_bytes, disk.size_bytes)} of it was read` };
}

function overdue({ plan: { component, deadline }, ending }: Done): Finding {
  const seconds = Math.round(deadline / 1_000);
  const { done, total } = ending.kind === "overdue" ? ending : { done: 0, total: 0 };
  const message = `It was not gone over in ${seconds} s, the deadline that the spec sets`;
  return finding("WARN", "overdue", component, message, {
    expected: `${total} bytes`,
    found: `${done} bytes`,
  });
}

/** A verify counts its writes as well as its reads, and only what was read back is covered. */
function overdueBytes({ plan: { task }, ending }: Done): number {
  if (ending.kind !== "overdue") return 0;
  return task === VERIFY_TASK ? Math.max(0, ending.done - ending.total / 2) : ending.done;
}

function judgeVerify(
  own: Settings,
  { component }: NamedDisk,
  task: Done,
  told: Told,
  cover: (bytes: number) => Finding[],
): Judged {
  const report = reportOf(verifyReportSchema, task, "Writing the disk and reading it back");
  if (isFinding(report)) return { findings: [report, ...cover(0)], well: undefined };
  if (report.kind === "refused") {
    const closed = report.closed.map(({ interlock, reason }) =>
      finding("ERROR", `interlock-${interlock}`, component, `Nothing was written: ${reason}`),
    );
    return { findings: [...closed, ...cover(0)], well: undefined };
  }
  told.engines.push({ task: VERIFY_TASK, engine: report.engine });
  told.measurements.push(
    ...measure(report.written, component, "write"),
    ...measure(report.read, component, "read"),
  );
  const findings = [
    ...judgePass(own, report.written, component, "write"),
    ...judgePass(own, report.read, component, "read"),
    ...cover(report.read.done_bytes),
  ];
  if (report.miscompared > 0) {
    const message = `${report.miscompared} ranges hold other bytes than were written`;
    findings.unshift(finding("FAIL", "miscompare", component, message));
  }
  return { findings, well: "All of it was written, and read back as it was written" };
}

/** @param way in the codes and words of what is found */
function* judgePass(
  own: Settings,
  pass: Pass,
  component: string,
  way: "read" | "write",
): Generator<Finding> {
  const { failed } = pass;
  // Nobody sets how many writes may fail.
  const most = way === "read" ? own.read_errors : 0;
  if (failed.count > most) {
    const [first] = failed.ranges;
    const where =
      first === undefined ? "" : `; the first: ${first.length} bytes at ${first.offset}`;
    const why = first === undefined ? "" : ` (${first.reason})`;
    const message = `${failed.count} ranges, ${failed.bytes} bytes, failed to ${way}${where}${why}`;
    yield finding("FAIL", `${way}-errors`, component, message, {
      expected: `at most ${most}`,
      found: `${failed.count}`,
    });
  }
  const slow = own.slow_read_warn_ms;
  if (slow > 0 && pass.slowest_ms > slow) {
    const { slowest_offset } = pass;
    const place = slowest_offset === null ? "a place that nobody tells" : `byte ${slowest_offset}`;
    const message = `The slowest ${way} was at ${place}`;
    yield finding("WARN", `slow-${way}`, component, message, {
      expected: `at most ${slow} ms`,
      found: `${Math.round(pass.slowest_ms)} ms`,
    });
  }
  const speed = megabytesPerSecond(pass);
  const least = own.throughput_least_mbps;
  if (least > 0 && speed < least) {
    yield finding("FAIL", `slow-throughput`, component, `The disk is too slow to ${way}`, {
      expected: `at least ${least} MB/s`,
      found: `${speed.toFixed(1)} MB/s`,
    });
  }
}

/** Of what came through, over all the time that it took, in 10^6 bytes a second. */
export function megabytesPerSecond({ done_bytes, duration_ms }: Pass): number {
  return duration_ms === 0 ? 0 : done_bytes / 1_000 / duration_ms;
}

function measure(pass: Pass, component: string, way: "read" | "write"): Measurement[] {
  return [
    {
      name: `sequential-${way}`,
      component,
      value: Math.round(megabytesPerSecond(pass) * 10) / 10,
      unit: "MB/s",
    },
    { name: `slowest-${way}`, component, value: rounded(pass.slowest_ms), unit: "ms" },
    { name: `p99-${way}`, component, value: rounded(pass.latency_ms.p99), unit: "ms" },
  ];
}

const rounded = (value: number): number => Math.round(value * 1_000) / 1_000;
