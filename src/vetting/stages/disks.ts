import * as v from "valibot";
import {
  type DiskHealth,
  type DiskProperty,
  isSeen,
  propertiesOf,
} from "../../hardware/disk/health.ts";
import type { Disk, Inventory } from "../../hardware/inventory.ts";
import type { Milliseconds } from "../../units/units.ts";
import { type Engine, type Finding, resultLimits } from "../protocol-result.ts";
import type { EngineChoice } from "../protocol-spec.ts";
import type { PlannedDisk, TaskEngine } from "../tasks/disk.ts";
import {
  SMART_TASK,
  type SmartInput,
  type SmartReport,
  smartReportSchema,
} from "../tasks/smart.ts";
import { finding, notSeen, shortened, unreported } from "./findings.ts";
import type { StageDone, TaskPlan } from "./stage.ts";

/** What the stages SMART and Storage have in common. */

export type Done = StageDone["tasks"][number];

/** A disk of the inventory, by what a person knows it by, and by what no other has. */
export interface NamedDisk {
  readonly disk: Disk;
  /** "disk S64ANX0R"; where several have this serial, or it has none, the kernel's name with it. */
  readonly component: string;
  /** The same, for the ids of tasks: "S64ANX0R". */
  readonly key: string;
  /** No other disk has its serial, and it has one. */
  readonly isSerialUnique: boolean;
}

export function nameDisks(inventory: Inventory | undefined): readonly NamedDisk[] {
  const disks = inventory?.disks ?? [];
  const serials = new Map<string, number>();
  for (const { serial } of disks) {
    if (serial !== null) serials.set(serial, (serials.get(serial) ?? 0) + 1);
  }
  return disks.map((disk) => {
    const isSerialUnique = disk.serial !== null && serials.get(disk.serial) === 1;
    const key = isSerialUnique ? (disk.serial ?? disk.name) : withName(disk);
    const component = shortened(`disk ${key}`, resultLimits.name);
    return { disk, component, key, isSerialUnique };
  });
}

function withName({ serial, name }: Disk): string {
  return serial === null ? name : `${serial} (${name})`;
}

export function plannedDisk({ name, serial, size_bytes }: Disk): PlannedDisk {
  return { name, serial, size_bytes };
}

export interface SmartPlanOptions {
  readonly deadline: Milliseconds;
  readonly selfTest: SmartInput["self_test"];
  readonly engine: EngineChoice;
  readonly group: number;
  /** The first part of the task's id. */
  readonly prefix: string;
}

/** A self-test gets this much of the time that there is, so that the rest can still be told. */
const SELF_TEST_PART = 0.9;

export function planSmart(
  { disk, component, key }: NamedDisk,
  options: SmartPlanOptions,
): TaskPlan {
  const input: SmartInput = {
    disk: plannedDisk(disk),
    transport: disk.transport,
    self_test: options.selfTest,
    engine: options.engine,
    self_test_most_s: (options.deadline * SELF_TEST_PART) / 1_000,
  };
  return {
    id: `${options.prefix}/${key}`,
    task: SMART_TASK,
    input,
    component,
    deadline: options.deadline,
    group: options.group,
  };
}

/** The report, or what to say in its place. */
export function reportOf<Schema extends v.GenericSchema>(
  schema: Schema,
  done: Done,
  what: string,
): v.InferOutput<Schema> | Finding {
  if (done.ending.kind !== "report") return unreported(what, done.plan.component, done.ending);
  const read = v.safeParse(schema, done.ending.report);
  if (read.success) return read.output;
  const message = `${what} reported what is no report of it`;
  return finding("ERROR", "bad-report", done.plan.component, message, {
    found: read.issues[0].message,
  });
}

export function isFinding(report: object): report is Finding {
  return "outcome" in report && "code" in report;
}

export function smartReportOf(done: Done): SmartReport | Finding {
  return reportOf(smartReportSchema, done, "Asking the disk how it is");
}

/** Each engine of each task once. */
export function engineList(used: readonly { task: string; engine: TaskEngine }[]): Engine[] {
  const seen = new Map<string, Engine>();
  for (const { task, engine } of used) {
    const entry: Engine = { task, engine: engine.name, version: engine.version };
    seen.set(JSON.stringify(entry), entry);
  }
  return [...seen.values()];
}

/**
 * Of a disk each property that its protocol has and that it did not tell, and each required one
 * that its protocol has no place for.
 */
export function unseenOf(
  health: DiskHealth,
  component: string,
  required: readonly string[],
  properties: readonly DiskProperty[],
): Finding[] {
  const own = propertiesOf[health.protocol];
  return properties.flatMap((property) => {
    if (isSeen(health, property)) return [];
    if (!own.includes(property) && !required.includes(property)) return [];
    const told = health.unseen.find((entry) => entry.property === property);
    const reason = told?.reason ?? reasonless(health);
    return [notSeen(property, component, reason, required)];
  });
}

function reasonless({ protocol }: DiskHealth): string {
  return protocol === "none" ? "this disk tells nothing" : `disks of ${protocol} do not tell it`;
}
