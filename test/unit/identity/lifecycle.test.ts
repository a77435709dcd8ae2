/** Every state with every event: tokens, hosts, sessions, nonces, operators, certificates. */
import { describe, expect, test } from "bun:test";
import { stepCertificate } from "../../../src/identity/lifecycle-certificate.ts";
import {
  fingerprintsOf,
  type HostEffect,
  type HostEvent,
  type HostState,
  stepHost,
} from "../../../src/identity/lifecycle-host.ts";
import {
  goodTokens,
  type OperatorEvent,
  type OperatorState,
  stepOperator,
} from "../../../src/identity/lifecycle-operator.ts";
import {
  NonceBook,
  SessionBook,
  type SessionEvent,
  type SessionFacts,
  type SessionState,
  stepSession,
} from "../../../src/identity/lifecycle-session.ts";
import { elapsedSince, type Reading } from "../../../src/identity/lifecycle-time.ts";
import {
  MOST_SUSPECTS,
  stepToken,
  type TokenEvent,
  type TokenState,
} from "../../../src/identity/lifecycle-token.ts";
import { limits } from "../../../src/identity/protocol.ts";

const made: Reading = { boot: "a", monotonic: 100, wall: 5_000 };
const later = (time: number): Reading => ({ boot: "a", monotonic: 100 + time, wall: 5_000 + time });

describe("elapsed time", () => {
  const cases: [string, Reading, number][] = [
    ["within a boot", later(50), 50],
    ["the wall clock was set back", { ...later(50), wall: 0 }, 50],
    ["the wall clock was set on", { ...later(50), wall: 9_000 }, 4_000],
    ["the machine slept: its boot's clock stood", { ...made, wall: 5_070 }, 70],
    ["another boot", { boot: "b", monotonic: 1, wall: 5_030 }, 30],
    ["another boot, and a flat clock", { boot: "b", monotonic: 1, wall: 4_999 }, Infinity],
    ["no time at all", made, 0],
  ];
  for (const [name, now, elapsed] of cases) {
    test(name, () => expect(elapsedSince(made, now)).toBe(elapsed));
  }
});

describe("tokens", () => {
  const states: Record<string, TokenState> = {
    unused: { phase: "unused" },
    "used by k": { phase: "used", key: "k", suspects: [] },
    "spent before": { phase: "spent-before", suspects: [] },
    "spent before, and seen": { phase: "spent-before", suspects: ["s"] },
    revoked: { phase: "revoked" },
  };
  const events: Record<string, TokenEvent> = {
    "k uses it": { kind: "use", key: "k", spent: false },
    "k uses it, spent": { kind: "use", key: "k", spent: true },
    "x uses it": { kind: "use", key: "x", spent: false },
    revoke: { kind: "revoke" },
  };
  /** In time, and after the token's end. */
  const table: Record<string, Record<string, readonly [string, string]>> = {
    unused: {
      "k uses it": ["used", "unused, token-expired"],
      "k uses it, spent": ["spent-before, token-used, stolen", "spent-before, token-used, stolen"],
      "x uses it": ["used", "unused, token-expired"],
      revoke: ["revoked", "revoked"],
    },
    "used by k": {
      "k uses it": ["used", "used"],
      "k uses it, spent": ["used", "used"],
      "x uses it": ["used, token-used, stolen", "used, token-used, stolen"],
      revoke: ["used, wrong-state", "used, wrong-state"],
    },
    "spent before": {
      "k uses it": ["spent-before, token-used, stolen", "spent-before, token-used, stolen"],
      "k uses it, spent": ["spent-before, token-used, stolen", "spent-before, token-used, stolen"],
      "x uses it": ["spent-before, token-used, stolen", "spent-before, token-used, stolen"],
      revoke: ["revoked", "revoked"],
    },
    "spent before, and seen": {
      "k uses it": ["spent-before, token-used, stolen", "spent-before, token-used, stolen"],
      "k uses it, spent": ["spent-before, token-used, stolen", "spent-before, token-used, stolen"],
      "x uses it": ["spent-before, token-used, stolen", "spent-before, token-used, stolen"],
      revoke: ["spent-before, wrong-state", "spent-before, wrong-state"],
    },
    revoked: {
      "k uses it": ["revoked, token-revoked", "revoked, token-revoked"],
      "k uses it, spent": ["revoked, token-revoked", "revoked, token-revoked"],
      "x uses it": ["revoked, token-revoked", "revoked, token-revoked"],
      revoke: ["revoked, wrong-state", "revoked, wrong-state"],
    },
  };
  for (const [stateName, state] of Object.entries(states)) {
    for (const [eventName, event] of Object.entries(events)) {
      test(`${stateName}: ${eventName}`, () => {
        const outcomes = [99, 100].map((time) => {
          const step = stepToken(state, event, { made, lifetime: 100, now: later(time) });
          const isUse = event.kind === "use";
          expect(step.granted).toBe(isUse && step.refused === undefined);
          const words = [step.state.phase, step.refused, step.stolen === true && "stolen"];
          return words.filter((word) => typeof word === "string").join(", ");
        });
        expect(outcomes as readonly string[]).toEqual([...(table[stateName]?.[eventName] ?? [])]);
      });
    }
  }

  test("remembers so many suspects, each once", () => {
    let state: TokenState = { phase: "used", key: "k", suspects: [] };
    for (let count = 0; count < 2 * MOST_SUSPECTS; count += 1) {
      for (const _again of [1, 2]) {
        const event: TokenEvent = { kind: "use", key: `x${count}`, spent: false };
        state = stepToken(state, event, { made, lifetime: 1, now: made }).state;
      }
    }
    expect(state).toMatchObject({ suspects: { length: MOST_SUSPECTS } });
  });
});

