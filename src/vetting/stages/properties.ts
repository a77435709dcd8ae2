import { type DiskProperty, diskProperties } from "../../hardware/disk/health.ts";
import type { Stage } from "../protocol-result.ts";
import { cpuKinds } from "../tasks/cpu.ts";

/** "disk.change" takes two looks: the stage Storage has them. */
export const smartProperties: readonly DiskProperty[] = diskProperties.filter(
  (property) => property !== "disk.change",
);

const each = (list: string, ...words: readonly string[]): readonly string[] =>
  words.map((word) => `${list}[*].${word}`);

/**
 * What each stage says by name that it has not seen, so what a spec can require of it. Those of
 * Inventory are places of the inventory, and sources of it, as src/hardware names them.
 */
export const stageProperties: Readonly<Record<Stage, readonly string[]>> = {
  Inventory: [
    ...["smbios", "firmware.secure_boot", "bmc.firmware", "bmc.manufacturer"],
    ...["processors", "processors.socket", "memory.slots", ...each("memory.slots", "size_bytes")],
    ...["disks", "disks[*]", ...each("disks", "serial", "wwn", "model", "firmware", "rotational")],
    ...["network", "network[*]", ...each("network", "carrier", "speed_mbps", "most_mtu")],
    ...["graphics", ...each("graphics", "memory_bytes", "serial", "link.width")],
    ...["pci", "power_supplies"],
  ],
  SMART: smartProperties,
  CPUStress: [
    ...cpuKinds.map((kind) => `cpu.${kind}`),
    ...["cpu.temperature", "cpu.verified"],
    ...["memory.verified", "memory.locked", "memory.node"],
  ],
  Storage: ["disk.change"],
  Network: [
    ...["network.links", "network.carrier", "network.carrier-changes", "network.speed"],
    ...[
      "network.duplex",
      "network.throughput",
      "network.throughput-part",
      "network.content",
      "network.pairs",
    ],
  ],
  GPU: ["gpu.link", "gpu.ecc", "gpu.rows", "gpu.throttle", "gpu.nvlink", "gpu.diagnostics"],
  PSU: ["psu.state", "psu.redundancy"],
};
