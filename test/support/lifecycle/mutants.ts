/** Tables from which one thing is taken away, and whether any scenario notices. */
import {
  type EventKind,
  type Outcome,
  type Phase,
  type ProcessEffect,
  type ProcessState,
  step,
  type Table,
  table,
} from "../../../src/process/lifecycle.ts";
import { type Scenario, scenarios } from "../lifecycle-scenarios.ts";
import type { StepFunction } from "./life.ts";

/** What a cell was seen to do, all scenarios together. */
export interface Observed {
  readonly phase: Phase;
  readonly event: EventKind;
  readonly leadsTo: Set<Phase>;
  /** The kinds of effects; of records, "record" and what. */
  readonly effects: Set<string>;
  /** The parts of the state that it changed. */
  readonly changes: Set<string>;
}

export interface Mutant {
  readonly name: string;
  readonly table: Table;
}

type Cell = (state: ProcessState, event: unknown, context: unknown) => Outcome;

const phases = Object.keys(table) as Phase[];

/** Runs every scenario, and notes what each cell does. */
export function observe(): Map<string, Observed> {
  const observed = new Map<string, Observed>();
  const watched: StepFunction = (state, event, context, decisions) => {
    const outcome = step(state, event, context, decisions);
    const key = `${state.phase} × ${event.kind}`;
    const cell = observed.get(key) ?? {
      phase: state.phase,
      event: event.kind,
      leadsTo: new Set(),
      effects: new Set(),
      changes: new Set(),
    };
    observed.set(key, cell);
    note(cell, state, outcome);
    return outcome;
  };
  for (const scenario of scenarios) scenario.run(watched);
  return observed;
}

function note(cell: Observed, before: ProcessState, outcome: Outcome): void {
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

export function nameOf(effect: ProcessEffect): string {
  return effect.kind === "record" ? `record ${effect.entry.what}` : effect.kind;
}

/** One thing taken away at a time. */
export function makeMutants(observed: ReadonlyMap<string, Observed>): Mutant[] {
  const mutants: Mutant[] = [];
  for (const [key, cell] of observed) {
    const handler = table[cell.phase][cell.event] as Cell | { ignored: string };
    if (typeof handler !== "function") continue;
    const add = (what: string, replaced: Cell | { ignored: string }) =>
      mutants.push({ name: `${key}: ${what}`, table: replace(cell, replaced) });
    add("ignored", { ignored: "a mutation" });
    for (const effect of cell.effects) {
      add(`without the effect ${effect}`, (...given) => {
        const { state, effects } = handler(...given);
        return { state, effects: effects.filter((one) => nameOf(one) !== effect) };
      });
    }
    if (cell.changes.size > 0) {
      add("the state stays", (before, ...rest) => {
        return { state: before, effects: handler(before, ...rest).effects };
      });
    }
    for (const part of cell.changes) {
      if (part === "phase") continue;
      add(`${part} stays`, (before, ...rest) => undo(part, before, handler(before, ...rest)));
    }
  }
  return mutants;
}

function undo(part: string, before: ProcessState, outcome: Outcome): Outcome {
  if (!(part in before && part in outcome.state)) return outcome;
  return { ...outcome, state: { ...outcome.state, [part]: Reflect.get(before, part) } };
}

function replace(cell: Observed, replaced: Cell | { ignored: string }): Table {
  const row = { ...table[cell.phase], [cell.event]: replaced };
  return { ...table, [cell.phase]: row } as Table;
}

/** The scenario that notices the mutant, if any does. */
export function findCatcher(mutant: Mutant): Scenario | undefined {
  const mutated: StepFunction = (state, event, context) =>
    step(state, event, context, mutant.table);
  return scenarios.find((scenario) => {
    try {
      scenario.run(mutated);
      return false;
    } catch {
      return true;
    }
  });
}

/** Cells that have a handler, as "phase × event". */
export function handledCells(): string[] {
  return phases.flatMap((phase) =>
    Object.entries(table[phase])
      .filter(([, cell]) => typeof cell === "function")
      .map(([event]) => `${phase} × ${event}`),
  );
}
