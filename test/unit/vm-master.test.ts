/** What a master decides: who gets what, who is lost, and what proves it dead. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { changesBetween } from "../../src/vm/master/lifecycle-apply.ts";
import { proofTime } from "../../src/vm/master/lifecycle-fence.ts";
import type { MasterSettings, WorkerState } from "../../src/vm/master/lifecycle-state.ts";
import { assignmentOf, isNewsTo, statusOf } from "../../src/vm/master/lifecycle-view.ts";
import { masterLimits, type Report } from "../../src/vm/protocol-master.ts";
import {
  armed,
  boots,
  declare,
  machine,
  reported,
  SteppedMaster,
} from "../support/vm-master/reports.ts";

setDefaultTimeout(60_000);

const movable = { placement: { movable: true } };
const MEBIBYTE = 1024 * 1024;

const where = (master: SteppedMaster) => Object.fromEntries([...master.state.placed].sort());

const status = (master: SteppedMaster) =>
  statusOf(master.state, { now: master.now, hasHook: master.settings.hasHook });

function workerOf(master: SteppedMaster, name: string): WorkerState {
  const worker = master.state.workers.get(name);
  if (worker === undefined) throw new Error(`There is no ${name}`);
  return worker;
}

/** What a worker that has done all of its assignment says. */
function followed(master: SteppedMaster, worker: string): Partial<Report> {
  const { incarnation, generation, revision, machines } = assignmentOf(master.state, worker);
  return {
    observed: { incarnation, generation, revision },
    machines: machines.map(({ spec, owner_generation }) => reported(spec.name, owner_generation)),
    free: {
      processors: 8 - machines.reduce((sum, { spec }) => sum + (spec.cpu ?? 1), 0),
      memory_bytes:
        MEBIBYTE * (8_192 - machines.reduce((sum, { spec }) => sum + (spec.memoryMb ?? 512), 0)),
    },
  };
}

describe("scheduling", () => {
  test("the least used worker gets a machine, and by name where they are alike", () => {
    const master = new SteppedMaster();
    master.report("b");
    master.report("a");
    master.take(declare([machine("one"), machine("two"), machine("three")]));
    expect(where(master)).toEqual({ one: "a", three: "b", two: "a" });
  });

  test("a worker needs every label that is asked for", () => {
    const master = new SteppedMaster();
    master.report("a", { labels: { zone: "east" } });
    master.report("b", { labels: { zone: "east", disk: "fast" } });
    const labels = { zone: "east", disk: "fast" };
    master.take(declare([machine("one", { placement: { labels } })]));
    expect(where(master)).toEqual({ one: "b" });
  });

  test("machines of a group are spread over workers, and over the values of a label", () => {
    const master = new SteppedMaster();
    for (const [name, zone] of Object.entries({ a: "east", b: "east", c: "west" })) {
      master.report(name, { labels: { zone } });
    }
    const names = ["w1", "w2", "w3"];
    const byWorker = { placement: { spread: { group: "web" } } };
    const byZone = { placement: { spread: { group: "data", by: "zone" } } };
    master.take(
      declare([
        ...names.map((name) => machine(name, byWorker)),
        machine("d1", byZone),
        machine("d2", byZone),
      ]),
    );
    const placed = where(master);
    expect(new Set(names.map((name) => placed[name])).size).toBe(3);
    const zones = ["d1", "d2"].map(
      (name) => workerOf(master, placed[name] ?? "").heard?.report.labels["zone"],
    );
    expect(new Set(zones)).toEqual(new Set(["east", "west"]));
  });

  test("why nothing fits is said: what was asked, and what each worker has", () => {
    const master = new SteppedMaster();
    master.report("a", { free: { processors: 1, memory_bytes: 64 * MEBIBYTE } });
    master.report("b", { labels: { zone: "west" } });
    master.take({ kind: "cordon", worker: "b", cordoned: true });
    const labels = { zone: "west" };
    master.take(
      declare([
        machine("wide", { cpu: 4, memoryMb: 64 }),
        machine("tall", { memoryMb: 4_096 }),
        machine("west", { placement: { labels } }),
      ]),
    );
    expect(where(master)).toEqual({});
    const reasons = Object.fromEntries(
      status(master).machines.map((one) => [one.name, one.reason]),
    );
    const nowhere = (asked: string, why: string) =>
      `it fits on no worker: it asks for ${asked}; ${why}, b is cordoned`;
    expect(reasons).toEqual({
      tall: nowhere("1 processors, 4096 MiB", "a has 64 MiB free"),
      west: nowhere("1 processors, 512 MiB, zone=west", "a lacks zone=west"),
      wide: nowhere("4 processors, 64 MiB", "a has 1 processors free"),
    });
    master.take({ kind: "cordon", worker: "b", cordoned: false });
    expect(where(master)).toEqual({ tall: "b", west: "b", wide: "b" });
  });

  test("what was given and is not made yet counts as used", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one", { cpu: 6 })]));
    master.report("a");
    master.take(declare([machine("one", { cpu: 6 }), machine("two", { cpu: 6 })]));
    expect(where(master)).toEqual({ one: "a" });
    master.report("b");
    expect(where(master)).toEqual({ one: "a", two: "b" });
  });

  test("what wants one port of the host, or one address, goes to two workers, or waits", () => {
    const master = new SteppedMaster();
    master.report("a");
    const names = ["m1", "m2", "m3"];
    const web = { forwards: ["tcp:8080:80"] };
    master.take(declare([machine("m1", web)]));
    expect(where(master)).toEqual({ m1: "a" });
    // The first is there before; the others are given in one go.
    master.report("b");
    master.take(declare(names.map((name) => machine(name, web))));
    expect(where(master)).toEqual({ m1: "a", m2: "b" });
    const reason = status(master).machines.find(({ name }) => name === "m3")?.reason;
    expect(reason).toContain("a has tcp port 8080 for m1");
    expect(reason).toContain("b has tcp port 8080 for m2");
    master.take(declare([...names.map((name) => machine(name, web)), machine("m4")]));
    expect(where(master)["m4"]).toBeDefined();
    master.report("c");
    expect(where(master)["m3"]).toBe("c");
    const reserved = { networks: [{ network: "default", address: "10.100.0.9" }] };
    master.take(declare(["n1", "n2", "n3", "n4"].map((name) => machine(name, reserved))));
    expect(new Set(["n1", "n2", "n3"].map((name) => where(master)[name])).size).toBe(3);
    expect(status(master).machines.find(({ name }) => name === "n4")?.reason).toContain(
      "has 10.100.0.9 of default for",
    );
  });

  test("a worker that has made one of that name by hand gets none, and both are shown", () => {
    const master = new SteppedMaster();
    master.report("a", { machines: [reported("two", null)] });
    master.take(declare([machine("one"), machine("two")]));
    expect(where(master)).toEqual({ one: "a" });
    expect(master.state.unplaced.get("two")).toContain(
      "a has a machine of this name that no master gave",
    );
    master.report("b");
    expect(where(master)).toEqual({ one: "a", two: "b" });
    expect(status(master).warnings).toEqual([
      "there are others of these names, which no master gave: two at a",
    ]);
  });

  test("a worker has as many machines as it may have, and no more", () => {
    const master = new SteppedMaster();
    const endless = { processors: 1e9, memory_bytes: Number.MAX_SAFE_INTEGER };
    master.report("a", { total: endless, free: endless });
    const { machinesOfWorker } = masterLimits;
    const names = Array.from({ length: machinesOfWorker + 1 }, (_, index) => `m${index}`);
    master.take(declare(names.map((name) => machine(name))));
    expect(master.state.placed.size).toBe(machinesOfWorker);
    expect([...master.state.unplaced.values()]).toEqual([
      `it fits on no worker: it asks for 1 processors, 512 MiB; a has ${machinesOfWorker} machines`,
    ]);
  });
});

