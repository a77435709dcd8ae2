/**
 * Whose turn it is: one test of a run at a time, so that a host's cards do not take from each
 * other, and a few of all; in the order in which they came. Pure.
 */
export interface Turns {
  readonly atOnce: number;
  readonly waiting: readonly Turn[];
  readonly active: readonly Turn[];
}

export interface Turn {
  /** A rising number of whoever keeps the connection. */
  readonly id: number;
  readonly run: number;
}

export const noTurns = (atOnce: number): Turns => ({ atOnce, waiting: [], active: [] });

/** @returns who begins now, beside the turns as they are then */
export function join(turns: Turns, turn: Turn): { turns: Turns; begin: readonly Turn[] } {
  return begin({ ...turns, waiting: [...turns.waiting, turn] });
}

/** One has ended, or went away before it began. */
export function leave(turns: Turns, id: number): { turns: Turns; begin: readonly Turn[] } {
  const others = (list: readonly Turn[]) => list.filter((turn) => turn.id !== id);
  return begin({ ...turns, waiting: others(turns.waiting), active: others(turns.active) });
}

function begin(turns: Turns): { turns: Turns; begin: readonly Turn[] } {
  const active = [...turns.active];
  const waiting: Turn[] = [];
  const begun: Turn[] = [];
  for (const turn of turns.waiting) {
    const isFree = active.length < turns.atOnce && !active.some(({ run }) => run === turn.run);
    (isFree ? active : waiting).push(turn);
    if (isFree) begun.push(turn);
  }
  return { turns: { ...turns, active, waiting }, begin: begun };
}
