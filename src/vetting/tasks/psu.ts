import * as v from "valibot";
import { powerStates } from "../../hardware/power-sensors.ts";
import { engineChoiceSchema } from "../protocol-spec.ts";

/** What the task `psu` reports: what the service processor says of the power supplies. */

export const PSU_TASK = "psu";

export const psuLimits = { sensors: 256 } as const;

const text = v.pipe(v.string(), v.maxLength(256));
const list = <Item extends v.GenericSchema>(item: Item) =>
  v.pipe(v.array(item), v.maxLength(psuLimits.sensors));

export const psuInputSchema = v.strictObject({
  /** Of the kernel's driver; another one in tests alone. */
  device: v.optional(text, "/dev/ipmi0"),
  engine: v.optional(engineChoiceSchema, "default"),
});

export const psuReportSchema = v.strictObject({
  /** Who asked; null: nobody could, and `refusal` says why. */
  engine: v.nullable(v.strictObject({ name: text, version: v.nullable(text) })),
  refusal: v.nullable(text),
  sensors: list(
    v.strictObject({
      name: text,
      /** "10.1": a power supply, the first of them. */
      entity: text,
      states: v.array(v.picklist(powerStates)),
    }),
  ),
  unread: list(v.strictObject({ name: text, reason: text })),
});
export type PsuReport = v.InferOutput<typeof psuReportSchema>;