describe("declarations", () => {
  test("one that is the same writes nothing", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one"), machine("two")]));
    const before = master.writes.length;
    master.take(declare([machine("two"), machine("one")]));
    master.take(declare([machine("two"), machine("one")], 1));
    expect(master.writes.length).toBe(before);
    expect(master.state.desired.generation).toBe(1);
  });

  test("an older one, another one of the same number, and an unexpected one are refused", () => {
    const master = new SteppedMaster();
    master.take(declare([machine("one")], 7));
    const refused = [
      declare([machine("one")], 6),
      declare([machine("two")], 7),
      { ...declare([machine("two")]), expectGeneration: 6 },
    ].map((event) => master.take(event).refusal?.kind);
    expect(refused).toEqual(["conflict", "conflict", "conflict"]);
    expect([...master.state.desired.machines.keys()]).toEqual(["one"]);
  });

  test("what would be made anew is told apart from what goes on", () => {
    const master = new SteppedMaster();
    master.report("a");
    const names = ["checks", "off", "large", "moved"];
    master.take(declare([...names.map((name) => machine(name)), machine("waits", { cpu: 64 })]));
    const before = master.state;
    master.take(
      declare([
        machine("checks", { limits: { cpuWeight: 50 } }),
        machine("off", { power: "off" }),
        machine("large", { memoryMb: 1_024, power: "off" }),
        machine("moved", movable),
        machine("waits", { cpu: 65 }),
      ]),
    );
    const { changes } = changesBetween(before, master.state);
    expect(changes.map(({ name, kind, detail }) => `${name}: ${kind} ${detail}`)).toEqual([
      "checks: change limits",
      "large: recreate memoryMb, power: it is deleted with its disks, and made anew",
      "moved: change placement",
      "off: change power",
      "waits: change cpu",
    ]);
  });

  test("two of one name are refused, and so is one that is too large", () => {
    const master = new SteppedMaster();
    expect(master.take(declare([machine("one"), machine("one")])).refusal?.kind).toBe("request");
    const cmdline = "x".repeat(2_000);
    const many = Array.from({ length: 2_100 }, (_, index) => machine(`m${index}`, { cmdline }));
    expect(master.take(declare(many)).refusal?.kind).toBe("too-large");
    expect(master.writes).toEqual([]);
  });

  test("what is declared no more stays with its worker until that says that it is gone", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one"), machine("two")]));
    const owner = master.owner("two");
    master.report("a", followed(master, "a"));
    master.take(declare([machine("one")]));
    const { machines, removals } = assignmentOf(master.state, "a");
    expect(machines.map(({ spec }) => spec.name)).toEqual(["one"]);
    expect(removals).toEqual([{ name: "two", owner_generation: owner }]);
    // It does not have it, and does not know yet that it is to go: it may be about to make it.
    master.report("a", { machines: [reported("one", master.owner("one"))] });
    expect(where(master)).toEqual({ one: "a", two: "a" });
    const { observed = null } = followed(master, "a");
    const still = [reported("one", master.owner("one")), reported("two", owner)];
    master.report("a", { observed, machines: still });
    expect(where(master)).toEqual({ one: "a", two: "a" });
    expect(status(master).machines.find(({ name }) => name === "two")?.status).toBe("stopping");
    master.report("a", { observed, machines: still.slice(0, 1) });
    expect(where(master)).toEqual({ one: "a" });
  });
});

