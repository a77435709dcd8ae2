import type { DeviceStatus, Marker } from "../protocol.ts";
import type { DevicePhase } from "../protocol-operator.ts";
import { type Amount, operatorLimits, type RolloutSpec } from "../protocol-operator.ts";
import { isAlive, phaseOf, silence } from "./lifecycle-device.ts";
import { hashOf } from "./lifecycle-device-map.ts";
import type { Draft } from "./lifecycle-draft.ts";
import { type RolloutEvent, stepRollout } from "./lifecycle-rollout.ts";
import { isSettled, meant, put } from "./lifecycle-slot.ts";
import type { DeviceState, RolloutCounts, RolloutRecord, RolloutState } from "./lifecycle-state.ts";

/** All rollouts looked at: whose a device is, what is begun, taken back, paused, ended. Pure. */

export type MemberStanding =
  | "done"
  | "failed"
  /** It holds one of the places that `max_unavailable` gives. */
  | "flight"
  /** Taken back, and not ended: nothing can come of it, and its place is free. */
  | "returning"
  | "waiting"
  | "away"
  | "unfit";

export interface Member {
  readonly device: DeviceState;
  readonly standing: MemberStanding;
  /** Of those that somebody may ask about; "" for the others. */
  readonly reason: string;
}

/** A rollout that was written down, and what counts of it. */
interface Active {
  readonly rollout: RolloutState;
  readonly record: RolloutRecord;
  readonly named: ReadonlySet<string> | undefined;
  readonly members: Member[];
  /** Devices that it selects, and that later ones have. */
  superseded: number;
  /** Of those, the ones that are still under way with what it gave: they hold its places. */
  held: number;
  /** Devices with what it gave of which somebody should know. */
  readonly troubled: Member[];
}

const openPhases: readonly DevicePhase[] = [
  "foreign",
  "told",
  "preparing",
  "ready",
  "observed",
  "held",
];

export function plan(draft: Draft): void {
  draft.planned();
  const { settings } = draft.context;
  // The newest first: of several that want a device it has it.
  const active = activeRollouts(draft);
  for (const device of draft.devices) lookAt(draft, device, active);
  for (const one of active) planRollout(draft, one);
  if (draft.state.rollouts.size > 0) draft.planAt(draft.now + settings.planEvery);
}

function activeRollouts(draft: Draft): Active[] {
  return [...draft.state.rollouts.values()]
    .flatMap((rollout): Active[] => {
      const record = meant(rollout.record);
      if (record === undefined || rollout.record.stored === undefined) return [];
      const { devices } = record.spec.select;
      const named = devices === null ? undefined : new Set(devices);
      return [{ rollout, record, named, members: [], superseded: 0, held: 0, troubled: [] }];
    })
    .sort((left, right) => right.record.number - left.record.number);
}

/** Takes back what should not go on, and finds whose it is. */
function lookAt(draft: Draft, device: DeviceState, active: readonly Active[]): void {
  const marker = meant(device.marker);
  const last = marker?.rollout?.name;
  const owner = active.find(({ record }) => record.name === last);
  let holder: Active | undefined;
  for (const one of active) {
    if (one.record.phase === "aborted" || !isSelected(one, device)) continue;
    // A later one has had it, and was aborted: an earlier one does not take it back.
    const isLater = owner === undefined || one.record.number >= owner.record.number;
    if (holder === undefined && isLater) {
      holder = one;
      one.members.push(judgeMember(one.record, device, draft));
    } else one.superseded += 1;
  }
  if (owner !== undefined && owner !== holder && isUnderWay(device)) owner.held += 1;
  if (owner !== undefined) noteTrouble(draft, owner, device);
  const why = whyTakenBack(draft, device, { owner, holder });
  if (why !== undefined) draft.tellDevice(device, { kind: "withdraw", reason: why });
}

function noteTrouble(draft: Draft, owner: Active, device: DeviceState): void {
  if (owner.troubled.length >= operatorLimits.named) return;
  const last = owner.members.at(-1);
  const member = last?.device === device ? last : judgeMember(owner.record, device, draft);
  if (member.reason !== "") owner.troubled.push(member);
}

