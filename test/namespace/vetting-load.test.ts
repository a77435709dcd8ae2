/** Children of the compiled file that load a processor and memory, and what they must find. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { CPU_TASK, type CpuInput, cpuKinds, cpuReportSchema } from "../../src/vetting/tasks/cpu.ts";
import {
  MEMORY_TASK,
  type MemoryInput,
  memoryLimits,
  memoryPatterns,
  memoryReportSchema,
} from "../../src/vetting/tasks/memory.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { reportOfTask, startTask } from "../support/vetting/run-task.ts";

setDefaultTimeout(60_000);

const MEBIBYTE = 1024 ** 2;

const cpu = (parts: Partial<CpuInput> = {}) => ({
  task: CPU_TASK,
  input: { index: 0, duration_s: 1, ...parts },
});

/** Some 400 MiB, of whatever this machine has. */
const part = Math.min(0.5, (400 * MEBIBYTE) / totalmem());
const memory = (parts: Partial<MemoryInput> = {}) => ({
  task: MEMORY_TASK,
  input: {
    ...{ node: 0, worker: 0, workers: 1, part, reserve_bytes: 64 * MEBIBYTE },
    ...{ seed: 11, most_s: 50, ...parts },
  },
});

describe("a processor", () => {
  test("works for its time, by answers of every kind, all right", async () => {
    const report = await reportOfTask(startTask([hostler()], cpu()), cpuReportSchema);
    expect(report.wall_s).toBeGreaterThanOrEqual(1);
    expect(report.busy_s).toBeGreaterThan(0);
    expect(report.busy_s).toBeLessThanOrEqual(report.wall_s * 1.001);
    for (const kind of cpuKinds) expect(report.verified[kind]).toBeGreaterThan(0);
    expect([report.unseen, report.miscompared]).toEqual([[], 0]);
  });

  test.each([...cpuKinds])("a wrong answer is found: %s", async (kind) => {
    const environment = { HOSTLER_WRONG_ANSWER: kind };
    const task = startTask([hostlerWithFaults()], cpu(), { environment });
    const report = await reportOfTask(task, cpuReportSchema);
    expect(report.miscompared).toBe(1);
    expect(report.miscompares[0]).toMatchObject({ kind, again: "transient", pass: 3 });
  });

  test("the end of its input ends it, and it reports nothing", async () => {
    const task = startTask([hostler()], cpu({ duration_s: 3_600 }), {
      onLine: (line) => line.kind === "progress" && task.stop(),
    });
    const { last, exitCode } = await task.ended;
    expect([last?.kind, exitCode]).toEqual(["progress", 111]);
  });

  test("one that is not there is refused", async () => {
    const { last } = await startTask([hostler()], cpu({ index: 8_191 })).ended;
    expect(last).toMatchObject({ kind: "failure", message: expect.stringMatching(/no processor/) });
  });
});

describe("memory", () => {
  test("that is well comes back in every pattern, and no more is taken than said", async () => {
    const report = await reportOfTask(startTask([hostler()], memory()), memoryReportSchema);
    expect(report.miscompared).toBe(0);
    expect(report.verified_bytes).toBe(report.bytes);
    expect(report.bytes).toBeLessThanOrEqual(part * totalmem());
    expect(report.bytes).toBeGreaterThan(100 * MEBIBYTE);
    expect(report.passes.map(({ pattern }) => pattern)).toEqual([...memoryPatterns]);
  });

  test("bits that flip are found: 200 of 200", async () => {
    const environment = { HOSTLER_MEMORY_FLIPS: "200@20261130" };
    const task = startTask([hostlerWithFaults()], memory(), { environment });
    const report = await reportOfTask(task, memoryReportSchema);
    expect(report.miscompared).toBe(200);
    expect(report.miscompares).toHaveLength(memoryLimits.miscompares);
    for (const { expected, found, xor, kind, physical, address } of report.miscompares) {
      expect(BigInt(expected) ^ BigInt(found)).toBe(BigInt(xor));
      expect(BigInt(xor).toString(2).replaceAll("0", "")).toBe("1");
      expect(kind).toBe("sticky");
      if (physical !== null) expect(physical.slice(-3)).toBe(address.slice(-3));
    }
  });

  test("nothing is taken from what must stay free", async () => {
    const task = startTask([hostler()], memory({ reserve_bytes: totalmem() }));
    const report = await reportOfTask(task, memoryReportSchema);
    expect([report.bytes, report.verified_bytes]).toEqual([0, 0]);
  });

  test("a small part is taken beside a large reserve", async () => {
    const reserve_bytes = Math.floor(totalmem() / 2);
    const task = startTask([hostler()], memory({ part: part / 2, reserve_bytes }));
    const report = await reportOfTask(task, memoryReportSchema);
    expect(report.bytes).toBeGreaterThan(0);
    expect(report.bytes).toBeLessThanOrEqual(200 * MEBIBYTE);
  });

  test("the first to die where memory is scarce, and gone when it is to end", async () => {
    let score = "";
    const task = startTask([hostler()], memory({ part: Math.min(0.5, part * 4) }), {
      onLine: (line) => {
        if (line.kind !== "progress") return;
        score ||= readFileSync(`/proc/${task.processId}/oom_score_adj`, "utf8").trim();
        task.stop();
      },
    });
    const ran = await task.ended;
    expect([score, ran.last?.kind, ran.exitCode]).toEqual(["1000", "progress", 111]);
  });

  test("a node that is not there is refused", async () => {
    const { last } = await startTask([hostler()], memory({ node: 63 })).ended;
    expect(last).toMatchObject({ kind: "failure", message: expect.stringMatching(/no node 63/) });
  });
});