describe("what may move", () => {
  test("only what its worker was told to be movable when it was given, or has heard since", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one")]));
    master.report("a", followed(master, "a"));
    master.take(declare([machine("one", movable)]));
    master.report("b");
    const deaf = new SteppedMaster({}, master.state);
    for (const each of [master, deaf]) each.now = Math.max(master.now, deaf.now);
    deaf.pass(60_000, { b: {} });
    deaf.take({ kind: "confirm", worker: "a" });
    // After its next boot it would start the machine without a word.
    expect(where(deaf)).toEqual({ one: "a" });
    master.report("a", followed(master, "a"));
    master.pass(60_000, { b: {} });
    master.take({ kind: "confirm", worker: "a" });
    expect(where(master)).toEqual({ one: "b" });
  });

  test("not what was declared to stay meanwhile, though that is taken back", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one", movable)]));
    master.take(declare([machine("one")]));
    master.take(declare([machine("one", movable)]));
    master.report("b");
    master.pass(60_000, { b: {} });
    master.take({ kind: "confirm", worker: "a" });
    expect(where(master)).toEqual({ one: "a" });
  });

  test("what may not move and is declared no more waits for its own worker", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one"), machine("two", movable)]));
    master.report("b");
    master.pass(60_000, { b: {} });
    master.take(declare([]));
    master.take({ kind: "confirm", worker: "a" });
    master.take(declare([machine("one"), machine("two", movable)]));
    expect(where(master)).toEqual({ one: "a", two: "b" });
  });
});

describe("convergence", () => {
  test("a second pass of what is as declared writes nothing", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.report("b");
    master.take(declare([machine("one"), machine("two"), machine("three")]));
    for (const worker of ["a", "b"]) master.report(worker, followed(master, worker));
    expect(status(master).convergence_percent).toBe(100);
    const before = master.writes.length;
    for (const worker of ["a", "b"]) master.report(worker, followed(master, worker));
    master.take({ kind: "time" });
    master.take({ kind: "place" });
    expect(master.writes.length).toBe(before);
  });

  test("each standing is told, and 100 % only when all of it is", () => {
    const master = new SteppedMaster();
    master.report("a");
    const names = ["d", "f", "l", "p", "r", "s"];
    master.take(declare(names.map((name) => machine(name))));
    const { observed = null } = followed(master, "a");
    const drift = [{ key: "cpu", desired: "1", observed: "2" }];
    master.report("a", {
      observed,
      machines: [
        reported("d", master.owner("d"), { standing: "drifted", drift }),
        reported("f", master.owner("f"), { standing: "failed", reason: "no disk" }),
        reported("l", master.owner("l"), { standing: "left-alone", reason: "its VMM is silent" }),
        reported("p", master.owner("p"), { standing: "pending", phase: "booting" }),
        reported("r", master.owner("r")),
      ],
    });
    const { machines, convergence_percent } = status(master);
    expect(machines.map(({ name, status, reason }) => [name, status, reason])).toEqual([
      ["d", "drifted", null],
      ["f", "failed", "no disk"],
      ["l", "drifted", "left alone: its VMM is silent"],
      ["p", "pending", null],
      ["r", "running", null],
      ["s", "pending", "a has not taken it up yet"],
    ]);
    expect(machines[0]?.drift).toEqual(drift);
    expect(convergence_percent).toBe(16);
  });

  test("what a worker cannot make is failed, with its reason", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one"), machine("two")]));
    const { observed = null } = followed(master, "a");
    const absent = { phase: "absent", standing: "failed", reason: "no network nosuch" } as const;
    const byHand = { standing: "left-alone", reason: "an operator made it by hand" } as const;
    master.report("a", {
      observed,
      machines: [reported("one", master.owner("one"), absent), reported("two", null, byHand)],
    });
    const [one, two] = status(master).machines;
    expect(one).toMatchObject({ status: "failed", worker: "a", reason: "no network nosuch" });
    expect(two).toMatchObject({ status: "failed", worker: "a" });
    expect(two?.reason).toContain("an operator made it by hand. Delete that there");
    expect(status(master).warnings).toEqual([expect.stringContaining("two at a")]);
  });

  test("what a worker says of a machine under another number is of another machine", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one")]));
    const { observed = null } = followed(master, "a");
    master.report("a", { observed, machines: [reported("one", null)] });
    expect(status(master).machines[0]).toMatchObject({ status: "failed", phase: null });
    master.report("a", { observed, machines: [reported("one", 1)] });
    expect(status(master).machines[0]).toMatchObject({ status: "pending", phase: null });
  });
});

