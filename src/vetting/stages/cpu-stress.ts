import { milliseconds } from "../../units/units.ts";
import type { Coverage, Finding, Measurement, StageReport } from "../protocol-result.ts";
import type { StageSettings } from "../protocol-spec.ts";
import { CPU_TASK, type CpuReport, cpuReportSchema } from "../tasks/cpu.ts";
import {
  MEMORY_TASK,
  type MemoryInput,
  type MemoryReport,
  memoryLimits,
  memoryPatterns,
  memoryReportSchema,
} from "../tasks/memory.ts";
import {
  commonDeltas,
  cover,
  emptyTold,
  finding,
  missingSensors,
  notSeen,
  percent,
  reportOf,
  stageReport,
  type Told,
  tooLittle,
} from "./findings.ts";
import type { StageContext, StageDefinition, StageDone, TaskPlan } from "./stage.ts";

/**
 * Every processor at work on answers that are known, then all memory that is free, filled and read
 * back. The two follow each other: together each would take the other's time.
 */
export const cpuStress: StageDefinition = { stage: "CPUStress", plan, judge };

type Settings = StageSettings["CPUStress"];
type Done = StageDone["tasks"][number];

/** A child takes some 6 MB; beyond these, processors are not covered, and the stage says so. */
export const MOST_PROCESSORS = 480;
const TEBIBYTE = 1024 ** 4;
/** Before its deadline a task of memory ends by itself, so that what it found is told. */
const MEMORY_MARGIN = 0.9;

/** Bytes that stay free: for the agent, its children, and what the kernel needs meanwhile. */
export function memoryReserve(usable: number): number {
  return 64 * 1024 ** 2 + Math.floor(usable / 64);
}

function plan({ settings, inventory }: StageContext): readonly TaskPlan[] {
  const own = settings.CPUStress;
  if (!own.enabled || inventory === undefined) return [];
  const threads = Math.min(inventory.threads_online, MOST_PROCESSORS);
  return [
    ...(own.duration_s > 0 ? planProcessors(own, threads) : []),
    ...(own.memory > 0
      ? planMemory(own, {
          threads,
          nodes: Math.min(Math.max(1, inventory.numa_nodes), memoryLimits.nodes),
          usable: inventory.memory.usable_bytes,
        })
      : []),
  ];
}

function planProcessors(own: Settings, threads: number): TaskPlan[] {
  return Array.from({ length: threads }, (_, index) => ({
    id: `cpu/${index}`,
    task: CPU_TASK,
    input: { index, duration_s: own.duration_s },
    component: `cpu ${index}`,
    deadline: milliseconds((own.duration_s + own.deadline.base_s) * 1_000),
    group: 0,
  }));
}

function planMemory(
  own: Settings,
  { threads, nodes, usable }: { threads: number; nodes: number; usable: number },
): TaskPlan[] {
  const seconds = own.deadline.base_s + (own.deadline.per_tebibyte_s * usable) / TEBIBYTE;
  const each = Math.floor(threads / nodes);
  const workers = Math.min(memoryLimits.workersOfNode, Math.max(1, each));
  return Array.from({ length: nodes * workers }, (_, index) => {
    const node = Math.floor(index / workers);
    const input: MemoryInput = {
      node,
      worker: index % workers,
      workers,
      part: own.memory,
      reserve_bytes: memoryReserve(usable),
      seed: index + 1,
      most_s: seconds * MEMORY_MARGIN,
    };
    return {
      id: `memory/${node}.${input.worker}`,
      task: MEMORY_TASK,
      input,
      component: `memory node ${node}`,
      deadline: milliseconds(seconds * 1_000),
      group: 1,
    };
  });
}

function judge(context: StageContext, done: StageDone): StageReport {
  const told = emptyTold();
  const own = context.settings.CPUStress;
  const of = (task: string) => done.tasks.filter(({ plan: one }) => one.task === task);
  const processors = judgeProcessors(context, of(CPU_TASK), told);
  const memory = judgeMemory(context, of(MEMORY_TASK), told);
  told.findings.push(...judgeDeltas(own, done), ...judgePeaks(own, done));
  const judgedHere = limited.map(([source]) => source);
  told.findings.push(...commonDeltas(done, judgedHere), ...missingSensors(done));
  const summary = [processors, memory].filter((one) => one !== undefined).join("; ");
  return stageReport({
    ...told,
    summary: summary || "nothing was asked for",
    deltas: [...done.deltas],
  });
}

