/** Reports and states of a master, as its tests make them. */
import { step } from "../../../src/vm/master/lifecycle.ts";
import {
  type ClusterState,
  type MasterEffect,
  type MasterEvent,
  type MasterSettings,
  nothingDeclared,
  type Step,
} from "../../../src/vm/master/lifecycle-state.ts";
import type {
  ClusterRequest,
  Report,
  ReportAnswer,
  ReportedMachine,
} from "../../../src/vm/protocol-master.ts";

const MEBIBYTE = 1024 * 1024;

export const boots = {
  first: "11111111-1111-1111-1111-111111111111",
  second: "22222222-2222-2222-2222-222222222222",
} as const;

export const armed = {
  timeout_ms: 20_000,
  hardware: true,
  stays_armed: true,
  identity: "iTCO_wdt",
} as const;

export const settings: MasterSettings = {
  silentAfter: 15_000,
  lostAfter: 60_000,
  hasHook: false,
  hookRetry: 30_000,
  longestHookRetry: 600_000,
};

let sequence = 0;

/** Of a worker with eight processors and 8 GiB, all of it free. */
export function reportOf(change: Partial<Report> = {}): Report {
  sequence += 1;
  const whole = { processors: 8, memory_bytes: 8_192 * MEBIBYTE };
  return {
    version: 1,
    boot: boots.first,
    run: "0".repeat(32),
    sequence,
    program: "1.0.0",
    observed: null,
    convergence_percent: 100,
    total: whole,
    free: whole,
    labels: {},
    watchdog: null,
    machines: [],
    ...change,
  };
}

export function reported(
  name: string,
  ownerGeneration: number | null,
  change: Partial<ReportedMachine> = {},
): ReportedMachine {
  return {
    name,
    owner_generation: ownerGeneration,
    phase: "running",
    standing: "converged",
    reason: null,
    drift: [],
    processors: 1,
    memory_bytes: 512 * MEBIBYTE,
    metrics: null,
    ...change,
  };
}

type Machine = ClusterRequest["machine"][number];

export function machine(name: string, change: Partial<Machine> = {}): Machine {
  return { name, kernelPath: "/boot/vmlinuz", cpu: 1, memoryMb: 512, ...change };
}

export const declare = (
  machines: readonly Machine[],
  generation?: number,
): Extract<MasterEvent, { kind: "apply" }> => ({
  kind: "apply",
  desired: { ...(generation !== undefined && { generation }), machine: [...machines] },
  expectGeneration: undefined,
});

/** What came of a report: its answer, or what is waited for before there is one. */
export type Heard = Omit<Step, "answer"> & {
  readonly answer: ReportAnswer | undefined;
  readonly waits: string | undefined;
};

/** A master under a false clock; what it would write is counted, and kept by key. */
export class SteppedMaster {
  now = 1_000_000;
  state: ClusterState;
  readonly settings: MasterSettings;
  readonly writes: MasterEffect[] = [];
  readonly hooks: { readonly worker: string; readonly attempt: number }[] = [];
  readonly said: string[] = [];
  #numbers = 1;

  constructor(change: Partial<MasterSettings> = {}, state: Partial<ClusterState> = {}) {
    this.settings = { ...settings, ...change };
    this.state = {
      incarnation: "a".repeat(32),
      started: this.now,
      desired: nothingDeclared,
      workers: new Map(),
      placed: new Map(),
      unplaced: new Map(),
      numbers: { next: 0, end: 0 },
      isRestored: false,
      ...state,
    };
  }

  take(event: MasterEvent): Step {
    const outcome = step(this.state, event, { now: this.now, settings: this.settings });
    if (outcome.refusal !== undefined) return outcome;
    this.state = outcome.state;
    for (const effect of outcome.effects) {
      if (effect.kind.startsWith("write") || effect.kind.startsWith("delete")) {
        this.writes.push(effect);
      }
      if (effect.kind === "run-hook") this.hooks.push(effect);
      if (effect.kind === "say") this.said.push(effect.message);
    }
    if (!outcome.effects.some(({ kind }) => kind === "reserve-numbers")) return outcome;
    this.#numbers += 1;
    const next = this.#numbers * 4_096;
    this.take({ kind: "numbers", numbers: { next, end: next + 4_096 } });
    return outcome;
  }

  report(worker: string, change: Partial<Report> = {}): Heard {
    const { answer, ...step } = this.take({ kind: "report", worker, report: reportOf(change) });
    return {
      ...step,
      answer: answer?.kind === "answered" ? answer : undefined,
      waits: answer?.kind === "heard" ? answer.reason : undefined,
    };
  }

  /** Time passes, and whoever is named reports every 5 s as it did. */
  pass(milliseconds: number, reporting: Readonly<Record<string, Partial<Report>>> = {}): void {
    const end = this.now + milliseconds;
    while (this.now < end) {
      this.now = Math.min(end, this.now + 5_000);
      for (const [worker, change] of Object.entries(reporting)) this.report(worker, change);
      this.take({ kind: "time" });
    }
  }

  /** The owner generation of a machine. */
  owner(name: string): number {
    const worker = this.state.placed.get(name) ?? "";
    return this.state.workers.get(worker)?.record.machines[name]?.owner_generation ?? 0;
  }
}
