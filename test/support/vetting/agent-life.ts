/** An agent's life in steps, for tests of what it decides. */

import * as v from "valibot";
import { begin, step } from "../../../src/vetting/agent/lifecycle.ts";
import { reportOf } from "../../../src/vetting/agent/lifecycle-draft.ts";
import type {
  AgentEffect,
  AgentEvent,
  AgentState,
  CallFailure,
  Kept,
  PhaseKind,
} from "../../../src/vetting/agent/lifecycle-state.ts";
import {
  type AttemptAnswer,
  type ClaimAnswer,
  type Directive,
  directiveKinds,
  type RunState,
} from "../../../src/vetting/protocol.ts";
import { stageSettingsSchema } from "../../../src/vetting/protocol-spec.ts";

export const claimAnswer = (current_state: RunState): ClaimAnswer => ({
  ...{ session: "hostler-run-s-1-secret", current_state, stages: ["Inventory", "SMART"] },
  settings: v.parse(stageSettingsSchema, {}),
  ...{ non_destructive: true, expected_disks: [], network_test: null },
  ...{ heartbeat_ms: 10_000, log_ms: 2_000, sensor_ms: 5_000 },
});

export const id = (number: number): string => number.toString(16).padStart(32, "0");

export const newKept = (part: Partial<Kept> = {}): Kept => ({
  ...{ run: 1, boot_id: "boot", instance: id(0xa), session: null, attempt: null, intent: null },
  ...{ taken: [], acknowledgements: [], hold: null, ...part },
});

export const directive = (kind: Directive["kind"], number = 0xd): Directive => ({
  ...{ id: id(number), kind, stage: null, expires_in_ms: 60_000 },
});

export const failure = (kind: CallFailure["kind"], retryAfter: number | null = null) => ({
  ...{ kind, message: `it is ${kind}`, retryAfter },
});

export const report = reportOf("made for a test", "test");

/** No two lives draw the same: one may follow another. */
let drawn = 0x100;

export class Life {
  state: AgentState;
  effects: readonly AgentEffect[];
  now = 1_000;

  constructor(kept: Kept = newKept(), body?: AgentState["body"]) {
    const first = begin(kept, body, this.#context());
    this.state = first.state;
    this.effects = first.effects;
  }

  #context() {
    return { now: this.now, draw: () => id(drawn++) };
  }

  get phase(): PhaseKind {
    return this.state.phase.kind;
  }

  get did(): readonly string[] {
    return this.effects.map(({ kind }) => kind).filter((kind) => kind !== "say");
  }

  effect<Kind extends AgentEffect["kind"]>(kind: Kind): Extract<AgentEffect, { kind: Kind }> {
    const found = this.effects.find((effect) => effect.kind === kind);
    if (found === undefined) throw new Error(`Expected ${kind}, received ${this.did.join(", ")}`);
    return found as Extract<AgentEffect, { kind: Kind }>;
  }

  tell(event: AgentEvent): this {
    const next = step(this.state, event, this.#context());
    this.state = next.state;
    this.effects = next.effects;
    return this;
  }

  get ticket(): number {
    return this.state.ticket;
  }

  fail(kind: CallFailure["kind"], retryAfter: number | null = null): this {
    return this.tell({
      kind: "call-failed",
      ticket: this.ticket,
      failure: failure(kind, retryAfter),
    });
  }

  claim(run: RunState = "InventoryCheck"): this {
    if (this.phase === "hello") this.tell({ kind: "hello-answered", ticket: this.ticket });
    return this.tell({ kind: "claimed", ticket: this.ticket, answer: claimAnswer(run) });
  }

  begin(number = 1): this {
    const answer: AttemptAnswer = { decision: "start", number, wipe: [] };
    return this.tell({ kind: "attempt-answered", ticket: this.ticket, answer });
  }

  endStage(): this {
    const { phase } = this.state;
    const attempt = phase.kind === "running" ? phase.attempt : "";
    return this.tell({ kind: "stage-ended", attempt, report, duration: 5 });
  }

  answerResult(next: RunState): this {
    return this.tell({ kind: "result-answered", ticket: this.ticket, next });
  }

  hear(run: RunState, directives: readonly Directive[] = [], told: readonly string[] = []): this {
    return this.tell({ kind: "heard", run, directives, told, asked: this.now });
  }

  /** The process is killed, and another one goes on with what was kept. */
  restart(session = this.state.kept.session): Life {
    const instance = session === null ? this.state.kept.instance : id(0xb);
    return new Life({ ...this.state.kept, instance }, this.state.body);
  }
}

/** One life in each phase. */
export const lives: Readonly<Record<PhaseKind, () => Life>> = {
  hello: () => new Life(),
  claiming: () => new Life().tell({ kind: "hello-answered", ticket: 1 }),
  asking: () => new Life().claim(),
  running: () => new Life().claim().begin(),
  delivering: () => new Life().claim().begin().endStage(),
  holding: () => new Life().claim("FailedHolding"),
  parked: () => new Life().claim("Completed"),
  aborted: () => new Life().claim().hear("Aborted", [directive("abort")]),
  leaving: () => new Life().claim("Completed").hear("Completed", [directive("shutdown")]),
  over: () => {
    const life = new Life().claim("Completed");
    for (const _two of [1, 2]) life.tell({ kind: "unheard", failure: failure("displaced") });
    life.fail("displaced").tell({ kind: "retry-due", ticket: life.ticket });
    return life.fail("displaced");
  },
};

/** Each kind of event, as it may come to a life. */
export function eventsFor(life: Life): readonly AgentEvent[] {
  const { ticket } = life;
  const { phase } = life.state;
  const attempt = phase.kind === "running" ? phase.attempt : id(0);
  const key = "ssh-ed25519 AAAA";
  const events: AgentEvent[] = [
    { kind: "hello-answered", ticket },
    { kind: "attempt-answered", ticket, answer: { decision: "start", number: 1, wipe: [] } },
    { kind: "hold-answered", ticket, key: null, lasts: null },
    { kind: "hold-answered", ticket, key, lasts: 60_000 },
    { kind: "retry-due", ticket },
    { kind: "stage-ended", attempt, report, duration: 1 },
    { kind: "unheard", failure: failure("passing") },
    { kind: "unheard", failure: failure("displaced") },
    { kind: "key-due" },
    { kind: "leave-due" },
    { kind: "farewell-said" },
    { kind: "power-refused", reason: "EPERM" },
  ];
  for (const run of ["InventoryCheck", "SMART", "FailedHolding", "Completed"] as const) {
    const answer = { decision: "go", next_state: run } as const;
    events.push({ kind: "attempt-answered", ticket, answer });
    events.push({ kind: "claimed", ticket, answer: claimAnswer(run) });
    events.push({ kind: "result-answered", ticket, next: run });
  }
  for (const kind of ["passing", "displaced", "refused"] as const) {
    events.push({ kind: "call-failed", ticket, failure: failure(kind) });
  }
  for (const kind of directiveKinds) {
    const directives = [directive(kind, 0xe)];
    events.push({ kind: "heard", run: "SMART", told: [], asked: life.now, directives });
  }
  return events;
}
