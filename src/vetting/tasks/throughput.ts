import * as v from "valibot";
import { throughputLimits } from "../throughput/protocol.ts";

/** What the server's child is told: the other end of one test, on the socket that it was given. */
export const THROUGHPUT_TASK = "throughput";
/** The number of the socket in the child. */
export const THROUGHPUT_SOCKET = 3;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

export const throughputInputSchema = v.strictObject({
  direction: v.picklist(["up", "down"]),
  seconds: v.pipe(v.number(), v.minValue(0), v.maxValue(throughputLimits.seconds)),
  tool: v.optional(v.literal("iperf3")),
  /** Of a tool: at which it listens; not there: at every one. */
  address: v.optional(v.pipe(v.string(), v.maxLength(64))),
});
export const throughputReportSchema = v.strictObject({ bytes: count, ended: v.string() });
