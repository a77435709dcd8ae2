/** What an orchestrator hands to the program that it becomes: written, read, and refused. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { type BookedEvent, EventBook } from "../../src/process/event-book.ts";
import {
  type EventKind,
  type HistoryEntry,
  type ProcessEvent,
  type ProcessState,
  step,
} from "../../src/process/lifecycle.ts";
import { LogBook } from "../../src/process/log-book.ts";
import {
  decodeState,
  encodeState,
  historyEntrySchema,
  type OrchestratorState,
  processEventSchema,
  processStateSchema,
  refuseState,
  STATE_FORMAT,
} from "../../src/process/protocol-state.ts";
import { EVENT_LIMIT, HISTORY_LIMIT } from "../../src/units/event-book.ts";
import { exited, makeSpecification, signalled } from "../support/lifecycle/life.ts";
import { lifeIn, phases } from "../support/lifecycle/phases.ts";
import {
  damaged,
  invocationOf,
  makeState,
  withInvocations,
} from "../support/orchestrator-state.ts";

const i1 = invocationOf("i1");
const refusal = { message: "no", code: undefined };

type Events = { readonly [K in EventKind]: readonly Extract<ProcessEvent, { kind: K }>[] };

/** One event of each kind, in every form that a field of it can take. */
const eventsOf = (invocation: string): Events => ({
  start: [{ kind: "start" }],
  stop: [{ kind: "stop", hurry: true }],
  restart: [{ kind: "restart" }],
  unblocked: [{ kind: "unblocked" }],
  started: [{ kind: "started", invocation, processId: 7 }],
  "start-refused": [
    { kind: "start-refused", invocation, refusal },
    { kind: "start-refused", invocation, refusal: { message: "no", code: "ENOENT" } },
  ],
  "answer-lost": [{ kind: "answer-lost", invocation }],
  found: [{ kind: "found", invocation, processId: 7 }],
  "not-found": [{ kind: "not-found", invocation }],
  "became-ready": [{ kind: "became-ready", invocation }],
  unhealthy: [{ kind: "unhealthy", invocation, reason: "no WATCHDOG=1" }],
  died: [
    { kind: "died", invocation, ending: undefined },
    { kind: "died", invocation, ending: signalled(9) },
    { kind: "died", invocation, ending: { kind: "unknown", reason: "nobody told" } },
  ],
  "ending-known": [{ kind: "ending-known", invocation, ending: exited(3) }],
  cleared: [{ kind: "cleared", invocation }],
  deadline: [{ kind: "deadline" }],
});
/** Of the instance before the present one, of the present one, and of one that nobody knows. */
const everyEvent = ["i1", "i2", "i9"].flatMap((short) =>
  Object.values(eventsOf(invocationOf(short))).flat(),
);

/** One entry of each kind. */
const everyEntry: { readonly [W in HistoryEntry["what"]]: Extract<HistoryEntry, { what: W }> } = {
  "start-requested": { what: "start-requested", invocation: i1 },
  started: { what: "started", invocation: i1, processId: 7 },
  adopted: { what: "adopted", invocation: i1, processId: 7 },
  "start-refused": { what: "start-refused", invocation: i1, refusal },
  uncertain: { what: "uncertain", invocation: i1 },
  ready: { what: "ready", invocation: i1, after: 0.5 },
  "readiness-timeout": { what: "readiness-timeout", invocation: i1 },
  unhealthy: { what: "unhealthy", invocation: i1, reason: "no WATCHDOG=1" },
  degraded: { what: "degraded", invocation: i1, reason: "its check fails" },
  recovered: { what: "recovered", invocation: i1 },
  "stop-requested": { what: "stop-requested", invocation: i1 },
  killed: { what: "killed", invocation: i1 },
  died: { what: "died", invocation: i1, ranFor: 12.25 },
  ended: { what: "ended", invocation: i1, ending: exited(0) },
  "backing-off": { what: "backing-off", wait: 100, failures: 2 },
  failed: { what: "failed", reason: "the start limit is reached" },
  "dependency-failed": { what: "dependency-failed", dependency: "base" },
  lost: { what: "lost", invocation: i1, reason: "its output cannot be had" },
  "strays-ended": { what: "strays-ended", count: 2 },
};