describe("hosts", () => {
  const key = (name: string) => ({ fingerprint: name, key: name.toUpperCase() });
  const notes = { boots: ["b1", "b2"], clones: [], pins: ["p"] };
  const states: Record<string, HostState | undefined> = {
    absent: undefined,
    enrolled: { phase: "enrolled", key: key("k"), ...notes },
    rotating: { phase: "rotating", key: key("k"), next: key("n"), ...notes },
    revoked: { phase: "revoked", fingerprints: ["k"], ...notes },
  };
  const session = (by: string, boot: string, answering: string[] = []): HostEvent => {
    return { kind: "session", key: by, boot, pins: ["p"], answering };
  };
  const events: Record<string, HostEvent> = {
    "enrol k": { kind: "enrol", key: key("k"), replace: false, pins: ["p"] },
    "enrol x": { kind: "enrol", key: key("x"), replace: false, pins: ["p"] },
    "enrol x in its place": { kind: "enrol", key: key("x"), replace: true, pins: ["p"] },
    "k rotates to n": { kind: "rotate", by: "k", next: key("n") },
    "k rotates to m": { kind: "rotate", by: "k", next: key("m") },
    "k rotates to k": { kind: "rotate", by: "k", next: key("k") },
    "x rotates": { kind: "rotate", by: "x", next: key("n") },
    "session of k": session("k", "b2"),
    "session of n": session("n", "b2"),
    "session of x": session("x", "b2"),
    "session of a new boot": session("k", "b3"),
    "session of a new boot, and b2 answers": session("k", "b3", ["b2"]),
    "session of an older boot": session("k", "b1"),
    confirm: { kind: "confirm", pins: ["p", "q"] },
    "b1 spoke": { kind: "spoke", boot: "b1" },
    "b2 spoke": { kind: "spoke", boot: "b2" },
    revoke: { kind: "revoke" },
    acknowledge: { kind: "acknowledge" },
  };
  const wordOf = (effect: HostEffect): string => {
    switch (effect.kind) {
      case "end-key":
        return `end ${effect.key} (${effect.reason})`;
      case "end-all":
        return `end all (${effect.reason})`;
      case "end-boots-but":
        return `end all but ${effect.boot}`;
      case "supersede":
        return `supersede all but ${[effect.boot, ...effect.spare].join(" ")}`;
      case "spend-key":
        return `spend ${effect.key}`;
      case "tell-clone":
        return `clone ${effect.clone.boots.join(" ")} ${effect.clone.how}`;
      case "tell":
        return effect.what;
    }
  };
  for (const [stateName, state] of Object.entries(states)) {
    test(`${stateName}, with every event`, () => {
      const rows = Object.entries(events).map(([eventName, event]) => {
        const step = stepHost(state, event);
        if (step.refused !== undefined) {
          expect(step).toEqual({ state, effects: [], refused: step.refused });
          return `${eventName}: refused, ${step.refused}`;
        }
        const keys = step.state === undefined ? [] : fingerprintsOf(step.state);
        const phase = [step.state?.phase ?? "absent", ...keys].join(" ");
        return [`${eventName}: ${phase}`, ...step.effects.map(wordOf)].join("; ");
      });
      expect(rows).toMatchSnapshot();
    });
  }

  test("a pair of boots is told once, in whatever way it shows", () => {
    let state: HostState | undefined = states["enrolled"];
    let told = 0;
    const signs = [session("k", "b1"), { kind: "spoke", boot: "b1" } as const, session("k", "b1")];
    for (const event of signs) {
      const step = stepHost(state, event);
      state = step.state;
      told += step.effects.filter(({ kind }) => kind === "tell-clone").length;
    }
    expect(told).toBe(1);
    state = stepHost(state, { kind: "acknowledge" }).state;
    expect(stepHost(state, session("k", "b1")).effects).toHaveLength(1);
  });

  test("boots and clones are bounded", () => {
    let state: HostState | undefined = states["enrolled"];
    for (let count = 0; count < 100; count += 1) {
      state = stepHost(state, session("k", `x${count}`, [`y${count}`])).state;
    }
    expect(state?.boots).toHaveLength(limits.boots);
    expect(state?.boots.at(-1)).toBe("x99");
    expect(state?.clones).toHaveLength(limits.clones);
  });
});

