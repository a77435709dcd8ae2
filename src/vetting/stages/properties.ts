import { type DiskProperty, diskProperties } from "../../hardware/disk/health.ts";
import type { Stage } from "../protocol-result.ts";
import { cpuKinds } from "../tasks/cpu.ts";

/** "disk.change" takes two looks: the stage Storage has them. */
export const smartProperties: readonly DiskProperty[] = diskProperties.filter(
  (property) => property !== "disk.change",
);

/**
 * What each stage says by name that it has not seen, so what a spec can require of it. Inventory is
 * not here: its properties are places of the inventory, and sources of it.
 */
export const stageProperties: Readonly<Record<Exclude<Stage, "Inventory">, readonly string[]>> = {
  SMART: smartProperties,
  CPUStress: [
    ...cpuKinds.map((kind) => `cpu.${kind}`),
    ...["cpu.temperature", "cpu.verified"],
    ...["memory.verified", "memory.locked", "memory.node"],
  ],
  Storage: ["disk.change"],
  Network: [
    ...["network.links", "network.carrier", "network.carrier-changes", "network.speed"],
    ...["network.duplex", "network.throughput", "network.throughput-part"],
  ],
  GPU: ["gpu.link", "gpu.ecc", "gpu.rows", "gpu.throttle", "gpu.nvlink", "gpu.diagnostics"],
  PSU: ["psu.state", "psu.redundancy"],
};
