/** Which of several acts: every phase × every event, and never two at once. */
import { describe, expect, test } from "bun:test";
import {
  holderOf,
  isActing,
  type SeenTerm,
  stepTerm,
  type TermContext,
  type TermEntry,
  type TermEvent,
  type TermState,
  type TermWitness,
  termLimits,
} from "../../../src/store/term/lifecycle-term.ts";
import { SeededChance } from "../../support/chance.ts";

const { term, margin, renewEvery, retryAfter } = termLimits;

const context = (now: number, change: Partial<TermContext> = {}): TermContext => ({
  ...{ now, holder: "host-a", run: "a".repeat(32), witness: undefined, chance: "c".repeat(32) },
  ...change,
});

const entry = (change: Partial<TermEntry> = {}): TermEntry => ({
  ...{ version: 1, holder: "host-b", run: "b".repeat(32), term: 4 },
  ...{ incarnation: "i".repeat(32), jump: 0, isReleased: false },
  ...change,
});
const another: SeenTerm = { revision: 7, entry: entry() };

/** One that watches another from time 0. */
const watching = () => stepTerm({ phase: "looking" }, { kind: "seen", seen: another }, context(0));

/** One that has claimed at time 0, and was told so at once. */
function acting(): TermState {
  const { state } = stepTerm({ phase: "looking" }, { kind: "seen", seen: undefined }, context(0));
  return stepTerm(state, { kind: "written", revision: 8 }, context(0)).state;
}

describe("who stands by", () => {
  test("waits a term and a margin from when it saw the entry first, and then claims it", () => {
    const { state, wakeAt } = watching();
    expect(wakeAt).toBe(term + margin);
    expect(holderOf(state)).toBe("host-b");
    const early = stepTerm(state, { kind: "time" }, context(term + margin - 1));
    expect(early.effects).toEqual([]);
    const claim = stepTerm(state, { kind: "time" }, context(term + margin));
    expect(claim.effects).toMatchObject([
      {
        kind: "write",
        expect: 7,
        entry: { holder: "host-a", term: 5, incarnation: "i".repeat(32) },
      },
    ]);
  });

  test("waits anew after each renewal", () => {
    const { state } = watching();
    const renewal = { kind: "seen", seen: { revision: 9, entry: entry() } } as const;
    const renewed = stepTerm(state, renewal, context(10_000));
    expect(renewed.wakeAt).toBe(10_000 + term + margin);
    // The same once more is no renewal.
    const again = stepTerm(renewed.state, renewal, context(12_000));
    expect(again.wakeAt).toBe(10_000 + term + margin);
  });

  test("claims at once what was released, or was never there", () => {
    const released = { revision: 7, entry: entry({ isReleased: true }) };
    for (const seen of [undefined, released]) {
      const { effects } = stepTerm({ phase: "looking" }, { kind: "seen", seen }, context(0));
      expect(effects.at(-1)).toMatchObject({ kind: "write", expect: seen?.revision ?? 0 });
    }
  });

  test("that was overtaken, or does not know, waits a whole term again", () => {
    const { state } = stepTerm(watching().state, { kind: "time" }, context(20_000));
    for (const isConflict of [true, false]) {
      const refused = { kind: "refused", isConflict, reason: "no" } as const;
      const after = stepTerm(state, refused, context(21_000));
      expect(after).toMatchObject({ state: { phase: "watching" }, effects: [] });
      expect(after.wakeAt).toBe(21_000 + term + margin);
    }
  });

  test("whose claim is told too late takes its own entry for another's", () => {
    const { state } = stepTerm(watching().state, { kind: "time" }, context(20_000));
    const late = stepTerm(state, { kind: "written", revision: 9 }, context(20_000 + term));
    expect(late.state.phase).toBe("watching");
    expect(late.effects.some(({ kind }) => kind === "begin")).toBe(false);
    expect(late.wakeAt).toBe(20_000 + term + term + margin);
  });

  test("looks anew when the store was put back", () => {
    const { state } = stepTerm(watching().state, { kind: "reset" }, context(1_000));
    expect(state.phase).toBe("looking");
  });
});

