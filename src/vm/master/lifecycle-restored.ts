import { masterLimits } from "../protocol-master.ts";
import type { Draft } from "./lifecycle-draft.ts";
import { without } from "./lifecycle-report.ts";
import type { ClusterState, Placed } from "./lifecycle-state.ts";

/**
 * After an older backup was restored: who has what is heard first, and given later. Pure. Since the
 * backup a worker may have been given what its next boot starts without a word; so a proof that it
 * is off is not enough, and nobody gets anything before all of them have spoken.
 */

/** Workers that are named where one is waited for. */
const MOST_NAMED = 8;

/** What a master waits for, and what somebody can do; undefined where none is waited for. */
export function whyWaited(state: ClusterState): string | undefined {
  if (!state.isRestored) return undefined;
  const unheard = [...state.workers.values()]
    .filter(({ heard }) => heard === undefined)
    .map(({ name }) => name)
    .sort();
  const [first] = unheard;
  if (first === undefined) {
    return "an older backup was restored: workers are given time to say what they have";
  }
  const more = unheard.length - MOST_NAMED;
  const names = [...unheard.slice(0, MOST_NAMED), ...(more > 0 ? [`${more} more`] : [])];
  const text =
    `an older backup was restored, and not said yet what they have: ${names.join(", ")}. Start ` +
    "their workers; of one that never starts anything again, say so: " +
    `hostler vm forget ${first} --for-good (that it is off, which hostler vm fence says, is not ` +
    "enough: nobody here knows what its next boot starts)";
  return text.slice(0, masterLimits.textLength);
}

/** Why nothing is given now. */
export function whyHeld({ state, now, settings }: Draft): string | undefined {
  if (!state.isRestored) return undefined;
  const isAnyUnheard = [...state.workers.values()].some(({ heard }) => heard === undefined);
  const isEarly = now - state.started < settings.lostAfter;
  return isAnyUnheard || isEarly ? whyWaited(state) : undefined;
}

/**
 * Whether a worker knows that a machine may move, and is under a lease for it, may be another since
 * the backup: it counts again when the worker follows an assignment of this master that says so.
 * Its watchdog proves nothing of what may not move, and so is left as it is said.
 */
export function distrust(draft: Draft): void {
  for (const { name, record } of draft.workers()) {
    if (!Object.values(record.machines).some(({ movable }) => movable)) continue;
    const machines = Object.entries(record.machines).map(([machine, placed]): [string, Placed] => [
      machine,
      { ...placed, movable: false },
    ]);
    draft.assign(name, { ...record, machines: Object.fromEntries(machines) });
  }
}

/**
 * What an older backup gave to workers that do not have it may have been taken from them since, and
 * they know it: under its old number they would not make it.
 */
export function giveAnew(draft: Draft): void {
  for (const { name, record, heard } of draft.workers()) {
    if (heard === undefined) continue;
    const missing = Object.entries(record.machines).filter(
      ([machine]) => (heard.byName.get(machine)?.owner_generation ?? null) === null,
    );
    if (missing.length === 0) continue;
    const names = missing.map(([machine]) => machine);
    const numbers = missing.map(([machine, placed]) => [machine, placed.owner_generation]);
    draft.assign(name, {
      ...record,
      machines: without(record.machines, names),
      released: { ...record.released, ...Object.fromEntries(numbers) },
    });
    draft.unplace(names);
  }
}
