import type { Milliseconds } from "../units/units.ts";
import { HEARTBEAT_EVERY, type Marker, SILENT_AFTER } from "./protocol.ts";

/** What an upgrade counts in: both sides derive all of it from how often its device is heard. */
export interface Pace {
  /** Between two heartbeats of the canonical agent, and of its candidate. */
  readonly every: Milliseconds;
  /** Without a heartbeat for so long an instance is silent: three are missing. */
  readonly silentAfter: Milliseconds;
  /**
   * With more between two heartbeats of the canonical agent its way to the operator was cut. It is
   * less than two, so that a cut which goes unseen costs the candidate less than its silence.
   */
  readonly unbroken: Milliseconds;
  /** So long the operator has to hear a candidate before it commits: three heartbeats. */
  readonly probation: Milliseconds;
  /** So long every role has to go on answering from the new version before it is done. */
  readonly settle: Milliseconds;
}

export const usualPace: Pace = {
  every: HEARTBEAT_EVERY,
  silentAfter: SILENT_AFTER,
  unbroken: 1.5 * HEARTBEAT_EVERY,
  probation: 1.5 * HEARTBEAT_EVERY,
  settle: 3 * HEARTBEAT_EVERY,
};

/** In whole milliseconds. */
export function paceOf({ limits }: Pick<Marker, "limits">): Pace {
  const { heartbeat_ms: every } = limits;
  if (every === undefined) return usualPace;
  const inBeats = (time: Milliseconds) => Math.ceil((time * every) / HEARTBEAT_EVERY);
  const { silentAfter, unbroken, probation, settle } = usualPace;
  return {
    every,
    silentAfter: inBeats(silentAfter),
    unbroken: inBeats(unbroken),
    probation: inBeats(probation),
    settle: inBeats(settle),
  };
}