describe("who acts", () => {
  test("does so until a term after it asked, and renews in time", () => {
    const state = acting();
    expect([isActing(state, 0), isActing(state, term - 1), isActing(state, term)]).toEqual([
      true,
      true,
      false,
    ]);
    const due = stepTerm(state, { kind: "time" }, context(renewEvery));
    expect(due.effects).toMatchObject([{ kind: "write", expect: 8, entry: { term: 1 } }]);
    // It counts from when it asked, however late the answer is.
    const renewed = stepTerm(
      due.state,
      { kind: "written", revision: 9 },
      context(renewEvery + 900),
    );
    expect(isActing(renewed.state, renewEvery + term - 1)).toBe(true);
    expect(isActing(renewed.state, renewEvery + term)).toBe(false);
  });

  test("notes on its host how far it has seen, before it begins", () => {
    const { state } = stepTerm({ phase: "looking" }, { kind: "seen", seen: undefined }, context(0));
    const { effects } = stepTerm(state, { kind: "written", revision: 8 }, context(0));
    expect(effects.map(({ kind }) => kind)).toEqual(["witness", "begin"]);
    expect(effects[0]).toEqual({ kind: "witness", witness: { position: 8 } });
  });

  test("tries a renewal again whose fate is not known, and ends when its time is over", () => {
    const due = stepTerm(acting(), { kind: "time" }, context(renewEvery));
    const refused = { kind: "refused", isConflict: false, reason: "away" } as const;
    const waits = stepTerm(due.state, refused, context(6_000));
    expect(waits.wakeAt).toBe(6_000 + retryAfter);
    const over = stepTerm(waits.state, { kind: "time" }, context(term));
    expect(over.effects).toMatchObject([{ kind: "end" }]);
    expect(over.state.phase).toBe("over");
  });

  const ends: Record<string, TermEvent> = {
    "another has written": { kind: "seen", seen: { revision: 9, entry: entry() } },
    "its entry is gone": { kind: "seen", seen: undefined },
    "its renewal conflicts": { kind: "refused", isConflict: true, reason: "conflict" },
    "the store was put back": { kind: "reset" },
  };
  test.each(Object.entries(ends))("ends when %s", (_name, event) => {
    const step = stepTerm(acting(), event, context(1_000));
    expect(step.state.phase).toBe("over");
    expect(step.effects).toMatchObject([{ kind: "end" }]);
    expect(isActing(step.state, 1_000)).toBe(false);
  });

  test("acts no more from when it releases, and tells the others", () => {
    const release = stepTerm(acting(), { kind: "release" }, context(1_000));
    expect(release.effects).toMatchObject([{ kind: "write", entry: { isReleased: true } }]);
    expect(isActing(release.state, 1_000)).toBe(false);
    const done = stepTerm(release.state, { kind: "written", revision: 9 }, context(1_001));
    expect(done).toMatchObject({ state: { phase: "over" }, effects: [] });
  });

  test("hears of its own renewals, and of what it has followed, without a word", () => {
    const own = entry({ run: "a".repeat(32) });
    for (const seen of [{ revision: 9, entry: own }, another]) {
      const step = stepTerm(acting(), { kind: "seen", seen }, context(1_000));
      expect(step).toMatchObject({ state: { phase: "acting" }, effects: [] });
    }
  });
});

test("what is over stays so, whatever comes", () => {
  const events: readonly TermEvent[] = [
    ...Object.values<TermEvent>({
      seen: { kind: "seen", seen: undefined },
      written: { kind: "written", revision: 1 },
      refused: { kind: "refused", isConflict: false, reason: "" },
      reset: { kind: "reset" },
      release: { kind: "release" },
      time: { kind: "time" },
    }),
  ];
  for (const event of events) {
    expect(stepTerm({ phase: "over" }, event, context(1e9))).toEqual({
      state: { phase: "over" },
      effects: [],
      wakeAt: undefined,
    });
  }
});

test("a store with less than was seen begins a new incarnation, above all of it", () => {
  const witness: TermWitness = { position: 1_000 };
  const found = stepTerm(
    { phase: "looking" },
    { kind: "seen", seen: { revision: 7, entry: entry({ isReleased: true }) } },
    context(0, { witness }),
  );
  expect(found.effects.map(({ kind }) => kind)).toEqual(["write"]);
  expect(found.effects[0]).toMatchObject({
    entry: { incarnation: "c".repeat(32), jump: 1_000 + 2 ** 32 },
  });
  const level = stepTerm(
    { phase: "looking" },
    { kind: "seen", seen: { revision: 1_000, entry: entry({ isReleased: true }) } },
    context(0, { witness }),
  );
  expect(level.effects.at(-1)).toMatchObject({ entry: { incarnation: "i".repeat(32), jump: 0 } });
});