describe("sessions", () => {
  const states: Record<string, SessionState> = {
    live: { phase: "live", used: 0 },
    superseded: { phase: "superseded", used: 0 },
    ended: { phase: "ended", reason: "revoked" },
  };
  const events: SessionEvent[] = [
    { kind: "use" },
    { kind: "supersede" },
    { kind: "end", reason: "closed" },
    { kind: "time" },
  ];
  test("every state with every event, in time, idle, and at the end", () => {
    const rows: string[] = [];
    for (const [name, state] of Object.entries(states)) {
      for (const event of events) {
        const idle = { opened: 0, now: limits.sessionIdle };
        const times = { "in time": { opened: 0, now: limits.sessionIdle - 1 }, idle };
        const over = { opened: -limits.sessionLifetime, now: 0 };
        for (const [time, context] of Object.entries({ ...times, over })) {
          const step = stepSession(state, event, context);
          const reason = step.state.phase === "ended" ? ` ${step.state.reason}` : "";
          const marks = [step.admitted && "admitted", step.clone === true && "clone"];
          const words = marks.filter((mark) => mark !== false).join(" ");
          rows.push(
            `${name}, ${event.kind}, ${time}: ${step.state.phase}${reason} ${words}`.trim(),
          );
        }
      }
    }
    expect(rows).toMatchSnapshot();
  });

  test("a used one lives on, to its end", () => {
    let state: SessionState = { phase: "live", used: 0 };
    let now = 0;
    while (now + limits.sessionIdle / 2 < limits.sessionLifetime) {
      now += limits.sessionIdle / 2;
      const step = stepSession(state, { kind: "use" }, { opened: 0, now });
      expect(step.admitted).toBe(true);
      state = step.state;
    }
    now = limits.sessionLifetime;
    const step = stepSession(state, { kind: "use" }, { opened: 0, now });
    expect(step.state).toEqual({ phase: "ended", reason: "lifetime" });
  });

  test("there are so many at once, and the next is refused until one has ended", () => {
    const ended: string[] = [];
    const book = new SessionBook(({ facts, reason }) => ended.push(`${facts.id} ${reason}`));
    const facts = (count: number, opened = 0): SessionFacts => {
      return { id: `s${count}`, host: `h${count}`, key: "k", boot: "b", from: "", opened };
    };
    for (let count = 0; count < limits.sessions; count += 1) {
      expect(book.open(`${count}`, facts(count))).toBe(true);
    }
    expect(book.open("more", facts(limits.sessions))).toBe(false);
    book.end(() => true, "closed", { host: "h7", now: 1 });
    expect(book.open("more", facts(limits.sessions))).toBe(true);
    // Those that have come to their time make room.
    expect(book.open("late", facts(limits.sessions + 1, limits.sessionIdle))).toBe(true);
    expect(book.count).toBe(1);
    expect(ended[0]).toBe("s7 closed");
    expect(ended[1]).toBe("s0 idle");
  });
});

