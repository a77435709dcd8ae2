import type { Sample } from "../../http/metrics.ts";
import { type OperatorWrite, operatorWrites } from "../perform/operator-steps.ts";
import { endingCauses } from "../protocol.ts";
import { deviceStandings, operatorLimits, type RolloutView } from "../protocol-operator.ts";
import { phaseOf, silence } from "./lifecycle-device.ts";
import { meant } from "./lifecycle-slot.ts";
import { type DeviceState, type FleetState, isOpen, rolloutPhases } from "./lifecycle-state.ts";
import { rolloutsInOrder, rolloutView, standingOf } from "./lifecycle-view.ts";
import type { FleetOperator } from "./operator.ts";

/** Numbers of a fleet, for /metrics and for people: what somebody would be woken for. */

export interface FleetMetric {
  readonly name: string;
  readonly help: string;
  readonly type: "gauge" | "counter";
  readonly read: (operator: FleetOperator) => readonly Sample[];
}

/** How an upgrade ended: done, or where the reason lies that it did not. */
export const upgradeEnds = ["done", ...endingCauses, "unknown"] as const;
type UpgradeEnd = (typeof upgradeEnds)[number];

/** What an operator counts of itself, from its start. */
export class OperatorCounts {
  readonly ends = new Map<UpgradeEnd, number>(upgradeEnds.map((end) => [end, 0]));
  readonly writes = new Map(operatorWrites.map((write) => [write, { count: 0, seconds: 0 }]));
  /** Of writes that are under way, how many. */
  waiting = 0;
  refusals = 0;

  ended(device: DeviceState | undefined): void {
    const phase = device === undefined ? "free" : phaseOf(device);
    const end = phase === "done" ? "done" : (device?.status?.value.cause ?? "unknown");
    this.ends.set(end, (this.ends.get(end) ?? 0) + 1);
  }

  wrote(write: OperatorWrite, seconds: number): void {
    const { count, seconds: before } = this.writes.get(write) ?? { count: 0, seconds: 0 };
    this.writes.set(write, { count: count + 1, seconds: before + seconds });
  }
}

const one = (value: number): readonly Sample[] => [{ labels: {}, value }];

/** Each of these words with how many there are, zeros too. */
function tally(
  label: string,
  words: readonly string[],
  found: Iterable<string>,
): readonly Sample[] {
  const counts = new Map(words.map((word) => [word, 0]));
  for (const word of found) counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].map(([word, value]) => ({ labels: { [label]: word }, value }));
}

const standing =
  (wanted: string) =>
  ({ context, state }: FleetOperator) =>
    one([...state.devices].filter((device) => standingOf(device, context) === wanted).length);

const total =
  (count: "done" | "failed" | "hindered" | "flight") =>
  ({ state }: FleetOperator) =>
    one([...state.rollouts.values()].reduce((sum, { counts }) => sum + (counts?.[count] ?? 0), 0));

const versionOf = ({ canonical, status }: DeviceState): string =>
  canonical?.heartbeat.version ?? status?.value.current.version ?? "unknown";

function longestSilence({ context, state }: FleetOperator): number {
  let longest = 0;
  for (const device of state.devices) {
    if (device.canonical !== undefined) longest = Math.max(longest, silence(device, context.now));
  }
  return longest / 1_000;
}

const phases = (state: FleetState) =>
  [...state.rollouts.values()].flatMap(({ record }) => meant(record)?.phase ?? []);

/** Those that may still need somebody, the newest first. */
function openRollouts({ state }: FleetOperator): readonly RolloutView[] {
  return rolloutsInOrder(state)
    .flatMap((rollout) => rolloutView(rollout) ?? [])
    .filter(({ phase }) => isOpen(phase))
    .slice(0, operatorLimits.measured);
}

const devicesOfRollouts = (operator: FleetOperator): readonly Sample[] =>
  openRollouts(operator).flatMap(({ name: rollout, counts: { members: _members, ...counts } }) =>
    Object.entries(counts).map(([of, value]) => ({ labels: { rollout, standing: of }, value })),
  );

const pausedRollouts = (operator: FleetOperator): readonly Sample[] =>
  openRollouts(operator).map(({ name: rollout, phase }) => ({
    labels: { rollout },
    value: phase === "paused" ? 1 : 0,
  }));

type Numbers = Record<string, readonly [help: string, read: FleetMetric["read"]]>;

const gaugeNumbers: Numbers = {
  devices: ["Devices, lost ones too", ({ state }) => one(state.devices.size)],
  devices_alive: ["Devices that were heard lately", standing("alive")],
  devices_lost: ["Devices that were not heard for long", standing("lost")],
  devices_by_standing: [
    "Devices by whether they are heard",
    ({ context, state }) =>
      tally(
        "standing",
        deviceStandings,
        [...state.devices].map((device) => standingOf(device, context)),
      ),
  ],
  devices_stale: [
    "Devices whose metadata is stale: revocations may be kept from them",
    ({ state }) =>
      one([...state.devices].filter(({ status }) => status?.value.stale_metadata).length),
  ],
  devices_by_version: [
    "Devices by the version that they run",
    ({ state }) => tally("version", [], [...state.devices].map(versionOf)),
  ],
  devices_by_upgrade: [
    "Devices by where their upgrade is",
    ({ state }) => tally("upgrade", [], [...state.devices].map(phaseOf)),
  ],
  longest_silence_seconds: [
    "Since the last heartbeat of the device that is silent for longest",
    (operator) => one(longestSilence(operator)),
  ],
  upgrades_done: ["Devices that have what their rollout gives", total("done")],
  upgrades_failed: ["Devices that failed in their rollout", total("failed")],
  upgrades_hindered: [
    "Devices whose host could not take what their rollout gives",
    total("hindered"),
  ],
  upgrades_under_way: ["Devices that are being upgraded", total("flight")],
  rollouts: ["Rollouts that are kept", ({ state }) => one(state.rollouts.size)],
  rollouts_by_phase: [
    "Rollouts by their phase",
    ({ state }) => tally("phase", rolloutPhases, phases(state)),
  ],
  rollout_paused: ["1: this rollout waits for somebody; 0: it runs", pausedRollouts],
  rollout_devices: [
    "Devices of a rollout that has not ended, by where they stand",
    devicesOfRollouts,
  ],
  store_writes_waiting: [
    "Writes of the operator that are not answered yet",
    ({ counts }) => one(counts.waiting),
  ],
};

const writeSamples =
  (part: "count" | "seconds") =>
  ({ counts }: FleetOperator) =>
    [...counts.writes].map(([write, of]) => ({ labels: { write }, value: of[part] }));

const counterNumbers: Numbers = {
  upgrades_ended_total: [
    "Upgrades that ended since this operator's start, by cause",
    ({ counts }) => [...counts.ends].map(([cause, value]) => ({ labels: { cause }, value })),
  ],
  store_writes_total: ["Writes that were answered", writeSamples("count")],
  store_write_seconds_total: ["Time until they were answered, together", writeSamples("seconds")],
  store_write_refusals_total: [
    "Writes that the store refused, and that are tried again",
    ({ counts }) => one(counts.refusals),
  ],
};

const metricsOf = (numbers: Numbers, type: FleetMetric["type"]): FleetMetric[] =>
  Object.entries(numbers).map(([name, [help, read]]) => {
    return { name: `hostler_fleet_${name}`, help, type, read };
  });

export const fleetMetrics: readonly FleetMetric[] = [
  ...metricsOf(gaugeNumbers, "gauge"),
  ...metricsOf(counterNumbers, "counter"),
];