const written = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_key, inner) => (inner === undefined ? null : inner)));

/** What a state says after it was written and read. */
function carried(state: OrchestratorState): OrchestratorState {
  const decoded = decodeState(encodeState(state));
  if ("refusal" in decoded) throw new Error(JSON.stringify(decoded.refusal));
  return decoded.state;
}

const instanceOf = (state: ProcessState) =>
  "instance" in state
    ? [
        {
          invocation: state.instance.invocation,
          name: "it",
          processId: 7,
          process: { number: 30, is: "pidfd:[5]" },
          leftovers: "kill" as const,
          groupParent: undefined,
        },
      ]
    : [];

describe("every phase is carried as it is", () => {
  for (const phase of phases) {
    test(phase, () => {
      const state = withInvocations(lifeIn[phase](step).state);
      expect(state.phase).toBe(phase);
      const whole = makeState({ it: state }, { children: instanceOf(state) });
      expect(carried(whole)).toEqual(whole);
      expect(carried(whole).processes[0]?.state).toStrictEqual(state);
      expect(refuseState(carried(whole), { processes: ["it"], partitions: [] })).toBeUndefined();
    });

    // Whatever comes next means the same to both.
    test(`${phase} × every event`, () => {
      const life = lifeIn[phase](step);
      const state = withInvocations(life.state);
      const [{ state: after } = { state: undefined }] = carried(makeState({ it: state })).processes;
      const context = {
        specification: makeSpecification({ readiness: { kind: "notify" }, partition: "qm" }),
        now: life.now + 1,
        random: 0.5,
        nextInvocation: invocationOf("next"),
        reachable: true,
        dependenciesReady: true,
      };
      for (const event of everyEvent) {
        const one = step(state, event, context);
        expect(step(after as ProcessState, event, context)).toStrictEqual(one);
      }
    });
  }
});

test("every event is carried as it is", () => {
  for (const event of everyEvent) {
    expect(v.parse(processEventSchema, written(event))).toStrictEqual(event);
  }
});

test("every entry of a history is carried as it is", () => {
  for (const entry of Object.values(everyEntry)) {
    expect(v.parse(historyEntrySchema, written(entry))).toStrictEqual(entry);
  }
});

describe("an event book", () => {
  const entry: HistoryEntry = { what: "failed", reason: "x" };

  test("goes on with its numbers, and with what single names alone have kept", () => {
    const book = new EventBook();
    for (let count = 0; count < 3; count += 1) book.add("quiet", entry, count);
    for (let count = 0; count < EVENT_LIMIT + 10; count += 1) book.add("loud", entry, count);
    const restored = new EventBook();
    restored.restore(JSON.parse(JSON.stringify(book.save())));
    const sequences = (events: readonly BookedEvent[]) => events.map(({ sequence }) => sequence);
    expect(restored.newest).toBe(EVENT_LIMIT + 13);
    expect(sequences(restored.historyOf("quiet"))).toEqual([1, 2, 3]);
    expect(restored.historyOf("loud")).toHaveLength(HISTORY_LIMIT);
    expect(sequences(restored.after(0))).toEqual(sequences(book.after(0)));
    expect(restored.add("quiet", entry, 9).sequence).toBe(EVENT_LIMIT + 14);
  });
});

describe("a log book", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const write = (book: LogBook, text: string) => book.push("stdout", bytes(text), 1);

  function goOn(book: LogBook, most = 1_000): LogBook {
    const restored = new LogBook({ lines: 5, bytes: 1_000 });
    restored.restore(JSON.parse(JSON.stringify(book.save(most))));
    return restored;
  }

  test("goes on with its lines, their numbers, and half a line of each stream", () => {
    const book = new LogBook({ lines: 5, bytes: 1_000 });
    write(book, "one\ntwo\nthr");
    // In the middle of a character.
    book.push("stderr", bytes("dö").subarray(0, 2), 2);
    const restored = goOn(book);
    write(restored, "ee\n");
    restored.push("stderr", bytes("dö\n").subarray(2), 3);
    const lines = restored.after(0).lines;
    expect(lines.map(({ sequence, line }) => `${sequence} ${line}`)).toEqual([
      "1 one",
      "2 two",
      "3 three",
      "4 dö",
    ]);
    expect(restored.dropped).toBe(0);
  });

  test("counts what is not carried as dropped, and whoever reads is told", () => {
    const book = new LogBook({ lines: 5, bytes: 1_000 });
    for (let count = 1; count <= 7; count += 1) write(book, `line ${count}\n`);
    const restored = goOn(book, "line 6".length * 2);
    expect(restored.after(2)).toMatchObject({
      lines: [{ sequence: 6, line: "line 6" }, { line: "line 7" }],
      dropped: 3,
    });
    expect(restored.dropped).toBe(5);
    expect(restored.newest).toBe(7);
    // A limit that a single line goes over leaves none.
    expect(goOn(book, 5).after(0)).toEqual({ lines: [], dropped: 7 });
  });
});

