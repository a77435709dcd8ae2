import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import type { TaskEnding } from "../../../src/vetting/protocol-task.ts";
import {
  cpuStress,
  MOST_PROCESSORS,
  memoryReserve,
} from "../../../src/vetting/stages/cpu-stress.ts";
import type { TaskPlan } from "../../../src/vetting/stages/stage.ts";
import {
  CPU_TASK,
  type CpuMiscompare,
  type CpuReport,
  cpuInputSchema,
} from "../../../src/vetting/tasks/cpu.ts";
import {
  MEMORY_TASK,
  type MemoryMiscompare,
  type MemoryReport,
  memoryInputSchema,
  memoryPatterns,
} from "../../../src/vetting/tasks/memory.ts";
import { hostInventory, judged, stageContext, told } from "../../support/vetting-stage.ts";

const MEBIBYTE = 1024 ** 2;

const worked = (parts: Partial<CpuReport> = {}): CpuReport => ({
  processor: 0,
  wall_s: 60,
  busy_s: 59.9,
  verified: { integer: 10, float: 10, vector: 10, hash: 10, compression: 10 },
  unseen: [],
  miscompared: 0,
  miscompares: [],
  ...parts,
});

const filled = (parts: Partial<MemoryReport> = {}): MemoryReport => ({
  node: 0,
  processor: 0,
  bytes: 300 * MEBIBYTE,
  verified_bytes: 300 * MEBIBYTE,
  locked: true,
  bound: true,
  passes: memoryPatterns.map((pattern) => ({
    ...{ pattern, bytes: 300 * MEBIBYTE },
    ...{ fill_s: 0.1, verify_s: 0.05 },
  })),
  miscompared: 0,
  miscompares: [],
  ...parts,
});

const wrongWord: MemoryMiscompare = {
  pattern: "random",
  address: "0x00007f0000001238",
  page: "0x00007f0000001000",
  physical: "0x0000000123456238",
  expected: "0x0123456789abcdef",
  found: "0x0123456789abcdee",
  xor: "0x0000000000000001",
  again: "0x0123456789abcdee",
  kind: "sticky",
};

const report = (value: unknown): TaskEnding => ({ kind: "report", report: value });
const indexOf = (plan: TaskPlan) => (plan.input as { index: number }).index;
const well = (plan: TaskPlan): TaskEnding =>
  report(plan.task === CPU_TASK ? worked({ processor: indexOf(plan) }) : filled());
/** All well, but the first task of a kind. */
const but = (task: string, ending: TaskEnding) => {
  let isFirst = true;
  return (plan: TaskPlan) => {
    if (plan.task !== task || !isFirst) return well(plan);
    isFirst = false;
    return ending;
  };
};
const warm = [{ kind: "temperature", key: "coretemp.0/Core 0", value: 71, critical: 100 }] as const;
const context = stageContext();

describe("the plan of CPUStress", () => {
  test("a child for each processor, and after those the memory, in the tasks' words", () => {
    const plan = cpuStress.plan(context);
    expect(plan.map(({ id, group }) => `${group} ${id}`)).toEqual([
      ...["0 cpu/0", "0 cpu/1"],
      ...["1 memory/0.0", "1 memory/0.1"],
    ]);
    for (const { task, input } of plan) {
      const schema = task === CPU_TASK ? cpuInputSchema : memoryInputSchema;
      expect(v.is(schema, input)).toBe(true);
    }
  });

  test("every node has workers of its own, as many as processors, and at most eight", () => {
    const of = (threads_online: number, numa_nodes: number) =>
      cpuStress
        .plan(stageContext({}, { inventory: hostInventory({ threads_online, numa_nodes }) }))
        .filter(({ task }) => task === MEMORY_TASK).length;
    expect([of(1, 1), of(6, 2), of(256, 2), of(1, 2)]).toEqual([1, 6, 16, 2]);
  });

  test("memory has time by its size, and ends by itself before its deadline", () => {
    const memory = { ...hostInventory().memory, usable_bytes: 2 * 1024 ** 4 };
    const plan = cpuStress.plan(stageContext({}, { inventory: hostInventory({ memory }) }));
    const [one] = plan.filter(({ task }) => task === MEMORY_TASK);
    const { most_s, reserve_bytes } = v.parse(memoryInputSchema, one?.input);
    expect(one?.deadline).toBe(1_800_000);
    expect(most_s).toBeLessThan(1_800);
    expect(reserve_bytes).toBe(memoryReserve(2 * 1024 ** 4));
  });

  test("nothing is planned where nothing is asked, and never without an inventory", () => {
    const plan = (settings: object) => cpuStress.plan(stageContext({ CPUStress: settings }));
    expect(plan({ enabled: false })).toEqual([]);
    expect(plan({ duration_s: 0, memory: 0 })).toEqual([]);
    expect(plan({ duration_s: 0 }).every(({ task }) => task === MEMORY_TASK)).toBe(true);
    expect(cpuStress.plan(stageContext({}, { inventory: undefined }))).toEqual([]);
  });

  test("processors over the limit are not covered, and that is told", () => {
    const inventory = hostInventory({ threads_online: 2 * MOST_PROCESSORS });
    const found = judged(cpuStress, stageContext({}, { inventory }), well, { peaks: warm });
    expect(found.outcome).toBe("WARN");
    expect(told(found)).toContain("WARN coverage host");
  });
});