/** @returns what the summary says of it; undefined where nobody asked */
function judgeProcessors(
  { settings, inventory }: StageContext,
  tasks: readonly Done[],
  told: Told,
): string | undefined {
  const own = settings.CPUStress;
  if (tasks.length === 0) {
    const reason = own.duration_s > 0 ? "no processor is known" : "its duration is 0 s";
    told.findings.push(notSeen("cpu.verified", "host", reason, own.required));
    return undefined;
  }
  const seconds = own.duration_s;
  const all = Math.max(inventory?.threads_online ?? 0, tasks.length);
  let busy = 0;
  let right = 0;
  for (const one of tasks) {
    const task = one.plan;
    const report = reportOf(cpuReportSchema, one, "The load", told);
    if (report !== undefined) {
      busy += Math.min(report.busy_s, report.wall_s);
      right += Object.values(report.verified).reduce((sum, count) => sum + count, 0);
      told.findings.push(...judgeProcessor(report, own));
    }
    const coverage: Coverage = {
      component: report === undefined ? task.component : `cpu ${report.processor}`,
      unit: "core-seconds",
      covered: report === undefined ? 0 : rounded(Math.min(report.busy_s, report.wall_s)),
      total: rounded(Math.max(report?.wall_s ?? 0, seconds)),
      least: own.busy_least,
    };
    cover(told, coverage, `the time of ${coverage.component}`);
  }
  const total = told.coverage.reduce((sum, one) => sum + (one.total ?? 0), 0);
  const whole: Coverage = {
    component: "host",
    unit: "core-seconds",
    covered: rounded(busy),
    total: rounded(total + (all - tasks.length) * seconds),
    least: own.busy_least,
  };
  told.coverage.unshift(whole);
  const little = tooLittle(whole, "the processors' time");
  if (little !== undefined) told.findings.push(little);
  told.engines.push({ task: CPU_TASK, engine: "hostler", version: null });
  if (right > 0 && !told.findings.some(({ code }) => code === "cpu-miscompare")) {
    const message = `${right} answers of ${tasks.length} processors are right`;
    told.findings.push(finding("PASS", "cpu-verified", "host", message));
  }
  return `${tasks.length} processors, ${percent(whole.covered, whole.total ?? 0)} busy`;
}

function* judgeProcessor(report: CpuReport, { required }: Settings): Generator<Finding> {
  const component = `cpu ${report.processor}`;
  for (const { kind, pass, expected, found, again } of report.miscompares) {
    const repeated = again === "sticky" ? "wrong once more" : "right when it was repeated";
    const message = `${component} computed a wrong answer: ${kind}, answer ${pass}, ${repeated}`;
    yield finding("FAIL", "cpu-miscompare", component, message, { expected, found });
  }
  const untold = report.miscompared - report.miscompares.length;
  if (untold > 0) {
    const message = `${component} computed ${untold} more wrong answers`;
    yield finding("FAIL", "cpu-miscompare", component, message);
  }
  for (const { kind, reason } of report.unseen) {
    yield notSeen(`cpu.${kind}`, component, reason, required);
  }
}

function judgeMemory(
  { settings, inventory }: StageContext,
  tasks: readonly Done[],
  told: Told,
): string | undefined {
  const own = settings.CPUStress;
  if (tasks.length === 0) {
    const reason = own.memory > 0 ? "no memory is known" : "the part of it to be filled is 0";
    told.findings.push(notSeen("memory.verified", "memory", reason, own.required));
    return undefined;
  }
  let verified = 0;
  const reports: MemoryReport[] = [];
  for (const task of tasks) {
    const report = reportOf(memoryReportSchema, task, "The test of memory", told);
    if (report === undefined) continue;
    verified += report.verified_bytes;
    reports.push(report);
    told.findings.push(...judgeWords(report));
    const why = unverified(report);
    if (why === undefined) continue;
    told.findings.push(notSeen("memory.verified", `memory node ${report.node}`, why, own.required));
  }
  if (reports.some(({ locked }) => !locked)) {
    const reason = "the kernel refused mlock, so a page may have been moved meanwhile";
    told.findings.push(notSeen("memory.locked", "memory", reason, own.required));
  }
  if (reports.some(({ bound }) => !bound)) {
    const reason = "the kernel has no NUMA policy, so a worker may have had another node's memory";
    told.findings.push(notSeen("memory.node", "memory", reason, own.required));
  }
  const installed = inventory?.memory.installed_bytes ?? inventory?.memory.usable_bytes ?? null;
  const coverage: Coverage = {
    component: "memory",
    unit: "bytes",
    covered: verified,
    total: installed,
    least: own.memory_least,
  };
  cover(told, coverage, "the memory");
  told.measurements.push(...memorySpeeds(reports));
  told.engines.push({ task: MEMORY_TASK, engine: "hostler", version: null });
  if (verified > 0 && !told.findings.some(({ code }) => code === "memory-miscompare")) {
    const message = `${verified} bytes came back as they were written, in every pattern`;
    told.findings.push(finding("PASS", "memory-verified", "memory", message));
  }
  return `${percent(verified, installed ?? verified)} of the memory verified`;
}

