/**
 * What an orchestrator hands to the next program, in the bytes of each version: the release before
 * may have written it. What is changed here is another version, with a file of its own beside the
 * one before it, and a reader of both.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { step } from "../../src/process/lifecycle.ts";
import {
  decodeState,
  encodeFormerState,
  encodeState,
  readableVersions,
  STATE_VERSION,
} from "../../src/process/protocol-state.ts";
import { lifeIn, phases } from "../support/lifecycle/phases.ts";
import { invocationOf, wholeState, withInvocations } from "../support/orchestrator-state.ts";

const textOf = (version: number) =>
  readFileSync(join(import.meta.dirname, `process-state-${version}.json`), "utf8");

const everyPhase = Object.fromEntries(
  phases.map((phase) => [phase, withInvocations(lifeIn[phase](step).state)]),
);

test("this version is written as it always was", () => {
  expect(JSON.parse(encodeState(wholeState(everyPhase)))).toEqual(
    JSON.parse(textOf(STATE_VERSION)),
  );
});

test("the version before is written as it always was", () => {
  expect(JSON.parse(encodeFormerState(wholeState(everyPhase)))).toEqual(
    JSON.parse(textOf(STATE_VERSION - 1)),
  );
});

test("what the version before has no word for is said in others", () => {
  const invocation = invocationOf("i7");
  const entry = { what: "lost", invocation, reason: "its output cannot be had" } as const;
  const all = [{ sequence: 1, at: 1, name: "idle", entry }];
  const state = { ...wholeState(everyPhase), events: { newest: 1, older: [], all } };
  const decoded = decodeState(encodeFormerState(state));
  if ("refusal" in decoded) throw new Error(JSON.stringify(decoded.refusal));
  expect(decoded.state.events.all.map((event) => event.entry)).toEqual([
    { what: "failed", reason: "lost: its output cannot be had" },
  ]);
});

test("this version is read", () => {
  expect(decodeState(textOf(STATE_VERSION))).toEqual({ state: wholeState(everyPhase) });
});

test("the version before is read, and nothing that it does not have", () => {
  const whole = wholeState(everyPhase);
  const managed = whole.managed.map((one) => ({ ...one, logFile: undefined }));
  const metrics = { listener: undefined, meters: [] };
  const state = { ...whole, managed, metrics, adopted: [] };
  expect(decodeState(textOf(STATE_VERSION - 1))).toEqual({ state });
});

test("the version before is read, where there is one", () => {
  const before = STATE_VERSION - 1;
  expect(readableVersions).toEqual(before === 0 ? [STATE_VERSION] : [STATE_VERSION, before]);
});
