import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type { Build, DeviceStatus, Heartbeat, Marker } from "../protocol.ts";
import type { DevicePhase } from "../protocol-operator.ts";
import { paceOf, usualPace } from "../protocol-pace.ts";
import {
  emptySlot,
  found,
  isSettled,
  landed,
  meant,
  put,
  type SlotWrite,
} from "./lifecycle-slot.ts";
import type {
  CandidateHeard,
  DeviceEvent,
  DeviceEventKind,
  DeviceState,
  OperatorSettings,
} from "./lifecycle-state.ts";

/**
 * One device as its operator sees it: every phase × every event stands in `deviceTable`; a cell
 * that does nothing names its reason. Pure.
 */
export function stepDevice(
  device: DeviceState,
  event: DeviceEvent,
  context: DeviceContext,
  table: DeviceTable = deviceTable,
): DeviceOutcome {
  const cell = table[phaseOf(device)][event.kind] as DeviceCell;
  return typeof cell === "function" ? cell(device, event, context) : { device };
}

export interface DeviceContext {
  readonly now: MonotonicTime;
  readonly settings: Pick<OperatorSettings, "silentAfter" | "probation">;
  /** Its rollout goes on, and a window is open. */
  readonly mayCommit: boolean;
}

export interface DeviceOutcome {
  readonly device: DeviceState;
  readonly write?: SlotWrite<Marker>;
}

type Of<Kind extends DeviceEventKind> = Extract<DeviceEvent, { readonly kind: Kind }>;
type Handler<Kind extends DeviceEventKind> = (
  device: DeviceState,
  event: Of<Kind>,
  context: DeviceContext,
) => DeviceOutcome;
interface Ignored {
  readonly ignored: string;
}
type DeviceCell =
  | ((device: DeviceState, event: DeviceEvent, context: DeviceContext) => DeviceOutcome)
  | Ignored;
type Row = { readonly [Kind in DeviceEventKind]: Handler<Kind> | Ignored };
export type DeviceTable = { readonly [Phase in DevicePhase]: Row };

export function newDevice(name: string, now: MonotonicTime): DeviceState {
  return {
    name,
    known: now,
    since: now,
    labels: emptySlot,
    status: undefined,
    canonical: undefined,
    candidate: undefined,
    marker: emptySlot,
    drifted: undefined,
    trouble: undefined,
  };
}

const ignored = (reason: string): Ignored => ({ ignored: reason });

/** In every phase. */
const always = {
  status: takeStatus,
  canonical: hearCanonical,
  unreadable: notUnderstood,
  written: markerWritten,
  found: markerFound,
} as const;

const inFlight = ignored("it is on its way already; that is taken back first");
const nothingToTakeBack = ignored("nothing of ours is at it");
const noCandidate = ignored("it was not told to start a candidate");
const isOver = ignored("the upgrade is over; a candidate that speaks on is of before");
const isCommitted = ignored("a commit is a fact, and stays");

export const deviceTable: DeviceTable = {
  free: {
    ...always,
    written: ignored("nothing of its marker is on its way"),
    candidate: noCandidate,
    assign,
    withdraw: nothingToTakeBack,
  },
  foreign: {
    ...always,
    candidate: ignored("it was started for another transaction than ours"),
    assign: ignored("it follows another transaction, which ends by its own limits"),
    withdraw,
  },
  // What it told may come after what its candidate told: two keys have no order.
  told: { ...always, candidate: hearCandidate, assign: inFlight, withdraw },
  preparing: { ...always, candidate: hearCandidate, assign: inFlight, withdraw },
  ready: { ...always, candidate: hearCandidate, assign: inFlight, withdraw },
  observed: { ...always, candidate: hearCandidate, assign: inFlight, withdraw },
  held: { ...always, candidate: hearCandidate, assign: inFlight, withdraw },
  committed: {
    ...always,
    candidate: ignored("it is committed; hearing it again changes nothing"),
    assign: isCommitted,
    withdraw: isCommitted,
  },
  swapping: {
    ...always,
    candidate: ignored("it is committed; hearing it again changes nothing"),
    assign: isCommitted,
    withdraw: ignored("what the device itself sees reverts from here on, and nothing else"),
  },
  withdrawn: {
    ...always,
    candidate: ignored("it is taken back: its candidate is about to go"),
    assign: ignored("the device has not ended it yet"),
    withdraw: ignored("it is taken back already"),
  },
  returned: { ...always, candidate: isOver, assign, withdraw: nothingToTakeBack },
  failed: { ...always, candidate: isOver, assign, withdraw: nothingToTakeBack },
  done: { ...always, candidate: isOver, assign, withdraw: nothingToTakeBack },
};