describe("silence", () => {
  test("a worker is silent, then lost; its machines stay where they are, for ever", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one", movable)]));
    master.report("b");
    master.pass(15_000, { b: {} });
    expect(workerOf(master, "a").standing).toBe("silent");
    master.pass(45_000, { b: {} });
    expect(workerOf(master, "a").standing).toBe("lost");
    master.pass(7_200_000, { b: {} });
    expect(where(master)).toEqual({ one: "a" });
    const [one] = status(master).machines;
    // What it said last says nothing of now.
    expect(one).toMatchObject({ status: "unknown", worker: "a", phase: null, drift: [] });
    expect(status(master).workers[0]?.reason).toContain("hostler vm fence --confirm a");
    master.report("a");
    expect(workerOf(master, "a").standing).toBe("healthy");
  });

  test("a master that is started anew counts from its start", () => {
    const first = new SteppedMaster();
    first.report("a");
    const { workers } = first.state;
    const heardBefore = new Map(
      [...workers].map(([name, worker]) => [name, { ...worker, heard: undefined }]),
    );
    const master = new SteppedMaster({}, { workers: heardBefore });
    master.take({ kind: "time" });
    expect(workerOf(master, "a").standing).toBe("unheard");
    master.pass(59_999);
    expect(workerOf(master, "a").standing).toBe("unheard");
    master.pass(1);
    expect(workerOf(master, "a").standing).toBe("lost");
  });
});

describe("the fence hook", () => {
  const lose = (master: SteppedMaster) => master.pass(60_000, { b: {} });

  function withHook(): SteppedMaster {
    const master = new SteppedMaster({ hasHook: true });
    master.report("a");
    master.take(declare([machine("fixed"), machine("one", movable)]));
    master.report("b");
    return master;
  }

  test("only its exit status 0 moves what may move, under a higher owner generation", () => {
    const master = withHook();
    const before = master.owner("one");
    lose(master);
    expect(master.hooks).toEqual([{ kind: "run-hook", worker: "a", attempt: 1 }] as never);
    expect(where(master)).toEqual({ fixed: "a", one: "a" });
    master.take({ kind: "hook-ended", worker: "a", attempt: 1, failure: "exit status 1" });
    expect(where(master)).toEqual({ fixed: "a", one: "a" });
    master.pass(30_000, { b: {} });
    expect(master.hooks.length).toBe(2);
    master.take({ kind: "hook-ended", worker: "a", attempt: 2, failure: undefined });
    expect(where(master)).toEqual({ fixed: "a", one: "b" });
    expect(master.owner("one")).toBeGreaterThan(before);
    expect(workerOf(master, "a").record.released).toEqual({ one: before });
  });

  test("what is taken is written before what is given", () => {
    const master = withHook();
    lose(master);
    const from = master.writes.length;
    master.take({ kind: "hook-ended", worker: "a", attempt: 1, failure: undefined });
    const written = master.writes.slice(from).map((effect) => "worker" in effect && effect.worker);
    expect(written).toEqual(["a", "b"]);
  });

  test("a failed one is tried again, later each time", () => {
    const master = withHook();
    lose(master);
    const times: number[] = [];
    for (let attempt = 1; attempt <= 7; attempt += 1) {
      master.take({ kind: "hook-ended", worker: "a", attempt, failure: "no route" });
      const from = master.now;
      while (master.hooks.length === attempt) master.pass(5_000, { b: {} });
      times.push(master.now - from);
    }
    expect(times).toEqual([30_000, 60_000, 120_000, 240_000, 480_000, 600_000, 600_000]);
    expect(status(master).workers[0]?.reason).toContain("fence hook");
  });

  test("none runs for a worker that is only silent, or has nothing to move", () => {
    const silent = withHook();
    silent.pass(55_000, { b: {} });
    expect(silent.hooks).toEqual([]);
    const fixed = new SteppedMaster({ hasHook: true });
    fixed.report("a");
    fixed.take(declare([machine("one")]));
    fixed.pass(120_000);
    expect(fixed.hooks).toEqual([]);
  });

  test("one that a report overtook proves nothing: the power may have come back since", () => {
    const master = withHook();
    lose(master);
    master.report("a", { boot: boots.second, run: "b".repeat(32) });
    master.take({ kind: "hook-ended", worker: "a", attempt: 1, failure: undefined });
    expect(where(master)).toEqual({ fixed: "a", one: "a" });
    lose(master);
    expect(master.hooks.length).toBe(2);
  });

  test("none runs while most workers are not heard: the master may be cut off", () => {
    const master = withHook();
    master.report("c");
    master.pass(120_000, { b: {} });
    expect(master.hooks).toEqual([]);
    expect(status(master).workers[0]?.reason).toContain("most workers are not heard");
    master.report("c");
    expect(master.hooks.map(({ worker }) => worker)).toEqual(["a"]);
    master.pass(600_000);
    expect(master.hooks.length).toBe(1);
  });

  test("an answer to an attempt that is not awaited moves nothing", () => {
    const master = withHook();
    lose(master);
    master.take({ kind: "hook-ended", worker: "a", attempt: 9, failure: undefined });
    expect(where(master)).toEqual({ fixed: "a", one: "a" });
  });
});

