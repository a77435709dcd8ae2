import * as v from "valibot";
import { endingSchema, limits as guestLimits } from "./guest-agent/protocol.ts";

/** What the control socket says of programs in a guest. Names and numbers are never reused. */

/** The limits of the wire; going over one is a refusal that a test shows. */
export const execLimits = {
  /** Words of a command, and variables of its environment. */
  words: guestLimits.argumentCount,
  /** Bytes of a command as JSON: a request has to fit into one frame of 64 KiB. */
  commandBytes: 32 * 1024,
  /** Bytes of its environment as JSON. */
  environmentBytes: 16 * 1024,
  directoryBytes: 4095,
  /** Milliseconds, and bytes of both streams together: what the guest's agent allows at most. */
  time: guestLimits.programTime,
  outputBytes: guestLimits.outputBytes,
} as const;

const text = v.pipe(
  v.string(),
  v.check((value) => !value.includes("\0"), "Expected text without a zero byte"),
);
const byteCount = (value: unknown) => new TextEncoder().encode(JSON.stringify(value)).length;
const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const words = (what: string, bytes: number) =>
  v.pipe(
    v.array(text),
    v.maxLength(execLimits.words),
    v.check(
      (list) => byteCount(list) <= bytes,
      ({ input }) => `Expected ${what} of at most ${bytes} bytes as JSON, not ${byteCount(input)}`,
    ),
  );

/** Of a request, beside the machine's name. Its standard input is /dev/null. */
export const execEntries = {
  argv: v.pipe(words("a command", execLimits.commandBytes), v.minLength(1)),
  /** NAME=value, the whole environment; without it PATH, HOME and LANG alone. */
  environment: v.optional(words("an environment", execLimits.environmentBytes)),
  working_directory: v.optional(v.pipe(text, v.maxLength(execLimits.directoryBytes))),
  /** Then it is killed, with its process group. */
  time_limit_ms: v.optional(v.pipe(whole, v.minValue(1), v.maxValue(execLimits.time))),
  /** What is more is counted, and the program goes on. */
  output_limit: v.optional(v.pipe(whole, v.maxValue(execLimits.outputBytes))),
};
export const execCommandSchema = v.strictObject(execEntries);
export type ExecCommand = v.InferOutput<typeof execCommandSchema>;

/** Output, as items in the order in which it came; each stream in its own order. */
export const execItemSchema = v.strictObject({
  stream: v.picklist(["stdout", "stderr"]),
  data: v.pipe(v.string(), v.base64()),
});
export type ExecItem = v.InferOutput<typeof execItemSchema>;

/** The answer of `exec`, when the program has ended. */
export const execEndSchema = v.strictObject({
  ending: endingSchema,
  /** Bytes of output beyond the limit. */
  left_out: whole,
  killed: v.nullable(v.picklist(["time-limit", "asker"])),
});
export type ExecEnd = v.InferOutput<typeof execEndSchema>;

/** The answer of `guest-ping`: how long the agent took. */
export const guestPingSchema = v.strictObject({ milliseconds: v.number() });