/** Where its upgrade is, by what is written and what it says; see `devicePhases`. */
export function phaseOf(device: DeviceState): DevicePhase {
  const marker = meant(device.marker);
  const status = device.status?.value;
  if (marker === undefined) return isBusy(status) ? "foreign" : "free";
  if (status?.transaction === marker.transaction) {
    const phase = phaseOfOwn(marker, status);
    return phase === "done" && driftOf(device) !== undefined ? "failed" : phase;
  }
  if (isBusy(status)) return "foreign";
  const isThere = status?.current.digest === marker.build.digest;
  if (isThere && driftOf(device) === undefined) return "done";
  if (isSettled(device.marker) && isForgotten(device, marker)) return "returned";
  if (marker.commit !== null) return "committed";
  if (marker.withdrawn === null) return "told";
  // It was taken back before the device had heard of it, as far as it has said.
  return isSettled(device.marker) ? "returned" : "withdrawn";
}

/** What it runs in place of what it says that it is done with: somebody put it there. */
export function driftOf(device: DeviceState): Build | undefined {
  const marker = meant(device.marker);
  const status = device.status?.value;
  if (marker === undefined || status === undefined) return undefined;
  const { transaction, build } = marker;
  const isOwn = status.transaction === transaction;
  const isThere = status.current.digest === build.digest;
  if (isOwn ? status.phase !== "done" : !isThere || isBusy(status)) return undefined;
  if (!isThere) return status.current;
  return device.drifted?.transaction === transaction ? device.drifted.build : undefined;
}

/** For people; null where it runs what it says. */
export function driftWords(device: DeviceState): string | null {
  const drift = driftOf(device);
  if (drift === undefined) return null;
  return `it was done, and runs ${drift.version} (${drift.digest.slice(0, 12)}) now`;
}

/**
 * A commit is written while the device follows its transaction: whoever tells later that it rests,
 * after another one, is past it. An older store was put back, and brought the marker along.
 */
function isForgotten({ status, marker }: DeviceState, { commit }: Marker): boolean {
  return commit !== null && (status?.revision ?? 0) > marker.revision;
}

function phaseOfOwn(marker: Marker, status: DeviceStatus): DevicePhase {
  switch (status.phase) {
    case "done":
      return "done";
    case "rolled-back":
      return "failed";
    case "aborted":
      return saysNothingAgainst(marker, status) ? "returned" : "failed";
    case "commit-seen":
    case "swapped":
    case "canonical":
    case "reverting":
      return "swapping";
    default:
      return phaseBeforeCommit(marker, status);
  }
}

function phaseBeforeCommit(marker: Marker, status: DeviceStatus): DevicePhase {
  if (marker.commit !== null) return "committed";
  if (marker.withdrawn !== null) return "withdrawn";
  switch (status.phase) {
    case "idle":
      return "told";
    case "staging":
    case "verifying":
      return "preparing";
    case "held":
      return "held";
    default: {
      const instance = status.candidate?.instance ?? null;
      return instance !== null && marker.observed === instance ? "observed" : "ready";
    }
  }
}

