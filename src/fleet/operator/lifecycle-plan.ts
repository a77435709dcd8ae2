import type { Marker } from "../protocol.ts";
import type { DevicePhase } from "../protocol-operator.ts";
import { type Amount, operatorLimits, type RolloutSpec } from "../protocol-operator.ts";
import { phaseOf, silence } from "./lifecycle-device.ts";
import { hashOf } from "./lifecycle-device-map.ts";
import type { Draft } from "./lifecycle-draft.ts";
import {
  type ActiveRollout,
  activeRollouts,
  buildFor,
  claimsOn,
  countsOf,
  judgeMember,
  type Member,
} from "./lifecycle-member.ts";
import { isKept, keepAll, whatIsKept } from "./lifecycle-past.ts";
import { type RolloutEvent, stepRollout, withChange } from "./lifecycle-rollout.ts";
import { meant, put } from "./lifecycle-slot.ts";
import {
  type DeviceState,
  isOpen,
  type PastStanding,
  type RolloutCounts,
  type RolloutRecord,
  type RolloutState,
  type ShownCounts,
} from "./lifecycle-state.ts";

/** All rollouts looked at: whose a device is, what is begun, taken back, paused, ended. Pure. */

/** A rollout, and what counts of it. */
interface Active extends ActiveRollout {
  readonly members: Member[];
  /** With its marker, and not its own any more: others have them, or it was aborted. */
  readonly left: Member[];
  /** Devices that it selects, and that later ones have. */
  superseded: number;
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
  const active = activeRollouts(draft.state.rollouts).map((one): Active => {
    return { ...one, members: [], left: [], superseded: 0, troubled: [] };
  });
  for (const device of draft.devices) lookAt(draft, device, active);
  for (const one of active) planRollout(draft, one, active);
  if (draft.state.rollouts.size > 0) draft.planAt(draft.now + settings.planEvery);
}

