import * as v from "valibot";
import { pciAddressSchema } from "../../hardware/inventory.ts";
import { nvlinkLimits } from "../../hardware/nvidia-links.ts";
import { diagnosticOutcomes, MOST_DIAGNOSTICS } from "../../hardware/nvidia-smi.ts";
import { engineChoiceSchema } from "../protocol-spec.ts";

/** What the task `gpu` is told and reports: the graphics cards that compute, one by one. */

export const GPU_TASK = "gpu";

export const gpuLimits = { cards: 64, unseen: 256 } as const;

const text = v.pipe(v.string(), v.maxLength(512));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const some = v.nullable(count);

export const gpuInputSchema = v.strictObject({
  /** Another folder than `/` in tests alone. */
  root: v.optional(v.string(), "/"),
  cards: v.pipe(
    v.array(v.strictObject({ pci: pciAddressSchema, vendor: text, driver: v.nullable(text) })),
    v.maxLength(gpuLimits.cards),
  ),
  dcgm_level: count,
  /** "own": no tool is asked. */
  engine: v.optional(engineChoiceSchema, "default"),
  /** Of all diagnostics. */
  diagnostics_s: v.pipe(v.number(), v.minValue(0)),
});
export type GpuInput = v.InferOutput<typeof gpuInputSchema>;

const cardSchema = v.strictObject({
  pci: pciAddressSchema,
  width: some,
  width_most: some,
  temperature_c: v.nullable(v.number()),
  power_w: v.nullable(v.number()),
  /** null: not seen, and `unseen` says why. `enabled` null: the driver does not say. */
  ecc: v.nullable(
    v.strictObject({ enabled: v.nullable(v.boolean()), corrected: some, uncorrected: some }),
  ),
  /** Rows that were remapped, or pages retired; `failed`: there was no row left. */
  rows: v.nullable(v.strictObject({ remapped: count, pending: v.boolean(), failed: v.boolean() })),
  /** null: it has no NVLink, or nobody tells of it. */
  nvlink: v.nullable(
    v.strictObject({
      links: count,
      active: count,
      inactive: v.pipe(v.array(count), v.maxLength(nvlinkLimits.links)),
      replays: some,
      recoveries: some,
      checksums: some,
    }),
  ),
  /** Why it runs slower than it could; null: not seen. */
  throttle: v.nullable(v.array(text)),
  /** The driver's words of a card that it has lost. */
  broken: v.nullable(text),
});
export type GpuCard = v.InferOutput<typeof cardSchema>;

export const gpuReportSchema = v.strictObject({
  engines: v.array(v.strictObject({ name: text, version: v.nullable(text) })),
  cards: v.pipe(v.array(cardSchema), v.maxLength(gpuLimits.cards)),
  /** null: they were not made, and `unseen` says why, or the spec wants none. */
  diagnostics: v.nullable(
    v.pipe(
      v.array(
        v.strictObject({
          name: text,
          card: some,
          outcome: v.picklist(diagnosticOutcomes),
          message: text,
        }),
      ),
      v.maxLength(MOST_DIAGNOSTICS),
    ),
  ),
  /** "gpu.ecc" of a card, "gpu.diagnostics" of the host. */
  unseen: v.pipe(
    v.array(v.strictObject({ property: text, component: text, reason: text })),
    v.maxLength(gpuLimits.unseen),
  ),
});
export type GpuReport = v.InferOutput<typeof gpuReportSchema>;