function* judgeWords(report: MemoryReport): Generator<Finding> {
  const component = `memory node ${report.node}`;
  for (const one of report.miscompares) {
    const physical = one.physical === null ? "which the kernel does not tell" : one.physical;
    const message =
      `A word came back wrong (${one.kind}) in the pattern ${one.pattern}: address ` +
      `${one.address}, page ${one.page}, physical address ${physical}, xor ${one.xor}, ` +
      `read again ${one.again}, by cpu ${report.processor}`;
    const { expected, found } = one;
    yield finding("FAIL", "memory-miscompare", component, message, { expected, found });
  }
  const untold = report.miscompared - report.miscompares.length;
  if (untold > 0) {
    const message = `${untold} more words came back wrong`;
    yield finding("FAIL", "memory-miscompare", component, message);
  }
}

/** Why none of a worker's memory counts as verified; undefined where it does. */
function unverified({ bytes, verified_bytes, passes }: MemoryReport): string | undefined {
  if (verified_bytes > 0) return undefined;
  if (bytes === 0) return "beside the reserve, no memory was free for it";
  return `in its time, ${passes.length} of ${memoryPatterns.length} patterns went over all of it`;
}

/** Bytes a second of all workers together, which ran side by side: filled, and verified. */
function* memorySpeeds(reports: readonly MemoryReport[]): Generator<Measurement> {
  for (const name of ["fill", "verify"] as const) {
    const speed = reports.reduce((sum, { passes }) => {
      const bytes = passes.reduce((all, pass) => all + pass.bytes, 0);
      const seconds = passes.reduce((all, pass) => all + pass[`${name}_s`], 0);
      return seconds > 0 ? sum + bytes / seconds : sum;
    }, 0);
    const value = rounded(speed / 1e9);
    if (speed > 0) yield { name: `memory-${name}`, component: "memory", value, unit: "GB/s" };
  }
}

const limited = [
  ["machine-check", "machine_checks", "Machine checks"],
  ["memory-corrected", "memory_corrected", "Corrected errors of memory"],
  ["throttle", "throttles", "Throttling of processors"],
] as const;

function* judgeDeltas(own: Settings, { deltas }: StageDone): Generator<Finding> {
  for (const [source, setting, what] of limited) {
    const rose = deltas.filter((delta) => delta.source === source && delta.after > delta.before);
    const sum = rose.reduce((all, { before, after }) => all + after - before, 0);
    if (sum <= own[setting]) continue;
    const whose = rose.map(({ component, before, after }) => `${component} ${after - before}`);
    const component = rose.length === 1 ? (rose[0]?.component ?? "host") : "host";
    const message = `${what} while this stage ran: ${whose.join(", ")}`;
    const expected = `at most ${own[setting]}`;
    yield finding("FAIL", `${source}-limit`, component, message, { expected, found: `${sum}` });
  }
}

function* judgePeaks(own: Settings, { peaks }: StageDone): Generator<Finding> {
  const temperatures = peaks.filter(({ kind }) => kind === "temperature");
  if (temperatures.length === 0) {
    yield notSeen("cpu.temperature", "host", "no sensor told a temperature", own.required);
    return;
  }
  let worst: Finding | undefined;
  for (const { key, value, critical } of temperatures) {
    // Firmware that knows no critical temperature often says 0.
    const isCritical = critical !== null && critical > 0 && value >= critical;
    if (!isCritical && value < own.temperature_fail_c) continue;
    const code = isCritical ? "over-critical-temperature" : "over-temperature";
    const most = isCritical ? critical : own.temperature_fail_c;
    worst = finding("FAIL", code, key, `${key} came to ${value} °C`, {
      expected: `below ${most} °C`,
      found: `${value} °C`,
    });
    yield worst;
  }
  if (worst !== undefined) return;
  const hottest = temperatures.reduce((one, other) => (other.value > one.value ? other : one));
  const message = `The hottest of ${temperatures.length} sensors came to ${hottest.value} °C`;
  yield finding("PASS", "temperature", hottest.key, message);
}

const rounded = (value: number) => Math.round(value * 1_000) / 1_000;
