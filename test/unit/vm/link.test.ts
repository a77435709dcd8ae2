/** The way to the master: every state with every event, and its limits. */
import { describe, expect, test } from "bun:test";
import {
  type LinkEvent,
  type LinkState,
  linkBackoff,
  linkDeadline,
  linkLimits,
  type OpenLink,
  stepLink,
} from "../../../src/vm/lifecycle-link.ts";

const NOW = 100_000;
const context = { now: NOW, random: 0.5, reportEvery: 5_000 };

const open: OpenLink = {
  phase: "open",
  since: 0,
  failures: 0,
  askAt: undefined,
  askedAt: NOW - 50,
  report: { kind: "due", at: NOW + 3_000 },
  sentAt: NOW - 2_000,
};
const states: Readonly<Record<string, LinkState>> = {
  closed: { phase: "closed" },
  waiting: { phase: "waiting", until: NOW + 10, failures: 2, reason: "gone", since: 5 },
  "waiting, due": { phase: "waiting", until: NOW, failures: 2, reason: "gone", since: 5 },
  opening: { phase: "opening", failures: 1, reason: "gone", since: 5 },
  open,
  "open, report due": { ...open, report: { kind: "due", at: NOW } },
  "open, report sent": { ...open, report: { kind: "sent", again: false } },
  "open, question due": { ...open, askAt: NOW },
};
const events: Readonly<Record<string, LinkEvent>> = {
  begin: { kind: "begin" },
  opened: { kind: "opened" },
  assigned: { kind: "assigned" },
  reported: { kind: "reported" },
  changed: { kind: "changed" },
  deadline: { kind: "deadline" },
  broken: { kind: "broken", reason: "another" },
  end: { kind: "end" },
};

/** "phase: effects" of each cell; what is not named does nothing. */
const expected: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  closed: { begin: "opening: open" },
  waiting: {},
  "waiting, due": { deadline: "opening: open" },
  opening: { opened: "open: report, ask", broken: "waiting: close, say" },
  open: { broken: "waiting: close, say" },
  "open, report due": { deadline: "open: report", broken: "waiting: close, say" },
  "open, report sent": { broken: "waiting: close, say" },
  "open, question due": { deadline: "open: ask", broken: "waiting: close, say" },
};

describe("every state with every event", () => {
  for (const [name, state] of Object.entries(states)) {
    for (const [what, event] of Object.entries(events)) {
      test(`${name}: ${what}`, () => {
        const { state: after, effects } = stepLink(state, event, context);
        const told = `${after.phase}: ${effects.map(({ kind }) => kind).join(", ")}`;
        const usual = what === "end" ? "closed: close" : `${state.phase}: `;
        expect(told).toBe(expected[name]?.[what] ?? usual);
      });
    }
  }
});

const due = (state: LinkState) => linkDeadline(state) ?? Number.NaN;

test("reports go out every interval, and at once when something changed, but not too often", () => {
  const sent: LinkState = { ...open, report: { kind: "sent", again: false }, sentAt: NOW };
  const idle = stepLink(sent, { kind: "reported" }, context).state;
  expect(due(idle)).toBe(NOW + 5_000);
  const hurried = stepLink(idle, { kind: "changed" }, context).state;
  expect(due(hurried)).toBe(NOW + linkLimits.leastBetweenReports);
  const meanwhile = stepLink(sent, { kind: "changed" }, context).state;
  const after = stepLink(meanwhile, { kind: "reported" }, context).state;
  expect(due(after)).toBe(NOW + linkLimits.leastBetweenReports);
});

test("a question that is answered at once is not asked without pause", () => {
  const asked = { ...open, askedAt: NOW };
  expect(due(stepLink(asked, { kind: "assigned" }, context).state)).toBe(
    NOW + linkLimits.leastBetweenQuestions,
  );
});

test("failures wait longer and longer, up to a limit; an answered report forgives them", () => {
  let state: LinkState = { phase: "opening", failures: 0, reason: undefined, since: 0 };
  const waits: number[] = [];
  for (let failure = 0; failure < 10; failure += 1) {
    const failed: LinkState = stepLink(state, events["broken"] as LinkEvent, context).state;
    waits.push(due(failed) - NOW);
    const at = due(failed);
    state = stepLink(failed, { kind: "deadline" }, { ...context, now: at }).state;
  }
  expect(waits.slice(0, 4)).toEqual([500, 1_000, 2_000, 4_000]);
  expect(waits.at(-1)).toBe(linkBackoff.cap);
  const opened = stepLink(state, { kind: "opened" }, context).state;
  expect(opened).toMatchObject({ failures: 10 });
  const reported = stepLink(opened, { kind: "reported" }, context);
  expect(reported.state).toMatchObject({ failures: 0 });
  expect(reported.effects).toMatchObject([{ kind: "say", message: "the master answers again" }]);
});

test("the same reason is told once in a row", () => {
  const opening: LinkState = { phase: "opening", failures: 3, reason: "gone", since: 0 };
  const kinds = (reason: string) =>
    stepLink(opening, { kind: "broken", reason }, context).effects.map(({ kind }) => kind);
  expect(kinds("gone")).toEqual(["close"]);
  expect(kinds("another")).toEqual(["close", "say"]);
});
