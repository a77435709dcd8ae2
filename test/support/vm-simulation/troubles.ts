/** How hostile a seed's world is, and by which rules its machines are restarted. */
import { defaultBackoff } from "../../../src/units/restarts.ts";
import type { MachineRules } from "../../../src/vm/lifecycle-state.ts";
import type { SeededChance } from "../chance.ts";

/** Probabilities, and the time between troubles in milliseconds. */
export interface Troubles {
  readonly interval: number;
  /** At each effect, before it and after it. */
  readonly killsWorker: number;
  readonly refuses: number;
  /** An answer, or a word, is lost. */
  readonly loses: number;
  readonly late: number;
  readonly doubled: number;
  readonly crashes: number;
}

/** None without chance: the kind world. */
export function makeTroubles(chance: SeededChance | undefined): Troubles {
  if (chance === undefined) {
    return { interval: 0, killsWorker: 0, refuses: 0, loses: 0, late: 0, doubled: 0, crashes: 0 };
  }
  return {
    interval: chance.pick([200, 500, 2_000]),
    killsWorker: chance.pick([0, 0.005, 0.03]),
    refuses: chance.pick([0, 0.02, 0.1]),
    loses: chance.pick([0, 0.02, 0.1]),
    late: chance.pick([0, 0.02, 0.1]),
    doubled: chance.pick([0, 0.1]),
    crashes: chance.pick([0, 0.05]),
  };
}

export function makeRules(chance: SeededChance): MachineRules {
  return {
    restart: chance.pick(["always", "on-failure", "on-failure", "never"]),
    backoff: chance.pick(["none", defaultBackoff, { ...defaultBackoff, resetAfter: 200 }]),
    startLimit: chance.pick(["none", "none", { starts: 5, within: 2_000 }]),
    shutdownGrace: chance.pick([500, 5_000]),
  };
}
