import type { Heartbeat } from "../protocol.ts";
import type { DeviceView, RolloutMember, RolloutView } from "../protocol-operator.ts";
import { noCounts } from "./lifecycle.ts";
import { driftWords, isHealthy, phaseOf, silence } from "./lifecycle-device.ts";
import {
  type ActiveRollout,
  activeRollouts,
  type Claims,
  claimsOn,
  judgeMember,
} from "./lifecycle-member.ts";
import { amountOf, laterHaveAll, wavesOf, waveTarget } from "./lifecycle-plan.ts";
import { meant } from "./lifecycle-slot.ts";
import {
  type DeviceState,
  type FleetState,
  isOpen,
  type OperatorContext,
  type OperatorSettings,
  type PastMember,
  type RolloutRecord,
  type RolloutState,
  type ShownCounts,
} from "./lifecycle-state.ts";

/** What people and programs see of a fleet. Pure. */

export function deviceView(
  device: DeviceState,
  { now, settings }: Pick<OperatorContext, "now" | "settings">,
): DeviceView {
  const status = device.status?.value;
  const marker = meant(device.marker);
  const heartbeat = device.canonical?.heartbeat;
  return {
    name: device.name,
    standing: standingOf(device, { now, settings }),
    heard_ms:
      device.canonical === undefined ? null : Math.max(0, Math.round(now - device.canonical.at)),
    labels: meant(device.labels) ?? {},
    current_version: heartbeat?.version ?? status?.current.version ?? null,
    current_digest: heartbeat?.digest ?? status?.current.digest ?? null,
    target_version: marker?.build.version ?? null,
    rollout: marker?.rollout?.name ?? null,
    upgrade: phaseOf(device),
    reason:
      device.trouble ?? driftWords(device) ?? status?.reason ?? marker?.withdrawn?.reason ?? null,
    cause: causeOf(device),
    progress_percent: progressOf(device),
    healthy: healthOf(heartbeat),
    stale_since: status?.stale_metadata?.expires ?? null,
    architecture: status?.architecture ?? null,
    executor: status?.executor ?? null,
  };
}

/** Of what it was told last, once that is over. */
function causeOf(device: DeviceState): DeviceView["cause"] {
  const phase = phaseOf(device);
  const isOver = phase === "failed" || phase === "returned";
  return isOver && driftWords(device) === null ? (device.status?.value.cause ?? null) : null;
}

const healthOf = (heartbeat: Heartbeat | undefined): boolean | null =>
  heartbeat === undefined ? null : isHealthy(heartbeat);

function progressOf(device: DeviceState): number | null {
  const progress = device.status?.value.progress ?? null;
  if (phaseOf(device) !== "preparing" || progress === null || progress.of_bytes === 0) return null;
  return Math.min(100, Math.round((1_000 * progress.bytes) / progress.of_bytes) / 10);
}

export function standingOf(
  device: DeviceState,
  { now, settings }: { readonly now: number; readonly settings: OperatorSettings },
): DeviceView["standing"] {
  if (device.canonical === undefined) return "unheard";
  const silent = silence(device, now);
  if (silent > settings.lostAfter) return "lost";
  return silent > settings.silentAfter ? "silent" : "alive";
}

/** Of all devices, by name. */
export function devicesInOrder(state: FleetState): DeviceState[] {
  return [...state.devices].sort((left, right) => (left.name < right.name ? -1 : 1));
}

/** Milliseconds until something is begun again; null where no older store was put back. */
export function settlesFor({ settlesAt = 0 }: FleetState, now: number): number | null {
  return settlesAt > now ? Math.ceil(settlesAt - now) : null;
}

/** @returns undefined for one that is being removed */
export function rolloutView(rollout: RolloutState): RolloutView | undefined {
  const record = meant(rollout.record);
  if (record === undefined) return undefined;
  const counts = countsFor(record, rollout);
  return {
    name: record.name,
    number: record.number,
    phase: shownPhase(record, counts),
    reason: record.reason,
    version: record.spec.version,
    wave: Math.min(record.wave + 1, wavesOf(record.spec)),
    waves: wavesOf(record.spec),
    wave_devices: waveTarget(record, counts.members),
    max_unavailable: amountOf(record.spec.max_unavailable, counts.members),
    waits_for: rollout.waitsFor === "" ? null : rollout.waitsFor,
    counts,
    changes: [...record.changes],
    named: [...rollout.troubled],
  };
}

/** Complete, and nobody has got it: that is told apart. */
function shownPhase({ phase, reason }: RolloutRecord, counts: ShownCounts): RolloutView["phase"] {
  const isTaken = phase === "complete" && reason === laterHaveAll && counts.done === 0;
  return isTaken ? "superseded" : phase;
}

/** All that a rollout has had or is to have, by name, and what became of each. */
export function membersOf(
  state: FleetState,
  context: Pick<OperatorContext, "now" | "settings">,
  name: string,
): RolloutMember[] {
  const active = activeRollouts(state.rollouts);
  const own = active.find(({ record }) => record.name === name);
  if (own === undefined) return [];
  const members = new Map(own.record.past.named.map((one) => [one.device, pastView(one)]));
  for (const device of state.devices) {
    const claims = claimsOn(device, active);
    const { owner, holder } = claims;
    if (owner !== own && holder !== own) {
      // One that is complete did not wait for those that came later.
      if (!isOpen(own.record.phase) || !claims.others.includes(own) || members.has(device.name))
        continue;
    }
    members.set(device.name, memberView(own, claims, device, context));
  }
  return [...members.values()].sort((left, right) => (left.device < right.device ? -1 : 1));
}

const pastView = ({ device, standing, reason, by }: PastMember): RolloutMember => ({
  device,
  standing,
  reason: reason === "" ? null : reason,
  superseded_by: by,
});

function memberView(
  own: ActiveRollout,
  { owner, holder }: Claims<ActiveRollout>,
  device: DeviceState,
  context: Pick<OperatorContext, "now" | "settings">,
): RolloutMember {
  const { standing, reason } = judgeMember(own.record, device, { context });
  const phase = phaseOf(device);
  const isOver = standing === "done" || standing === "failed" || standing === "hindered";
  // What it gave goes on there, whoever has the device next.
  const isOwn = holder === own || isOver || (owner === own && standing === "flight");
  const why = reason === "" && standing === "flight" ? phase : reason;
  return {
    device: device.name,
    standing: isOwn ? standing : "superseded",
    reason: why === "" ? null : why,
    superseded_by: holder === own ? null : (holder?.record.name ?? null),
  };
}

/** Of one that was aborted: what it had then, and what has become of that since. */
function countsFor({ phase, result }: RolloutRecord, { shown }: RolloutState): ShownCounts {
  const now = shown ?? { ...noCounts, superseded: 0 };
  if (phase !== "aborted" || result === null) return now;
  return {
    ...now,
    members: Math.max(result.members, now.members),
    done: Math.max(result.done, now.done),
    failed: Math.max(result.failed, now.failed),
    hindered: Math.max(result.hindered, now.hindered),
  };
}

export function rolloutsInOrder(state: FleetState): RolloutState[] {
  const numberOf = ({ record }: RolloutState) => meant(record)?.number ?? 0;
  return [...state.rollouts.values()].sort((left, right) => numberOf(right) - numberOf(left));
}
