/**
 * Lives of a process, each a sequence of events with times. A scenario throws when the step
 * function that it is given decides anything else: the table's tests run them against the table,
 * the mutation run against what is left of it when one thing is taken away.
 */
import { beginnings } from "./lifecycle/beginnings.ts";
import { doubts } from "./lifecycle/doubts.ts";
import { endings } from "./lifecycle/endings.ts";
import type { StepFunction } from "./lifecycle/life.ts";
import { liveness } from "./lifecycle/liveness.ts";
import { restarts } from "./lifecycle/restarts.ts";
import { staleEvents } from "./lifecycle/stale-events.ts";
import { walks } from "./lifecycle/walks.ts";
import { wishes } from "./lifecycle/wishes.ts";

export interface Scenario {
  readonly name: string;
  readonly run: (step: StepFunction) => void;
}

export const scenarios: readonly Scenario[] = [
  ...beginnings,
  ...restarts,
  ...endings,
  ...wishes,
  ...doubts,
  ...liveness,
  ...staleEvents,
  ...walks,
];
