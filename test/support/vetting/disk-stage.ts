/** A host with disks, for what plans and judges the stages SMART and Storage. */
import * as v from "valibot";
import { type DiskHealth, untoldHealth, withUnseen } from "../../../src/hardware/disk/health.ts";
import type { Disk, Inventory } from "../../../src/hardware/inventory.ts";
import { stageSettingsSchema } from "../../../src/vetting/protocol-spec.ts";
import type { TaskEnding } from "../../../src/vetting/protocol-task.ts";
import type {
  StageContext,
  StageDefinition,
  StageDone,
  TaskPlan,
} from "../../../src/vetting/stages/stage.ts";
import type { Pass } from "../../../src/vetting/tasks/disk.ts";

export const GIBIBYTE = 1024 ** 3;

export function diskOf(given: Partial<Disk> = {}): Disk {
  return {
    name: "nvme0n1",
    serial: "S64ANX0R",
    wwn: null,
    model: "A Drive",
    firmware: "1",
    size_bytes: 8 * GIBIBYTE,
    logical_block: 512,
    physical_block: 4_096,
    rotational: false,
    transport: "nvme",
    pci: "0000:03:00.0",
    removable: false,
    read_only: false,
    ...given,
  };
}

export interface ContextOptions {
  readonly disks?: readonly Disk[];
  readonly smart?: object;
  readonly storage?: object;
  readonly nonDestructive?: boolean;
  readonly expectedDisks?: StageContext["expectedDisks"];
  readonly wipe?: readonly string[];
}

export function contextOf(options: ContextOptions = {}): StageContext {
  const { smart = {}, storage = {} } = options;
  return {
    // Of an inventory these two stages read its disks alone.
    inventory: { disks: options.disks ?? [diskOf()] } as Inventory,
    settings: v.parse(stageSettingsSchema, { SMART: smart, Storage: storage }),
    nonDestructive: options.nonDestructive ?? true,
    expectedDisks: options.expectedDisks ?? [],
    wipe: options.wipe ?? [],
    networkTest: null,
  };
}

/** A healthy NVMe disk, but for what is given. */
export function healthy(given: Partial<DiskHealth> = {}): DiskHealth {
  return withUnseen(
    {
      ...untoldHealth("nvme"),
      serial: "S64ANX0R",
      healthy: true,
      critical_warning: 0,
      media_errors: 0,
      spare_percent: 100,
      spare_least_percent: 10,
      used_percent: 1,
      temperature_c: 35,
      self_test: {
        kind: "short",
        result: "passed",
        detail: "completed without error",
        power_on_hours: 1,
      },
      ...given,
    },
    "it does not say",
  );
}

export function smartReport(health: DiskHealth = healthy()): TaskEnding {
  return {
    kind: "report",
    report: { engine: { name: "hostler", version: "0.1.0" }, health, passed_over: [] },
  };
}

export function passOf(bytes: number, given: Partial<Pass> = {}): Pass {
  return {
    planned_bytes: bytes,
    done_bytes: bytes,
    duration_ms: 1_000,
    slowest_ms: 20,
    slowest_offset: 4_096,
    latency_ms: { p50: 1, p90: 2, p99: 3, p999: 4 },
    failed: { count: 0, bytes: 0, ranges: [] },
    ...given,
  };
}

export function scanReport(pass: Pass): TaskEnding {
  return {
    kind: "report",
    report: { engine: { name: "hostler", version: "0.1.0" }, read: pass },
  };
}

/** Plans a stage, ends each task as `end` says, and judges it. */
export function walk(
  stage: StageDefinition,
  context: StageContext,
  end: (plan: TaskPlan) => TaskEnding,
  more: Partial<Pick<StageDone, "deltas">> = {},
) {
  const plans = stage.plan(context);
  const tasks = plans.map((plan) => ({ plan, ending: end(plan) }));
  const done: StageDone = {
    tasks,
    deltas: more.deltas ?? [],
    peaks: [],
    missing: [],
    duration: 1_000,
  };
  return { plans, report: stage.judge(context, done) };
}

/** Codes of what was found, and what each of them is. */
export function codesOf(report: {
  readonly findings: readonly { readonly code: string; readonly outcome: string }[];
}): string[] {
  return report.findings.map(({ code, outcome }) => `${outcome} ${code}`);
}
