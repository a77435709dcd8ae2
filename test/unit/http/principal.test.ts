/** Who may call what: every kind of caller × every kind of permission. */
import { expect, test } from "bun:test";
import {
  describePrincipal,
  mayCall,
  type Permission,
  type Principal,
} from "../../../src/http/principal.ts";

const permissions: readonly Permission[] = [
  ...(["anyone", "host", "run", "view", "operate", "admin", "wipe", "hold"] as const),
];

const callers: readonly { readonly who: Principal; readonly may: readonly Permission[] }[] = [
  { who: { kind: "anonymous" }, may: ["anyone"] },
  { who: { kind: "host", name: "web-1", session: "s" }, may: ["anyone", "host"] },
  { who: { kind: "run", run: 12, session: null }, may: ["anyone", "run"] },
  { who: { kind: "run", run: 12, session: "s" }, may: ["anyone", "run"] },
  {
    who: { kind: "operator", name: "alice", role: "operate", special: ["wipe"] },
    may: ["anyone", "view", "operate", "wipe"],
  },
  {
    who: { kind: "operator", name: "bob", role: "admin", special: [] },
    may: ["anyone", "view", "operate", "admin"],
  },
  {
    who: { kind: "local", user: 0, process: 1 },
    may: ["anyone", "view", "operate", "admin", "wipe", "hold"],
  },
];

test("each may call what is meant for it, and nothing else", () => {
  for (const { who, may } of callers) {
    const allowed = permissions.filter((permission) => mayCall(who, permission));
    expect([describePrincipal(who), allowed]).toEqual([describePrincipal(who), [...may]]);
  }
});

test("a run is named by its number", () => {
  expect(describePrincipal({ kind: "run", run: 12, session: "s" })).toBe("run 12");
});
