/** One device's agent under a step function; events are made from where it stands. */
import { deadlineOf, type step } from "../../../src/fleet/lifecycle.ts";
import type { Journal } from "../../../src/fleet/lifecycle-journal.ts";
import { decodeJournal, encodeJournal } from "../../../src/fleet/lifecycle-journal.ts";
import { type Links, recover } from "../../../src/fleet/lifecycle-recovery.ts";
import type {
  AgentEffect,
  AgentEvent,
  AgentState,
  Context,
  Of,
  Phase,
} from "../../../src/fleet/lifecycle-state.ts";
import type {
  Build,
  EndingCause,
  LastWords,
  Marker,
  RoleHealth,
} from "../../../src/fleet/protocol.ts";

export type StepFunction = typeof step;

const repeated = (digit: string, length: number) => digit.repeat(length);

export const bootOne = "11111111-1111-1111-1111-111111111111";
export const bootTwo = "22222222-2222-2222-2222-222222222222";
export const older: Build = { version: "1.0.0", digest: repeated("0", 64) };
export const oldBuild: Build = { version: "1.1.0", digest: repeated("a", 64) };
export const newBuild: Build = { version: "1.2.0", digest: repeated("b", 64) };
export const thirdBuild: Build = { version: "1.3.0", digest: repeated("c", 64) };
export const transactionOf = (number: number) => number.toString(16).padStart(32, "0");
export const instanceOf = (number: number) => number.toString(16).padStart(32, "f");

export const limits = { staging_ms: 600_000, commit_ms: 120_000, canonical_ms: 60_000 } as const;

export function makeMarker(transaction = 1, changes: Partial<Marker> = {}): Marker {
  return {
    protocol: 1,
    transaction: transactionOf(transaction),
    build: newBuild,
    manifest: "a signed manifest",
    sources: ["https://versions.example/1.2.0"],
    rate: null,
    limits,
    observed: null,
    commit: null,
    withdrawn: null,
    ...changes,
  };
}

export const words: LastWords = {
  ending: "exited with 1",
  log: "no luck",
  processor_seconds: 0.5,
  memory_peak_bytes: 1_000,
};

export const rolesOf = (build: Build, changes: Partial<RoleHealth> = {}): RoleHealth[] => [
  { role: "agent", digest: build.digest, healthy: true, reason: null },
  { role: "vm-worker", digest: build.digest, healthy: true, reason: null, ...changes },
];

export class Life {
  now = 1_000_000;
  boot = bootOne;
  links: Links = { current: oldBuild, previous: older };
  executor: Context["executor"] = "systemd";
  state: AgentState;
  /** Of the last event. */
  effects: readonly AgentEffect[] = [];
  /** The newest, as it is on the disk. */
  journal: Journal | undefined;
  readonly #step: StepFunction;
  #instances = 0;

  /** @param from another life, of which this one is a copy */
  constructor(step: StepFunction, from?: Life) {
    this.#step = step;
    if (from === undefined) {
      this.state = this.#recovered();
      return;
    }
    Object.assign(this, {
      ...{ now: from.now, boot: from.boot, links: from.links, executor: from.executor },
      ...{ effects: from.effects, journal: from.journal },
    });
    this.state = from.state;
    this.#instances = from.#instances;
  }

  /** A copy that goes its own way. */
  fork(step = this.#step): Life {
    return new Life(step, this);
  }

  get #context(): Context {
    const life = this;
    return {
      now: this.now,
      executor: this.executor,
      get nextInstance() {
        life.#instances += 1;
        return instanceOf(life.#instances);
      },
    };
  }

  #recovered(): AgentState {
    const { links, boot, journal } = this;
    const found = {
      ...{ links, boot, self: links.current },
      journal:
        journal === undefined
          ? ({ kind: "absent" } as const)
          : decodeJournal(encodeJournal(journal)),
    };
    const recovered = recover(found, this.#context);
    if (recovered.kind === "refused") throw new Error(recovered.reason);
    this.#take(recovered.effects);
    return recovered.state;
  }

  /** The agent is killed, and what `current` leads to is started. */
  restart(): this {
    this.state = this.#recovered();
    return this;
  }

  reboot(): this {
    this.boot = this.boot === bootOne ? bootTwo : bootOne;
    this.now = 5_000;
    return this.restart();
  }

