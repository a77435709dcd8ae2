/** Tables from which one thing is taken away. */
import { type Table, table } from "../../../src/fleet/lifecycle.ts";
import type { AgentState, EventKind, Outcome, Phase } from "../../../src/fleet/lifecycle-state.ts";
import type { Seen } from "./observe.ts";

export interface Mutant {
  readonly name: string;
  readonly phase: Phase;
  readonly event: EventKind;
  readonly table: Table;
}

type Cell = (state: AgentState, event: unknown, context: unknown) => Outcome;

/** One thing taken away at a time; the note is made by `step`. */
export function makeMutants(observed: ReadonlyMap<string, Seen>): Mutant[] {
  const mutants: Mutant[] = [];
  for (const [key, cell] of observed) {
    const { phase, event } = cell;
    const handler = table[phase][event] as Cell | { ignored: string };
    if (typeof handler !== "function") continue;
    const add = (what: string, replaced: Cell | { ignored: string }) => {
      const row = { ...table[phase], [event]: replaced };
      mutants.push({ name: `${key}: ${what}`, phase, event, table: { ...table, [phase]: row } });
    };
    add("ignored", { ignored: "a mutation" });
    for (const effect of cell.effects) {
      if (isByStep(effect, event)) continue;
      add(`without the effect ${effect}`, (...given) => {
        const { state, effects } = handler(...given);
        return { state, effects: effects.filter(({ kind }) => kind !== effect) };
      });
    }
    if (cell.changes.size > 0 || cell.leadsTo.size > 0) {
      add("the state stays", (before, ...rest) => {
        return { state: before, effects: handler(before, ...rest).effects };
      });
    }
    for (const part of cell.changes) {
      add(`${part} stays`, (before, ...rest) => undo(part, before, handler(before, ...rest)));
    }
  }
  return mutants;
}

/** What `step` adds to what a cell decides is none of the cell's; stories have it. */
const isByStep = (effect: string, event: EventKind) =>
  effect === "note" || (effect === "check" && event !== "marker");

function undo(part: string, before: AgentState, outcome: Outcome): Outcome {
  const { state } = outcome;
  if (part in before) {
    return { ...outcome, state: { ...state, [part]: Reflect.get(before, part) } };
  }
  if (!(part in before.life && part in state.life)) return outcome;
  const life = { ...state.life, [part]: Reflect.get(before.life, part) };
  return { ...outcome, state: { ...state, life } as AgentState };
}

/** Cells that have a handler, as "phase × event". */
export function handledCells(): string[] {
  return Object.entries(table).flatMap(([phase, row]) =>
    Object.entries(row)
      .filter(([, cell]) => typeof cell === "function")
      .map(([event]) => `${phase} × ${event}`),
  );
}