function isUnderWay(device: DeviceState): boolean {
  const phase = phaseOf(device);
  const isTaken = phase === "withdrawn" && isSettled(device.marker);
  return !isTaken && !["free", "returned", "failed", "done"].includes(phase);
}

function isSelected({ record, named }: Active, device: DeviceState): boolean {
  if (named !== undefined && !named.has(device.name)) return false;
  const labels = meant(device.labels) ?? {};
  return Object.entries(record.spec.select.labels).every(([name, value]) => labels[name] === value);
}

function whyTakenBack(
  draft: Draft,
  device: DeviceState,
  { owner, holder }: { readonly owner: Active | undefined; readonly holder: Active | undefined },
): string | undefined {
  const marker = meant(device.marker);
  const isOpen = marker !== undefined && openPhases.includes(phaseOf(device));
  if (!isOpen || marker.withdrawn !== null) return undefined;
  if (owner === undefined) {
    // One that is just being written is not known yet.
    const name = marker.rollout?.name;
    const isComing = name !== undefined && draft.state.rollouts.has(name);
    return isComing ? undefined : "its rollout is not known any more";
  }
  if (owner.record.phase === "aborted") return `rollout ${owner.record.name} was aborted`;
  if (holder !== undefined && holder !== owner && holder.record.phase === "running") {
    return `superseded by rollout ${holder.record.name}`;
  }
  return whyStuck(draft, device);
}

/** What no word of the device will end. */
function whyStuck(draft: Draft, device: DeviceState): string | undefined {
  const silent = silence(device, draft.now);
  const candidate = device.candidate?.at ?? 0;
  const { lostAfter, silentAfter } = draft.context.settings;
  // It remembers that one as over, which a store that went back does not.
  const isLeft = phaseOf(device) === "told" && draft.now - device.since > lostAfter;
  if (isLeft && silent <= silentAfter) return `not taken up for ${lostAfter / 1_000} s`;
  if (silent <= lostAfter || draft.now - candidate <= silentAfter) return undefined;
  return `not heard for ${Math.round(silent / 1_000)} s`;
}

/** Where a device stands in the rollout that has it. */
export function judgeMember(record: RolloutRecord, device: DeviceState, draft: Draft): Member {
  const phase = phaseOf(device);
  const marker = meant(device.marker);
  const isOwn = marker?.rollout?.name === record.name;
  const of = (standing: MemberStanding, reason = ""): Member => ({ device, standing, reason });
  switch (phase) {
    case "withdrawn":
      return isSettled(device.marker) ? of("returning") : of("flight");
    case "done":
      if (isOwn) return of("done");
      break;
    case "failed":
      if (isOwn && marker.rollout?.round === record.round) return of("failed", reasonOf(device));
      break;
    case "returned":
      if (isOwn && marker.rollout?.round === record.round && isWornOut(marker)) {
        return of("failed", `it came back ${operatorLimits.attempts} times: ${reasonOf(device)}`);
      }
      break;
    case "free":
      break;
    default:
      return of("flight", isAlive(device, draft.context) ? "" : `silent, and ${phase}`);
  }
  return judgeResting(record, device, draft);
}

function judgeResting(record: RolloutRecord, device: DeviceState, draft: Draft): Member {
  const of = (standing: MemberStanding, reason = ""): Member => ({ device, standing, reason });
  if (device.trouble !== undefined) return of("unfit", device.trouble);
  const status = device.status?.value;
  if (status === undefined) return of("away", "it has told no status");
  const target = buildFor(record.spec, status);
  if (status.executor === "immutable") return of("unfit", "immutable: update its image");
  if (target === undefined) {
    return of("unfit", `there is no build for ${status.architecture} with ${status.libc}`);
  }
  if (status.current.digest === target) return of("done");
  return isAlive(device, draft.context) ? of("waiting") : of("away");
}

function isWornOut({ rollout }: Marker): boolean {
  return (rollout?.attempt ?? 0) >= operatorLimits.attempts;
}

function reasonOf(device: DeviceState): string {
  const { reason = null, last_words: words = null } = device.status?.value ?? {};
  return reason ?? words?.ending ?? "it said no reason";
}

/** The digest that a device is to become. */
export function buildFor(spec: RolloutSpec, status: DeviceStatus): string | undefined {
  const { architecture, libc } = status;
  return spec.builds.find((build) => build.architecture === architecture && build.libc === libc)
    ?.digest;
}

