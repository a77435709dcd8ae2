/** One machine under a step function; events are made from where it stands. */
import type { GuestState } from "../../../src/hypervisor/driver.ts";
import type { Ending } from "../../../src/units/ending.ts";
import { defaultBackoff } from "../../../src/units/restarts.ts";
import { deadlineOf, instanceOf, type step } from "../../../src/vm/lifecycle.ts";
import {
  initialState,
  type MachineEffect,
  type MachineEvent,
  type MachineRules,
  type MachineState,
  type Note,
  type Of,
  type Phase,
  type VmmCall,
} from "../../../src/vm/lifecycle-state.ts";

export type StepFunction = typeof step;

export const exited = (status: number): Ending => ({ kind: "exited", status });

export const refusal = { message: "no space left", code: "ENOSPC", lasts: false } as const;
export const lasting = { message: "the hash is another", code: undefined, lasts: true } as const;

export const defaultRules: MachineRules = {
  restart: "on-failure",
  backoff: defaultBackoff,
  startLimit: "none",
  shutdownGrace: 5_000,
};

export class Life {
  readonly rules: MachineRules;
  now = 1_000;
  state: MachineState = initialState;
  /** Of the last event. */
  effects: readonly MachineEffect[] = [];
  /** The newest note, as it is on the disk. */
  note: Note | undefined;
  readonly #step: StepFunction;
  #invocations = 0;

  constructor(step: StepFunction, rules: Partial<MachineRules> = {}) {
    this.#step = step;
    this.rules = { ...defaultRules, ...rules };
  }

  /** A copy that goes its own way. */
  fork(step = this.#step): Life {
    const copy = new Life(step, this.rules);
    copy.now = this.now;
    copy.state = this.state;
    copy.note = this.note;
    copy.#invocations = this.#invocations;
    return copy;
  }

  tell(event: MachineEvent): this {
    const life = this;
    const { state, effects } = this.#step(this.state, event, {
      rules: this.rules,
      now: this.now,
      random: 0.5,
      get nextInvocation() {
        life.#invocations += 1;
        return `i${life.#invocations}`;
      },
    });
    this.state = state;
    this.effects = effects;
    for (const effect of effects) if (effect.kind === "note") this.note = effect.note;
    return this;
  }

  /** The event must lead there, with these effects, by kind; of records, what they say. */
  leads(event: MachineEvent, phase: Phase, ...effects: string[]): this {
    const before = this.state.phase;
    this.tell(event);
    requireEqual(`phase after ${event.kind} in ${before}`, this.state.phase, phase);
    requireEqual(`effects of ${event.kind} in ${before}`, this.effects.map(nameOf), effects);
    return this;
  }

  /** The event must lead there. */
  goes(event: MachineEvent, phase: Phase): this {
    const before = this.state.phase;
    this.tell(event);
    requireEqual(`phase after ${event.kind} in ${before}`, this.state.phase, phase);
    return this;
  }

  /** The event must change nothing. */
  ignores(event: MachineEvent): this {
    const before = this.state;
    this.tell(event);
    requireEqual(`state after ${event.kind} in ${before.phase}`, this.state, before);
    requireEqual(`effects of ${event.kind} in ${before.phase}`, this.effects, []);
    return this;
  }

  /** What the state says must be this. */
  is(part: Partial<Record<string, unknown>>): this {
    for (const [key, value] of Object.entries(part)) {
      requireEqual(`${key} in ${this.state.phase}`, Reflect.get(this.state, key), value);
    }
    return this;
  }

  pass(time: number): this {
    this.now += time;
    return this;
  }

  /** To the moment that it waits for. */
  untilDeadline(): this {
    const deadline = deadlineOf(this.state);
    if (deadline === undefined) throw new Error(`${this.state.phase} waits for no time`);
    this.now = Math.max(this.now, deadline);
    return this;
  }

  /** Of the start under way, or of the VMM. */
  get invocation(): string {
    if ("invocation" in this.state) return this.state.invocation;
    return instanceOf(this.state)?.invocation ?? this.state.lastInvocation ?? "none";
  }

  /** Of the VMM that is made ready beside it. */
  get successor(): string {
    return ("successor" in this.state ? this.state.successor?.invocation : undefined) ?? "none";
  }

  get ticket(): number {
    return this.state.ticket;
  }

  prepared = (): MachineEvent => ({ kind: "prepared", invocation: this.invocation });
  networkReady = (): MachineEvent => ({ kind: "network-ready", invocation: this.invocation });
  spawned = (kind: "spawned" | "found" = "spawned"): Of<"spawned" | "found"> => {
    const processId = 100 + this.#invocations;
    return { kind, invocation: this.invocation, processId, startTicks: 7 };
  };
  successorSpawned = (): MachineEvent => ({ ...this.spawned(), ...this.#ofSuccessor() });
  /** It waits for the state. */
  successorWaits = (guest: GuestState = "incoming"): MachineEvent => ({
    ...this.attached(guest),
    ...this.#ofSuccessor(),
  });
  successorDied = (): MachineEvent => ({ ...this.died(), ...this.#ofSuccessor() });
  readonly #ofSuccessor = () => ({ invocation: this.successor });
  attached = (guest: GuestState, captured = false): Of<"attached"> => {
    const { invocation, ticket } = this;
    return { kind: "attached", invocation, ticket, guest, captured };
  };
  done = (call: VmmCall, machine: "kept" | "taken" = "kept"): MachineEvent => {
    const { invocation, ticket } = this;
    return { kind: "done", invocation, ticket, call, machine };
  };
  refused = (call: VmmCall): MachineEvent => {
    const { invocation, ticket } = this;
    return { kind: "refused", invocation, ticket, call, refusal };
  };
  attachRefused = (): Of<"attach-refused"> => {
    const { invocation, ticket } = this;
    return { kind: "attach-refused", invocation, ticket, refusal };
  };
  died = (ending: Ending | "untold" = exited(1)): Of<"died"> => {
    const known = ending === "untold" ? undefined : ending;
    return { kind: "died", invocation: this.invocation, ending: known };
  };
  cleared = (captured = false): MachineEvent => {
    return { kind: "cleared", invocation: this.invocation, captured };
  };
  lost = (): Of<"connection-lost"> => {
    return { kind: "connection-lost", invocation: this.invocation, reason: "end of stream" };
  };
  off = (by: "guest" | "host" = "guest"): MachineEvent => {
    return { kind: "guest-off", invocation: this.invocation, by };
  };

  /** From nothing, or from rest, to a guest that runs. */
  runs(): this {
    if (this.state.phase === "absent") this.tell({ kind: "create", wanted: "running" });
    if (this.state.phase === "preparing") this.tell(this.prepared());
    if (this.state.phase === "preparing-network") this.tell(this.networkReady());
    this.tell(this.spawned()).tell(this.attached("created"));
    return this.tell(this.done("create")).tell(this.done("boot"));
  }
}

export function nameOf(effect: MachineEffect): string {
  return effect.kind === "record" ? `+${effect.entry.what}` : effect.kind;
}

/** Fails with both values when they differ. */
export function requireEqual(label: string, received: unknown, expected: unknown): void {
  if (Bun.deepEquals(received, expected)) return;
  throw new Error(`${label}\n  expected ${show(expected)}\n  received ${show(received)}`);
}

function show(value: unknown): string {
  return JSON.stringify(value, (_key, part) => (part === undefined ? "undefined" : part)) ?? "";
}
