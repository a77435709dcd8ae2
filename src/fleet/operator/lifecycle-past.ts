import { operatorLimits } from "../protocol-operator.ts";
import { phaseOf } from "./lifecycle-device.ts";
import type { Draft } from "./lifecycle-draft.ts";
import { type ActiveRollout, type Claims, judgeMember, type Look } from "./lifecycle-member.ts";
import { meant, put } from "./lifecycle-slot.ts";
import {
  type DeviceState,
  isOpen,
  type PastMember,
  type PastStanding,
  type RolloutPast,
  type RolloutRecord,
} from "./lifecycle-state.ts";

/**
 * What a rollout keeps of devices that others have now. As long as a device has its marker, what
 * became of it is read off the device; before another marker is written over it, that is kept.
 * Pure.
 */

const noneOfThem = { done: 0, failed: 0, hindered: 0, superseded: 0 } as const;
export const noPast: RolloutPast = { named: [], unnamed: noneOfThem };

/** What is to be kept, of one device and one rollout that it was a member of. */
export interface Remembered {
  readonly rollout: string;
  readonly member: PastMember;
}

/** @param by the rollout that takes it; null: it is forgotten */
export function whatIsKept(
  device: DeviceState,
  { owner, holder, others }: Claims<ActiveRollout>,
  { by, look }: { readonly by: string | null; readonly look: Look },
): Remembered[] {
  const before = holder?.record.name === by ? others[0] : holder;
  const kept: Remembered[] = [];
  if (owner !== undefined && owner.record.name !== by) {
    kept.push(outcomeOf(owner.record, device, { by, look }));
  }
  if (before !== undefined && before !== owner && before.record.name !== by) {
    const one = outcomeOf(before.record, device, { by, look });
    // One that was complete did not wait for it.
    const isTaken = isOpen(before.record.phase) && by !== null;
    if (one.member.standing === "done" || isTaken) kept.push(one);
  }
  return kept;
}

function outcomeOf(
  record: RolloutRecord,
  device: DeviceState,
  { by, look }: { readonly by: string | null; readonly look: Look },
): Remembered {
  const { standing, reason } = judgeMember(record, device, look);
  const isOver = standing === "done" || standing === "failed" || standing === "hindered";
  const text = reason === "" && !isOver ? `it was ${phaseOf(device)}` : reason;
  const member: PastMember = {
    device: device.name,
    standing: isOver ? standing : "superseded",
    reason: text.slice(0, operatorLimits.pastReason),
    by,
  };
  return { rollout: record.name, member };
}

/** Whether it is written down, so that nothing but this record has to know it. */
export function isKept(draft: Draft, { rollout, member }: Remembered): boolean {
  const stored = draft.state.rollouts.get(rollout)?.record.stored;
  // Of one that is about to be removed nothing is kept.
  if (stored === undefined) return true;
  return stored.past.named.some(
    ({ device, standing, reason, by }) =>
      device === member.device &&
      standing === member.standing &&
      reason === member.reason &&
      by === member.by,
  );
}

/**
 * Writes down what is kept of them, each rollout once.
 * @returns those that there is no room for by name: they were counted
 */
export function keepAll(draft: Draft, all: readonly Remembered[]): ReadonlySet<Remembered> {
  const counted = new Set<Remembered>();
  for (const [name, some] of Map.groupBy(all, ({ rollout }) => rollout)) {
    const rollout = draft.state.rollouts.get(name);
    const record = rollout === undefined ? undefined : meant(rollout.record);
    if (rollout === undefined || record === undefined) continue;
    let { past } = record;
    for (const one of some) {
      const next = withMember(past, one.member);
      if (!next.named.includes(one.member)) counted.add(one);
      past = next;
    }
    draft.writeRollout(rollout, put(rollout.record, { ...record, past }));
  }
  return counted;
}

/** One that failed is named before all others. */
export function withMember(past: RolloutPast, member: PastMember): RolloutPast {
  const others = past.named.filter(({ device }) => device !== member.device);
  if (others.length < operatorLimits.past) return { ...past, named: [...others, member] };
  const { unnamed } = past;
  const place = others.findIndex(({ standing }) => standing !== "failed");
  const given = others[place];
  if (member.standing !== "failed" || given === undefined) {
    return { named: others, unnamed: oneMore(unnamed, member.standing) };
  }
  const named = others.toSpliced(place, 1, member);
  return { named, unnamed: oneMore(unnamed, given.standing) };
}

const oneMore = (counts: RolloutPast["unnamed"], standing: PastStanding) => ({
  ...counts,
  [standing]: counts[standing] + 1,
});
