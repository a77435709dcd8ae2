import type { Stage } from "../protocol-result.ts";
import { cpuStress } from "./cpu-stress.ts";
import { gpu } from "./gpu.ts";
import { inventory } from "./inventory.ts";
import { network } from "./network.ts";
import { psu } from "./psu.ts";
import { smart } from "./smart.ts";
import type { StageDefinition } from "./stage.ts";
import { storage } from "./storage.ts";

/** How each stage is planned and judged. */
export const definitions: Readonly<Record<Stage, StageDefinition>> = {
  Inventory: inventory,
  SMART: smart,
  CPUStress: cpuStress,
  Storage: storage,
  Network: network,
  GPU: gpu,
  PSU: psu,
};
