import { standingOf } from "./lifecycle-view.ts";
import type { FleetOperator } from "./operator.ts";

export interface FleetGauge {
  readonly name: string;
  readonly help: string;
  readonly read: (operator: FleetOperator) => number;
}

const standing = (wanted: string) => (operator: FleetOperator) => {
  const { context, state } = operator;
  return [...state.devices].filter((one) => standingOf(one, context) === wanted).length;
};

const total =
  (count: "done" | "failed" | "flight") =>
  ({ state }: FleetOperator) =>
    [...state.rollouts.values()].reduce((sum, { counts }) => sum + (counts?.[count] ?? 0), 0);

const numbers = {
  devices: ["Devices, lost ones too", ({ state }) => state.devices.size],
  devices_alive: ["Devices that were heard lately", standing("alive")],
  devices_lost: ["Devices that were not heard for long", standing("lost")],
  upgrades_done: ["Devices that have what their rollout gives", total("done")],
  upgrades_failed: ["Devices that failed in their rollout", total("failed")],
  upgrades_under_way: ["Devices that are being upgraded", total("flight")],
  rollouts: ["Rollouts that are kept", ({ state }) => state.rollouts.size],
} satisfies Record<string, readonly [string, (operator: FleetOperator) => number]>;

/** Numbers of a fleet, for /metrics and for people. */
export const gauges: readonly FleetGauge[] = Object.entries(numbers).map(
  ([name, [help, read]]) => ({
    ...{ name: `hostler_fleet_${name}`, help, read },
  }),
);