/** It was taken back, or no commit came in time: the version may be tried again. */
function saysNothingAgainst(marker: Marker, { cause, last_words }: DeviceStatus): boolean {
  if (cause !== undefined) return ["withdrawn", "superseded", "uncommitted"].includes(cause);
  if (marker.withdrawn !== null) return true;
  return marker.commit === null && marker.observed !== null && last_words === null;
}

const restingPhases = ["idle", "done", "aborted", "rolled-back"];

function isBusy(status: DeviceStatus | undefined): boolean {
  return status !== undefined && !restingPhases.includes(status.phase);
}

/** Milliseconds since it was heard; since it was known where it never was. */
export function silence(device: DeviceState, now: MonotonicTime): Milliseconds {
  return Math.max(0, now - Math.max(device.known, device.canonical?.at ?? 0));
}

/** Heard by this process of the operator, and lately. */
export function isAlive(
  device: DeviceState,
  { now, settings }: Pick<DeviceContext, "now" | "settings">,
): boolean {
  const { canonical } = device;
  return canonical !== undefined && now - canonical.at <= settings.silentAfter;
}

function takeStatus(
  device: DeviceState,
  event: Of<"status">,
  context: DeviceContext,
): DeviceOutcome {
  const { status, revision, listed } = event;
  const known = device.status;
  if (known !== undefined) {
    // Told twice, or late; of a first list after a restore: of before. Its journal knows better,
    // and it says so again.
    const isLate = revision < known.revision && !listed;
    const isOfBefore = listed && status.step < known.value.step;
    if (revision === known.revision || isLate || isOfBefore) return { device };
  }
  const told = { ...device, status: { value: status, revision }, trouble: undefined };
  return judgeCandidate(told, context);
}

function hearCanonical(
  device: DeviceState,
  event: Of<"canonical">,
  context: DeviceContext,
): DeviceOutcome {
  const { heartbeat, revision, listed } = event;
  // What was there before this process looked may be of long ago: it is no sign of life.
  if (listed || !isNews(device.canonical, event)) return { device };
  const canonical = { heartbeat, revision, at: context.now };
  return { device: { ...device, canonical, drifted: driftHeard(device, heartbeat, context) } };
}

/** Not at once: what ran before may have been heard last, with its word on the way. */
function driftHeard(
  device: DeviceState,
  { version, digest }: Heartbeat,
  { now, settings }: DeviceContext,
): DeviceState["drifted"] {
  const marker = meant(device.marker);
  if (marker === undefined || digest === marker.build.digest) return undefined;
  const { transaction } = marker;
  const isKnown = device.drifted?.transaction === transaction;
  const isLong = phaseOf(device) === "done" && now - device.since >= settings.silentAfter;
  return isKnown || isLong ? { transaction, build: { version, digest } } : undefined;
}

function isNews(
  known: { readonly heartbeat: Heartbeat; readonly revision: number } | undefined,
  told: { readonly heartbeat: Heartbeat; readonly revision: number },
): boolean {
  if (known === undefined) return true;
  if (told.revision <= known.revision) return false;
  const { instance, sequence } = told.heartbeat;
  return instance !== known.heartbeat.instance || sequence > known.heartbeat.sequence;
}

function hearCandidate(
  device: DeviceState,
  event: Of<"candidate">,
  context: DeviceContext,
): DeviceOutcome {
  const { heartbeat, revision, listed } = event;
  const known = device.candidate;
  if (listed || !isNews(known, event)) return { device };
  const { now, settings } = context;
  const goesOn =
    known !== undefined &&
    known.heartbeat.instance === heartbeat.instance &&
    now - known.at <= inPace(device, settings.silentAfter) &&
    isHealthy(known.heartbeat) &&
    isHealthy(heartbeat);
  const candidate: CandidateHeard = {
    heartbeat,
    revision,
    at: now,
    since: goesOn ? known.since : now,
    firstSequence: goesOn ? known.firstSequence : heartbeat.sequence,
  };
  return judgeCandidate({ ...device, candidate }, context);
}

