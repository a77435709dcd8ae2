import * as v from "valibot";
import { identityOf } from "../../../src/hardware/inventory.ts";
import { newRun, step } from "../../../src/vetting/orchestrator/lifecycle.ts";
import type {
  Run,
  RunContext,
  RunInput,
  RunStep,
} from "../../../src/vetting/orchestrator/lifecycle-state.ts";
import { stageOf } from "../../../src/vetting/protocol.ts";
import type { Outcome, Stage, StageReport } from "../../../src/vetting/protocol-result.ts";
import { type Spec, specSchema } from "../../../src/vetting/protocol-spec.ts";
import { validateSpec } from "../../../src/vetting/spec/validate.ts";
import { exampleInventory } from "../vetting-inventory.ts";

/** Runs that tests are about: each is where it is by what happened to it. */

export const mac = "52:54:00:12:34:56";
export const healthy = exampleInventory();
export const ownIdentity = identityOf(healthy);
export const otherIdentity = { ...ownIdentity, board_serial: "ANOTHER-BOARD" };
export const exampleSpec: Spec = v.parse(specSchema, { name: "rack", stages: {} });
/** One rule that the example host breaks. */
export const brokenSpec: Spec = v.parse(specSchema, {
  name: "rack",
  rules: [{ path: "system.vendor", match: { is: "equal", value: "Nobody" } }],
});

export const drawn = (number: number) => number.toString(16).padStart(32, "0");

export function report(outcome: Outcome, stage?: Stage): StageReport {
  const message = `it is ${outcome}`;
  return {
    ...{ outcome, summary: message },
    findings: [
      ...[{ outcome, code: "example", component: "host", message, expected: null, found: null }],
    ],
    ...{ coverage: [], engines: [], measurements: [], deltas: [], evidence: [] },
    ...(stage === "Inventory" && { inventory: healthy }),
  };
}

/** Happens to one run, on a clock that stands still unless it is told. */
export class RunWorld {
  run: Run;
  spec: Spec;
  now = 1_000_000;
  steps: RunStep[] = [];
  #drawn = 0;

  constructor(spec: Spec = exampleSpec) {
    this.spec = spec;
    const created = this.context.time;
    const beginning = { run: 1, mac, host: "node-7", spec: spec.name, specRevision: 1, created };
    this.run = newRun({ ...beginning, identity: null }, "operator alice", this.context).run;
  }

  get context(): RunContext {
    return {
      now: this.now,
      time: new Date(this.now).toISOString(),
      spec: this.spec,
      validate: (inventory) => validateSpec(this.spec, inventory),
      lastWords: () => [{ name: "kernel-log", component: "host", text: "Oops: 0000 [#1]" }],
      draw: () => {
        this.#drawn += 1;
        return drawn(this.#drawn);
      },
      version: "1.0.0",
    };
  }

  happens(input: RunInput): RunStep {
    const taken = step(this.run, input, this.context);
    this.run = taken.run;
    this.steps.push(taken);
    return taken;
  }

  boots(): this {
    this.happens({ kind: "boot", token: "token-hash", who: null });
    return this;
  }

  claims(part: Partial<Extract<RunInput, { kind: "claim" }>> = {}): this {
    this.happens({ ...claimInput, ...part });
    return this;
  }

  begins(stage: Stage, attempt = drawn(100 + this.run.spent.length)): this {
    this.happens({ kind: "attempt", attempt, instance: drawn(1), stage });
    return this;
  }

  ends(outcome: Outcome): this {
    const stage = this.run.attempt?.stage ?? "Inventory";
    this.happens(resultInput(this.run, report(outcome, stage)));
    return this;
  }

  /** Claims, and walks until it is at this stage. */
  walksTo(state: Run["state"]): this {
    this.boots().claims();
    for (let stage = stageOf(this.run.state); stage !== undefined; ) {
      if (this.run.state === state) return this;
      this.begins(stage).ends("PASS");
      stage = stageOf(this.run.state);
    }
    return this;
  }
}

export const claimInput: Extract<RunInput, { kind: "claim" }> = {
  ...{ kind: "claim", by: "token", session: "session-hash", instance: drawn(1) },
  ...{ bootId: "boot-1", mac, macs: [mac], address: "10.0.0.7", version: "1.0.0" },
  identity: ownIdentity,
};

export function resultInput(
  run: Run,
  told: StageReport,
  part: Partial<Extract<RunInput, { kind: "result" }>> = {},
): Extract<RunInput, { kind: "result" }> {
  const stage = run.attempt?.stage ?? stageOf(run.state) ?? "SMART";
  return {
    ...{ kind: "result", result: drawn(200 + run.answers.length), stage, cancelled: false },
    ...{ attempt: run.attempt?.id ?? drawn(9), duration: 1_000, report: told, ...part },
  };
}
