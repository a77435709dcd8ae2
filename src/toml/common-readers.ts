import * as v from "valibot";
import { type Backoff, defaultBackoff, type StartLimit } from "../units/restarts.ts";
import { parseDuration } from "../units/units.ts";
import { either, type Read, type Reader, table, value } from "./configuration-reader.ts";
import type { TomlNode } from "./toml-tree.ts";

/** What the configurations of several systems have in common. Pure. */

export const commonLimits = {
  /** Milliseconds of the longest duration: 24 days, which the kernel's and Bun's timers take. */
  duration: 24 * 24 * 3_600_000,
  /** Starts that a start limit may count. */
  starts: 10_000,
  /** sun_path of struct sockaddr_un, less its end: unix(7). */
  socketPathBytes: 107,
} as const;

const withoutZero = (text: string) => !text.includes("\0");
export const text = v.pipe(v.string(), v.check(withoutZero));
export const nonEmptyText = v.pipe(text, v.nonEmpty());
export const absolutePath = v.pipe(text, v.startsWith("/"));
const socketPathSchema = v.pipe(
  absolutePath,
  v.check((path) => new TextEncoder().encode(path).length <= commonLimits.socketPathBytes),
);
export const wholeNumber = (least: number, most: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(least), v.maxValue(most));

export const flag = value("true or false", v.boolean());
export const socketPath = value("an absolute path of at most 107 bytes", socketPathSchema);
export const path = value("an absolute path", absolutePath);
function duration(least: number): Reader<number> {
  const schema = v.pipe(
    v.string(),
    v.transform((written) => parseDuration(written) ?? Number.NaN),
    v.number(),
    v.minValue(least),
    v.maxValue(commonLimits.duration),
  );
  const floor = least > 0 ? "more than nothing and " : "";
  return value(`a duration such as "100ms", "1.5s" or "2min", ${floor}at most 24 days`, schema);
}

export const anyDuration = duration(0);
export const someDuration = duration(0.001);

const isTable = (node: TomlNode) => node.kind === "table";

export const backoff = either(
  isTable,
  table(
    {
      first: anyDuration,
      factor: value("a number from 1 to 1000", v.pipe(v.number(), v.minValue(1), v.maxValue(1000))),
      cap: anyDuration,
      jitter: value("a number from 0 to 1", v.pipe(v.number(), v.minValue(0), v.maxValue(1))),
      reset_after: anyDuration,
    },
    { expected: "a table" },
  ),
  value('{first, factor, cap, jitter, reset_after} or "none"', v.literal("none")),
);

const { starts: mostStarts } = commonLimits;
export const startLimit = either(
  isTable,
  table(
    {
      starts: value(`a number from 1 to ${mostStarts}`, wholeNumber(1, mostStarts)),
      within: someDuration,
    },
    { expected: "a table", required: ["starts", "within"] },
  ),
  value('{starts, within} or "none"', v.literal("none")),
);

export function makeBackoff(read: Read<typeof backoff> | undefined): Backoff | "none" {
  if (read === undefined || read === "none") return read ?? defaultBackoff;
  const { first, factor, cap, jitter, reset_after } = read;
  return {
    first: first ?? defaultBackoff.first,
    factor: factor ?? defaultBackoff.factor,
    cap: cap ?? defaultBackoff.cap,
    jitter: jitter ?? defaultBackoff.jitter,
    resetAfter: reset_after ?? defaultBackoff.resetAfter,
  };
}

export function makeStartLimit(read: Read<typeof startLimit> | undefined): StartLimit | "none" {
  if (read === undefined || read === "none") return "none";
  const { starts, within } = read;
  return starts === undefined || within === undefined ? "none" : { starts, within };
}
