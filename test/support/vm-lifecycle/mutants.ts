/** Tables from which one thing is taken away. */
import { type Table, table } from "../../../src/vm/lifecycle.ts";
import type { EventKind, MachineState, Outcome, Phase } from "../../../src/vm/lifecycle-state.ts";
import { nameOf } from "./life.ts";
import type { Seen } from "./observe.ts";

export interface Mutant {
  readonly name: string;
  readonly phase: Phase;
  readonly event: EventKind;
  readonly table: Table;
}

type Cell = (state: MachineState, event: unknown, context: unknown) => Outcome;

/** One thing taken away at a time; a note is made of the state, by `step`. */
export function makeMutants(observed: ReadonlyMap<string, Seen>): Mutant[] {
  const mutants: Mutant[] = [];
  for (const [key, cell] of observed) {
    const { phase, event } = cell;
    const handler = table[phase][event] as Cell | { ignored: string };
    if (typeof handler !== "function") continue;
    const add = (what: string, replaced: Cell | { ignored: string }) => {
      const row = { ...table[phase], [event]: replaced };
      const mutated = { ...table, [phase]: row } as Table;
      mutants.push({ name: `${key}: ${what}`, phase, event, table: mutated });
    };
    add("ignored", { ignored: "a mutation" });
    for (const effect of cell.effects) {
      if (isByStep(effect, key)) continue;
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

/** What `step` adds to what any cell decides is none of the cell's; a law has it. */
function isByStep(effect: string, key: string): boolean {
  if (effect === "end-beside") return key !== "capturing × done";
  return effect === "note" || effect === "+replacement-given-up";
}

function undo(part: string, before: MachineState, outcome: Outcome): Outcome {
  if (!(part in before && part in outcome.state)) return outcome;
  return { ...outcome, state: { ...outcome.state, [part]: Reflect.get(before, part) } };
}

/** Cells that have a handler, as "phase × event". */
export function handledCells(): string[] {
  return Object.entries(table).flatMap(([phase, row]) =>
    Object.entries(row)
      .filter(([, cell]) => typeof cell === "function")
      .map(([event]) => `${phase} × ${event}`),
  );
}