describe("a watchdog", () => {
  const watched = { watchdog: armed };

  function withWatchdog(): SteppedMaster {
    const master = new SteppedMaster();
    master.report("a", watched);
    master.take(declare([machine("one", movable)]));
    master.report("b");
    return master;
  }

  test("proves dead after the lease, its own time and a margin, not a moment earlier", () => {
    const master = withWatchdog();
    expect(assignmentOf(master.state, "a").machines[0]?.fencing).toBe("watchdog");
    const due = proofTime(armed.timeout_ms);
    expect(due).toBeGreaterThan(masterLimits.leaseTime + armed.timeout_ms);
    master.pass(due - 1, { b: {} });
    expect(where(master)).toEqual({ one: "a" });
    master.pass(1, { b: {} });
    expect(where(master)).toEqual({ one: "b" });
    expect(workerOf(master, "a").record.fenced?.how).toBe("watchdog");
  });

  test("a later report counts anew, and a master's restart counts from its start", () => {
    const master = withWatchdog();
    const due = proofTime(armed.timeout_ms);
    master.pass(50_000, { b: {} });
    master.report("a", watched);
    master.pass(due - 1, { b: {} });
    expect(where(master)).toEqual({ one: "a" });
    const { workers, placed, desired } = master.state;
    const unheard = new Map(
      [...workers].map(([name, worker]) => [name, { ...worker, heard: undefined }]),
    );
    const next = new SteppedMaster({}, { workers: unheard, placed, desired });
    next.report("b");
    next.pass(due - 1, { b: {} });
    expect(where(next)).toEqual({ one: "a" });
    next.pass(1, { b: {} });
    expect(where(next)).toEqual({ one: "b" });
  });

  test.each([
    ["none was armed when the machine was given", { watchdog: null }, watched],
    ["it was disarmed since", watched, { watchdog: null }],
    ["it is one of software", { watchdog: { ...armed, hardware: false } }, {}],
    ["it ends with the worker", { watchdog: { ...armed, stays_armed: false } }, {}],
  ] as const)("proves nothing when %s", (_, given, later) => {
    const master = new SteppedMaster();
    master.report("a", given);
    master.take(declare([machine("one", movable)]));
    master.report("a", later);
    master.report("b");
    master.pass(3_600_000, { b: {} });
    expect(where(master)).toEqual({ one: "a" });
  });

  test("one that takes longer than it said proves later, and is not believed to be shorter", () => {
    const master = withWatchdog();
    master.report("a", { watchdog: { ...armed, timeout_ms: 60_000 } });
    master.report("a", { watchdog: { ...armed, timeout_ms: 1_000 } });
    master.pass(proofTime(60_000) - 1, { b: {} });
    expect(where(master)).toEqual({ one: "a" });
    master.pass(1, { b: {} });
    expect(where(master)).toEqual({ one: "b" });
  });
});