/** A store that loses answers, and masters whose messages, timers and turns are late. */
class World {
  readonly #chance: SeededChance;
  readonly #masters: readonly Master[] = ["a", "b", "c"].map((name) => newMaster(name));
  #now = 0;
  #stored: SeenTerm | undefined;
  #revision = 0;
  readonly #agenda: { at: number; act: () => void }[] = [];
  turns = 0;
  holders = new Set<string>();

  constructor(seed: number) {
    this.#chance = new SeededChance(seed);
  }

  run(time: number): void {
    for (const master of this.#masters) this.#look(master);
    while (this.#now < time) {
      this.#agenda.sort((one, other) => one.at - other.at);
      const next = this.#agenda.shift();
      if (next === undefined) break;
      this.#now = Math.max(this.#now, next.at);
      next.act();
      this.#check();
      this.turns += 1;
    }
  }

  #after(delay: number, act: () => void): void {
    this.#agenda.push({ at: this.#now + delay, act });
  }

  /** Now and then a message, a timer, or a whole process is very late. */
  #delay(): number {
    return this.#chance.happens(0.04) ? this.#chance.below(60_000) : this.#chance.below(50);
  }

  #look(master: Master): void {
    const seen = this.#stored;
    this.#after(this.#delay(), () => this.#take(master, { kind: "seen", seen }));
  }

  #take(master: Master, event: TermEvent): void {
    // A stopped process takes what has come when it goes on.
    if (this.#now < master.stoppedUntil) {
      this.#after(master.stoppedUntil - this.#now, () => this.#take(master, event));
      return;
    }
    if (this.#chance.happens(0.01)) master.stoppedUntil = this.#now + this.#chance.below(90_000);
    const { run } = master;
    const step = stepTerm(
      master.state,
      event,
      context(this.#now, { holder: master.name, run, chance: "c".repeat(32) }),
    );
    master.state = step.state;
    for (const effect of step.effects) {
      if (effect.kind === "begin") this.holders.add(master.name);
      if (effect.kind === "write") {
        const { entry: written, expect: expected } = effect;
        this.#after(this.#delay(), () => this.#write(master, written, expected));
      }
    }
    if (step.state.phase === "over") {
      this.#after(1_000, () => {
        Object.assign(master, newMaster(master.name));
        this.#look(master);
      });
      return;
    }
    const { wakeAt } = step;
    if (wakeAt === undefined) return;
    this.#after(Math.max(0, wakeAt - this.#now) + this.#delay(), () => {
      if (master.run === run) this.#take(master, { kind: "time" });
    });
  }

  #write(master: Master, written: TermEntry, expected: number): void {
    const answer = (event: TermEvent) => {
      const { run } = master;
      this.#after(this.#delay(), () => master.run === run && this.#take(master, event));
    };
    if (this.#chance.happens(0.03)) {
      answer({ kind: "refused", isConflict: false, reason: "away" });
      if (this.#chance.happens(0.5)) return;
    }
    if ((this.#stored?.revision ?? 0) !== expected) {
      answer({ kind: "refused", isConflict: true, reason: "conflict" });
      return;
    }
    this.#revision += 1;
    this.#stored = { revision: this.#revision, entry: written };
    answer({ kind: "written", revision: this.#revision });
    for (const each of this.#masters) this.#look(each);
  }

  #check(): void {
    const those = this.#masters.filter(({ state }) => isActing(state, this.#now));
    if (those.length > 1) throw new Error(`${those.map(({ name }) => name).join(" and ")} act`);
  }
}

interface Master {
  readonly name: string;
  state: TermState;
  /** Of the process that it is now. */
  run: string;
  stoppedUntil: number;
}

let runs = 0;
function newMaster(name: string): Master {
  runs += 1;
  const run = String(runs).padStart(32, "0");
  return { name, state: { phase: "looking" }, run, stoppedUntil: 0 };
}

test("never do two act at once, and one does again whatever becomes of the others", () => {
  let changes = 0;
  for (let seed = 1; seed <= 60; seed += 1) {
    const world = new World(seed);
    world.run(600_000);
    expect(world.turns).toBeGreaterThan(100);
    changes += world.holders.size - 1;
  }
  // They do lose it, and others take it over.
  expect(changes).toBeGreaterThan(20);
});
