import * as v from "valibot";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { Inventory } from "../../hardware/inventory.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import type { Milliseconds } from "../../units/units.ts";
import { StageRun } from "../perform/stage-runner.ts";
import type { TaskRunner } from "../perform/task-runner.ts";
import type { ClaimAnswer } from "../protocol.ts";
import {
  resultLimits,
  type Stage,
  type StageReport,
  stageReportSchema,
} from "../protocol-result.ts";
import type { TaskLine } from "../protocol-task.ts";
import type { StageContext, StageDefinition, TaskPlan } from "../stages/stage.ts";
import { INVENTORY_TASK, inventoryReportSchema } from "../tasks/inventory.ts";
import { askTask, wordsOfEnding } from "./ask-task.ts";
import { reportOf } from "./lifecycle-draft.ts";
import type { SampleBook } from "./sample-book.ts";
import type { SamplerSidecar } from "./sampler-sidecar.ts";

export interface StageParts {
  readonly runner: Pick<TaskRunner, "start" | "count">;
  readonly definitions: Readonly<Partial<Record<Stage, StageDefinition>>>;
  readonly samples: SampleBook;
  /** Has the sampler read, so that what rises around a stage is not told as the stage's. */
  readonly readSensors: SamplerSidecar["readNow"];
  /** What the stage Inventory found in this boot. */
  readonly inventory: {
    read(): Inventory | undefined;
    write(inventory: Inventory): void;
  };
  readonly onLine: (plan: TaskPlan, line: TaskLine) => void;
  readonly onEnd: (attempt: string, report: StageReport, duration: Milliseconds) => void;
}

export interface StageOrder {
  readonly stage: Stage;
  readonly attempt: string;
  readonly wipe: readonly string[];
  readonly claim: ClaimAnswer;
}

/** Without an inventory of this boot, it is read once more: the host may have been booted anew. */
const INVENTORY_WITHIN: Milliseconds = 120_000;

/** Does one stage at a time: the next begins when nothing of the last one runs any more. */
export class StageWork {
  readonly #parts: StageParts;
  #last: Promise<void> = Promise.resolve();
  #run: StageRun | undefined;
  #cancel: () => void = () => {};

  constructor(parts: StageParts) {
    this.#parts = parts;
  }

  get progress(): number | null {
    return this.#run?.progress ?? null;
  }

  /** Ends the stage that runs, or that waits to begin. */
  cancel(): void {
    this.#cancel();
  }

  start(order: StageOrder): void {
    this.#cancel();
    const stop = new AbortController();
    this.#cancel = () => {
      stop.abort();
      this.#run?.cancel();
    };
    this.#last = this.#last.then(() => this.#do(order, stop.signal));
  }

  async #do(order: StageOrder, signal: AbortSignal): Promise<void> {
    const began = monotonicNow();
    let report: StageReport;
    try {
      report = checked(await this.#work(order, signal));
    } catch (failure) {
      const words = failure instanceof Error ? failure.message : String(failure);
      report = reportOf(`Bug: the stage ${order.stage} broke: ${words}`, "bug");
    }
    this.#run = undefined;
    this.#parts.onEnd(order.attempt, report, monotonicNow() - began);
  }

  async #work(order: StageOrder, signal: AbortSignal): Promise<StageReport> {
    const { definitions, samples, readSensors, runner, onLine, inventory } = this.#parts;
    const { stage } = order;
    const definition = definitions[stage];
    if (definition === undefined) {
      return reportOf(`This version of hostler has no test for ${stage}`, "no-test");
    }
    if (signal.aborted) return reportOf("it was cancelled before it began", "cancelled");
    const began = monotonicNow();
    const context = await this.#context(order);
    if ("refusal" in context) return reportOf(context.refusal, "no-inventory");
    const silenceBefore = await readSensors(signal);
    samples.begin();
    const plans = definition.plan(context);
    const run = new StageRun(runner, plans, { onLine });
    this.#run = run;
    if (signal.aborted) run.cancel();
    const tasks = await run.done;
    const duration = monotonicNow() - began;
    const silence = (await readSensors(signal)) ?? silenceBefore;
    const report = definition.judge(context, { tasks, duration, ...samples.end(silence) });
    if (report.inventory !== undefined) inventory.write(report.inventory);
    return report;
  }

  async #context(order: StageOrder): Promise<StageContext | { readonly refusal: string }> {
    const { claim, wipe, stage } = order;
    const common = {
      settings: claim.settings,
      nonDestructive: claim.non_destructive,
      expectedDisks: claim.expected_disks,
      networkTest: claim.network_test,
      wipe,
    };
    if (stage === "Inventory") return { ...common, inventory: undefined };
    const known = this.#parts.inventory.read();
    if (known !== undefined) return { ...common, inventory: known };
    const { runner, inventory } = this.#parts;
    const task = { task: INVENTORY_TASK, input: {} };
    const asked = { within: INVENTORY_WITHIN, schema: inventoryReportSchema };
    const answer = await askTask(runner, task, asked);
    if ("ending" in answer) {
      const why = wordsOfEnding(answer.ending);
      return { refusal: `The inventory of this host cannot be read: ${why}` };
    }
    inventory.write(answer.found);
    return { ...common, inventory: answer.found };
  }
}

/** A report of ours that is none is a bug, and must not keep the run from going on. */
function checked(report: StageReport): StageReport {
  const found = v.safeParse(stageReportSchema, report);
  if (!found.success) return reportOf(`Bug: no report: ${describeIssues(found.issues)}`, "bug");
  const isSmall = (one: StageReport) => JSON.stringify(one).length <= resultLimits.bytes;
  if (isSmall(report)) return report;
  const { evidence: _evidence, ...rest } = report;
  const without = { ...rest, evidence: [] };
  if (isSmall(without)) return without;
  return reportOf(
    `The report of this stage has more than ${resultLimits.bytes} bytes`,
    "too-large",
  );
}