describe("a person's word", () => {
  test("moves what may move of a silent worker, and is refused for one that is there", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one", movable), machine("two")]));
    master.report("b");
    expect(master.take({ kind: "confirm", worker: "a" }).refusal?.kind).toBe("conflict");
    expect(master.take({ kind: "confirm", worker: "c" }).refusal?.kind).toBe("not-found");
    master.pass(15_000, { b: {} });
    expect(master.take({ kind: "confirm", worker: "a" }).refusal).toBeUndefined();
    expect(where(master)).toEqual({ one: "b", two: "a" });
    expect(workerOf(master, "a").record.fenced?.how).toBe("confirmed");
  });

  test("is refused while a master was just started, and has not heard the worker yet", () => {
    const first = new SteppedMaster();
    first.report("a");
    first.take(declare([machine("one", movable)]));
    const { workers, placed, desired } = first.state;
    const unheard = new Map(
      [...workers].map(([name, worker]) => [name, { ...worker, heard: undefined }]),
    );
    const master = new SteppedMaster({}, { workers: unheard, placed, desired });
    master.report("b");
    master.pass(20_000, { b: {} });
    const { refusal } = master.take({ kind: "confirm", worker: "a" });
    expect(refusal).toMatchObject({ kind: "conflict", expected: expect.stringContaining("60 s") });
    expect(refusal?.hint).toContain("40 s");
    expect(where(master)).toEqual({ one: "a" });
    master.pass(40_000, { b: {} });
    expect(master.take({ kind: "confirm", worker: "a" }).refusal).toBeUndefined();
    expect(where(master)).toEqual({ one: "b" });
  });

  test("a worker that comes back is told what is not its own, until it has heard of it", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one", movable)]));
    const old = master.owner("one");
    const held = [reported("one", old)];
    master.report("a", { ...followed(master, "a"), machines: held });
    master.report("b");
    master.pass(60_000, { b: {} });
    master.take({ kind: "confirm", worker: "a" });
    const stale = [{ name: "one", owner_generation: old }];
    expect(master.report("a", { machines: held }).answer?.stale).toEqual(stale);
    expect(master.said.at(-2)).toContain("said to be off");
    // It has not, but may be about to: it does not follow the assignment without it yet.
    expect(master.report("a", { machines: [] }).answer?.stale).toEqual([]);
    expect(workerOf(master, "a").record.released).toEqual({ one: old });
    master.report("a", followed(master, "a"));
    expect(workerOf(master, "a").record.released).toEqual({});
    expect(master.report("a", { machines: held }).answer?.stale).toEqual(stale);
  });

  /** A worker that lost one of its machines by a person's word, and is back with what it had. */
  function back(placement: { readonly movable?: boolean } = {}) {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one", movable)]));
    const held = [reported("one", master.owner("one"), { phase: "off", standing: "pending" })];
    master.report("b");
    master.pass(60_000, { b: {} });
    master.take({ kind: "confirm", worker: "a" });
    master.take(declare([machine("one", { placement })]));
    master.report("a", { machines: held });
    return { master, removals: () => assignmentOf(master.state, "a").removals, held };
  }

  test("what it has of a movable one is removed, by its owner generation", () => {
    const { master, removals, held } = back({ movable: true });
    const [old] = held;
    expect(removals()).toEqual([{ name: "one", owner_generation: old?.owner_generation ?? 0 }]);
    expect(assignmentOf(master.state, "b").removals).toEqual([]);
    master.report("a", { ...followed(master, "a"), machines: held });
    expect(removals().length).toBe(1);
    master.report("a", followed(master, "a"));
    expect(removals()).toEqual([]);
    expect(where(master)).toEqual({ one: "b" });
  });

  test("what it has of one that may not move stays, and is shown where it is", () => {
    const { master, removals } = back();
    expect(removals()).toEqual([]);
    expect(status(master).warnings).toEqual([
      expect.stringContaining("other workers have these by now: one at a"),
    ]);
  });

  test("a machine that it is given anew needs its room, whatever it has of the old one", () => {
    const { master, held } = back({ movable: true });
    master.pass(60_000, { a: { machines: held } });
    master.take({ kind: "confirm", worker: "b" });
    expect(where(master)).toEqual({ one: "a" });
    const free = { processors: 1, memory_bytes: 8_192 * MEBIBYTE };
    master.report("a", { machines: held, free });
    const [worker] = status(master).workers;
    expect(worker?.free).toEqual({ processors: 0, memory_bytes: 7_680 * MEBIBYTE });
  });

  test("a machine that goes back to a worker does so under another number", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one", movable)]));
    const old = master.owner("one");
    master.pass(60_000);
    master.take({ kind: "confirm", worker: "a" });
    expect(where(master)).toEqual({});
    const { answer } = master.report("a", { machines: [reported("one", old)] });
    expect(where(master)).toEqual({ one: "a" });
    expect(master.owner("one")).toBeGreaterThan(old);
    expect(answer?.stale).toEqual([{ name: "one", owner_generation: old }]);
  });
});

