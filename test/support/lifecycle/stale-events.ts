/** Scenarios: what is said of older instances changes nothing, whatever the phase. */
import type { Scenario } from "../lifecycle-scenarios.ts";
import { makeEvents } from "./life.ts";
import { formerInvocation, lifeIn, phases } from "./phases.ts";

/**
 * Kinds that carry an invocation. A former ending is awaited: see endings. A start that is told
 * when another came since is killed: see doubts.
 */
const carrying = [
  "start-refused",
  "answer-lost",
  "found",
  "not-found",
  "became-ready",
  "unhealthy",
  "died",
  "cleared",
] as const;

export const staleEvents: readonly Scenario[] = phases.flatMap((phase) => [
  {
    name: `events of the former instance change nothing in ${phase}`,
    run: (step) => {
      const life = lifeIn[phase](step);
      const events = makeEvents(formerInvocation);
      for (const kind of carrying) life.ignores(events[kind]);
    },
  },
  {
    name: `events of an unknown instance change nothing in ${phase}`,
    run: (step) => {
      const life = lifeIn[phase](step);
      const events = makeEvents("i99");
      const isStraggler = (kind: string) => kind === "found" && phase === "uncertain";
      for (const kind of carrying) if (!isStraggler(kind)) life.ignores(events[kind]);
      life.ignores(events["ending-known"]);
    },
  },
]);