export function countsOf(members: readonly Member[]): RolloutCounts {
  const count = (...standings: readonly MemberStanding[]) =>
    members.filter(({ standing }) => standings.includes(standing)).length;
  return {
    members: members.length - count("unfit"),
    done: count("done"),
    failed: count("failed"),
    flight: count("flight"),
    waiting: count("waiting", "returning"),
    away: count("away"),
    unfit: count("unfit"),
  };
}

/** At least one, so that a small part of few devices is somebody. */
export function amountOf(amount: Amount, members: number): number {
  if (amount.by === "count") return Math.min(amount.count, members);
  return Math.min(members, Math.max(1, Math.ceil((amount.percent * members) / 100)));
}

export const wavesOf = ({ waves }: RolloutSpec): number => waves.length + 1;

/** Devices that the open wave may have begun, with all waves before it. */
export function waveTarget({ spec, wave }: RolloutRecord, members: number): number {
  const amount = spec.waves[wave];
  return amount === undefined ? members : amountOf(amount, members);
}

function planRollout(draft: Draft, active: Active): void {
  const { rollout, record, members } = active;
  const counts = countsOf(members);
  const target = waveTarget(record, counts.members);
  const looked = { ...active, counts, target };
  const { waitsFor, begun = 0 } = whatFollows(draft, looked);
  const isSoaking = waitsFor === soaking;
  noteLook(draft, rollout.name, {
    counts: { ...counts, flight: counts.flight + begun, waiting: counts.waiting - begun },
    waitsFor,
    troubled: active.troubled.map(({ device: { name: device }, standing, reason }) => {
      return { device, standing, reason };
    }),
    soaking: isSoaking ? (rollout.soaking ?? draft.now) : undefined,
  });
}

interface Looked extends Active {
  readonly counts: RolloutCounts;
  readonly target: number;
}

const soaking = "the next wave: this one has ended, and soaks";

interface Followed {
  /** Why nothing more is begun, or "". */
  readonly waitsFor: string;
  readonly begun?: number;
}

const nothingToSay: Followed = { waitsFor: "" };

function whatFollows(draft: Draft, looked: Looked): Followed {
  const { rollout, record, counts, target, superseded } = looked;
  if (record.phase === "aborted") return nothingToSay;
  const allowed = record.forgiven + Math.floor((record.spec.failures_percent * target) / 100);
  if (counts.failed > allowed) {
    const reason = `${counts.failed} of ${target} have failed; ${allowed} may`;
    tellRollout(draft, rollout, { kind: "failing", reason, counts });
    return nothingToSay;
  }
  if (record.phase === "paused") return nothingToSay;
  if (isFinished(record, counts, superseded)) {
    const reason = counts.members === 0 ? "later rollouts have all its devices" : null;
    tellRollout(draft, rollout, { kind: "finish", reason, counts });
    return nothingToSay;
  }
  const isLast = record.wave >= wavesOf(record.spec) - 1;
  if (!isLast && counts.done + counts.failed >= target) return soak(draft, looked);
  return begin(draft, looked);
}

function soak(draft: Draft, { rollout, record }: Looked): Followed {
  const until = (rollout.soaking ?? draft.now) + record.spec.soak_ms;
  if (draft.now < until) {
    draft.planAt(until);
    return { waitsFor: soaking };
  }
  tellRollout(draft, rollout, { kind: "advance" });
  return nothingToSay;
}

/** The last wave is open, and nobody is left who is here and has not had it. */
function isFinished(record: RolloutRecord, counts: RolloutCounts, superseded: number): boolean {
  if (counts.members === 0) return superseded > 0;
  const isLast = record.wave >= wavesOf(record.spec) - 1;
  const isIdle = counts.waiting === 0 && counts.flight === 0;
  return isLast && isIdle && counts.done + counts.failed > 0;
}