describe("nonces", () => {
  test("are good once, and for a time", () => {
    const book = new NonceBook();
    book.add("a", 0);
    book.add("b", 0);
    expect(book.spend("a", limits.nonceLifetime - 1)).toBe(true);
    expect(book.spend("a", limits.nonceLifetime - 1)).toBe(false);
    expect(book.spend("b", limits.nonceLifetime)).toBe(false);
    expect(book.spend("c", 0)).toBe(false);
  });

  test("are so many: over it the oldest goes", () => {
    const book = new NonceBook();
    for (let count = 0; count <= limits.nonces; count += 1) book.add(`${count}`, 0);
    expect(book.count).toBe(limits.nonces);
    expect(book.spend("0", 0)).toBe(false);
    expect(book.spend("1", 0)).toBe(true);
    expect(book.spend(`${limits.nonces}`, 0)).toBe(true);
  });

  test("too old ones go by themselves", () => {
    const book = new NonceBook();
    for (let count = 0; count < 10; count += 1) book.add(`${count}`, 0);
    book.add("late", limits.nonceLifetime);
    expect(book.count).toBe(1);
  });
});

describe("operators", () => {
  const rights = { role: "view", special: [] } as const;
  const states: Record<string, OperatorState | undefined> = {
    absent: undefined,
    active: { phase: "active", token: "t", old: undefined, ...rights },
    overlapping: {
      phase: "active",
      token: "t",
      old: { hash: "o", since: made, overlap: 100 },
      ...rights,
    },
    revoked: { phase: "revoked", ...rights },
  };
  const events: Record<string, OperatorEvent> = {
    add: { kind: "add", token: "n", rights },
    rotate: { kind: "rotate", token: "n", overlap: 0 },
    "rotate with an overlap": { kind: "rotate", token: "n", overlap: 100 },
    revoke: { kind: "revoke" },
  };
  test("every state with every event", () => {
    const rows: string[] = [];
    for (const [stateName, state] of Object.entries(states)) {
      for (const [eventName, event] of Object.entries(events)) {
        const { state: next, spent, refused } = stepOperator(state, event, later(50));
        const good = next === undefined ? [] : goodTokens(next, later(50));
        const words = [next?.phase ?? "absent", `good: ${good.join(" ")}`];
        const more = [`spent: ${spent.join(" ")}`, refused ?? "done"];
        rows.push(`${stateName}, ${eventName}: ${[...words, ...more].join("; ")}`);
      }
    }
    expect(rows).toMatchSnapshot();
  });

  test("an overlap ends", () => {
    const state = states["overlapping"];
    if (state === undefined) throw new Error("no state");
    expect(goodTokens(state, later(99))).toEqual(["t", "o"]);
    expect(goodTokens(state, later(100))).toEqual(["t"]);
    expect(goodTokens(state, { boot: "z", monotonic: 0, wall: 0 })).toEqual(["t"]);
  });
});

describe("certificates", () => {
  const steady = { current: "c", next: undefined };
  const announced = { current: "c", next: "n" };
  const finish = (unconfirmed: number, force: boolean) => {
    return { kind: "finish", unconfirmed, force } as const;
  };
  const rotate = { kind: "rotate", next: "m" } as const;
  test("every state with every event", () => {
    expect(stepCertificate(steady, rotate)).toEqual({ state: { current: "c", next: "m" } });
    expect(stepCertificate(announced, rotate)).toEqual({
      state: announced,
      refused: "wrong-state",
    });
    for (const event of [finish(0, false), finish(1, false), finish(0, true), finish(1, true)]) {
      expect(stepCertificate(steady, event)).toEqual({ state: steady, refused: "wrong-state" });
    }
    const done = { state: { current: "n", next: undefined } };
    expect(stepCertificate(announced, finish(0, false))).toEqual(done);
    expect(stepCertificate(announced, finish(1, true))).toEqual(done);
    const refused = { state: announced, refused: "unconfirmed" as const };
    expect(stepCertificate(announced, finish(1, false))).toEqual(refused);
  });
});