/** Takes back what should not go on, and finds whose it is. */
function lookAt(draft: Draft, device: DeviceState, active: readonly Active[]): void {
  const { owner, holder, others } = claimsOn(device, active);
  for (const one of others) one.superseded += 1;
  if (holder !== undefined && holder !== owner) {
    holder.members.push(judgeMember(holder.record, device, draft));
  }
  if (owner !== undefined) {
    const member = judgeMember(owner.record, device, draft);
    (owner === holder ? owner.members : owner.left).push(member);
    const { troubled } = owner;
    if (member.reason !== "" && troubled.length < operatorLimits.named) troubled.push(member);
  }
  const why = whyTakenBack(draft, device, { owner, holder });
  if (why !== undefined) draft.tellDevice(device, { kind: "withdraw", reason: why });
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

function planRollout(draft: Draft, active: Active, all: readonly Active[]): void {
  const { rollout, record, members } = active;
  const counts = countsOf(members);
  const target = waveTarget(record, counts.members);
  const looked = { ...active, counts, target, all };
  const { waitsFor, begun = 0 } = whatFollows(draft, looked);
  const isSoaking = waitsFor === soaking;
  const now = { ...counts, flight: counts.flight + begun, waiting: counts.waiting - begun };
  noteLook(draft, rollout.name, {
    counts: now,
    shown: shownCounts(active, now),
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
  readonly all: readonly Active[];
}

const soaking = "the next wave: this one has ended, and soaks";

/** Why one has ended without a device of its own. */
export const laterHaveAll = "later rollouts have all its devices";

interface Followed {
  /** Why nothing more is begun, or "". */
  readonly waitsFor: string;
  readonly begun?: number;
}

const nothingToSay: Followed = { waitsFor: "" };

function whatFollows(draft: Draft, looked: Looked): Followed {
  const { record, counts, target, superseded } = looked;
  if (record.phase === "aborted") return nothingToSay;
  const hinders = whyHindered(record, looked);
  const allowed = record.forgiven + Math.floor((record.spec.failures_percent * target) / 100);
  if (counts.failed > allowed) {
    const reason = `${counts.failed} of ${target} have failed; ${allowed} may`;
    tellRollout(draft, record.name, { kind: "failing", reason, counts });
    return nothingToSay;
  }
  if (record.phase === "paused") return nothingToSay;
  if (hinders !== undefined) {
    tellRollout(draft, record.name, { kind: "failing", reason: hinders, counts });
    return nothingToSay;
  }
  if (isFinished(record, counts, superseded)) {
    const reason = counts.members === 0 ? laterHaveAll : null;
    tellRollout(draft, record.name, { kind: "finish", reason, counts });
    return nothingToSay;
  }
  const isLast = record.wave >= wavesOf(record.spec) - 1;
  if (!isLast && isWaveOver(counts, target)) return soak(draft, looked);
  return begin(draft, looked);
}

/** Whose host could not proves nothing: others take their turn, as long as there are others. */
function isWaveOver(counts: RolloutCounts, target: number): boolean {
  const judged = counts.done + counts.failed;
  return judged > 0 && judged >= Math.min(target, counts.members - counts.hindered);
}

/**
 * Faults of hosts are none of the version's, and count for no wave. But where more could not than
 * got it, or nobody is left who could, it is no single host's matter.
 */
function whyHindered(record: RolloutRecord, { counts, troubled }: Looked): string | undefined {
  const hindered = counts.hindered - record.forgivenHosts;
  const isIdle = counts.waiting + counts.flight + counts.away + counts.done + counts.failed === 0;
  const isMany = hindered >= operatorLimits.hindered && hindered > counts.done;
  if (hindered <= 0 || !(isMany || isIdle)) return undefined;
  const one = troubled.find(({ standing }) => standing === "hindered");
  const such = one === undefined ? "" : `, such as ${one.device.name}: ${one.reason}`;
  return `${hindered} hosts could not, and ${counts.done} have it${such}`;
}

function soak(draft: Draft, { rollout, record }: Looked): Followed {
  const until = (rollout.soaking ?? draft.now) + record.spec.soak_ms;
  if (draft.now < until) {
    draft.planAt(until);
    return { waitsFor: soaking };
  }
  tellRollout(draft, record.name, { kind: "advance" });
  return nothingToSay;
}

/** The last wave is open, and nobody is left who is here and has not had it. */
function isFinished(record: RolloutRecord, counts: RolloutCounts, superseded: number): boolean {
  if (counts.members === 0) return superseded > 0;
  const isLast = record.wave >= wavesOf(record.spec) - 1;
  const isIdle = counts.waiting === 0 && counts.flight === 0;
  const seen = Math.min(counts.hindered, record.forgivenHosts);
  return isLast && isIdle && counts.done + counts.failed + seen > 0;
}

/** Begins as many as may be. */
function begin(draft: Draft, looked: Looked): Followed {
  const { record, members, left: gone, counts, target } = looked;
  const { settlesAt } = draft.state;
  if (settlesAt !== undefined && draft.now < settlesAt) {
    draft.planAt(settlesAt);
    return { waitsFor: "devices to tell anew what they do: an older store was put back" };
  }
  const waiting = members.filter(({ standing }) => standing === "waiting");
  if (counts.members === 0) return { waitsFor: nobody(record, counts.unfit) };
  if (waiting.length === 0) return { waitsFor: counts.away > 0 ? "devices that are away" : "" };
  if (!draft.mayGoOn(record.name)) return { waitsFor: "its maintenance window" };
  const returning = members.filter(({ standing }) => standing === "returning").length;
  // What it gave and is still under way holds its places, whoever has the device next.
  const held = counts.flight + countsOf(gone).flight;
  const places = amountOf(record.spec.max_unavailable, counts.members) - held;
  if (places <= 0) return { waitsFor: whoHolds(members) };
  const left = target - counts.done - counts.failed - counts.flight - returning;
  if (left <= 0) return { waitsFor: endOfWave };
  const chosen = inTurn(record.name, waiting).slice(0, Math.min(places, left, waiting.length));
  const ready = remembered(draft, looked, chosen);
  for (const { device } of ready) {
    const marker = markerFor(record, device, draft.context.nextTransaction);
    if (marker !== undefined) draft.tellDevice(device, { kind: "assign", marker });
  }
  const begun = ready.length;
  if (waiting.length === chosen.length) return { waitsFor: "", begun };
  return { waitsFor: places <= left ? whoHolds(members) : endOfWave, begun };
}

const endOfWave = "the end of this wave";

/** Late devices count: it goes on when one comes. */
function nobody({ spec: { select } }: RolloutRecord, unfit: number): string {
  const labels = Object.entries(select.labels).map(([key, value]) => `${key}=${value}`);
  const wanted = [
    ...(select.devices ?? []).slice(0, operatorLimits.named),
    ...(labels.length === 0 ? [] : [`labels ${labels.join(",")}`]),
  ];
  const which = wanted.length === 0 ? "there is none" : `none matches ${wanted.join(" ")}`;
  const others = unfit === 0 ? which : `${unfit} match, and can not have it`;
  return `a device: ${others}; it goes on when one comes`;
}

/**
 * What others did to them is kept before it is written over; a moment later it is there.
 * @returns those of which all is kept
 */
function remembered(
  draft: Draft,
  { record, all }: Looked,
  chosen: readonly Member[],
): readonly Member[] {
  const missing = new Map(
    chosen.map((member) => {
      const claims = claimsOn(member.device, all);
      const kept = whatIsKept(member.device, claims, { by: record.name, look: draft });
      return [member, kept.filter((one) => !isKept(draft, one))];
    }),
  );
  const counted = keepAll(draft, [...missing.values()].flat());
  return chosen.filter((member) => missing.get(member)?.every((one) => counted.has(one)) === true);
}

/** With what became of devices that it has no more. */
function shownCounts(
  { record, members, left, superseded }: Active,
  counts: RolloutCounts,
): ShownCounts {
  const present = new Set<string>();
  if (record.past.named.length > 0) {
    for (const { device } of [...members, ...left]) present.add(device.name);
  }
  const past = record.past.named.filter(({ device }) => !present.has(device));
  const { unnamed } = record.past;
  const count = (standing: PastStanding) =>
    past.filter((one) => one.standing === standing).length + unnamed[standing];
  const of = countsOf(left);
  const [done, failed] = [of.done + count("done"), of.failed + count("failed")];
  const hindered = of.hindered + count("hindered");
  const { flight } = of;
  const away = isOpen(record.phase)
    ? superseded - done - failed - hindered - flight
    : of.waiting + of.away + of.unfit + count("superseded");
  return {
    ...counts,
    members: counts.members + done + failed + hindered + flight,
    done: counts.done + done,
    failed: counts.failed + failed,
    hindered: counts.hindered + hindered,
    flight: counts.flight + flight,
    superseded: Math.max(0, away),
  };
}

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
    readonly shown: ShownCounts;
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

const changed = {
  pause: "paused",
  failing: "paused",
  resume: "resumed",
  abort: "aborted",
  advance: "wave",
  finish: "complete",
} as const;

/**
 * @param by who asks for it; without one it is this operator's own decision
 * @returns why the event does nothing; undefined when it did something
 */
export function tellRollout(
  draft: Draft,
  name: string,
  event: RolloutEvent,
  by?: string,
): string | undefined {
  const rollout = draft.state.rollouts.get(name);
  const record = rollout && meant(rollout.record);
  if (rollout === undefined || record === undefined) return "it is being removed";
  const next = stepRollout(record, event);
  if (typeof next === "string") return next;
  const reason = event.kind === "advance" ? `wave ${next.wave + 1}` : next.reason;
  const what = changed[event.kind];
  const change = { time: draft.context.wall, what, by: by ?? null, reason } as const;
  draft.writeRollout(rollout, put(rollout.record, withChange(next, change)));
  const wave = event.kind === "advance" ? `, wave ${next.wave + 1} of ${wavesOf(next.spec)}` : "";
  const why = next.reason === null ? "" : `: ${next.reason}`;
  draft.tell({
    what: whats[event.kind],
    device: null,
    rollout: name,
    message: `rollout ${name} is ${next.phase}${wave}${why}`,
  });
  return undefined;
}
