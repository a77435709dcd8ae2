/** What every cell is seen to do, over all lives and all shapes of events. */
import { step, type Table, table } from "../../../src/vm/lifecycle.ts";
import type { EventKind, MachineState, Outcome, Phase } from "../../../src/vm/lifecycle-state.ts";
import { makeAdoptions, makeEvents } from "./events.ts";
import { Life, nameOf } from "./life.ts";
import { makeLives, phases } from "./lives.ts";

/** What a cell was seen to do. */
export interface Seen {
  readonly phase: Phase;
  readonly event: EventKind;
  readonly leadsTo: Set<Phase>;
  /** Of records, + and what. */
  readonly effects: Set<string>;
  /** The parts of the state that it changed. */
  readonly changes: Set<string>;
}

/** A life, and an event that it is told. */
export interface Case {
  readonly name: string;
  readonly life: Life;
  readonly kind: EventKind;
  /** With the time at which it is told. */
  readonly events: readonly { readonly at: number; readonly event: Parameters<typeof step>[1] }[];
}

/** Every life with every event, now and at the moment that it waits for. */
export function makeCases(): readonly Case[] {
  const lives = makeLives(step);
  const cases = lives.flatMap(({ name, life }) => {
    const late = life.fork();
    const times = [life.now, laterOf(late)];
    return Object.entries(makeEvents(life)).map(([kind, events]) => ({
      name,
      life,
      kind: kind as EventKind,
      events: events.flatMap((event) => times.map((at) => ({ at, event }))),
    }));
  });
  const adoptions = lives.map(({ name, life }) => ({
    name: `nothing, after ${name}`,
    life: new Life(step, life.rules),
    kind: "adopted" as const,
    events: makeAdoptions(life).map((event) => ({ at: life.now, event })),
  }));
  return [...cases, ...adoptions];
}

function laterOf(life: Life): number {
  try {
    return life.untilDeadline().now;
  } catch {
    return life.now + 1;
  }
}

export function outcomesOf(one: Case, decisions: Table): readonly Outcome[] {
  return one.events.map(({ at, event }) => {
    const copy = one.life.fork((state, told, context) => step(state, told, context, decisions));
    copy.now = at;
    copy.tell(event);
    return { state: copy.state, effects: copy.effects };
  });
}

export const keyOf = (phase: Phase, event: EventKind) => `${phase} × ${event}`;

/** What all cells do, under this table. */
export function observe(cases = makeCases(), decisions = table): Map<string, Seen> {
  const seen = new Map<string, Seen>();
  for (const one of cases) {
    const { phase } = one.life.state;
    const key = keyOf(phase, one.kind);
    const cell = seen.get(key) ?? makeSeen(phase, one.kind);
    seen.set(key, cell);
    for (const outcome of outcomesOf(one, decisions)) note(cell, one.life.state, outcome);
  }
  return seen;
}

const makeSeen = (phase: Phase, event: EventKind): Seen => ({
  ...{ phase, event, leadsTo: new Set(), effects: new Set(), changes: new Set() },
});

function note(cell: Seen, before: MachineState, outcome: Outcome): void {
  for (const effect of outcome.effects) cell.effects.add(nameOf(effect));
  if (Bun.deepEquals(before, outcome.state)) return;
  cell.leadsTo.add(outcome.state.phase);
  const parts = new Set([...Object.keys(before), ...Object.keys(outcome.state)]);
  for (const part of parts) {
    // What only one of the two phases has cannot stay.
    if (!(part in before && part in outcome.state)) continue;
    const isSame = Bun.deepEquals(Reflect.get(before, part), Reflect.get(outcome.state, part));
    if (!isSame) cell.changes.add(part);
  }
}

/** In the order of the phases, whatever the order of the cases. */
export const leadsToOf = (seen: Seen | undefined): Phase[] =>
  phases.filter((phase) => seen?.leadsTo.has(phase) === true);
