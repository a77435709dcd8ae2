import { standingOf } from "./lifecycle-view.ts";
import type { FleetOperator } from "./operator.ts";

/** Numbers of a fleet, for /metrics and for people. */
export function gaugesOf(
  operator: FleetOperator,
): readonly { readonly name: string; readonly help: string; readonly read: () => number }[] {
  const standing = (wanted: string) => {
    const { context, state } = operator;
    return [...state.devices].filter((one) => standingOf(one, context) === wanted).length;
  };
  const total = (count: "done" | "failed" | "flight") =>
    [...operator.state.rollouts.values()].reduce(
      (sum, { counts }) => sum + (counts?.[count] ?? 0),
      0,
    );
  const gauges = {
    devices: ["Devices, lost ones too", () => operator.state.devices.size],
    devices_alive: ["Devices that were heard lately", () => standing("alive")],
    devices_lost: ["Devices that were not heard for long", () => standing("lost")],
    upgrades_done: ["Devices that have what their rollout gives", () => total("done")],
    upgrades_failed: ["Devices that failed in their rollout", () => total("failed")],
    upgrades_under_way: ["Devices that are being upgraded", () => total("flight")],
    rollouts: ["Rollouts that are kept", () => operator.state.rollouts.size],
  } as const;
  return Object.entries(gauges).map(([name, [help, read]]) => ({
    ...{ name: `hostler_fleet_${name}`, help, read },
  }));
}