describe("reports", () => {
  test("a doubled or a late one changes nothing", () => {
    const master = new SteppedMaster();
    master.report("a", { sequence: 10 });
    const { heard } = workerOf(master, "a");
    master.pass(5_000);
    for (const sequence of [10, 9]) {
      expect(master.report("a", { sequence, labels: { late: "yes" } }).answer).toBeDefined();
      expect(workerOf(master, "a").heard).toBe(heard as never);
    }
  });

  test("one of a boot, or a process, that another came after is refused", () => {
    const master = new SteppedMaster();
    const second = { boot: boots.second, run: "b".repeat(32) };
    master.report("a");
    master.report("a", second);
    expect(master.report("a").refusal?.kind).toBe("conflict");
    expect(master.report("a", { run: "c".repeat(32) }).refusal?.kind).toBe("conflict");
    expect(master.report("a", second).refusal).toBeUndefined();
    expect(workerOf(master, "a").heard?.report.boot).toBe(boots.second);
    // That one was the late one: it is heard no more.
    master.pass(15_000);
    expect(master.report("a").refusal).toBeUndefined();
    expect(master.report("a", second).refusal?.kind).toBe("conflict");
  });

  test("a machine that nobody knows is left alone", () => {
    const master = new SteppedMaster();
    const { answer } = master.report("a", {
      machines: [reported("old", 5), reported("own", null)],
    });
    expect(answer?.unknown).toEqual([{ name: "old", owner_generation: 5 }]);
    expect(answer?.stale).toEqual([]);
    expect(assignmentOf(master.state, "a")).toMatchObject({ machines: [], removals: [] });
  });

  test("more workers than there may be are refused", () => {
    const master = new SteppedMaster();
    const { workers } = masterLimits;
    for (let index = 0; index < workers; index += 1) master.report(`w${index}`);
    expect(master.report("one-more").refusal?.kind).toBe("too-many");
    expect(master.report("w0").refusal).toBeUndefined();
    master.pass(60_000, { w1: {} });
    expect(master.take({ kind: "forget", worker: "w1", forGood: true }).refusal?.kind).toBe(
      "conflict",
    );
    expect(master.take({ kind: "forget", worker: "w0", forGood: false }).refusal).toBeUndefined();
    expect(master.report("one-more").refusal).toBeUndefined();
  });
});

test("what a worker that never comes back had is made anew elsewhere", () => {
  const master = new SteppedMaster();
  master.report("a");
  master.take(declare([machine("one")]));
  const old = master.owner("one");
  master.report("b");
  master.pass(60_000, { b: {} });
  const forget = (forGood: boolean) => master.take({ kind: "forget", worker: "a", forGood });
  expect(forget(false).refusal?.kind).toBe("conflict");
  const from = master.writes.length;
  expect(forget(true).refusal).toBeUndefined();
  expect(where(master)).toEqual({ one: "b" });
  expect(master.owner("one")).toBeGreaterThan(old);
  expect(master.writes.slice(from).map(({ kind }) => kind)).toEqual([
    "delete-worker",
    "write-worker",
  ]);
});

test("a worker that is not lost is not forgotten, and how it comes to be is said", () => {
  const master = new SteppedMaster();
  master.report("a");
  const forget = () => master.take({ kind: "forget", worker: "a", forGood: true }).refusal;
  expect(forget()).toMatchObject({
    received: "one that is healthy",
    hint: "Stop that worker first",
  });
  master.pass(20_000);
  expect(forget()).toMatchObject({
    message: "a cannot be forgotten: it is not lost",
    received: "one that is silent",
    hint: "It is lost in 40 s, if it stays so",
  });
  master.pass(40_000);
  expect(forget()).toBeUndefined();
});

test("a worker that follows no assignment yet says nothing of how far it is", () => {
  const master = new SteppedMaster();
  master.report("a", { convergence_percent: 0 });
  expect(status(master).workers[0]?.convergence_percent).toBeNull();
  master.report("a", { ...followed(master, "a"), convergence_percent: 100 });
  expect(status(master).workers[0]?.convergence_percent).toBe(100);
});

test("a forgotten worker that is back follows again, though it has seen a later assignment", () => {
  const master = new SteppedMaster();
  master.report("a");
  for (const name of ["one", "two", "three"]) master.take(declare([machine(name)]));
  const { observed = null } = followed(master, "a");
  if (observed === null) throw new Error("There is no assignment");
  master.pass(60_000);
  expect(master.take({ kind: "forget", worker: "a", forGood: true }).refusal).toBeUndefined();
  // What it asks for before it has reported is no news: less than it has seen.
  expect(isNewsTo(master.state, "a", observed)).toBe(false);
  master.report("a", { observed });
  const { revision } = assignmentOf(master.state, "a");
  expect(revision).toBeGreaterThan(observed.revision);
  expect(isNewsTo(master.state, "a", observed)).toBe(true);
  expect(where(master)).toEqual({ three: "a" });
  // A number that no master ever gave is not believed: records with it could not be read.
  const absurd = { ...observed, revision: Number.MAX_SAFE_INTEGER };
  const before = master.writes.length;
  master.report("a", { observed: absurd });
  expect(master.writes.length).toBe(before);
});

test("what a worker holds by another word is its own, over a restart of the master too", () => {
  const first = new SteppedMaster();
  first.report("a", { machines: [reported("one", 5)] });
  first.report("b");
  const unheard = new Map(
    [...first.state.workers].map(([name, worker]) => [name, { ...worker, heard: undefined }]),
  );
  const master = new SteppedMaster({}, { workers: unheard });
  master.report("b");
  master.take(declare([machine("one")]));
  expect(where(master)).toEqual({ one: "a" });
  expect(master.owner("one")).toBe(5);
});

