/** What a worker does with its master's words; what may run; and what it says of itself. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import {
  type AssignmentState,
  desiredBy,
  holdsOf,
  noAssignment,
  placeOf,
  stepAssignment,
} from "../../../src/vm/lifecycle-assignment.ts";
import type { Assigned } from "../../../src/vm/machine-record.ts";
import { type VmSpec, vmMetricsSchema } from "../../../src/vm/protocol.ts";
import { type Assignment, masterLimits, reportSchema } from "../../../src/vm/protocol-master.ts";
import { eventOf, type Hold, type ObservedMachine, reconcile } from "../../../src/vm/reconcile.ts";
import { freeOf, type MachineFacts, makeReport } from "../../../src/vm/report.ts";

const spec = (name: string): VmSpec => ({
  name,
  imagePath: `/images/${name}`,
  hash: `sha256-${"A".repeat(43)}=`,
});

const given = (more: Partial<Assigned> = {}): Assigned => ({
  owner_generation: 10,
  movable: false,
  fencing: "none",
  ...more,
});

function assignment(more: Partial<Assignment> & { readonly names?: readonly string[] } = {}) {
  const { names = ["web"], ...rest } = more;
  return {
    kind: "assignment",
    version: 1,
    incarnation: "a".repeat(32),
    generation: 5,
    revision: 5,
    machines: names.map((name) => ({ spec: spec(name), power: "running", ...given() })),
    removals: [],
    ...rest,
  } satisfies Assignment as Assignment;
}

const held = new Set(["web"]);
const answer = (state: AssignmentState, next: Assignment) =>
  stepAssignment(state, { kind: "answered", answer: next, held });
const taken = answer(noAssignment, assignment()).state;

describe("which assignment counts", () => {
  test("the first, whatever it is; it is kept before it is followed", () => {
    const { state, effects } = answer(noAssignment, assignment({ generation: 0, revision: 0 }));
    expect(effects.map(({ kind }) => kind)).toEqual(["keep", "follow"]);
    expect(placeOf(state)).toEqual({ incarnation: "a".repeat(32), generation: 0, revision: 0 });
    expect(placeOf(noAssignment)).toBeNull();
  });

  test.each([
    [{ generation: 4, revision: 9 }, "expected generation 5 or a later one, received 4"],
    [{ generation: 9, revision: 4 }, "expected revision 5 or a later one, received 4"],
    [{ names: ["web", "web"] }, "it names a machine twice"],
  ])("an older one, or one that cannot be, is dropped: %j", (more, reason) => {
    const { state, effects } = answer(taken, assignment(more));
    expect(state).toBe(taken);
    expect(effects).toEqual([{ kind: "dropped", reason }]);
  });

  test("of another incarnation any counts; the same again is taken; unchanged is nothing", () => {
    const other = assignment({ incarnation: "b".repeat(32), generation: 1, revision: 1 });
    expect(answer(taken, other).state.assignment).toBe(other);
    expect(answer(taken, assignment()).effects[0]?.kind).toBe("keep");
    const unchanged = { kind: "unchanged", version: 1 } as const;
    const same = stepAssignment(taken, { kind: "answered", answer: unchanged, held });
    expect(same).toEqual({ state: taken, effects: [] });
  });
});

describe("what is another's by now", () => {
  const stale = (state: AssignmentState, generation: number) =>
    stepAssignment(state, {
      kind: "stale",
      machines: [{ name: "web", owner_generation: generation }],
    });

  test("is ended before it is kept, and wanted no more; told again it changes nothing", () => {
    const { state, effects } = stale(taken, 10);
    expect(effects.map(({ kind }) => kind)).toEqual(["end", "keep", "follow"]);
    expect(desiredBy(state)?.machines).toEqual([]);
    expect(stale(state, 10)).toEqual({ state, effects: [] });
    expect(stale(state, 9).effects).toEqual([]);
  });

  test("a lower owner generation than the one that is assigned takes nothing away", () => {
    expect(desiredBy(stale(taken, 9).state)?.machines).toHaveLength(1);
  });

  test("it is forgotten when given anew, or gone; not while it is assigned as before", () => {
    const lost = stale(taken, 10).state;
    expect(answer(lost, assignment()).state.stale.size).toBe(1);
    const anew = assignment({
      machines: [{ spec: spec("web"), power: "running", ...given({ owner_generation: 11 }) }],
    });
    expect(answer(lost, anew).state.stale.size).toBe(0);
    const without = assignment({ names: [] });
    expect(answer(lost, without).state.stale.size).toBe(1);
    const gone = stepAssignment(lost, { kind: "answered", answer: without, held: new Set() });
    expect(gone.state.stale.size).toBe(0);
  });
});

test("a machine that is another's by now takes no room once it has no VMM", () => {
  const lost = stepAssignment(taken, {
    kind: "stale",
    machines: [{ name: "web", owner_generation: 10 }],
  }).state;
  const free = (phase: MachineFacts["phase"], ownerGeneration: number | undefined) =>
    makeReport({
      ...{ boot: "b", run: "r", sequence: 1, program: "p", assignment: lost },
      ...{ convergencePercent: 0, labels: {}, watchdog: null },
      total: { processors: 4, memory_bytes: 4_096 },
      machines: [
        {
          ...{ name: "web", phase, ownerGeneration, reason: undefined, standing: undefined },
          ...{ processors: 3, memory: 1_024, metrics: undefined },
        },
      ],
    }).free.processors;
  expect([free("stopping", 10), free("off", 10), free("failed", 10)]).toEqual([1, 4, 4]);
  // An operator's, and one that was given anew.
  expect([free("off", undefined), free("off", 11)]).toEqual([1, 1]);
});

describe("what may run", () => {
  const all = { isHeard: true, mayRunFenced: true };
  const kind = (assigned: Assigned | undefined, permissions = all, state = taken) =>
    holdsOf(state, [{ name: "web", assigned }], permissions).get("web")?.kind;
  const fenced = given({ movable: true, fencing: "watchdog" });
  const movable = given({ movable: true });

  test("one that no master gave, always", () => {
    const none = { isHeard: false, mayRunFenced: false };
    expect(kind(undefined, none)).toBeUndefined();
    expect(kind(given(), none)).toBeUndefined();
  });

  test("a movable one is not started before the master was heard in this boot", () => {
    expect(kind(movable, { isHeard: false, mayRunFenced: true })).toBe("waits");
    expect(kind(movable, { isHeard: true, mayRunFenced: false })).toBeUndefined();
  });

  test("one of the watchdog's is ended when the lease is over", () => {
    expect(kind(fenced)).toBeUndefined();
    expect(kind(fenced, { isHeard: true, mayRunFenced: false })).toBe("ends");
    expect(kind(fenced, { isHeard: false, mayRunFenced: true })).toBe("waits");
  });

  test("another's is ended, in whatever state the lease is", () => {
    const state = { ...taken, stale: new Map([["web", 10]]) };
    expect(kind(given(), all, state)).toBe("ends");
    expect(kind(given({ owner_generation: 11 }), all, state)).toBeUndefined();
  });
});

describe("machines of a master, reconciled", () => {
  const observed = (more: Partial<ObservedMachine> = {}): ObservedMachine => ({
    name: "web",
    phase: "running",
    wanted: "running",
    declaredPower: "running",
    spec: spec("web"),
    owner: "declared",
    ownerGeneration: 10,
    reason: undefined,
    ...more,
  });
  const desired = desiredBy(taken);
  if (desired === undefined) throw new Error("Nothing is desired");
  const none = { ...desired, machines: [] };
  const commands = (
    found: readonly ObservedMachine[],
    wanted = desired,
    holds: Readonly<Record<string, Hold>> = {},
  ) => reconcile(wanted, found, new Map(Object.entries(holds))).commands;
  const ends: Hold = { kind: "ends", reason: "over" };
  const waits: Hold = { kind: "waits", reason: "unheard" };

  test("as given: nothing; a higher owner generation: anew, and at once", () => {
    expect(commands([observed()])).toEqual([]);
    const [command] = commands([observed({ ownerGeneration: 9 })]);
    expect(command).toEqual({ kind: "delete", name: "web", reason: "given-anew" });
    expect(command?.kind === "delete" && eventOf(command)).toEqual({ kind: "delete", hurry: true });
  });

  test.each([
    ["a lower owner generation", { ownerGeneration: 11 }, "after 10"],
    ["one that was declared here", { ownerGeneration: undefined }, "no master gave it"],
    ["an operator's", { owner: "operator", ownerGeneration: undefined }, "made it by hand"],
  ] as const)("%s is left alone", (_what, more, reason) => {
    const found = reconcile(desired, [observed(more)]);
    expect(found.commands).toEqual([]);
    expect(found.standings).toMatchObject([{ status: "left-alone" }]);
    expect(found.standings[0]?.reason).toContain(reason);
  });

  test("what is in neither list stays; what is to go goes, under its owner generation", () => {
    expect(commands([observed()], none)).toEqual([]);
    const removing = (generation: number) => ({
      ...none,
      removals: new Map([["web", generation]]),
    });
    expect(commands([observed()], removing(9))).toEqual([]);
    expect(commands([observed()], removing(10))).toMatchObject([{ kind: "delete" }]);
    const operators = observed({ owner: "operator", ownerGeneration: undefined });
    expect(commands([operators], removing(99))).toEqual([]);
    // A file of this host, after the master was taken out of the configuration.
    expect(commands([observed()], { generation: 1, machines: [] })).toEqual([]);
  });

  const phases = ["running", "detached", "uncertain", "starting", "stopping", "snapshotting"];
  test.each(phases)("one that may not run is ended while it is %s, before all others", (phase) => {
    const found = [
      observed({ name: "new", ownerGeneration: 9 }),
      observed({ phase: phase as ObservedMachine["phase"], wanted: "off" }),
    ];
    expect(commands(found, none, { web: ends })[0]).toMatchObject({ kind: "end", name: "web" });
  });

  test("once it has ended nothing more is done, until it is to go, or may run again", () => {
    const off = observed({ phase: "off", wanted: "off", declaredPower: "off" });
    expect(commands([off], desired, { web: ends })).toEqual([]);
    const removal = { ...none, removals: new Map([["web", 10]]) };
    expect(commands([off], removal, { web: ends })).toMatchObject([{ kind: "delete" }]);
    expect(commands([off])).toMatchObject([{ kind: "power", event: "boot" }]);
  });

  test("one that waits is not started, and is not ended where it runs", () => {
    expect(commands([observed()], desired, { web: waits })).toEqual([]);
    const backing = observed({ phase: "backing-off" });
    expect(commands([backing], desired, { web: waits })).toMatchObject([{ kind: "end" }]);
    const off = observed({ phase: "off", wanted: "off", declaredPower: "off" });
    expect(commands([off], desired, { web: waits })).toEqual([]);
  });
});

describe("a report", () => {
  const facts = (name: string, more: Partial<MachineFacts> = {}): MachineFacts => ({
    name,
    phase: "running",
    reason: undefined,
    ownerGeneration: 10,
    standing: undefined,
    processors: 2,
    memory: 1024,
    metrics: undefined,
    ...more,
  });
  const report = (machines: readonly MachineFacts[]) =>
    makeReport({
      boot: "01234567-89ab-cdef-0123-456789abcdef",
      run: "c".repeat(32),
      sequence: 1,
      program: "0.1.0",
      assignment: taken,
      convergencePercent: 50,
      total: { processors: 8, memory_bytes: 8192 },
      labels: { zone: "a" },
      watchdog: null,
      machines,
    });

  const nothing = (key: string) =>
    v.safeParse(vmMetricsSchema.entries[key as "cpu_percent"], null).success ? null : [];
  const metrics = v.parse(vmMetricsSchema, {
    ...Object.fromEntries(Object.keys(vmMetricsSchema.entries).map((key) => [key, nothing(key)])),
    name: "a",
    cpu_percent: 12.5,
  });

  test("is what the wire takes, and says what is free", () => {
    const made = report([
      facts("a", { metrics }),
      facts("b", { processors: undefined, memory: undefined }),
    ]);
    expect(v.safeParse(reportSchema, made).success).toBe(true);
    expect(made.free).toEqual({ processors: 6, memory_bytes: 7168 });
    expect(freeOf({ processors: 1, memory_bytes: 1 }, [facts("a")])).toEqual({
      processors: 0,
      memory_bytes: 0,
    });
  });

  test("is cut to the limits of the wire: metrics go first, and then drift", () => {
    const long = "x".repeat(5_000);
    const drift = Array.from({ length: 20 }, (_one, index) => ({
      key: `${index}${"k".repeat(100)}`,
      desired: long,
      observed: long,
    }));
    const standing = { name: "a", status: "drifted", drift, reason: long } as const;
    const made = report([facts("a", { standing })]);
    expect(v.safeParse(reportSchema, made).success).toBe(true);
    expect(made.machines[0]?.drift).toHaveLength(masterLimits.drift);
    const names = Array.from({ length: 1_100 }, (_one, index) => `m${index}`);
    const many = report(names.map((name) => facts(name, { standing: { ...standing, name } })));
    expect(many.machines).toHaveLength(masterLimits.machinesOfWorker);
    expect(JSON.stringify(many).length).toBeLessThanOrEqual(masterLimits.reportBytes);
    expect(many.machines[0]?.drift).toEqual([]);
    expect(v.safeParse(reportSchema, many).success).toBe(true);
  });
});