/** Begins as many as may be. */
function begin(draft: Draft, { record, members, counts, target, held }: Looked): Followed {
  const waiting = members.filter(({ standing }) => standing === "waiting");
  if (waiting.length === 0) return { waitsFor: counts.away > 0 ? "devices that are away" : "" };
  const { settlesAt } = draft.state;
  if (settlesAt !== undefined && draft.now < settlesAt) {
    draft.planAt(settlesAt);
    return { waitsFor: "devices to tell anew what they do: an older store was put back" };
  }
  if (!draft.mayGoOn(record.name)) return { waitsFor: "its maintenance window" };
  const returning = members.filter(({ standing }) => standing === "returning").length;
  const places = amountOf(record.spec.max_unavailable, counts.members) - counts.flight - held;
  if (places <= 0) return { waitsFor: whoHolds(members) };
  const left = target - counts.done - counts.failed - counts.flight - returning;
  if (left <= 0) return { waitsFor: endOfWave };
  const begun = Math.min(places, left, waiting.length);
  for (const { device } of inTurn(record.name, waiting).slice(0, begun)) {
    const marker = markerFor(record, device, draft.context.nextTransaction);
    if (marker !== undefined) draft.tellDevice(device, { kind: "assign", marker });
  }
  if (waiting.length === begun) return { waitsFor: "", begun };
  return { waitsFor: places <= left ? whoHolds(members) : endOfWave, begun };
}

const endOfWave = "the end of this wave";

function whoHolds(members: readonly Member[]): string {
  const silent = members.filter(({ standing, reason }) => standing === "flight" && reason !== "");
  if (silent.length === 0) return "devices that are being upgraded";
  const names = silent.slice(0, operatorLimits.named).map(({ device }) => device.name);
  return `devices that are being upgraded, and these are silent: ${names.join(", ")}`;
}

/** The same order in every plan, and another one in every rollout. */
function inTurn(rollout: string, waiting: readonly Member[]): readonly Member[] {
  return waiting
    .map((member) => ({ member, turn: hashOf(`${rollout}/${member.device.name}`) }))
    .sort((left, right) => left.turn - right.turn || (nameOf(left) < nameOf(right) ? -1 : 1))
    .map(({ member }) => member);
}

const nameOf = ({ member }: { readonly member: Member }) => member.device.name;

function markerFor(
  record: RolloutRecord,
  device: DeviceState,
  transaction: string,
): Marker | undefined {
  const { spec, name, round } = record;
  const status = device.status?.value;
  const digest = status === undefined ? undefined : buildFor(spec, status);
  if (digest === undefined) return undefined;
  const last = meant(device.marker);
  const isAgain = last?.rollout?.name === name && last.rollout.round === round;
  // One that it has never taken up was no attempt.
  const isTaken = status?.transaction === last?.transaction;
  const before = isAgain ? (last?.rollout?.attempt ?? 1) : 0;
  return {
    protocol: 1,
    transaction,
    rollout: { name, round, attempt: isAgain && !isTaken ? before : before + 1 },
    build: { version: spec.version, digest },
    manifest: spec.manifest,
    sources: spec.sources,
    rate: spec.rate,
    limits: spec.limits,
    observed: null,
    commit: null,
    withdrawn: null,
  };
}

function noteLook(
  draft: Draft,
  name: string,
  look: {
    readonly counts: RolloutCounts;
    readonly waitsFor: string;
    readonly troubled: RolloutState["troubled"];
    readonly soaking: number | undefined;
  },
): void {
  const rollout = draft.state.rollouts.get(name);
  if (rollout !== undefined) draft.setRollout({ ...rollout, ...look });
}

const whats = {
  pause: "rollout-paused",
  failing: "rollout-paused",
  resume: "rollout-resumed",
  abort: "rollout-aborted",
  advance: "rollout-wave",
  finish: "rollout-complete",
} as const;

/** @returns why the event does nothing; undefined when it did something */
export function tellRollout(
  draft: Draft,
  rollout: RolloutState,
  event: RolloutEvent,
): string | undefined {
  const record = meant(rollout.record);
  if (record === undefined) return "it is being removed";
  const next = stepRollout(record, event);
  if (typeof next === "string") return next;
  draft.writeRollout(rollout, put(rollout.record, next));
  const wave = event.kind === "advance" ? `, wave ${next.wave + 1} of ${wavesOf(next.spec)}` : "";
  const why = next.reason === null ? "" : `: ${next.reason}`;
  draft.tell({
    what: whats[event.kind],
    device: null,
    rollout: rollout.name,
    message: `rollout ${rollout.name} is ${next.phase}${wave}${why}`,
  });
  return undefined;
}
