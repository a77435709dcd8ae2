import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { MonotonicTime } from "../../units/units.ts";
import {
  type HealthEffect,
  type HealthEvent,
  type HealthPlan,
  type HealthState,
  type HealthTurn,
  initialHealth,
  type ProbeOutcome,
  stepHealth,
} from "../health.ts";
import { type DeclaredCheck, describeCheck, healthPlanOf } from "../health-configuration.ts";
import { healthEventOf } from "../health-follow.ts";
import { matchesPattern } from "../health-pattern.ts";
import type { MachineEvent, MachineState } from "../lifecycle-state.ts";
import type { VmHealth } from "../protocol.ts";
import { type ProbeTarget, probeHealth } from "./health-probes.ts";

/** A check has turned, and what its plan says of that. */
export interface ToldTurn {
  /** In words. */
  readonly check: string;
  readonly plan: HealthPlan;
  readonly turn: HealthTurn;
  /** Since the boot, or since this worker watches it. */
  readonly wasHealthy: boolean;
}

export interface HealthHandlers {
  readonly address: () => string | undefined;
  /** undefined: nobody can ask an agent in this machine. */
  readonly pingAgent: () => (() => Promise<unknown>) | undefined;
  readonly onTurn: (told: ToldTurn) => void;
  /** All patterns that were said since the boot: to be written down for the next worker. */
  readonly onSaid: (said: readonly string[]) => void;
}

/**
 * The checks of one machine. Each has at most one probe under way, and so a worker has at most as
 * many as its machines have checks.
 */
export class MachineHealth implements Disposable {
  readonly #loop: EventLoop;
  readonly #handlers: HealthHandlers;
  #checks: WatchedCheck[] = [];
  /** Patterns that a line has had since the boot. */
  #said: Set<string>;
  /** Whether all has been heard that was said since the boot. */
  #isHeard = false;
  #isRunning = false;
  #hasRun = false;
  /** A guest that does not answer is not asked twice at once. */
  #ping: Promise<unknown> | undefined;

  /** @param said what earlier workers have heard since the boot */
  constructor(
    loop: EventLoop,
    options: {
      readonly declared: readonly DeclaredCheck[];
      readonly said: readonly string[];
      readonly handlers: HealthHandlers;
    },
  ) {
    this.#loop = loop;
    this.#handlers = options.handlers;
    this.#said = new Set(options.said);
    this.#make(options.declared);
  }

