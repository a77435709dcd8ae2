/** The stage Storage: what it plans, what it lets be written, and what it makes of reports. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { type DiskHealth, untoldHealth, withUnseen } from "../../../src/hardware/disk/health.ts";
import { type Delta, stageReportSchema } from "../../../src/vetting/protocol-result.ts";
import type { TaskEnding } from "../../../src/vetting/protocol-task.ts";
import type { StageContext, TaskPlan } from "../../../src/vetting/stages/stage.ts";
import { storage } from "../../../src/vetting/stages/storage.ts";
import type { Pass } from "../../../src/vetting/tasks/disk.ts";
import { scanInputSchema } from "../../../src/vetting/tasks/scan.ts";
import { verifyInputSchema } from "../../../src/vetting/tasks/verify.ts";
import {
  type ContextOptions,
  codesOf,
  contextOf,
  diskOf,
  GIBIBYTE,
  healthy,
  passOf,
  scanReport,
  smartReport,
  walk,
} from "../../support/vetting/disk-stage.ts";

const SIZE = 8 * GIBIBYTE;
const engine = { name: "hostler", version: "0.1.0" };
const expectedDisks = [{ serial: "S64ANX0R", size_bytes: SIZE }];
const verifying: ContextOptions = {
  storage: { mode: "verify" },
  nonDestructive: false,
  expectedDisks,
};

interface Story {
  readonly transfer?: TaskEnding;
  readonly before?: TaskEnding;
  readonly after?: TaskEnding;
  readonly deltas?: readonly Delta[];
}

function tell(context: StageContext, story: Story = {}) {
  const end = ({ id, task }: TaskPlan): TaskEnding => {
    if (id.startsWith("before/")) return story.before ?? smartReport();
    if (id.startsWith("after/")) return story.after ?? smartReport();
    return story.transfer ?? (task === "scan" ? scanReport(passOf(SIZE)) : verified());
  };
  return walk(storage, context, end, { deltas: story.deltas ?? [] }).report;
}

function verified(given: { written?: Partial<Pass>; read?: Partial<Pass>; wrong?: number } = {}) {
  return {
    kind: "report",
    report: {
      kind: "verified",
      engine,
      overwritten: [],
      written: passOf(SIZE, given.written),
      read: passOf(SIZE, given.read),
      miscompared: given.wrong ?? 0,
    },
  } as const satisfies TaskEnding;
}

const failedAt = (offset: number, length = 4_096, reason = "EIO") => ({
  failed: { count: 1, bytes: length, ranges: [{ offset, length, reason }] },
  done_bytes: SIZE - length,
});

describe("plan", () => {
  test("each disk is asked, read, and asked again", () => {
    const disks = [diskOf(), diskOf({ name: "sda", serial: "A", transport: "sata" })];
    const plans = storage.plan(contextOf({ disks }));
    expect(plans.map(({ id, task, group }) => [id, task, group])).toEqual([
      ["before/S64ANX0R", "smart", 0],
      ["before/A", "smart", 0],
      ["scan/S64ANX0R", "scan", 1],
      ["scan/A", "scan", 1],
      ["after/S64ANX0R", "smart", 2],
      ["after/A", "smart", 2],
    ]);
  });

  test("deadlines are as long as the disk is large, and as much as is gone over", () => {
    const disk = diskOf({ size_bytes: 2 * 1024 ** 4 });
    const storageSettings = { deadline: { base_s: 10, per_tebibyte_s: 1_000 } };
    const deadline = (options: ContextOptions) =>
      storage.plan(contextOf({ disks: [disk], ...options })).find(({ group }) => group === 1)
        ?.deadline;
    expect(deadline({ storage: storageSettings })).toBe(2_010_000);
    expect(deadline({ storage: { ...storageSettings, extent: 0.5 } })).toBe(1_010_000);
    const expected = [{ serial: "S64ANX0R", size_bytes: disk.size_bytes }];
    const verify = { ...storageSettings, mode: "verify", extent: 0.5 };
    expect(deadline({ storage: verify, nonDestructive: false, expectedDisks: expected })).toBe(
      4_010_000,
    );
  });

  test("what is planned is what the tasks take", () => {
    const [, scan] = storage.plan(contextOf({ storage: { extent: 0.25, depth: 8 } }));
    expect(scan?.input).toEqual({
      disk: { name: "nvme0n1", serial: "S64ANX0R", size_bytes: SIZE },
      block_bytes: 1024 ** 2,
      depth: 8,
      extent: 0.25,
      // 120 s, and 4 hours for each tebibyte: of 2 GiB 28.125 s.
      most_s: 148.125 * 0.95,
      engine: "default",
    });
    for (const options of [{}, verifying]) {
      const context = contextOf({ ...options, storage: { ...options.storage, engine: "tool" } });
      expect(storage.plan(context)[1]?.input).toMatchObject({ engine: "tool" });
    }
    expect(v.is(scanInputSchema, scan?.input)).toBe(true);
    const [, verify] = storage.plan(contextOf(verifying));
    expect(v.is(verifyInputSchema, verify?.input)).toBe(true);
  });
});

describe("which disk may be written", () => {
  const planned = (options: ContextOptions) => {
    const plan = storage.plan(contextOf(options)).find(({ group }) => group === 1);
    const { allowed } = (plan?.input ?? {}) as { readonly allowed?: string };
    return allowed === undefined ? plan?.task : `${plan?.task} ${allowed}`;
  };
  const other = { serial: "OTHER", size_bytes: SIZE };
  const wrongSize = { serial: "S64ANX0R", size_bytes: SIZE - 512 };
  const twin = [diskOf(), diskOf({ name: "nvme1n1" })];
  const nameless = [diskOf({ serial: null })];

  test.each<[string, ContextOptions, string, string | undefined]>([
    ["expected, with its size", verifying, "verify expected", undefined],
    ["wiped", { ...verifying, expectedDisks: [], wipe: ["S64ANX0R"] }, "verify wipe", undefined],
    [
      "wiped, and expected with another size",
      { ...verifying, expectedDisks: [wrongSize], wipe: ["S64ANX0R"] },
      "verify wipe",
      undefined,
    ],
    ["the run writes nothing", { ...verifying, nonDestructive: true }, "scan", undefined],
    ["the spec reads", { ...verifying, storage: { mode: "read" } }, "scan", undefined],
    [
      "the run writes nothing, and the disk is wiped",
      { ...verifying, nonDestructive: true, wipe: ["S64ANX0R"] },
      "scan",
      undefined,
    ],
    ["not expected", { ...verifying, expectedDisks: [other] }, "scan", "WARN not-verified"],
    [
      "another is wiped",
      { ...verifying, expectedDisks: [], wipe: ["OTHER"] },
      "scan",
      "WARN not-verified",
    ],
    [
      "expected with another size",
      { ...verifying, expectedDisks: [wrongSize] },
      "scan",
      "ERROR interlock-size",
    ],
    ["a serial of two disks", { ...verifying, disks: twin }, "scan", "ERROR interlock-ambiguous"],
    [
      "a serial of two disks, wiped",
      { ...verifying, disks: twin, wipe: ["S64ANX0R"] },
      "scan",
      "ERROR interlock-ambiguous",
    ],
    ["no serial", { ...verifying, disks: nameless }, "scan", "WARN not-verified"],
    [
      "no serial, and an empty one is expected",
      { ...verifying, disks: nameless, expectedDisks: [{ serial: "", size_bytes: SIZE }] },
      "scan",
      "WARN not-verified",
    ],
  ])("%s", (_name, options, expected, said) => {
    expect(planned(options)).toBe(expected);
    const codes = codesOf(tell(contextOf(options)));
    if (said === undefined) expect(codes.join()).not.toMatch(/interlock|not-verified/);
    else expect(codes).toContain(said);
  });
});

describe("judge a scan", () => {
  test("a disk that was read whole, and has not changed, passes", () => {
    const report = tell(contextOf());
    expect(codesOf(report)).toEqual(["PASS read"]);
    expect(report.coverage).toEqual([
      { component: "disk S64ANX0R", unit: "bytes", covered: SIZE, total: SIZE, least: 1 },
    ]);
    expect(report.measurements[0]).toEqual({
      name: "sequential-read",
      component: "disk S64ANX0R",
      value: 8_589.9,
      unit: "MB/s",
    });
    expect(report.engines.map(({ task }) => task).sort()).toEqual(["scan", "smart"]);
    expect(v.is(stageReportSchema, report)).toBe(true);
  });

  test.each<[string, Partial<Pass>, object, string]>([
    ["a range that could not be read", failedAt(4_096), {}, "FAIL read-errors"],
    ["a slow read", { slowest_ms: 5_001 }, {}, "WARN slow-read"],
    [
      "too little for the spec",
      { done_bytes: SIZE / 2, planned_bytes: SIZE / 2 },
      {},
      "WARN coverage",
    ],
    ["too slow a disk", {}, { throughput_least_mbps: 9_000 }, "FAIL slow-throughput"],
  ])("%s", (_name, given, settings, expected) => {
    const context = contextOf({ storage: settings });
    const report = tell(context, { transfer: scanReport(passOf(SIZE, given)) });
    expect(codesOf(report)).toContain(expected);
    expect(codesOf(report).join()).not.toContain("PASS");
    expect(report.outcome).toBe(expected.startsWith("FAIL") ? "FAIL" : "WARN");
  });

  test("the first failed range is told with its place", () => {
    const transfer = scanReport(passOf(SIZE, failedAt(8_192)));
    expect(tell(contextOf(), { transfer }).findings[0]?.message).toBe(
      "1 ranges, 4096 bytes, failed to read; the first: 4096 bytes at 8192 (EIO)",
    );
  });

  test("less than all of it passes where the spec asks for less", () => {
    const pass = passOf(SIZE / 8);
    const context = contextOf({ storage: { extent: 0.125, extent_least: 0.125 } });
    expect(tell(context, { transfer: scanReport(pass) }).outcome).toBe("PASS");
  });

  test("errors that the spec allows", () => {
    const context = contextOf({ storage: { read_errors: 1, extent_least: 0.9 } });
    const report = tell(context, { transfer: scanReport(passOf(SIZE, failedAt(0))) });
    expect(report.outcome).toBe("PASS");
  });

  test("overdue: a warning with what it came to", () => {
    const transfer = { kind: "overdue", done: SIZE / 4, total: SIZE } as const;
    const report = tell(contextOf(), { transfer });
    expect(codesOf(report)).toEqual(["WARN overdue", "WARN coverage"]);
    expect(report.coverage[0]?.covered).toBe(SIZE / 4);
  });

  test("stuck in the kernel: an error, its stack, and no coverage", () => {
    const transfer = { kind: "stuck", stack: "io_schedule", wait: "D" } as const;
    const report = tell(contextOf(), { transfer });
    expect(codesOf(report)).toEqual(["ERROR stuck-in-kernel", "WARN coverage"]);
    expect(report.evidence[0]).toMatchObject({ name: "stack", text: "io_schedule" });
    expect(report.coverage[0]?.covered).toBe(0);
  });

  test("a report that is none", () => {
    const report = tell(contextOf(), { transfer: { kind: "report", report: {} } });
    expect(report.outcome).toBe("ERROR");
  });
});

describe("before and after", () => {
  test.each<[string, Partial<DiskHealth>, Partial<DiskHealth>]>([
    ["FAIL media-errors-rose", { media_errors: 5 }, { media_errors: 6 }],
    ["FAIL pending-rose", { pending_sectors: 0 }, { pending_sectors: 1 }],
    ["FAIL uncorrectable-rose", { uncorrectable_sectors: 0 }, { uncorrectable_sectors: 1 }],
    ["WARN reallocated-rose", { reallocated_sectors: 3 }, { reallocated_sectors: 4 }],
    ["WARN link-errors-rose", { link_errors: 0 }, { link_errors: 9 }],
    ["FAIL smart-failing", {}, { healthy: false }],
    ["FAIL disk-changed", {}, { serial: "OTHER" }],
  ])("%s", (expected, before, after) => {
    const report = tell(contextOf(), {
      before: smartReport(healthy(before)),
      after: smartReport(healthy(after)),
    });
    expect(codesOf(report)).toEqual([expected]);
  });

  test("what was bad before is not this stage's", () => {
    const bad = smartReport(healthy({ media_errors: 5, healthy: false }));
    expect(tell(contextOf(), { before: bad, after: bad }).outcome).toBe("PASS");
  });

  test("a count that only one of the two looks has is not compared", () => {
    const before = smartReport(healthy({ pending_sectors: null }));
    const after = smartReport(healthy({ pending_sectors: 5 }));
    expect(tell(contextOf(), { before, after }).outcome).toBe("PASS");
  });

  test("a disk without SMART is skipped by name there, and fails where it is required", () => {
    const none = smartReport(withUnseen(untoldHealth("none"), "virtio disks have no SMART"));
    const report = tell(contextOf(), { before: none, after: none });
    expect(codesOf(report)).toEqual(["SKIP not-seen", "PASS read"]);
    expect(report.findings[0]?.expected).toBe("disk.change");
    const required = contextOf({ storage: { required: ["disk.change"] } });
    expect(tell(required, { before: none, after: none }).outcome).toBe("FAIL");
  });

  test("a look that broke is an error", () => {
    const report = tell(contextOf(), { after: { kind: "failure", message: "gone" } });
    expect(codesOf(report)).toEqual(["ERROR task-failed", "SKIP not-seen"]);
  });

  const line = (component: string, after = 1): Delta => ({
    source: "kernel-log",
    component,
    before: 0,
    after,
  });
  test.each([
    ["its name", "medium-error nvme0n1", "FAIL"],
    ["its controller", "disk-timeout nvme0", "FAIL"],
    ["another's", "medium-error nvme0n2", "PASS"],
    ["another controller's", "disk-timeout nvme1", "PASS"],
    ["nothing that it names", "unexpected-nmi host", "PASS"],
  ])("the kernel's log with %s", (_name, component, outcome) => {
    const report = tell(contextOf(), { deltas: [line(component)] });
    expect(report.outcome).toBe(outcome as "FAIL" | "PASS");
    expect(report.deltas).toHaveLength(1);
  });
});

describe("judge a verify", () => {
  test("all written and read back passes", () => {
    const report = tell(contextOf(verifying));
    expect(codesOf(report)).toEqual(["PASS verified"]);
    expect(report.measurements.map(({ name }) => name)).toContain("sequential-write");
  });

  test("bytes that are others than were written", () => {
    const transfer = verified({ wrong: 1, read: failedAt(0, 512, "bytes differ") });
    const report = tell(contextOf(verifying), { transfer });
    expect(codesOf(report)).toContain("FAIL miscompare");
    expect(codesOf(report)).toContain("FAIL read-errors");
  });

  test("a write that failed is never allowed", () => {
    const context = contextOf({ ...verifying, storage: { mode: "verify", read_errors: 100 } });
    const report = tell(context, { transfer: verified({ written: failedAt(0) }) });
    expect(codesOf(report)).toContain("FAIL write-errors");
  });

  test("every interlock that is closed is told", () => {
    const closed = [
      { interlock: "mounted", reason: "nvme0n1p1 is mounted at /data" },
      { interlock: "holders", reason: "dm-0 is built on it" },
    ] as const;
    const transfer = { kind: "report", report: { kind: "refused", closed } } as const;
    const report = tell(contextOf(verifying), { transfer });
    expect(codesOf(report)).toEqual([
      "ERROR interlock-mounted",
      "ERROR interlock-holders",
      "WARN coverage",
    ]);
    expect(report.coverage[0]?.covered).toBe(0);
  });

  test("overdue: what was read back counts, and what was written does not", () => {
    const half = { kind: "overdue", done: SIZE, total: SIZE * 2 } as const;
    expect(tell(contextOf(verifying), { transfer: half }).coverage[0]?.covered).toBe(0);
    const more = { kind: "overdue", done: SIZE * 1.5, total: SIZE * 2 } as const;
    expect(tell(contextOf(verifying), { transfer: more }).coverage[0]?.covered).toBe(SIZE / 2);
  });
});

describe("no disks", () => {
  test.each<[string, ContextOptions, string]>([
    ["none", { disks: [] }, "SKIP no-disks"],
    [
      "none, and one property is required",
      { disks: [], storage: { required: ["disk.change"] } },
      "FAIL required-not-seen",
    ],
    ["left out", { disks: [], storage: { enabled: false } }, "SKIP disabled"],
    ["without a medium", { disks: [diskOf({ size_bytes: 0 })] }, "SKIP no-medium"],
  ])("%s", (_name, options, expected) => {
    expect(codesOf(tell(contextOf(options)))).toEqual([expected]);
  });
});
