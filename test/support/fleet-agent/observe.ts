/** What every cell is seen to do, over all lives and all shapes of events. */
import { deadlineOf, step, type Table, table } from "../../../src/fleet/lifecycle.ts";
import type { AgentEvent, EventKind, Outcome, Phase } from "../../../src/fleet/lifecycle-state.ts";
import type { Life } from "./life.ts";
import { makeEvents, makeLives, phases } from "./lives.ts";

/** What a cell was seen to do. */
export interface Seen {
  readonly phase: Phase;
  readonly event: EventKind;
  readonly leadsTo: Set<Phase>;
  readonly effects: Set<string>;
  /** The parts of the state, or of its life, that it changed. */
  readonly changes: Set<string>;
}

/** A life, and what it is told. */
export interface Case {
  readonly name: string;
  readonly life: Life;
  readonly kind: EventKind;
  readonly events: readonly { readonly at: number; readonly event: AgentEvent }[];
}

/** Every life with every event, now, at the moment that it waits for, and long after. */
export function makeCases(): readonly Case[] {
  return makeLives(step).flatMap(({ name, life }) => {
    const deadline = Math.max(life.now, deadlineOf(life.state) ?? life.now);
    const times = [life.now, deadline, deadline + 1_000_000];
    return Object.entries(makeEvents(life)).map(([kind, events]) => ({
      name,
      life,
      kind: kind as EventKind,
      events: events.flatMap((event) => times.map((at) => ({ at, event }))),
    }));
  });
}

/** What the cell itself decides, without what `step` adds to it. */
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
    const { phase } = one.life.state.life;
    const key = keyOf(phase, one.kind);
    const cell = seen.get(key) ?? makeSeen(phase, one.kind);
    seen.set(key, cell);
    for (const outcome of outcomesOf(one, decisions)) note(cell, one.life, outcome);
  }
  return seen;
}

const makeSeen = (phase: Phase, event: EventKind): Seen => ({
  ...{ phase, event, leadsTo: new Set(), effects: new Set(), changes: new Set() },
});

function note(cell: Seen, { state: before }: Life, { state, effects }: Outcome): void {
  for (const { kind } of effects) cell.effects.add(kind);
  if (Bun.deepEquals(before, state)) return;
  cell.leadsTo.add(state.life.phase);
  for (const [part, was, is] of partsOf(before, state)) {
    if (part !== "step" && part !== "ticket" && !Bun.deepEquals(was, is)) cell.changes.add(part);
  }
}

/** Those of the state; and those of its life that the one before it has as well. */
function* partsOf(before: Outcome["state"], after: Outcome["state"]) {
  for (const part of Object.keys(before)) {
    if (part !== "life") yield [part, Reflect.get(before, part), Reflect.get(after, part)] as const;
  }
  for (const part of Object.keys(before.life)) {
    if (part === "phase" || !(part in after.life)) continue;
    yield [part, Reflect.get(before.life, part), Reflect.get(after.life, part)] as const;
  }
}

/** In the order of the phases, whatever the order of the cases. */
export const leadsToOf = (seen: Seen | undefined): Phase[] =>
  phases.filter((phase) => seen?.leadsTo.has(phase) === true);
