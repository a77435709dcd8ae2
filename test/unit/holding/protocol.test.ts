/** What the holder's wire takes, and what it is made of. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import {
  holderLockOf,
  holderSocketOf,
  holderSteps,
  limits,
  refuseName,
  requestKinds,
  requestSchema,
} from "../../../src/holding/protocol.ts";
import { encodeFrame } from "../../../src/messaging/frame.ts";

describe("names", () => {
  test("1 to 128 bytes of UTF-8", () => {
    for (const name of ["a", "x".repeat(128), "é".repeat(64), "with / and \n", "😀"]) {
      expect(refuseName(name)).toBeUndefined();
    }
    expect(refuseName("x".repeat(129))?.code).toBe("ENAMETOOLONG");
    expect(refuseName(`${"é".repeat(64)}x`)?.code).toBe("ENAMETOOLONG");
    for (const name of ["", "a\0b", "\ud800"]) expect(refuseName(name)?.code).toBe("EINVAL");
  });

  test("those of sessions are shorter", () => {
    expect(refuseName("x".repeat(63), limits.sessionBytes)).toBeUndefined();
    expect(refuseName("x".repeat(64), limits.sessionBytes)?.message).toBe(
      "Expected a name of at most 63 bytes, received one of 64",
    );
  });

  test("all of them, escaped, fit into one answer, and each into a request", () => {
    const name = "\u0001".repeat(limits.nameBytes);
    const names = Array<string>(limits.descriptors).fill(name);
    const answer = encodeFrame({ kind: "names", id: Number.MAX_SAFE_INTEGER, names });
    expect(answer.length).toBeLessThan(limits.answerBytes);
    const id = Number.MAX_SAFE_INTEGER;
    const session = "\u0001".repeat(limits.sessionBytes);
    const request = encodeFrame({ kind: "retrieve-session", id, session, name });
    expect(request.length).toBeLessThan(limits.requestBytes);
  });
});

test("one socket and one lock for a control socket, beside it", () => {
  expect(holderSocketOf("/run/luod/control.sock")).toBe("/run/luod/control.sock.holder");
  expect(holderLockOf("/run/luod/control.sock")).toBe("/run/luod/control.sock.holder.lock");
});

test("every request has its kill points", () => {
  expect(requestKinds).toHaveLength(requestSchema.options.length);
  expect(holderSteps).toHaveLength(requestKinds.length * 3);
  expect(new Set(holderSteps).size).toBe(holderSteps.length);
});

test("requests are strict", () => {
  const good = { kind: "put", id: 1, name: "a" };
  expect(v.safeParse(requestSchema, good).success).toBe(true);
  const others = [
    { ...good, more: 1 },
    { ...good, id: -1 },
    { ...good, id: 0.5 },
    { kind: "put", id: 1 },
    { ...good, kind: "forget" },
    [],
    null,
  ];
  for (const other of others) expect(v.safeParse(requestSchema, other).success).toBe(false);
});
