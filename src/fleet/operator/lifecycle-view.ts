import type { Heartbeat } from "../protocol.ts";
import type { DeviceView, RolloutView } from "../protocol-operator.ts";
import { noCounts } from "./lifecycle.ts";
import { isHealthy, phaseOf, silence } from "./lifecycle-device.ts";
import { amountOf, wavesOf, waveTarget } from "./lifecycle-plan.ts";
import { meant } from "./lifecycle-slot.ts";
import type {
  DeviceState,
  FleetState,
  OperatorContext,
  OperatorSettings,
  RolloutState,
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
    reason: device.trouble ?? status?.reason ?? marker?.withdrawn?.reason ?? null,
    progress_percent: progressOf(device),
    healthy: healthOf(heartbeat),
    architecture: status?.architecture ?? null,
    executor: status?.executor ?? null,
  };
}

const healthOf = (heartbeat: Heartbeat | undefined): boolean | null =>
  heartbeat === undefined ? null : isHealthy(heartbeat);

function progressOf({ status }: DeviceState): number | null {
  const progress = status?.value.progress ?? null;
  if (progress === null || progress.of_bytes === 0) return null;
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

/** @returns undefined for one that is being removed */
export function rolloutView(rollout: RolloutState): RolloutView | undefined {
  const record = meant(rollout.record);
  if (record === undefined) return undefined;
  const counts = (record.phase === "aborted" ? record.result : rollout.counts) ?? noCounts;
  return {
    name: record.name,
    number: record.number,
    phase: record.phase,
    reason: record.reason,
    version: record.spec.version,
    wave: Math.min(record.wave + 1, wavesOf(record.spec)),
    waves: wavesOf(record.spec),
    wave_devices: waveTarget(record, counts.members),
    max_unavailable: amountOf(record.spec.max_unavailable, counts.members),
    waits_for: rollout.waitsFor === "" ? null : rollout.waitsFor,
    counts,
    named: [...rollout.troubled],
  };
}

export function rolloutsInOrder(state: FleetState): RolloutState[] {
  const numberOf = ({ record }: RolloutState) => meant(record)?.number ?? 0;
  return [...state.rollouts.values()].sort((left, right) => numberOf(right) - numberOf(left));
}