describe("the judge of CPUStress", () => {
  test("a host that is well passes, with core-seconds, bytes, and who looked", () => {
    const found = judged(cpuStress, context, well, { peaks: warm });
    expect(found.outcome).toBe("PASS");
    expect(told(found)).toEqual([
      ...["PASS cpu-verified host", "PASS memory-verified memory"],
      "PASS temperature coretemp.0/Core 0",
    ]);
    expect(
      found.coverage.map(({ component, covered, total }) => [component, covered, total]),
    ).toEqual([
      ["host", 119.8, 120],
      ["cpu 0", 59.9, 60],
      ["cpu 1", 59.9, 60],
      ["memory", 600 * MEBIBYTE, 1024 ** 3],
    ]);
    expect(found.engines.map(({ task, engine }) => `${task} ${engine}`)).toEqual([
      ...["cpu hostler", "memory hostler"],
    ]);
    expect(found.measurements.map(({ name, value }) => [name, value])).toEqual([
      ["memory-fill", 6.291],
      ["memory-verify", 12.583],
    ]);
  });

  const miscompare: CpuMiscompare = {
    kind: "vector",
    pass: 7,
    expected: "0x1",
    found: "0x3",
    again: "sticky",
  };
  const cases: readonly [
    string,
    Parameters<typeof judged>[2],
    Parameters<typeof judged>[3],
    string,
    string,
  ][] = [
    [
      "a wrong answer",
      but(CPU_TASK, report(worked({ miscompared: 1, miscompares: [miscompare] }))),
      {},
      "FAIL",
      "FAIL cpu-miscompare cpu 0",
    ],
    [
      "a wrong word",
      but(MEMORY_TASK, report(filled({ miscompared: 1, miscompares: [wrongWord] }))),
      {},
      "FAIL",
      "FAIL memory-miscompare memory node 0",
    ],
    [
      "a processor that had half of its time",
      but(CPU_TASK, report(worked({ busy_s: 30 }))),
      {},
      "WARN",
      "WARN coverage cpu 0",
    ],
    [
      "a clock that says more work than time is no coverage over all",
      but(CPU_TASK, report(worked({ wall_s: 10, busy_s: 900 }))),
      {},
      "WARN",
      "WARN coverage cpu 0",
    ],
    [
      "little memory",
      but(MEMORY_TASK, report(filled({ verified_bytes: 0 }))),
      {},
      "WARN",
      "WARN coverage memory",
    ],
    [
      "no memory beside the reserve",
      but(MEMORY_TASK, report(filled({ bytes: 0, verified_bytes: 0, passes: [] }))),
      {},
      "WARN",
      "SKIP not-seen memory node 0",
    ],
    [
      "a kernel that locks nothing",
      but(MEMORY_TASK, report(filled({ locked: false }))),
      {},
      "PASS",
      "SKIP not-seen memory",
    ],
    [
      "a child that was ended for memory",
      but(MEMORY_TASK, { kind: "died", how: "signal 9", lastWords: "" }),
      {},
      "ERROR",
      "ERROR task-died memory node 0",
    ],
    [
      "a child that hangs",
      but(CPU_TASK, { kind: "stuck", stack: "io_schedule", wait: "io_schedule" }),
      {},
      "ERROR",
      "ERROR stuck-in-kernel cpu 0",
    ],
    [
      "a child over its time",
      but(MEMORY_TASK, { kind: "overdue", done: 1, total: 8 }),
      {},
      "ERROR",
      "ERROR overdue memory node 0",
    ],
    [
      "a refusal",
      but(CPU_TASK, { kind: "failure", message: "not allowed there" }),
      {},
      "ERROR",
      "ERROR task-failed cpu 0",
    ],
    ["no report at all", but(CPU_TASK, report({})), {}, "ERROR", "ERROR malformed-report cpu 0"],
    [
      "machine checks",
      well,
      { deltas: [{ source: "machine-check", component: "cpu1", before: 2, after: 3 }] },
      "FAIL",
      "FAIL machine-check-limit cpu1",
    ],
    [
      "corrected errors of memory",
      well,
      { deltas: [{ source: "memory-corrected", component: "mc0/dimm3", before: 0, after: 5 }] },
      "FAIL",
      "FAIL memory-corrected-limit mc0/dimm3",
    ],
    [
      "errors that nothing corrected",
      well,
      { deltas: [{ source: "memory-uncorrected", component: "mc0/dimm3", before: 0, after: 1 }] },
      "FAIL",
      "FAIL memory-uncorrected mc0/dimm3",
    ],
    [
      "throttling",
      well,
      { deltas: [{ source: "throttle", component: "cpu0", before: 0, after: 1 }] },
      "FAIL",
      "FAIL throttle-limit cpu0",
    ],
    [
      "a host that forgot what it counted",
      well,
      { deltas: [{ source: "throttle", component: "cpu0", before: 9, after: 1 }] },
      "WARN",
      "WARN counter-reset cpu0",
    ],
    [
      "a line of the kernel's",
      well,
      { deltas: [{ source: "kernel-log", component: "mce", before: 0, after: 1 }] },
      "WARN",
      "WARN kernel-log mce",
    ],
    [
      "over what the hardware calls critical",
      well,
      { peaks: [{ kind: "temperature", key: "k10temp/Tctl", value: 95, critical: 95 }] },
      "FAIL",
      "FAIL over-critical-temperature k10temp/Tctl",
    ],
    [
      "over the spec's limit, where the hardware calls 0 critical",
      well,
      { peaks: [{ kind: "temperature", key: "acpitz/temp1", value: 100, critical: 0 }] },
      "FAIL",
      "FAIL over-temperature acpitz/temp1",
    ],
    ["no sensor", well, { peaks: [] }, "PASS", "SKIP not-seen host"],
    [
      "a sensor that fell silent",
      well,
      { missing: [{ key: "coretemp.0/Core 0", reason: "EIO" }] },
      "WARN",
      "WARN sensor-missing coretemp.0/Core 0",
    ],
  ];
  test.each([...cases])("%s", (_, ending, world, outcome, line) => {
    const found = judged(cpuStress, context, ending, { peaks: warm, ...world });
    expect(told(found)).toContain(line);
    expect(found.outcome).toBe(outcome as typeof found.outcome);
  });

  test("a wrong word is told with all that is known of it", () => {
    const ending = but(
      MEMORY_TASK,
      report(filled({ miscompared: 70, miscompares: [wrongWord], processor: 5 })),
    );
    const { findings } = judged(cpuStress, context, ending);
    const [first, second] = findings.filter(({ code }) => code === "memory-miscompare");
    expect(first).toMatchObject({ expected: wrongWord.expected, found: wrongWord.found });
    for (const part of ["0x00007f0000001238", "0x0000000123456238", "sticky", "cpu 5"]) {
      expect(first?.message).toContain(part);
    }
    expect(second?.message).toContain("69 more words");
    expect(findings.map(({ code }) => code)).not.toContain("memory-verified");
  });

  test("limits are the spec's", () => {
    const lenient = stageContext({
      CPUStress: { machine_checks: 1, throttles: 1, temperature_fail_c: 120, busy_least: 0 },
    });
    const found = judged(cpuStress, lenient, but(CPU_TASK, report(worked({ busy_s: 1 }))), {
      deltas: [
        { source: "machine-check", component: "cpu1", before: 0, after: 1 },
        { source: "throttle", component: "cpu1", before: 0, after: 1 },
      ],
      peaks: [{ kind: "temperature", key: "acpitz/temp1", value: 119, critical: null }],
    });
    expect(found.outcome).toBe("PASS");
  });

  test("a property that is required and was not seen is a FAIL", () => {
    const strict = stageContext({ CPUStress: { required: ["cpu.vector", "cpu.temperature"] } });
    const unseen = [{ kind: "vector", reason: "no SIMD in this build" }] as const;
    const ending = but(CPU_TASK, report(worked({ unseen: [...unseen] })));
    const found = judged(cpuStress, strict, ending);
    expect(told(found)).toContain("FAIL required-not-seen cpu 0");
    expect(told(found)).toContain("FAIL required-not-seen host");
  });

  test("where nothing was asked for it says so, and passes nothing", () => {
    const idle = stageContext({ CPUStress: { duration_s: 0, memory: 0 } });
    const found = judged(cpuStress, idle, well, { peaks: [] });
    expect([found.outcome, found.summary]).toEqual(["SKIP", "nothing was asked for"]);
  });
});
