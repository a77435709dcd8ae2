/**
 * What an orchestrator hands to the next program, in the bytes of each version: the release before
 * may have written it. What is changed here is another version, with a file of its own beside the
 * one before it, and a reader of both.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ProcessState, step } from "../../src/process/lifecycle.ts";
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
  const state = wholeState(everyPhase);
  const meters = state.metrics.meters.map((meter) => ({
    ...meter,
    restarts: { ...meter.restarts, unhealthy: 0 },
  }));
  const same = { ...state, metrics: { ...state.metrics, meters } };
  expect(JSON.parse(encodeFormerState(same))).toEqual(JSON.parse(textOf(STATE_VERSION - 1)));
});

test("what the version before has no word for is said in others", () => {
  const invocation = invocationOf("i7");
  const entries = [
    { what: "unhealthy", invocation, reason: "its check fails" },
    { what: "degraded", invocation, reason: "its check fails" },
    { what: "recovered", invocation },
  ] as const;
  const all = entries.map((entry, index) => ({ sequence: index + 1, at: 1, name: "idle", entry }));
  const { stopping } = everyPhase;
  const why = { ...stopping, why: "unhealthy" } as ProcessState;
  const whole = wholeState({ ...everyPhase, stopping: why });
  const unhealthy = { kind: "unhealthy", invocation, reason: "its check fails" } as const;
  const held = [{ kind: "process", name: "idle", event: unhealthy } as const];
  const state = { ...whole, held, events: { newest: 3, older: [], all } };
  const decoded = decodeState(encodeFormerState(state));
  if ("refusal" in decoded) throw new Error(JSON.stringify(decoded.refusal));
  expect(decoded.state.events.all.map((event) => event.entry)).toEqual([
    { what: "failed", reason: "unhealthy: its check fails" },
    { what: "failed", reason: "degraded: its check fails" },
    { what: "ready", invocation, after: 0 },
  ]);
  const found = decoded.state.processes.find(({ name }) => name === "stopping");
  expect(found?.state).toMatchObject({ phase: "stopping", why: "unready" });
  expect(decoded.state.held).toEqual([]);
  const [meter] = decoded.state.metrics.meters;
  expect(meter?.restarts).toEqual({ died: 2, unready: 5, unhealthy: 0, asked: 3 });
});

test("this version is read", () => {
  expect(decodeState(textOf(STATE_VERSION))).toEqual({ state: wholeState(everyPhase) });
});

test("the version before is read, and nothing that it does not have", () => {
  const state = wholeState(everyPhase);
  const [meter] = state.metrics.meters;
  if (meter === undefined) throw new Error("there is no meter");
  const restarts = { ...meter.restarts, unhealthy: 0 };
  const metrics = { ...state.metrics, meters: [{ ...meter, restarts }] };
  expect(decodeState(textOf(STATE_VERSION - 1))).toEqual({ state: { ...state, metrics } });
});

test("the version before is read, where there is one", () => {
  const before = STATE_VERSION - 1;
  expect(readableVersions).toEqual(before === 0 ? [STATE_VERSION] : [STATE_VERSION, before]);
});