  #take(effects: readonly AgentEffect[]): void {
    this.effects = effects;
    for (const effect of effects) if (effect.kind === "note") this.journal = effect.journal;
  }

  tell(event: AgentEvent): this {
    if (event.kind === "swapped") this.#swap(event);
    const { state, effects } = this.#step(this.state, event, this.#context);
    this.state = state;
    this.#take(effects);
    return this;
  }

  #swap({ ticket }: Of<"swapped">): void {
    const { life } = this.state;
    if (ticket !== this.state.ticket || !("stage" in life) || life.stage !== "swapping") return;
    this.links =
      life.phase === "reverting"
        ? { current: life.from, previous: life.before }
        : { current: life.marker.build, previous: life.from };
  }

  /** The event must lead there, with these effects, by kind. */
  leads(event: AgentEvent, phase: Phase, ...effects: string[]): this {
    const before = this.state.life.phase;
    this.tell(event);
    requireEqual(`phase after ${event.kind} in ${before}`, this.state.life.phase, phase);
    requireEqual(`effects of ${event.kind} in ${before}`, this.kinds, effects);
    return this;
  }

  /** The event must lead there. */
  goes(event: AgentEvent, phase: Phase): this {
    const before = this.state.life.phase;
    this.tell(event);
    requireEqual(`phase after ${event.kind} in ${before}`, this.state.life.phase, phase);
    return this;
  }

  /** The same of a restart or a reboot. */
  comes(phase: Phase, ...effects: string[]): this {
    requireEqual("phase after a start", this.state.life.phase, phase);
    requireEqual("effects of a start", this.kinds, effects);
    return this;
  }

  get kinds(): string[] {
    return this.effects.map(({ kind }) => kind);
  }

  /** The event must change nothing. */
  ignores(event: AgentEvent): this {
    const before = this.state;
    this.tell(event);
    requireEqual(`state after ${event.kind} in ${before.life.phase}`, this.state, before);
    requireEqual(`effects of ${event.kind} in ${before.life.phase}`, this.effects, []);
    return this;
  }

  /** What the journal's life says must be this. */
  is(part: Partial<Record<string, unknown>>): this {
    for (const [key, value] of Object.entries(part)) {
      const received = Reflect.get(this.state.life, key);
      requireEqual(`${key} in ${this.state.life.phase}`, received, value);
    }
    return this;
  }

  /** The same of the state around it. */
  has(part: Partial<AgentState>): this {
    for (const [key, value] of Object.entries(part)) {
      requireEqual(key, Reflect.get(this.state, key), value);
    }
    return this;
  }

  /** The reason must have this in it. */
  says(text: string): this {
    const reason = String(Reflect.get(this.state.life, "reason"));
    if (!reason.includes(text)) throw new Error(`expected ${text} in the reason: ${reason}`);
    return this;
  }

  pass(time: number): this {
    this.now += time;
    return this;
  }

  /** To the moment that it waits for, which is told. */
  overdue(): this {
    const deadline = deadlineOf(this.state);
    if (deadline === undefined) throw new Error(`${this.state.life.phase} waits for no time`);
    this.now = Math.max(this.now, deadline);
    return this.tell({ kind: "time" });
  }

  get ticket(): number {
    return this.state.ticket;
  }

  /** Of the candidate, or of one that is to end. */
  get instance(): string {
    const { life } = this.state;
    const instance = "instance" in life ? life.instance : null;
    const ending = "ending" in life ? life.ending?.instance : undefined;
    return instance ?? ending ?? instanceOf(99);
  }

  get marker(): Marker {
    return "marker" in this.state.life ? this.state.life.marker : makeMarker();
  }

  marked = (changes: Partial<Marker> = {}): AgentEvent => {
    return { kind: "marker", marker: { ...this.marker, ...changes } };
  };
  observed = (): AgentEvent => this.marked({ observed: this.instance });
  committed = (instance = this.instance): AgentEvent => {
    const { transaction } = this.marker;
    return this.marked({ observed: instance, commit: { transaction, instance } });
  };
  accepted = (floor: string | null = "1.0.5", metadataVersion = 7): AgentEvent => {
    return { kind: "accepted", ticket: this.ticket, floor, metadataVersion };
  };
  answer = (
    kind: "fetched" | "proved" | "intact" | "swapped" | "way-back",
  ): Of<"fetched" | "proved" | "intact" | "swapped" | "way-back"> => {
    return { kind, ticket: this.ticket };
  };
  failed = (reason = "it cannot be", cause: EndingCause = "artifact"): AgentEvent => {
    return { kind: "failed", ticket: this.ticket, reason, cause, lastWords: words };
  };
  candidateReady = (): AgentEvent => ({ kind: "candidate-ready", instance: this.instance });
  candidateEnded = (lastWords: LastWords | null = words): AgentEvent => {
    return { kind: "candidate-ended", instance: this.instance, lastWords };
  };
  heard = (who: "canonical" | "candidate"): AgentEvent =>
    who === "canonical" ? { kind: "heard", who } : { kind: "heard", who, instance: this.instance };
  roles = (roles: readonly RoleHealth[]): AgentEvent => ({ kind: "roles", roles });

  /** From rest to a candidate that is ready. */
  becomesReady(): this {
    this.tell(this.marked()).tell(this.accepted()).tell(this.answer("fetched"));
    return this.tell(this.answer("proved")).tell(this.candidateReady());
  }

  /** From rest to links that are swapped, the old agent still there. */
  swaps(): this {
    this.becomesReady().tell(this.committed()).tell(this.answer("intact"));
    return this.tell(this.answer("swapped"));
  }
}

/** Fails with both values when they differ. */
export function requireEqual(label: string, received: unknown, expected: unknown): void {
  if (Bun.deepEquals(received, expected)) return;
  throw new Error(
    `${label}\n  expected ${JSON.stringify(expected)}\n  received ${JSON.stringify(received)}`,
  );
}
