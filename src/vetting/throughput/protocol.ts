import * as v from "valibot";
import { randomWords } from "../random-words.ts";

/**
 * The throughput test, on a port of its own, over plain TCP: what travels is no secret, and TLS
 * would measure a processor. The client says one line, the server answers in lines until it says
 * "go"; then bytes go one way. Everything is a line of JSON but those bytes.
 *
 * "up": the client sends for so long and then writes no more; the server counts, says "done", and
 * closes. "down": the server sends for so long and closes; the client counts.
 *
 * With a tool, "go" has the port at which the server's end of that tool waits, and the bytes go
 * there; the connection is kept until they have.
 *
 * The bytes are `patternWords`, again and again from their beginning, so that both ends can see
 * that they are what was sent.
 */
export const THROUGHPUT_PROTOCOL_VERSION = 1;

export const throughputLimits = {
  /** Connections, all together and of one run: those that wait are among them. */
  connections: 1_024,
  connectionsOfRun: 256,
  /** Tests at the same time; more of them share the server's own link. */
  atOnce: 4,
  /** Bytes of the client's line, and of each of the server's. */
  lineBytes: 512,
  /** Seconds of one direction. */
  seconds: 600,
} as const;

/** Milliseconds: for the client's line; until a turn; beside a test's own time. */
export const HELLO_WITHIN = 5_000;
export const TURN_WITHIN = 3_600_000;
export const TEST_MARGIN = 15_000;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

export const throughputHelloSchema = v.strictObject({
  protocol: v.literal(THROUGHPUT_PROTOCOL_VERSION),
  run: v.pipe(count, v.minValue(1)),
  key: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/, "32 hexadecimal digits")),
  direction: v.picklist(["up", "down"]),
  seconds: v.pipe(v.number(), v.minValue(0.001), v.maxValue(throughputLimits.seconds)),
  /** Who moves the bytes; not there: we do. */
  tool: v.optional(v.literal("iperf3")),
});
export type ThroughputHello = v.InferOutput<typeof throughputHelloSchema>;

export const throughputAnswerSchema = v.variant("say", [
  /** Others are before it. */
  v.strictObject({ say: v.literal("wait") }),
  v.strictObject({ say: v.literal("refused"), reason: v.pipe(v.string(), v.maxLength(256)) }),
  v.strictObject({
    say: v.literal("go"),
    port: v.optional(v.pipe(count, v.minValue(1), v.maxValue(65_535))),
  }),
  /** Bytes that came, from the first to the last in so long, and how many of them were wrong. */
  v.strictObject({
    say: v.literal("done"),
    bytes: count,
    seconds: v.pipe(v.number(), v.minValue(0)),
    corrupted: count,
  }),
]);
export type ThroughputAnswer = v.InferOutput<typeof throughputAnswerSchema>;

/** Bytes after which the pattern begins again. */
export const PATTERN_BYTES = 1024 ** 2;

/** The pattern as words of 32 bits, little-endian: Marsaglia's xorshift32, of one seed for all. */
export function patternWords(): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(PATTERN_BYTES / 4);
  const random = randomWords(0x9e37_79b9);
  for (let index = 0; index < words.length; index += 1) words[index] = random();
  return words;
}
