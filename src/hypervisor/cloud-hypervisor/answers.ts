import * as v from "valibot";

/** What the API answers, as far as we look at it. Counters may be larger than 2^53. */

export const pingSchema = v.object({ version: v.string(), build_version: v.optional(v.string()) });

export const infoSchema = v.object({
  state: v.picklist(["Created", "Running", "Shutdown", "Paused", "BreakPoint"]),
});

export const countersSchema = v.record(v.string(), v.record(v.string(), v.number()));