/** A time that is counted in heartbeats, as its upgrade counts it. */
function inPace(device: DeviceState, time: Milliseconds): Milliseconds {
  const marker = meant(device.marker);
  return marker === undefined ? time : (time * paceOf(marker).every) / usualPace.every;
}

export const isHealthy = ({ roles }: Heartbeat): boolean => roles.every(({ healthy }) => healthy);

/**
 * The commit: only after a heartbeat of the very instance that the device says it has started, for
 * this transaction, version and digest, which this process itself has heard, more than once and
 * for long enough. That it was seen is written first, so that a device knows whom it waits for.
 */
function judgeCandidate(device: DeviceState, context: DeviceContext): DeviceOutcome {
  const marker = meant(device.marker);
  const heard = device.candidate;
  if (marker === undefined || heard === undefined || !isSettled(device.marker)) return { device };
  if (!["ready", "observed", "held"].includes(phaseOf(device))) return { device };
  const { now, settings, mayCommit } = context;
  if (
    !isOwnCandidate(device, heard.heartbeat) ||
    now - heard.at > inPace(device, settings.silentAfter)
  ) {
    return { device };
  }
  const { instance, sequence } = heard.heartbeat;
  if (marker.observed !== instance) return writeMarker(device, { ...marker, observed: instance });
  const isProven =
    isHealthy(heard.heartbeat) &&
    sequence > heard.firstSequence &&
    heard.at - heard.since >= inPace(device, settings.probation);
  if (!mayCommit || !isProven) return { device };
  const { transaction } = marker;
  return writeMarker(device, { ...marker, commit: { transaction, instance } });
}

function isOwnCandidate(device: DeviceState, heartbeat: Heartbeat): boolean {
  const marker = meant(device.marker);
  const candidate = device.status?.value.candidate ?? null;
  return (
    marker !== undefined &&
    candidate !== null &&
    heartbeat.transaction === marker.transaction &&
    heartbeat.version === marker.build.version &&
    heartbeat.digest === marker.build.digest &&
    candidate.digest === marker.build.digest &&
    heartbeat.instance === candidate.instance
  );
}

function notUnderstood(device: DeviceState, { reason }: Of<"unreadable">): DeviceOutcome {
  return { device: { ...device, trouble: reason } };
}

function markerWritten(
  device: DeviceState,
  { revision }: Of<"written">,
  context: DeviceContext,
): DeviceOutcome {
  const { slot, write } = landed(device.marker, revision);
  const next = { ...device, marker: slot };
  return write === undefined ? judgeCandidate(next, context) : { device: next, write };
}

function markerFound(device: DeviceState, { value, revision }: Of<"found">): DeviceOutcome {
  const { slot, write } = found(device.marker, { value, revision });
  return { device: { ...device, marker: slot }, ...(write !== undefined && { write }) };
}

function assign(device: DeviceState, { marker }: Of<"assign">): DeviceOutcome {
  // What it had before is not to be taken for what it is told now.
  if (!isSettled(device.marker)) return { device };
  const drift = driftOf(device);
  // It has not run that since: what it says that it has is no reason to leave it so.
  const drifted = drift && { transaction: marker.transaction, build: drift };
  return writeMarker({ ...device, candidate: undefined, drifted }, marker);
}

function withdraw(device: DeviceState, { reason }: Of<"withdraw">): DeviceOutcome {
  const marker = meant(device.marker);
  const isOpen = marker !== undefined && marker.commit === null && marker.withdrawn === null;
  if (!isOpen || !isSettled(device.marker)) return { device };
  return writeMarker(device, { ...marker, withdrawn: { reason } });
}

function writeMarker(device: DeviceState, marker: Marker): DeviceOutcome {
  const { slot, write } = put(device.marker, marker);
  return { device: { ...device, marker: slot }, ...(write !== undefined && { write }) };
}
