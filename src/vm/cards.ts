import * as v from "valibot";
import { DEFAULT_NETWORK, networkLimits, networkNameSchema } from "./protocol-network.ts";

/** What a machine has of networks for as long as it exists, as it is written down. Pure. */

export const cardSchema = v.strictObject({
  /** Whose name in the worker's configuration: a card of an older record is the default one's. */
  network: v.optional(networkNameSchema, DEFAULT_NETWORK),
  tap: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_.-]{1,15}$/)),
  mac: v.pipe(v.string(), v.regex(/^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$/)),
  address: v.pipe(v.string(), v.ipv4()),
});
export type Card = v.InferOutput<typeof cardSchema>;

/** In the order of the machine's declaration. */
export const cardsSchema = v.pipe(v.array(cardSchema), v.maxLength(networkLimits.cards));

/** Records and snapshots of a worker that knew one network have one `card`, or null for none. */
export const withCards = v.transform((input: unknown): unknown => {
  if (typeof input !== "object" || input === null || !("card" in input)) return input;
  const { card, ...rest } = input;
  return { ...rest, cards: card === null ? [] : [card] };
});
