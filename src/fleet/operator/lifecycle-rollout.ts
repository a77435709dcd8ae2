import { operatorLimits, type RolloutChange } from "../protocol-operator.ts";
import type { RolloutCounts, RolloutPhase, RolloutRecord } from "./lifecycle-state.ts";

/** One rollout: every phase × every event; a cell that does nothing names its reason. Pure. */

export type RolloutEvent =
  /** Somebody stops it for a while. */
  | { readonly kind: "pause"; readonly reason: string; readonly counts: RolloutCounts }
  | { readonly kind: "resume"; readonly retry: boolean; readonly counts: RolloutCounts }
  | { readonly kind: "abort"; readonly reason: string; readonly counts: RolloutCounts }
  /** More of a wave have failed than may. */
  | { readonly kind: "failing"; readonly reason: string; readonly counts: RolloutCounts }
  /** A wave has ended, and was soaked. */
  | { readonly kind: "advance" }
  /** Nothing is left that could be begun now. */
  | { readonly kind: "finish"; readonly reason: string | null; readonly counts: RolloutCounts };
export type RolloutEventKind = RolloutEvent["kind"];

type Of<Kind extends RolloutEventKind> = Extract<RolloutEvent, { readonly kind: Kind }>;
type Handler<Kind extends RolloutEventKind> = (
  record: RolloutRecord,
  event: Of<Kind>,
) => RolloutRecord;
interface Ignored {
  readonly ignored: string;
}
export type RolloutTable = {
  readonly [Phase in RolloutPhase]: {
    readonly [Kind in RolloutEventKind]: Handler<Kind> | Ignored;
  };
};

const ignored = (reason: string): Ignored => ({ ignored: reason });
const stopped = ignored("nothing of it goes on while it is paused");
const isOver = ignored("it was aborted, for good");

export const rolloutTable: RolloutTable = {
  // Hosts that could not are tried again while all others go on.
  running: { pause, resume: retryAlone, abort, failing: pause, advance, finish },
  paused: {
    pause: ignored("it is paused"),
    resume,
    abort,
    failing: stopped,
    advance: stopped,
    finish: stopped,
  },
  complete: {
    pause,
    resume: retryAlone,
    abort,
    // Devices that come late can fail as well.
    failing: pause,
    advance: ignored("its last wave has ended"),
    finish: ignored("it is complete"),
  },
  aborted: {
    pause: isOver,
    resume: isOver,
    abort: isOver,
    failing: isOver,
    advance: isOver,
    finish: isOver,
  },
};

/** @returns the next record; a text where the event does nothing, which says why */
export function stepRollout(
  record: RolloutRecord,
  event: RolloutEvent,
  table: RolloutTable = rolloutTable,
): RolloutRecord | string {
  const cell = table[record.phase][event.kind] as
    | ((record: RolloutRecord, event: RolloutEvent) => RolloutRecord)
    | Ignored;
  if (typeof cell !== "function") return cell.ignored;
  const next = cell(record, event);
  return next === record ? "it is as it was" : next;
}

/** Over the limit the oldest but the first goes: who has begun it is known as long as it is. */
export function withChange(record: RolloutRecord, change: RolloutChange): RolloutRecord {
  const [first, ...rest] = [...record.changes, change];
  const kept = rest.slice(-(operatorLimits.changes - 1));
  return { ...record, changes: first === undefined ? kept : [first, ...kept] };
}

function pause(record: RolloutRecord, { reason, counts }: Of<"pause" | "failing">): RolloutRecord {
  return { ...record, phase: "paused", reason, result: counts };
}

/** What has failed until now is accepted, or tried again. */
function resume(record: RolloutRecord, { retry, counts }: Of<"resume">): RolloutRecord {
  const running = { ...record, phase: "running", reason: null, result: null } as const;
  if (!retry) return { ...running, forgiven: counts.failed, forgivenHosts: counts.hindered };
  if (record.round >= operatorLimits.retries) return record;
  return { ...running, round: record.round + 1, forgiven: 0, forgivenHosts: 0 };
}

function retryAlone(record: RolloutRecord, event: Of<"resume">): RolloutRecord {
  return event.retry ? resume(record, event) : record;
}

function abort(record: RolloutRecord, { reason, counts }: Of<"abort">): RolloutRecord {
  return { ...record, phase: "aborted", reason, result: counts };
}

function advance(record: RolloutRecord): RolloutRecord {
  return { ...record, wave: record.wave + 1 };
}

function finish(record: RolloutRecord, { reason, counts }: Of<"finish">): RolloutRecord {
  return { ...record, phase: "complete", reason, result: counts };
}
