import * as v from "valibot";
import { macSchema } from "../../hardware/inventory.ts";
import { engineChoiceSchema } from "../protocol-spec.ts";
import { taskEngineSchema } from "./disk.ts";

/** What the task `link` is told and reports: one network card, brought up, watched, and used. */

export const LINK_TASK = "link";

export const linkLimits = {
  /** Counters of errors that a card has, of those that the kernel has for all. */
  errors: 16,
} as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const seconds = v.pipe(v.number(), v.finite(), v.minValue(0));
const text = v.pipe(v.string(), v.maxLength(512));

/** Who answers, as the claim told it. */
export const throughputTestSchema = v.strictObject({
  host: v.pipe(v.string(), v.maxLength(255)),
  port: v.pipe(count, v.minValue(1), v.maxValue(65_535)),
  run: v.pipe(count, v.minValue(1)),
  key: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/, "32 hexadecimal digits")),
});
export type ThroughputTest = v.InferOutput<typeof throughputTestSchema>;

export const linkInputSchema = v.strictObject({
  name: v.pipe(v.string(), v.minLength(1), v.maxLength(15)),
  mac: macSchema,
  carrier_wait_s: seconds,
  /** Of each direction; 0: nothing is sent. */
  duration_s: seconds,
  /** Until the server has a turn for this card. */
  turn_wait_s: seconds,
  test: v.nullable(throughputTestSchema),
  engine: v.optional(engineChoiceSchema, "default"),
});
export type LinkInput = v.InferInput<typeof linkInputSchema>;

/** Bytes that came through one way, and how long the first to the last of them took. */
const flowSchema = v.strictObject({ bytes: count, seconds });

export const throughputSchema = v.variant("kind", [
  v.strictObject({
    kind: v.literal("measured"),
    /** From the card, as the server counted it, and to the card. */
    up: flowSchema,
    down: flowSchema,
    /** Bytes that came, in both directions, and were not what was sent; null: nobody looked. */
    corrupted: v.nullable(count),
    engine: taskEngineSchema,
    address: text,
  }),
  /** Nothing to reach anybody by, or nobody to reach. */
  v.strictObject({ kind: v.literal("not-seen"), reason: text }),
  /** The server, or the way to it, broke: nothing is said of the card. */
  v.strictObject({ kind: v.literal("failed"), reason: text }),
]);
export type Throughput = v.InferOutput<typeof throughputSchema>;

export const linkReportSchema = v.strictObject({
  name: text,
  mac: macSchema,
  /** It was down, was brought up, and was put back. */
  brought_up: v.boolean(),
  /** false: it has none, however long was waited. */
  carrier: v.boolean(),
  waited_s: seconds,
  speed_mbps: v.nullable(count),
  duplex: v.nullable(v.picklist(["full", "half"])),
  /** From when it had its carrier until the end; null: the kernel does not count them. */
  carrier_changes: v.nullable(count),
  /** Those that rose meanwhile. */
  errors: v.pipe(
    v.array(v.strictObject({ name: text, rose: count })),
    v.maxLength(linkLimits.errors),
  ),
  throughput: throughputSchema,
});
export type LinkReport = v.InferOutput<typeof linkReportSchema>;
