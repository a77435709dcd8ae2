import * as v from "valibot";
import { readToolJson } from "./tool-json.ts";

/**
 * iperf3(1) in place of our own bytes through a link: the words of both ends, and what of the
 * client's `--json` is taken. Held against iperf3 3.12. Pure.
 */

export const IPERF3 = "iperf3";

/** Seconds: what a test may take beside its own time, and what a server waits for its client. */
const MARGIN = 15;

export interface Iperf3Test {
  readonly direction: "up" | "down";
  readonly seconds: number;
}

export function iperf3ClientWords(
  { direction, seconds }: Iperf3Test,
  { host, port, card }: { readonly host: string; readonly port: number; readonly card: string },
): string[] {
  return [
    `--client=${host}`,
    `--port=${port}`,
    `--bind-dev=${card}`,
    // Whole seconds are all that it knows.
    `--time=${Math.max(1, Math.ceil(seconds))}`,
    `--connect-timeout=${MARGIN * 1_000}`,
    "--interval=0",
    "--json",
    // A client that sends alone refuses the limit of a silence.
    ...(direction === "down" ? ["--reverse", `--rcv-timeout=${MARGIN * 1_000}`] : []),
  ];
}

/** One test, and it ends; it does so as well where nobody comes. */
export function iperf3ServerWords(
  port: number,
  /** undefined: all of the host's. */
  address: string | undefined,
): string[] {
  return [
    "--server",
    "--one-off",
    `--port=${port}`,
    ...(address === undefined ? [] : [`--bind=${address}`]),
    `--idle-timeout=${MARGIN}`,
    `--rcv-timeout=${MARGIN * 1_000}`,
    "--forceflush",
  ];
}

/** Of its error it says this, and ends with 0 all the same. */
const errorSchema = v.looseObject({ error: v.optional(v.string()) });
const outputSchema = v.object({
  start: v.object({
    version: v.pipe(v.string(), v.maxLength(64)),
    test_start: v.object({ reverse: v.picklist([0, 1]) }),
  }),
  end: v.object({
    /** As the end counts it that receives. */
    sum_received: v.object({
      bytes: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
      seconds: v.pipe(v.number(), v.finite(), v.minValue(0)),
    }),
  }),
});

export type Iperf3Answer =
  | {
      readonly kind: "flow";
      readonly bytes: number;
      readonly seconds: number;
      readonly version: string;
    }
  /** Its own words, or what was expected, and what was received. */
  | { readonly kind: "none"; readonly reason: string };

export function decodeIperf3({ direction, seconds }: Iperf3Test, output: string): Iperf3Answer {
  const any = readToolJson(errorSchema, output);
  if (any.kind === "none") return any;
  const { error } = any.value;
  if (error !== undefined) return { kind: "none", reason: error.slice(0, 256) };
  const read = readToolJson(outputSchema, output);
  if (read.kind === "none") return read;
  const { start, end } = read.value;
  const wanted = direction === "down" ? 1 : 0;
  if (start.test_start.reverse !== wanted) {
    const reason = `expected ${wanted} in start.test_start.reverse, received ${1 - wanted}`;
    return { kind: "none", reason };
  }
  const { bytes, seconds: took } = end.sum_received;
  const most = Math.ceil(seconds) + MARGIN;
  if (took > most || (took === 0 && bytes > 0)) {
    const received = `received ${took} for ${bytes} bytes`;
    const reason = `expected more than 0 and at most ${most} in end.sum_received.seconds`;
    return { kind: "none", reason: `${reason}, ${received}` };
  }
  return { kind: "flow", bytes, seconds: took, version: start.version.replace(/^iperf /, "") };
}
