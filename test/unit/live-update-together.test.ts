import { expect, test } from "bun:test";
import { step } from "../../src/live-update/lifecycle.ts";
import {
  type Context,
  type DaemonEffect,
  type DaemonEvent,
  type DaemonState,
  initialState,
} from "../../src/live-update/lifecycle-state.ts";

const context: Context = { now: 1000, nextUpdate: "u1", unclaimedTime: undefined };
const ids = ["a", "b", "c/d"];

const subscribe = (id: string, connection: number): DaemonEvent => ({
  kind: "subscribe",
  subscription: {
    id,
    connection,
    user: 0,
    processId: 0,
    bare: false,
    required: id !== "b",
    deadline: 1000,
    sessions: [id, `${id}/memory`],
  },
  request: undefined,
  update: undefined,
});

const ready = (connection: number): DaemonEvent => ({
  kind: "ready",
  connection,
  id: undefined,
  request: undefined,
  bytes: undefined,
  update: undefined,
});

const created = ids.flatMap((id) =>
  [id, `${id}/memory`].map((session): DaemonEvent => ({ kind: "session-created", session })),
);

/** A whole update, with one optional client that goes in the middle of it. */
const history: DaemonEvent[] = [
  ...ids.map(subscribe),
  { kind: "kernel", loaded: true, device: true },
  { kind: "update", order: { dryRun: false, includeBare: false, discardUnclaimed: false } },
  ...created,
  ready(0),
  { kind: "disconnected", connection: 1 },
  ready(2),
  { kind: "session-dropped", session: "b" },
  { kind: "session-dropped", session: "b/memory" },
  { kind: "session-created", session: "hostler" },
  { kind: "operator-aborts", reason: "enough" },
];

interface Run {
  readonly state: DaemonState;
  readonly effects: readonly DaemonEffect[];
}

function run(state: DaemonState, events: readonly DaemonEvent[], given: Context): Run {
  const effects: DaemonEffect[] = [];
  let now = state;
  for (const event of events) {
    const decision = step(now, event, given);
    now = decision.state;
    // What is to be performed later must not change before that.
    effects.push(...structuredClone(decision.effects));
  }
  return { state: now, effects };
}

test("events that are decided together come to the same as one by one", () => {
  for (let split = 0; split <= history.length; split += 1) {
    const [before, after] = [history.slice(0, split), history.slice(split)];
    const begin = run(initialState, before, context).state;
    const alone = run(begin, after, context);
    const untouched = structuredClone(begin);
    const together = run(begin, after, { ...context, fresh: new Set() });
    expect(together).toEqual(alone);
    // What they began with belongs to whoever has it.
    expect(begin).toEqual(untouched);
  }
});

test("the history goes through the whole update", () => {
  const { state, effects } = run(initialState, history, context);
  expect(effects.map(({ kind }) => kind)).toContain("preserve-registry");
  expect(state.update?.phase).toBe("aborting");
  expect([...(state.update?.outgoing.keys() ?? [])]).toHaveLength(5);
});
