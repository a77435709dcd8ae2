import type { Assigned } from "./machine-record.ts";
import type {
  AssignedMachine,
  Assignment,
  AssignmentAnswer,
  AssignmentPlace,
  HeldMachine,
} from "./protocol-master.ts";
import type { Desired, DesiredMachine, Hold } from "./reconcile.ts";

/**
 * What a worker does with what its master says: which assignment counts, which machines are
 * another's by now, and which of them may have no VMM at the moment. Pure. Duties by their numbers
 * in protocol-master.ts.
 */

export interface AssignmentState {
  /** The one that is followed; undefined before the first. */
  readonly assignment: Assignment | undefined;
  /** Owner generations that count no more, by the name of the machine: the highest of each. */
  readonly stale: ReadonlyMap<string, number>;
}

export const noAssignment: AssignmentState = { assignment: undefined, stale: new Map() };

export type AssignmentEvent =
  /** held: names of machines that are here. */
  | {
      readonly kind: "answered";
      readonly answer: AssignmentAnswer;
      readonly held: ReadonlySet<string>;
    }
  /** Of a report's answer: duty 4. */
  | { readonly kind: "stale"; readonly machines: readonly HeldMachine[] };

export type AssignmentEffect =
  /** To be on the disk before it is followed. */
  | { readonly kind: "keep" }
  /** Machines that are another's: ended before anything else, whether or not it could be kept. */
  | { readonly kind: "end"; readonly names: readonly string[] }
  | { readonly kind: "follow" }
  /** Nothing is done about it. */
  | { readonly kind: "dropped"; readonly reason: string };

export interface AssignmentOutcome {
  readonly state: AssignmentState;
  readonly effects: readonly AssignmentEffect[];
}

export function stepAssignment(state: AssignmentState, event: AssignmentEvent): AssignmentOutcome {
  if (event.kind === "stale") return hearStale(state, event.machines);
  const { answer } = event;
  if (answer.kind === "unchanged") return { state, effects: [] };
  const reason = whyDropped(state.assignment, answer);
  if (reason !== undefined) return { state, effects: [{ kind: "dropped", reason }] };
  // What is given anew under a higher one is no longer another's.
  const given = new Map(answer.machines.map((one) => [one.spec.name, one.owner_generation]));
  const stale = [...state.stale].filter(([name, lost]) => {
    const generation = given.get(name);
    return generation === undefined ? event.held.has(name) : generation <= lost;
  });
  const taken = { assignment: answer, stale: new Map(stale) };
  return { state: taken, effects: [{ kind: "keep" }, { kind: "follow" }] };
}

/** Duty 3: an answer that was on its way for long, or a master that lost what it knew. */
function whyDropped(last: Assignment | undefined, next: Assignment): string | undefined {
  const names = new Set(next.machines.map(({ spec }) => spec.name));
  if (names.size < next.machines.length) return "it names a machine twice";
  if (last === undefined || last.incarnation !== next.incarnation) return undefined;
  if (next.generation < last.generation) {
    return `expected generation ${last.generation} or a later one, received ${next.generation}`;
  }
  if (next.revision < last.revision) {
    return `expected revision ${last.revision} or a later one, received ${next.revision}`;
  }
  return undefined;
}

function hearStale(state: AssignmentState, machines: readonly HeldMachine[]): AssignmentOutcome {
  const fresh = machines.filter(
    ({ name, owner_generation: lost }) => lost > (state.stale.get(name) ?? 0),
  );
  if (fresh.length === 0) return { state, effects: [] };
  const stale = new Map(state.stale);
  for (const { name, owner_generation: lost } of fresh) stale.set(name, lost);
  const names = fresh.map(({ name }) => name);
  const effects: AssignmentEffect[] = [
    { kind: "end", names },
    { kind: "keep" },
    { kind: "follow" },
  ];
  return { state: { ...state, stale }, effects };
}

export function placeOf(state: AssignmentState): AssignmentPlace | null {
  if (state.assignment === undefined) return null;
  const { incarnation, generation, revision } = state.assignment;
  return { incarnation, generation, revision };
}

/** A machine that this worker holds, as its record says. */
export interface Holding {
  readonly name: string;
  /** undefined for one that no master gave. */
  readonly assigned: Assigned | undefined;
}

export interface Permissions {
  /** A report of this boot was answered: duty 6. */
  readonly isHeard: boolean;
  /** A machine whose fencing is the watchdog may have a VMM: duty 7. */
  readonly mayRunFenced: boolean;
}

/** Which machines may have no VMM now, or get none, and why. */
export function holdsOf(
  state: AssignmentState,
  holdings: readonly Holding[],
  permissions: Permissions,
): Map<string, Hold> {
  const holds = new Map<string, Hold>();
  for (const { name, assigned } of holdings) {
    if (assigned === undefined) continue;
    const hold = holdOf(state.stale.get(name) ?? 0, assigned, permissions);
    if (hold !== undefined) holds.set(name, hold);
  }
  return holds;
}

function holdOf(
  lost: number,
  { owner_generation: generation, movable, fencing }: Assigned,
  { isHeard, mayRunFenced }: Permissions,
): Hold | undefined {
  if (generation <= lost) {
    const reason = `its owner generation ${generation} counts no more: it is another worker's`;
    return { kind: "ends", reason };
  }
  if (fencing === "watchdog" && !mayRunFenced) {
    const reason = "the master has not been heard for so long that it may run elsewhere";
    return { kind: "ends", reason };
  }
  if ((movable || fencing === "watchdog") && !isHeard) {
    const reason = "it may run elsewhere, and the master was not heard since this host's boot";
    return { kind: "waits", reason };
  }
  return undefined;
}

/** What the reconciler is to reach; undefined before the first assignment. */
export function desiredBy(state: AssignmentState): Desired | undefined {
  const { assignment, stale } = state;
  if (assignment === undefined) return undefined;
  const machines = assignment.machines.filter(
    ({ spec, owner_generation: generation }) => generation > (stale.get(spec.name) ?? 0),
  );
  const removals = assignment.removals.map(
    ({ name, owner_generation: generation }) => [name, generation] as const,
  );
  return {
    generation: assignment.generation,
    machines: machines.map(desiredMachine),
    removals: new Map(removals),
  };
}

const desiredMachine = ({
  spec,
  power,
  owner_generation,
  movable,
  fencing,
}: AssignedMachine): DesiredMachine => ({
  spec,
  power,
  assigned: { owner_generation, movable, fencing },
});
