/**
 * Scenarios: random walks. A small world answers the effects, late, in any order, or not at all,
 * while an operator changes their mind; what must always be so is checked after every event.
 */
import {
  deadlineOf,
  initialState,
  type ProcessEffect,
  type ProcessEvent,
  type ProcessState,
} from "../../../src/process/lifecycle.ts";
import type { ProcessSpecification } from "../../../src/process/specification.ts";
import type { Ending } from "../../../src/units/ending.ts";
import { defaultBackoff } from "../../../src/units/restarts.ts";
import { SeededChance } from "../chance.ts";
import type { Scenario } from "../lifecycle-scenarios.ts";
import { exited, makeSpecification, type StepFunction, signalled, watchdog } from "./life.ts";

const WALKS = 36;
const EVENTS = 250;
const EVENTS_UNTIL_REST = 500;

interface Living {
  isAlive: boolean;
  hasLeftovers: boolean;
  /** The process has been told to the lifecycle, so its death will be too. */
  isKnown: boolean;
  ending: Ending | undefined;
}

interface Coming {
  readonly at: number;
  readonly event: ProcessEvent;
}

class Walk {
  readonly #chance: SeededChance;
  readonly #step: StepFunction;
  readonly #specification: ProcessSpecification;
  readonly #instances = new Map<string, Living>();
  readonly #watched = new Set<string>();
  readonly #lively = new Set<string>();
  readonly #told = new Set<string>();
  #coming: Coming[] = [];
  #now = 0;
  #state: ProcessState = initialState;
  #invocations = 0;
  #isKind = false;

