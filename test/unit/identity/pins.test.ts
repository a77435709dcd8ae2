/** What a host takes of statements, and what time it is for certain. */
import { describe, expect, test } from "bun:test";
import { takeStatement } from "../../../src/identity/pins.ts";
import { limits, type Statement } from "../../../src/identity/protocol.ts";
import { hasExpired, releaseTime, trustedTime } from "../../../src/identity/trusted-time.ts";

const has = { serial: 5, pins: ["a"], time: 1_000 };
const statement = (change: Partial<Statement> = {}): Statement => ({
  version: 1,
  authority: "me",
  serial: 6,
  issued: 2_000,
  expires: 3_000,
  pins: ["a", "b"],
  signature: "",
  ...change,
});
const context = { authority: "me", build: 0 };
const kindOf = (change: Partial<Statement>, build = 0) => {
  return takeStatement(has, statement(change), { ...context, build }).kind;
};

describe("statements", () => {
  test("a later one is taken, with its time", () => {
    expect(takeStatement(has, statement(), context)).toEqual({
      kind: "taken",
      trusted: { serial: 6, pins: ["a", "b"], time: 2_000 },
    });
  });

  test("an older one, another's, one that is over, or that lasts too long is refused", () => {
    expect(kindOf({ serial: 4 })).toBe("refused");
    expect(kindOf({ serial: 5 })).toBe("refused");
    expect(kindOf({ authority: "you" })).toBe("refused");
    expect(kindOf({ expires: 999, issued: 500 })).toBe("refused");
    expect(kindOf({}, 3_001)).toBe("refused");
    expect(kindOf({ expires: 2_000 + limits.statementLifetime })).toBe("taken");
    expect(kindOf({ expires: 2_001 + limits.statementLifetime })).toBe("refused");
  });

  test("the one that is known tells the time, and never an earlier one", () => {
    const same = { serial: 5, pins: ["a"] };
    expect(kindOf({ ...same, issued: 1_000 })).toBe("known");
    expect(takeStatement(has, statement(same), context)).toEqual({
      kind: "taken",
      trusted: { serial: 5, pins: ["a"], time: 2_000 },
    });
  });

  test("time does not go back with a later statement", () => {
    const early = takeStatement(has, statement({ issued: 10 }), context);
    expect(early).toMatchObject({ trusted: { time: 1_000 } });
  });
});

describe("trusted time", () => {
  test("is the greatest of its witnesses", () => {
    expect(trustedTime({ build: 3, journaled: 2, signed: 1 })).toBe(3);
    expect(trustedTime({ build: 1, journaled: 3, signed: 2 })).toBe(3);
    expect(trustedTime({ build: 1, journaled: 2, signed: 3 })).toBe(3);
  });

  test("ends nothing before its time has passed for certain", () => {
    expect(hasExpired(5, 5)).toBe(false);
    expect(hasExpired(5, 6)).toBe(true);
  });

  test("of the release is a day in the past", () => {
    expect(new Date(releaseTime).toISOString()).toBe("2026-11-01T00:00:00.000Z");
  });
});
