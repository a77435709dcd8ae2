/** How bad a run's world is. Each run has its own mixture; some of them lack a trouble wholly. */
import type { SeededChance } from "../chance.ts";
import type { Odds } from "./agent.ts";

export interface Troubles extends Odds {
  /** Milliseconds between two troubles, on average. */
  readonly interval: number;
  /** The part of troubles that an operator makes. */
  readonly operates: number;
  /** How often each is drawn, beside the others. */
  readonly weights: {
    readonly death: number;
    readonly crash: number;
    readonly cut: number;
    readonly stall: number;
  };
  /** An instance never becomes ready. */
  readonly staysUnready: number;
  /** An instance does its work no more some time after it was ready. */
  readonly hangs: number;
  /** The kernel does not tell endings to one who is not the parent. */
  readonly kernelIsOld: boolean;
}

/** @param chance undefined for a world in which nothing goes wrong any more */
export function makeTroubles(chance: SeededChance | undefined): Troubles {
  const draw = (most: number) =>
    chance === undefined || chance.happens(0.3) ? 0 : most * chance.random();
  return {
    interval: chance?.pick([20, 100, 400]) ?? 1_000,
    operates: draw(0.4),
    weights: { death: draw(1) + 0.01, crash: draw(0.4), cut: draw(0.4), stall: draw(0.2) },
    execFails: draw(0.2),
    forks: draw(0.8),
    ignoresSignals: draw(0.5),
    agentCrashes: draw(0.2),
    staysUnready: draw(0.3),
    hangs: draw(0.2),
    kernelIsOld: chance?.happens(0.3) ?? false,
  };
}
