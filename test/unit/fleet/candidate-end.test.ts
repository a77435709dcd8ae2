/** How a candidate's end is told. */
import { expect, test } from "bun:test";
import { candidateEnd } from "../../../src/fleet/lifecycle-moves.ts";

test.each([
  ["ended by SIGKILL", "the candidate ended by SIGKILL"],
  ["exited with 3", "the candidate exited with 3"],
  [
    "its time was over: ended by SIGTERM",
    "the candidate ended: its time was over: ended by SIGTERM",
  ],
])("a candidate that %s is told once", (ending, told) => {
  const rest = { log: "", processor_seconds: null, memory_peak_bytes: null };
  expect(candidateEnd({ ending, ...rest })).toBe(told);
  expect(candidateEnd(null)).toBe("the candidate ended: nobody knows how");
});
