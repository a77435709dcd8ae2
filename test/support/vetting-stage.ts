import * as v from "valibot";
import { type Inventory, inventorySchema } from "../../src/hardware/inventory.ts";
import { stageReportSchema } from "../../src/vetting/protocol-result.ts";
import { stageSettingsSchema } from "../../src/vetting/protocol-spec.ts";
import type { TaskEnding } from "../../src/vetting/protocol-task.ts";
import type { StageContext, StageDefinition, StageDone } from "../../src/vetting/stages/stage.ts";

/** A host without anything but what a test gives it. */
export function hostInventory(parts: Partial<Inventory> = {}): Inventory {
  const none = { manufacturer: null, product: null, serial: null };
  return v.parse(inventorySchema, {
    system: { ...none, uuid: null, sku: null },
    board: { ...none, version: null },
    chassis: { type: null, serial: null, asset_tag: null },
    firmware: {
      ...{ vendor: null, version: null, date: null },
      ...{ boot: "bios", secure_boot: null, tpm: null },
    },
    kernel: { release: "6.1.0", architecture: "x86_64", command_line: null },
    processors: [],
    threads_online: 2,
    numa_nodes: 1,
    memory: {
      installed_bytes: 1024 ** 3,
      usable_bytes: 1000 * 1024 ** 2,
      error_correction: null,
      slots: [],
    },
    ...{ disks: [], network: [], graphics: [], pci: [], power_supplies: [], bmc: null, unseen: [] },
    ...parts,
  });
}

/** The settings of an empty spec, with those of a test. */
export function stageContext(
  settings: v.InferInput<typeof stageSettingsSchema> = {},
  parts: Partial<StageContext> = {},
): StageContext {
  return {
    inventory: hostInventory(),
    settings: v.parse(stageSettingsSchema, settings),
    nonDestructive: true,
    expectedDisks: [],
    wipe: [],
    networkTest: null,
    ...parts,
  };
}

/** What a stage comes to when each task of its plan ends as `endingOf` says. */
export function judged(
  stage: StageDefinition,
  context: StageContext,
  endingOf: (task: StageDone["tasks"][number]["plan"]) => TaskEnding,
  world: Partial<Omit<StageDone, "tasks">> = {},
) {
  const tasks = stage.plan(context).map((plan) => ({ plan, ending: endingOf(plan) }));
  const report = stage.judge(context, {
    tasks,
    deltas: [],
    peaks: [],
    missing: [],
    duration: 1_000,
    ...world,
  });
  return v.parse(stageReportSchema, report);
}

/** "FAIL cpu-miscompare cpu 3", one for each finding. */
export const told = ({ findings }: ReturnType<typeof judged>): string[] =>
  findings.map(({ outcome, code, component }) => `${outcome} ${code} ${component}`);
