/** What people are told of events that do not go on, and of a store that was put back. */
import { expect, test } from "bun:test";
import { settlingText, whyNotAfter } from "../../../src/fleet/commands/fleet-words.ts";

test("after an older store was put back, for how long nothing is begun", () => {
  expect(settlingText(null)).toBe("");
  expect(settlingText(41_001)).toContain("for 42 s more devices tell anew what they do");
});

test.each([
  ["b-3", "b-5", "b-4", undefined],
  ["b-5", "b-5", undefined, undefined],
  ["garbage", "b-5", "b-1", "is no id of an event, such as b-5"],
  ["a-3", "b-5", "b-1", "is of another run of the operator"],
  ["a-3", "b-0", undefined, "is of another run of the operator"],
  ["b-6", "b-5", "b-1", "is after the last one, b-5"],
  ["a-3", "b-5", "known", undefined],
  ["b-3", "b-50", "b-9", '5 events after "b-3" are not kept any more'],
])("after %s, where %s was the last and %s follows", (after, last, first, why) => {
  const isKnown = first === "known";
  const said = whyNotAfter(after, last, { first: isKnown ? "a-4" : first, isKnown });
  if (why === undefined) expect(said).toBeUndefined();
  else expect(said).toContain(why);
});
