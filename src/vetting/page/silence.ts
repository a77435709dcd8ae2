import type { RunView } from "../protocol-operator.ts";
import { durationText } from "./format.ts";

/** A host that says nothing, while nothing is told of it: the time goes on here. */

/** Milliseconds; the orchestrator tells when a run gets past it, and when it is heard again. */
export const SILENT_AFTER = 30_000;

/** A run, and when this page was told: milliseconds of `performance.now()`. */
export interface ToldRun {
  readonly view: RunView;
  readonly at: number;
}

/** "silent for 2 min 3 s"; undefined: it was heard a moment ago, or its run has ended. */
export function silenceText({ view, at }: ToldRun, now: number): string | undefined {
  const { silent_ms: silent, verdict } = view;
  if (verdict !== null || silent === null || silent < SILENT_AFTER) return undefined;
  return `silent for ${durationText(silent + now - at)}`;
}
