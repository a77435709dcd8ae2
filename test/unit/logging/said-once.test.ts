/** What is said once until something changes. */
import { expect, test } from "bun:test";
import { SaidOnce } from "../../../src/logging/said-once.ts";

test("each is new once, until things are different", () => {
  const said = new SaidOnce(2);
  expect([said.isNew("a"), said.isNew("b"), said.isNew("a"), said.isNew("b")]).toEqual([
    true,
    true,
    false,
    false,
  ]);
  said.forget();
  expect(said.isNew("a")).toBe(true);
});

test("over its limit the oldest is new again", () => {
  const said = new SaidOnce(2);
  for (const message of ["a", "b", "c"]) expect(said.isNew(message)).toBe(true);
  expect([said.isNew("c"), said.isNew("b"), said.isNew("a")]).toEqual([false, false, true]);
});

test("with a limit of one, a change back is said as well", () => {
  const said = new SaidOnce(1);
  const told = ["a", "a", "b", "b", "a"].map((message) => said.isNew(message));
  expect(told).toEqual([true, false, true, false, true]);
});