  /** Other checks from now on; what runs begins with the grace of a boot. */
  declare(declared: readonly DeclaredCheck[]): void {
    for (const check of this.#checks) check[Symbol.dispose]();
    const patterns = patternsOf(declared);
    // What was not listened for may have been said.
    if (patterns.some((pattern) => !patternsOf(this.#declared()).includes(pattern))) {
      this.#isHeard = false;
    }
    this.#make(declared);
    if (this.#isRunning) this.#tellAll({ kind: "running", booted: true });
  }

  #declared(): readonly DeclaredCheck[] {
    return this.#checks.map(({ declared }) => declared);
  }

  #make(declared: readonly DeclaredCheck[]): void {
    this.#checks = declared.map(
      (one) => new WatchedCheck(this.#loop, one, this.#target, this.#handlers.onTurn),
    );
  }

  readonly #target = (): ProbeTarget => {
    const ping = this.#handlers.pingAgent();
    return {
      address: this.#handlers.address(),
      pingAgent: ping === undefined ? undefined : () => this.#pingOnce(ping),
      hasSaid: (pattern) => this.#said.has(pattern) || (this.#isHeard ? false : undefined),
    };
  };

  #pingOnce(ping: () => Promise<unknown>): Promise<unknown> {
    this.#ping ??= ping().finally(() => {
      this.#ping = undefined;
    });
    return this.#ping;
  }

  /** What happened to the machine. */
  follow(step: {
    readonly before: MachineState;
    readonly event: MachineEvent;
    readonly after: MachineState;
  }): void {
    const event = healthEventOf(step, this.#hasRun);
    if (event === undefined) return;
    this.#isRunning = event.kind === "running";
    this.#hasRun ||= this.#isRunning;
    this.#tellAll(event);
  }

  #tellAll(event: HealthEvent): void {
    for (const check of this.#checks) check.handle(event);
  }

  /** A guest is about to boot, and nothing that it says is missed. */
  listenAnew(): void {
    this.#isHeard = true;
    this.#said = new Set();
  }

  /** A line of the console; a guest decides what is in it. */
  hear(line: string): void {
    const patterns = patternsOf(this.#declared());
    const found = patterns.filter(
      (pattern) => !this.#said.has(pattern) && matchesPattern(pattern, line),
    );
    if (found.length === 0) return;
    for (const pattern of found) this.#said.add(pattern);
    // Of a check that is declared no more nobody asks.
    const said = [...this.#said].filter((pattern) => patterns.includes(pattern));
    this.#handlers.onSaid(said);
  }

  /** null for a machine without checks. */
  get view(): VmHealth | null {
    if (this.#checks.length === 0) return null;
    const checks = this.#checks.map((check) => check.view);
    const states = new Set(checks.map(({ state }) => state));
    const worst = (["unhealthy", "starting", "healthy"] as const).find((one) => states.has(one));
    return { state: worst ?? "resting", checks };
  }

  [Symbol.dispose](): void {
    for (const check of this.#checks) check[Symbol.dispose]();
  }
}

const patternsOf = (declared: readonly DeclaredCheck[]) =>
  declared.flatMap((one) => (one.kind === "serial" ? [one.pattern] : []));

/** One check: waits, decides by `stepHealth`, and asks. */
class WatchedCheck implements Disposable {
  readonly declared: DeclaredCheck;
  readonly #loop: EventLoop;
  readonly #plan: HealthPlan;
  readonly #target: () => ProbeTarget;
  readonly #onTurn: (told: ToldTurn) => void;
  #state: HealthState = initialHealth;
  #timer: Disposable | undefined;
  #probe: Disposable | undefined;
  #last: { readonly outcome: ProbeOutcome; readonly at: MonotonicTime } | undefined;
  #wasHealthy = false;
  #probes = 0;
  #failures = 0;

  constructor(
    loop: EventLoop,
    declared: DeclaredCheck,
    target: () => ProbeTarget,
    onTurn: (told: ToldTurn) => void,
  ) {
    this.#loop = loop;
    this.declared = declared;
    this.#plan = healthPlanOf(declared);
    this.#target = target;
    this.#onTurn = onTurn;
  }

  handle(event: HealthEvent): void {
    if (event.kind === "running" && event.booted) this.#wasHealthy = false;
    const { state, effects } = stepHealth(this.#plan, this.#state, event, monotonicNow());
    this.#state = state;
    for (const effect of effects) this.#perform(effect);
    if (state.phase === "resting") this.#rest();
  }

  #perform(effect: HealthEffect): void {
    switch (effect.kind) {
      case "probe":
        this.#ask(effect.number);
        return;
      case "abandon":
        this.#probe?.[Symbol.dispose]();
        this.#probe = undefined;
        return;
      case "wake":
        this.#timer?.[Symbol.dispose]();
        this.#timer = this.#loop.wakeAt(effect.at, () => this.#wake());
        return;
      case "turned":
        this.#turn(effect.turn);
        return;
    }
  }

  #wake(): void {
    const { timeout } = this.#plan;
    const state = this.#state;
    const probing = state.phase === "resting" ? undefined : state.probing;
    // An answer that came would have been noted, and nothing would be asked now.
    if (probing?.kind === "asking" && monotonicNow() >= probing.since + timeout) {
      this.#note({ kind: "failed", reason: `no answer within ${timeout} ms` });
    }
    this.handle({ kind: "time" });
  }

  #ask(number: number): void {
    const { check, timeout } = this.#plan;
    this.#probes += 1;
    this.#probe = probeHealth(this.#loop, check, {
      target: this.#target(),
      timeout,
      onOutcome: (outcome) => {
        this.#probe = undefined;
        this.#note(outcome);
        this.handle({ kind: "answered", number, outcome });
      },
    });
  }

  #note(outcome: ProbeOutcome): void {
    this.#last = { outcome, at: monotonicNow() };
    if (outcome.kind === "failed") this.#failures += 1;
  }

  #turn(turn: HealthTurn): void {
    const wasHealthy = this.#wasHealthy;
    this.#wasHealthy ||= turn.to === "healthy";
    const check = describeCheck(this.#plan.check);
    this.#onTurn({ check, plan: this.#plan, turn, wasHealthy });
  }

  #rest(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    this.#last = undefined;
  }

  get view(): VmHealth["checks"][number] {
    const last = this.#last;
    return {
      check: describeCheck(this.#plan.check),
      state: this.#state.phase,
      reason: last === undefined || last.outcome.kind === "passed" ? null : last.outcome.reason,
      answered_ms: last === undefined ? null : Math.round(monotonicNow() - last.at),
      probes: this.#probes,
      failures: this.#failures,
    };
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    this.#probe?.[Symbol.dispose]();
  }
}