describe("a state is refused", () => {
  const ready = withInvocations(lifeIn.ready(step).state);
  const state = makeState({ it: ready }, { children: instanceOf(ready) });
  const refusalOf = (text: string) => {
    const decoded = decodeState(text);
    return "refusal" in decoded ? decoded.refusal : undefined;
  };

  test("that is no JSON, cut short, or of another format", () => {
    expect(refusalOf("")?.expected).toBe(`JSON of ${STATE_FORMAT}`);
    expect(refusalOf(encodeState(state).slice(0, -1))?.expected).toBe(`JSON of ${STATE_FORMAT}`);
    expect(refusalOf("null")?.received).toBe("nothing of that name");
    expect(refusalOf('{"format":"other"}')?.received).toBe('"other"');
  });

  test("of a version that this program does not read, before anything else of it", () => {
    expect(refusalOf(JSON.stringify({ format: STATE_FORMAT, version: 4, new: true }))).toEqual({
      expected: `${STATE_FORMAT} of version 3 or 2`,
      received: "version 4",
    });
    expect(refusalOf(damaged(state, ["version"], 0))?.received).toBe("version 0");
    expect(refusalOf(damaged(state, ["version"], "1"))?.received).toBe('version "1"');
  });

  test.each([
    [["processes", 0, "state", "phase"], "resting"],
    [["processes", 0, "state", "readyAt"], null],
    [["processes", 0, "state", "instance", "invocation"], "i1"],
    [["processes", 0, "state", "other"], true],
    [["children", 0, "process", "number"], 2],
    [["children", 0, "process", "number"], 2 ** 31],
    [["children", 0, "processId"], -1],
    [["managed", 0, "book", "lines"], [[1, "stdin", "x"]]],
    [["managed", 0, "book", "rest", "stdout"], "%"],
    [["journal", "run"], ""],
    [["owner"], null],
  ] as const)("that is damaged at %j", (path, value) => {
    const found = refusalOf(damaged(state, path, value));
    expect(found?.expected).toContain(`${STATE_FORMAT} with ${path[0]}`);
  });

  test("whose processes are others than the configuration's", () => {
    const configured = { processes: ["it", "more"], partitions: [] };
    expect(refuseState(state, configured)).toEqual({
      expected: "the processes it, more",
      received: "it",
    });
    expect(refuseState(state, { processes: ["it"], partitions: ["qm"] })?.expected).toBe(
      "the partitions qm",
    );
  });

  test("in which a process runs that nobody holds, unless its death is among what waits", () => {
    const configured = { processes: ["it"], partitions: [] };
    const lost = makeState({ it: ready });
    expect(refuseState(lost, configured)).toEqual({
      expected: "a descriptor of it, which runs",
      received: "none",
    });
    const { invocation } = (ready as Extract<ProcessState, { phase: "ready" }>).instance;
    const event = { kind: "died", invocation, ending: exited(1) } as const;
    const held = [{ kind: "process", name: "it", event }] as const;
    expect(refuseState({ ...lost, held: [...held] }, configured)).toBeUndefined();
  });

  test("of every phase but those, whatever else is missing, it is not", () => {
    const resting = withInvocations(lifeIn["backing-off"](step).state);
    expect(v.is(processStateSchema, written(resting))).toBe(true);
    const configured = { processes: ["it"], partitions: [] };
    expect(refuseState(makeState({ it: resting }), configured)).toBeUndefined();
  });
});
