import * as v from "valibot";
import { macSchema } from "../../hardware/inventory.ts";

/**
 * What the task `pairs` is told and reports: frames from each card of the host to each other one,
 * by whatever cable or switch is between them, without an address and without a server.
 */

export const PAIRS_TASK = "pairs";

export const pairsLimits = {
  /** Cards; those beyond are in no pair. */
  cards: 16,
  /** Of one pair, in one direction. */
  frames: 65_536,
} as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const nameSchema = v.pipe(v.string(), v.minLength(1), v.maxLength(15));
const most = <Item extends v.GenericSchema>(item: Item, length: number) =>
  v.pipe(v.array(item), v.maxLength(length));

export const pairsInputSchema = v.strictObject({
  cards: most(v.strictObject({ name: nameSchema, mac: macSchema }), pairsLimits.cards),
  frames: v.pipe(count, v.minValue(1), v.maxValue(pairsLimits.frames)),
  carrier_wait_s: v.pipe(v.number(), v.finite(), v.minValue(0)),
});
export type PairsInput = v.InferOutput<typeof pairsInputSchema>;

/** One direction. */
export const pairSchema = v.strictObject({
  from: nameSchema,
  to: nameSchema,
  /** Less than was asked for where there is no way between them. A card may have taken less. */
  sent: count,
  /** Each once, however often it came. */
  received: count,
  /** Of those that came, those that hold other bytes than were sent. */
  wrong: count,
});
export type Pair = v.InferOutput<typeof pairSchema>;

export const pairsReportSchema = v.strictObject({
  /** Of cards with a carrier alone. */
  pairs: most(pairSchema, pairsLimits.cards * (pairsLimits.cards - 1)),
});
export type PairsReport = v.InferOutput<typeof pairsReportSchema>;
