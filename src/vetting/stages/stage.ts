import type { Inventory } from "../../hardware/inventory.ts";
import type { Sensor } from "../../hardware/samples.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { ClaimAnswer } from "../protocol.ts";
import type { Delta, Stage, StageReport } from "../protocol-result.ts";
import type { ExpectedDisk, StageSettings } from "../protocol-spec.ts";
import type { TaskEnding } from "../protocol-task.ts";

/**
 * A stage is planned and judged here, and done elsewhere: `plan` says which children do what to
 * which piece of hardware, `judge` says what their reports come to. Both are pure, so that a disk
 * that dies in the middle is a value in a test.
 */
export interface StageDefinition {
  readonly stage: Stage;
  plan(context: StageContext): readonly TaskPlan[];
  judge(context: StageContext, done: StageDone): StageReport;
}

export interface StageContext {
  /** Of this run, as the stage Inventory found it; undefined in that stage alone. */
  readonly inventory: Inventory | undefined;
  readonly settings: StageSettings;
  readonly nonDestructive: boolean;
  readonly expectedDisks: readonly ExpectedDisk[];
  /** Serials of disks that an operator gave up, for this attempt alone. */
  readonly wipe: readonly string[];
  readonly networkTest: ClaimAnswer["network_test"];
}

/** What one child does. */
export interface TaskPlan {
  /** Of this stage's tasks, one of its own: "scan/S64ANX0R". */
  readonly id: string;
  /** The name of a task in `src/vetting/perform/tasks/`. */
  readonly task: string;
  readonly input: unknown;
  readonly component: string;
  readonly deadline: Milliseconds;
  /** Tasks of one group run side by side, groups one after the other, from 0. */
  readonly group: number;
}

export interface StageDone {
  /** In the order of the plan; what was not begun has ended as cancelled. */
  readonly tasks: readonly { readonly plan: TaskPlan; readonly ending: TaskEnding }[];
  /** Counters that changed while the stage ran. */
  readonly deltas: readonly Delta[];
  /** The highest that each temperature came to while it ran. */
  readonly peaks: readonly Sensor[];
  /** Sensors and counters that had told something before, and told nothing while it ran. */
  readonly missing: readonly { readonly key: string; readonly reason: string }[];
  readonly duration: Milliseconds;
}