  constructor(seed: number, step: StepFunction) {
    const chance = new SeededChance(seed);
    this.#chance = chance;
    this.#step = step;
    this.#specification = makeSpecification({
      restart: chance.pick(["always", "on-failure", "never"]),
      backoff: chance.pick(["none", defaultBackoff, { ...defaultBackoff, resetAfter: 200 }]),
      startLimit: chance.pick(["none", "none", { starts: 5, within: 2_000 }]),
      readiness: { kind: chance.pick(["started", "notify"]) },
      readyTimeout: 300,
      stopGrace: 200,
      liveness: seed % 2 === 0 ? undefined : watchdog,
    });
  }

  run(): void {
    for (let count = 0; count < EVENTS; count += 1) {
      if (this.#chance.happens(0.15)) this.#operate();
      if (this.#chance.happens(0.3)) this.#killOne();
      if (!this.#advance()) this.#operate();
    }
    this.#isKind = true;
    this.#handle({ kind: "stop", hurry: this.#chance.happens(0.5) });
    for (let count = 0; this.#advance(); count += 1) {
      this.#require(count < EVENTS_UNTIL_REST, "it comes to rest after a stop");
    }
    this.#require(["idle", "finished", "failed"].includes(this.#state.phase), "it rests");
    this.#require(this.#livingCount() === 0, "nothing lives when it rests");
    this.#require(this.#watched.size === 0, "no readiness is watched when it rests");
    this.#require(this.#lively.size === 0, "no liveness is watched when it rests");
    this.#require(!this.#state.wanted, "it is not wanted after a stop");
  }

  #require(condition: boolean, rule: string): void {
    if (!condition) throw new Error(`Broken: ${rule}; in ${JSON.stringify(this.#state)}`);
  }

  #operate(): void {
    const kind = this.#chance.pick(["start", "start", "stop", "restart", "unblocked"]);
    if (kind === "stop") this.#handle({ kind, hurry: this.#chance.happens(0.3) });
    else this.#handle({ kind });
  }

  /** The next event, or the deadline when that is earlier. */
  #advance(): boolean {
    this.#coming.sort((one, other) => one.at - other.at);
    const next = this.#coming[0];
    const deadline = deadlineOf(this.#state);
    if (deadline !== undefined && (next === undefined || deadline <= next.at)) {
      this.#require(deadline >= this.#now, "a deadline is not in the past");
      this.#now = deadline;
      this.#handle({ kind: "deadline" });
      const later = deadlineOf(this.#state);
      this.#require(later === undefined || later > this.#now, "a deadline is handled");
      return true;
    }
    if (next === undefined) return false;
    this.#coming.shift();
    this.#now = next.at;
    this.#deliver(next.event);
    return true;
  }

  #deliver(event: ProcessEvent): void {
    this.#handle(event);
    if (event.kind !== "started" && event.kind !== "found") return;
    const living = this.#instances.get(event.invocation);
    if (living === undefined || living.isKnown) return;
    living.isKnown = true;
    if (!living.isAlive) this.#tellDeath(event.invocation, living);
  }

  #handle(event: ProcessEvent): void {
    const before = this.#state;
    const walk = this;
    const { state, effects } = this.#step(before, event, {
      specification: this.#specification,
      now: this.#now,
      random: this.#chance.random(),
      get nextInvocation() {
        walk.#invocations += 1;
        return `i${walk.#invocations}`;
      },
      reachable: this.#isKind || this.#chance.happens(0.9),
      dependenciesReady: this.#isKind || this.#chance.happens(0.9),
    });
    this.#state = state;
    const more = state.restarts - before.restarts;
    this.#require(more === 0 || more === 1, "restarts are counted one by one");
    for (const effect of effects) this.#perform(effect);
  }

  #perform(effect: ProcessEffect): void {
    switch (effect.kind) {
      case "start":
        this.#start(effect.invocation);
        break;
      case "find":
        this.#find(effect.invocation);
        break;
      case "signal":
        if (this.#isKind || this.#chance.happens(0.6)) this.#die(effect.instance.invocation);
        break;
      case "kill":
        this.#die(effect.instance.invocation);
        break;
      case "clear":
        this.#clear(effect.instance.invocation);
        break;
      case "watch-readiness":
        this.#watched.add(effect.instance.invocation);
        if (this.#chance.happens(0.7)) {
          this.#later({ kind: "became-ready", invocation: effect.instance.invocation }, 400);
        }
        break;
      case "forget-readiness":
        this.#require(this.#watched.delete(effect.invocation), "what is forgotten was watched");
        break;
      case "watch-liveness":
        this.#require(!this.#lively.has(effect.instance.invocation), "it is watched once");
        this.#lively.add(effect.instance.invocation);
        if (this.#chance.happens(0.3)) {
          const { invocation } = effect.instance;
          this.#later({ kind: "unhealthy", invocation, reason: "silent" }, 900);
        }
        break;
      case "forget-liveness":
        this.#require(this.#lively.delete(effect.invocation), "what is forgotten was watched");
        break;
      case "record":
        if (effect.entry.what === "ended" || effect.entry.what === "died") {
          const key = `${effect.entry.what} ${effect.entry.invocation}`;
          this.#require(!this.#told.has(key), "each death and each ending is noted once");
          this.#told.add(key);
        }
        break;
    }
  }

  #later(event: ProcessEvent, most: number): void {
    this.#coming.push({ at: this.#now + this.#chance.below(most) + 1, event });
    this.#require(this.#coming.length < 1_000, "the queue is bounded");
  }

  #livingCount(): number {
    const instances = [...this.#instances.values()];
    return instances.filter(({ isAlive, hasLeftovers }) => isAlive || hasLeftovers).length;
  }

  #start(invocation: string): void {
    this.#require(this.#livingCount() === 0, "nothing lives when it is started");
    this.#require(!this.#instances.has(invocation), "an invocation is used once");
    const isSpawned = this.#chance.happens(0.8);
    if (isSpawned) {
      const hasLeftovers = this.#chance.happens(0.3);
      this.#instances.set(invocation, {
        isAlive: true,
        hasLeftovers,
        isKnown: false,
        ending: undefined,
      });
    }
    const isAnswered = this.#chance.happens(0.7);
    const refusal = { message: "no such file", code: "ENOENT" };
    if (!isAnswered) this.#later({ kind: "answer-lost", invocation }, 100);
    else if (!isSpawned) this.#later({ kind: "start-refused", invocation, refusal }, 50);
    if (isSpawned && this.#chance.happens(isAnswered ? 0.95 : 0.2)) {
      this.#later({ kind: "started", invocation, processId: 1 }, 50);
    }
  }

  /** Looks in the world; what is left of a dead instance is ended by the search. */
  #find(invocation: string): void {
    const living = this.#instances.get(invocation);
    if (living?.isAlive === true) this.#later({ kind: "found", invocation, processId: 1 }, 20);
    else {
      if (living !== undefined) living.hasLeftovers = false;
      this.#later({ kind: "not-found", invocation }, 20);
    }
  }

  #killOne(): void {
    for (const [invocation, living] of this.#instances) {
      if (living.isAlive && this.#chance.happens(0.5)) this.#die(invocation);
    }
  }

  #die(invocation: string): void {
    const living = this.#instances.get(invocation);
    if (living?.isAlive !== true) return;
    living.isAlive = false;
    living.ending = this.#chance.pick([exited(0), exited(1), signalled(9)]);
    if (living.isKnown) this.#tellDeath(invocation, living);
  }

  #tellDeath(invocation: string, living: Living): void {
    const { ending } = living;
    if (ending === undefined) return;
    const isKnownAtOnce = this.#chance.happens(0.5);
    this.#later({ kind: "died", invocation, ending: isKnownAtOnce ? ending : undefined }, 20);
    if (this.#chance.happens(0.7)) this.#later({ kind: "ending-known", invocation, ending }, 100);
    if (this.#chance.happens(0.1)) this.#later({ kind: "ending-known", invocation, ending }, 900);
  }

  #clear(invocation: string): void {
    const living = this.#instances.get(invocation);
    this.#require(living?.isAlive === false, "what is cleared has died");
    if (living !== undefined) living.hasLeftovers = false;
    this.#later({ kind: "cleared", invocation }, 30);
  }
}

export const walks: readonly Scenario[] = Array.from({ length: WALKS }, (_value, seed) => ({
  name: `a random walk, seed ${seed}`,
  run: (step) => new Walk(seed, step).run(),
}));
