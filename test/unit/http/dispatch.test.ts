/** The one way to a route: what is refused, what is a bug, and what is recorded. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { type Caller, CHANGES_LIMIT, Dispatcher } from "../../../src/http/dispatch.ts";
import type { Principal } from "../../../src/http/principal.ts";
import { ProblemError, problemKinds, toControlError } from "../../../src/http/problem.ts";
import {
  RECORDED_REFUSALS,
  REFUSAL_KINDS,
  REFUSAL_WINDOW,
  RefusalWindows,
} from "../../../src/http/refusal-window.ts";
import { type CallRecord, defineRoute, type Route } from "../../../src/http/route.ts";

const admin: Principal = { kind: "operator", name: "alice", role: "admin", special: [] };

function world(options: { readonly onRecord?: () => never } = {}) {
  const records: CallRecord[] = [];
  const bugs: string[] = [];
  const wakes: { at: number; call: () => void }[] = [];
  const clock = { time: 0 };
  const dispatcher = new Dispatcher({
    onRecord: options.onRecord ?? ((record) => void records.push(record)),
    onBug: (message, failure) => bugs.push(`${message}: ${(failure as Error).message}`),
    translate: (failure) =>
      failure instanceof RangeError ? new ProblemError("full", failure.message) : undefined,
    clock: {
      now: () => clock.time,
      wakeAfter: (wait, call) => {
        wakes.push({ at: clock.time + wait, call });
        return { [Symbol.dispose]: () => {} };
      },
    },
  });
  const pass = (time: number) => {
    clock.time += time;
    for (const wake of wakes.splice(0)) wake.call();
  };
  return { dispatcher, records, bugs, pass, wakes };
}

function caller(principal: Principal = admin, from = "192.0.2.1:4000"): Caller {
  return { principal, from, signal: new AbortController().signal };
}

function route(run: Route["run"], more: Partial<Route> = {}): Route {
  return defineRoute({
    name: "test.do",
    method: "POST",
    path: "/v1/do/:what",
    summary: "Do it",
    permission: "operate",
    mutates: true,
    input: v.object({ what: v.string() }),
    output: v.object({ done: v.boolean() }),
    run: run as () => { done: boolean },
    ...more,
  } as Route<v.GenericSchema, v.GenericSchema>);
}

const anonymous: Principal = { kind: "anonymous" };

describe("a handler", () => {
  test("whose output is not its schema's is a bug; the caller learns no more", async () => {
    const { dispatcher, bugs, records } = world();
    const outcome = await dispatcher.dispatch(
      route(() => ({ done: "yes", secret: 1 })),
      caller(),
      { what: "a" },
    );
    expect(outcome).toMatchObject({ kind: "refused", refusal: { kind: "bug" } });
    expect(JSON.stringify((outcome as { refusal: ProblemError }).refusal.problem)).not.toContain(
      "boolean",
    );
    expect(bugs).toEqual([
      "test.do failed: test.do gave what is not its output: " +
        'expected boolean in done, received "yes"',
    ]);
    expect(records).toMatchObject([{ result: "A bug of the server", object: "/v1/do/a" }]);
  });

  test("that refuses says so; errors of other rooms are translated", async () => {
    const { dispatcher, bugs } = world();
    const refused = new ProblemError("conflict", "Somebody was faster", { expected: "3" });
    const kinds: string[] = [];
    for (const failure of [refused, new RangeError("no room"), new TypeError("x is undefined")]) {
      const failing = route(() => {
        throw failure;
      });
      const outcome = await dispatcher.dispatch(failing, caller(), { what: "a" });
      if (outcome.kind === "refused") kinds.push(outcome.refusal.kind);
    }
    expect(kinds).toEqual(["conflict", "full", "bug"]);
    expect(bugs).toEqual(["test.do failed: x is undefined"]);
  });

  test("that was ended is no bug", async () => {
    const { dispatcher, bugs } = world();
    const failing = route(() => {
      throw new DOMException("aborted", "AbortError");
    });
    const ended = { ...caller(), signal: AbortSignal.abort() };
    const outcome = await dispatcher.dispatch(failing, ended, { what: "a" });
    expect(outcome).toMatchObject({ refusal: { kind: "ended" } });
    expect(bugs).toEqual([]);
  });

  test("tells what it changed, each in a record, up to a limit", async () => {
    const { dispatcher, records, bugs } = world();
    const changing = (count: number) =>
      route((call) => {
        for (let index = 0; index < count; index += 1) call.changed({ object: `o${index}` });
        return { done: true };
      });
    await dispatcher.dispatch(changing(2), caller(), { what: "a" });
    expect(records.map(({ object, result }) => [object, result])).toEqual([
      ["o0", "done"],
      ["o1", "done"],
    ]);
    await dispatcher.dispatch(changing(CHANGES_LIMIT + 1), caller(), { what: "a" });
    expect(bugs).toEqual([`test.do failed: More than ${CHANGES_LIMIT} changes`]);
  });

  test("whose call cannot be recorded is not answered with done", async () => {
    const { dispatcher, bugs } = world({
      onRecord: () => {
        throw new Error("disk full");
      },
    });
    const outcome = await dispatcher.dispatch(
      route(() => ({ done: true })),
      caller(),
      { what: "a" },
    );
    expect(outcome).toMatchObject({ refusal: { kind: "unrecorded" } });
    expect(bugs).toEqual(["A call could not be written into the audit log: disk full"]);
  });

  test("that changes nothing is in no record", async () => {
    const { dispatcher, records } = world();
    const reading = route(() => ({ done: true }), { mutates: false });
    await dispatcher.dispatch(reading, caller(), { what: "a" });
    await dispatcher.dispatch(reading, caller(anonymous), { what: "a" });
    expect(records).toEqual([]);
  });
});

describe("refusals without end", () => {
  test("are recorded one by one, then counted; what is counted is told at the end", async () => {
    const { dispatcher, records, pass } = world();
    const any = route(() => ({ done: true }));
    for (let count = 0; count < 1_000; count += 1) {
      const from = `192.0.2.${count % 7}:${count}`;
      await dispatcher.dispatch(any, caller(anonymous, from), { what: `w${count}` });
    }
    expect(records).toHaveLength(RECORDED_REFUSALS);
    pass(REFUSAL_WINDOW);
    expect(records).toHaveLength(RECORDED_REFUSALS + 1);
    expect(records.at(-1)).toMatchObject({ who: "anonymous", count: 1_000 - RECORDED_REFUSALS });
    expect(records.at(-1)?.from).toMatch(/^(192\.0\.2\.\d, ){3}192\.0\.2\.\d and others$/);
    await dispatcher.dispatch(any, caller(anonymous), { what: "a" });
    expect(records).toHaveLength(RECORDED_REFUSALS + 2);
  });

  test("are told when the daemon ends", async () => {
    const { dispatcher, records } = world();
    for (let count = 0; count <= RECORDED_REFUSALS; count += 1) {
      await dispatcher.dispatch(
        route(() => ({ done: true })),
        caller(anonymous),
        {},
      );
    }
    await dispatcher.finish();
    expect(records.at(-1)).toMatchObject({ count: 1 });
  });

  test("of more kinds than are told apart are counted together", () => {
    const windows = new RefusalWindows();
    const record = { who: "", from: "x", verb: "v", object: "o", result: "no" };
    let taken = 0;
    for (let kind = 0; kind < REFUSAL_KINDS + 100; kind += 1) {
      if (windows.take({ ...record, who: `host ${kind}` }, 0)) taken += 1;
    }
    expect(taken).toBe(REFUSAL_KINDS + RECORDED_REFUSALS);
    const [others, ...rest] = windows.ended(REFUSAL_WINDOW);
    expect(others).toMatchObject({ who: "others", count: 100 - RECORDED_REFUSALS });
    expect(rest).toEqual([]);
  });
});

test("a control socket says the same refusal", () => {
  const options = { expected: "a", received: "b", hint: "do c" };
  for (const kind of Object.keys(problemKinds) as (keyof typeof problemKinds)[]) {
    const { problem } = new ProblemError(kind, "It was so", options);
    expect(toControlError(problem)).toEqual({ kind, message: "It was so", ...options });
    expect(problem.status).toBeWithin(400, 600);
  }
});