describe("a restored backup", () => {
  test("nothing is given before every worker has said what it has", () => {
    const known = new SteppedMaster();
    known.report("a");
    known.report("b");
    const unheard = new Map(
      [...known.state.workers].map(([name, worker]) => [name, { ...worker, heard: undefined }]),
    );
    const master = new SteppedMaster({}, { workers: unheard, isRestored: true });
    master.take(declare([machine("one"), machine("two")]));
    master.report("a");
    expect(where(master)).toEqual({});
    expect(master.state.unplaced.get("one")).toContain("an older backup was restored");
    // b has one that the backup knows nothing of: nobody else gets it.
    master.report("b", { machines: [reported("one", 77)] });
    expect(where(master)).toEqual({ one: "b" });
    expect(master.owner("one")).toBe(77);
    master.pass(60_000, { a: {}, b: { machines: [reported("one", 77)] } });
    expect(where(master)).toEqual({ one: "b", two: "a" });
    expect(master.state.isRestored).toBe(false);
  });

  /** A master with a backup in which these workers are, and none of them was heard. */
  function restored(names: readonly string[], change: Partial<MasterSettings> = {}) {
    const known = new SteppedMaster();
    for (const name of names) known.report(name, { watchdog: armed });
    known.take(declare(names.map((_, index) => machine(`m${index}`, movable))));
    const { workers, placed, desired } = known.state;
    const unheard = new Map(
      [...workers].map(([name, worker]) => [name, { ...worker, heard: undefined }]),
    );
    return new SteppedMaster(change, { workers: unheard, placed, desired, isRestored: true });
  }

  test("whoever reports while others are waited for is healthy, and not fenced", () => {
    const master = restored(["a", "b", "c"], { hasHook: true });
    const { answer, waits } = master.report("a");
    expect(answer).toBeUndefined();
    expect(waits).toContain("not said yet what they have: b, c.");
    master.pass(600_000, { a: {}, b: {} });
    expect(["a", "b", "c"].map((name) => workerOf(master, name).standing)).toEqual([
      "healthy",
      "healthy",
      "lost",
    ]);
    // What the backup says of watchdogs, and of what may move, may be over since.
    expect(master.hooks).toEqual([]);
    expect(workerOf(master, "c").record.fenced).toBeNull();
  });

  test("who is waited for is named, and its word ends it, or that it never comes back", () => {
    const master = restored(["a", "b"]);
    master.pass(60_000, { a: {} });
    const told = () => status(master).warnings.join("\n");
    expect(told()).toContain("not said yet what they have: b.");
    expect(told()).toContain("hostler vm forget b --for-good");
    expect(master.state.unplaced.size).toBe(0);
    master.take({ kind: "confirm", worker: "b" });
    // Its next boot starts what nobody here knows.
    expect(told()).toContain("not said yet what they have: b.");
    expect(Object.values(where(master)).sort()).toEqual(["a", "b"]);
    expect(master.take({ kind: "forget", worker: "b", forGood: true }).refusal).toBeUndefined();
    expect(master.state.isRestored).toBe(false);
    expect(told()).not.toContain("backup");
    expect(master.report("a").answer).toBeDefined();
    expect(new Set(Object.values(where(master)))).toEqual(new Set(["a"]));
  });

  test("what it says of movable machines, and of watchdogs, is not believed", () => {
    const master = restored(["a", "b"]);
    const { placed } = master.state;
    const held = (name: string) => ({
      observed: { incarnation: "b".repeat(32), generation: 1, revision: 9 },
      watchdog: armed,
      machines: [...placed].flatMap(([one, worker]) =>
        worker === name ? [reported(one, master.owner(one))] : [],
      ),
    });
    const before = where(master);
    master.report("a", held("a"));
    master.pass(60_000, { b: held("b") });
    expect(status(master).warnings).toEqual([expect.stringContaining("a is lost")]);
    expect(master.state.isRestored).toBe(false);
    // Its next boot may start what it has without a word: it was not heard to follow this master.
    master.take({ kind: "confirm", worker: "a" });
    master.pass(600_000, { b: held("b") });
    expect(where(master)).toEqual(before);
    master.report("a", { ...followed(master, "a"), watchdog: armed });
    expect(assignmentOf(master.state, "a").machines[0]?.fencing).toBe("watchdog");
    master.pass(proofTime(armed.timeout_ms) - 1, { b: held("b") });
    expect(where(master)).toEqual(before);
    master.pass(1, { b: held("b") });
    expect(workerOf(master, "a").record.fenced?.how).toBe("watchdog");
    expect(new Set(Object.values(where(master)))).toEqual(new Set(["b"]));
  });

  test("of two workers that hold one machine, the later number counts", () => {
    const master = new SteppedMaster();
    master.report("a");
    master.take(declare([machine("one")]));
    const old = master.owner("one");
    master.report("b", { machines: [reported("one", old + 1_000_000)] });
    expect(where(master)).toEqual({ one: "b" });
    const { answer } = master.report("a", { machines: [reported("one", old)] });
    expect(answer?.stale).toEqual([{ name: "one", owner_generation: old }]);
  });
});
