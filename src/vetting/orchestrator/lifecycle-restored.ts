import type { RunEvent } from "../protocol-operator.ts";
import { type Run, runLimits } from "./lifecycle-state.ts";

/**
 * A run as it goes on after a backup of it was restored. Pure. What was spent, ended or taken back
 * since must not count again: tokens, sessions, keys of a hold, disks that were given up, orders.
 * Its host boots anew, by a token of now, and says who it is.
 * @returns no run where nothing of that counts
 */
export function restoredRun(
  run: Run,
  time: string,
): { readonly run?: Run; readonly events: readonly RunEvent[] } {
  const { boot, session, hold, wipe, directives } = run;
  const isQuiet = boot === null && session === null && wipe === null && directives.length === 0;
  if (isQuiet && (hold === null || hold.key === null)) return { events: [] };
  const sequence = run.events + 1;
  const isNoted = sequence <= runLimits.events;
  const next: Run = {
    ...{ ...run, boot: null, session: null, wipe: null, directives: [], changed: time },
    hold: hold === null ? null : { ...hold, key: null },
    events: isNoted ? sequence : run.events,
  };
  const message = "restored from a backup: token, session, key and orders of before count no more";
  const said = { what: "state", state: run.state, message } as const;
  const event: RunEvent = { sequence, at: time, who: "orchestrator", ...said };
  return { run: next, events: isNoted ? [event] : [] };
}
