/** All processes together: order of start and stop, partitions, shutdown. */
import { describe, expect, test } from "bun:test";
import {
  blockersOf,
  initialOrchestration,
  isActive,
  isDown,
  makePlan,
  nextDeadline,
  step,
} from "../../src/process/orchestration.ts";
import { exited, makeSpecification, signalled } from "../support/lifecycle/life.ts";
import { Orchestra } from "../support/orchestra.ts";

const notify = { readiness: { kind: "notify" } } as const;

/** base, then left and right, then top. */
const diamond = {
  top: { after: ["left", "right"] },
  left: { after: ["base"], ...notify },
  right: { after: ["base"] },
  base: {},
};

/** The diamond with all of it ready. */
function readyDiamond(): Orchestra {
  const orchestra = new Orchestra(diamond);
  orchestra.boot();
  for (const name of ["base", "left", "right"]) orchestra.arrive(name);
  orchestra.becomeReady("left");
  orchestra.arrive("top");
  return orchestra;
}

const blockers = (orchestra: Orchestra, name: string) =>
  blockersOf(orchestra.plan, orchestra.state, name);

describe("order of start", () => {
  test("a process starts when all that it comes after is ready", () => {
    const orchestra = new Orchestra(diamond);
    expect(orchestra.boot()).toEqual(["start base"]);
    expect(blockers(orchestra, "top")).toEqual(["left", "right"]);
    expect(orchestra.arrive("base")).toEqual(["start left", "start right"]);
    expect(orchestra.arrive("right")).toEqual([]);
    expect(orchestra.arrive("left")).toEqual(["watch-readiness left"]);
    expect(blockers(orchestra, "top")).toEqual(["left"]);
    expect(orchestra.becomeReady("left")).toEqual(["forget-readiness left", "start top"]);
    expect(blockers(orchestra, "top")).toEqual([]);
  });

  test("boot starts those that start by themselves, and no other", () => {
    const orchestra = new Orchestra({ one: {}, other: { autostart: false } });
    expect(orchestra.boot()).toEqual(["start one"]);
    expect(orchestra.phase("other")).toBe("idle");
    expect(orchestra.boot()).toEqual([]);
  });

  test("a process waits for one that does not start by itself", () => {
    const orchestra = new Orchestra({ one: { after: ["other"] }, other: { autostart: false } });
    expect(orchestra.boot()).toEqual([]);
    expect(orchestra.phase("one")).toBe("waiting");
    expect(orchestra.start("other")).toEqual(["start other"]);
    expect(orchestra.arrive("other")).toEqual(["start one"]);
  });

  test("an operator's start starts what comes before, in order", () => {
    const orchestra = new Orchestra(diamond);
    expect(orchestra.start("top")).toEqual(["start base"]);
    expect(orchestra.arrive("base")).toEqual(["start left", "start right"]);
    orchestra.arrive("left");
    orchestra.arrive("right");
    expect(orchestra.becomeReady("left")).toEqual(["forget-readiness left", "start top"]);
  });

  test("an operator's start leaves what runs and what backs off alone", () => {
    const orchestra = new Orchestra({ one: {}, two: {}, three: { after: ["one", "two"] } });
    orchestra.start("one");
    orchestra.start("two");
    orchestra.arrive("one");
    orchestra.arrive("two");
    orchestra.die("two", signalled(9));
    orchestra.arrive("two");
    orchestra.die("two", signalled(9));
    expect(orchestra.phase("two")).toBe("backing-off");
    expect(orchestra.start("three")).toEqual([]);
    expect(orchestra.phase("two")).toBe("backing-off");
    expect(orchestra.passTime(100)).toEqual(["start two"]);
    expect(orchestra.arrive("two")).toEqual(["start three"]);
  });

  test("an operator's start brings back what is being stopped", () => {
    const orchestra = new Orchestra({ base: {}, top: { after: ["base"], autostart: false } });
    orchestra.boot();
    orchestra.arrive("base");
    expect(orchestra.stop("base")).toEqual(["signal base"]);
    expect(orchestra.start("top")).toEqual([]);
    expect(orchestra.phase("top")).toBe("waiting");
    expect(orchestra.die("base")).toEqual(["clear base", "start base"]);
    expect(orchestra.arrive("base")).toEqual(["start top"]);
  });

  test("a restart is not held up by dependencies", () => {
    const orchestra = readyDiamond();
    orchestra.die("base", signalled(9));
    orchestra.arrive("base");
    orchestra.die("base", signalled(9));
    expect(orchestra.phase("base")).toBe("backing-off");
    expect(orchestra.die("right", signalled(9))).toEqual(["clear right", "start right"]);
    expect(orchestra.phase("top")).toBe("ready");
  });

  const stack = { db: notify, web: { after: ["db"] }, top: { after: ["web"] } } as const;

  /** db, then web, then top, all of them ready. */
  function readyStack(): Orchestra {
    const orchestra = new Orchestra(stack);
    orchestra.boot();
    orchestra.arrive("db");
    orchestra.becomeReady("db");
    for (const name of ["web", "top"]) orchestra.arrive(name);
    return orchestra;
  }

  const orders = [
    ["db", "web", "top"],
    ["top", "web", "db"],
    ["web", "top", "db"],
  ];
  test.each(orders)("a restart of several keeps the order: %s %s %s", (...names) => {
    const orchestra = readyStack();
    expect(orchestra.wish("restart", ...names)).toEqual(["signal db", "signal web", "signal top"]);
    expect(orchestra.die("top")).toEqual(["clear top"]);
    expect(orchestra.die("web")).toEqual(["clear web"]);
    expect([orchestra.phase("web"), orchestra.phase("top")]).toEqual(["waiting", "waiting"]);
    expect(blockers(orchestra, "web")).toEqual(["db"]);
    expect(orchestra.die("db")).toEqual(["clear db", "start db"]);
    expect(orchestra.arrive("db")).toEqual(["watch-readiness db"]);
    expect(orchestra.becomeReady("db")).toEqual(["forget-readiness db", "start web"]);
    expect(orchestra.arrive("web")).toEqual(["start top"]);
  });

  test.each(orders)("what does not run starts behind what is restarted: %s %s %s", (...names) => {
    const orchestra = readyStack();
    for (const name of ["top", "web"]) {
      orchestra.stop(name);
      orchestra.die(name);
    }
    expect(orchestra.wish("restart", ...names)).toEqual(["signal db"]);
    expect(orchestra.die("db")).toEqual(["clear db", "start db"]);
    orchestra.arrive("db");
    expect(orchestra.becomeReady("db")).toEqual(["forget-readiness db", "start web"]);
    expect(orchestra.arrive("web")).toEqual(["start top"]);
  });

  test("a restart by the rule does not wait for what is being restarted", () => {
    const orchestra = readyStack();
    orchestra.restart("db");
    expect(orchestra.die("web", signalled(9))).toEqual(["clear web", "start web"]);
  });

  test("what is restarted waits for what is stopped meanwhile", () => {
    const orchestra = readyStack();
    orchestra.restart("web");
    orchestra.stop("db");
    expect(orchestra.die("web")).toEqual(["clear web"]);
    orchestra.die("db");
    expect(orchestra.phase("web")).toBe("waiting");
    orchestra.start("db");
    orchestra.arrive("db");
    expect(orchestra.becomeReady("db")).toEqual(["forget-readiness db", "start web"]);
  });

  test("a stop of one leaves those that come after it running", () => {
    const orchestra = readyDiamond();
    expect(orchestra.stop("base")).toEqual(["signal base"]);
    orchestra.die("base");
    expect(orchestra.phase("base")).toBe("idle");
    expect(orchestra.phase("top")).toBe("ready");
  });
});

describe("dependencies that end", () => {
  const once = { setup: { restart: "never" }, main: { after: ["setup"] } } as const;

  test("one that succeeded counts as ready", () => {
    const orchestra = new Orchestra({
      setup: { ...once.setup, ...notify },
      main: { ...once.main },
    });
    orchestra.boot();
    orchestra.arrive("setup");
    expect(orchestra.die("setup", exited(0))).toEqual([
      "clear setup",
      "forget-readiness setup",
      "start main",
    ]);
    expect(orchestra.phase("setup")).toBe("finished");
  });

  test("one that succeeded counts as ready when that is known late", () => {
    const orchestra = new Orchestra({ setup: { ...once.setup, ...notify }, main: once.main });
    orchestra.boot();
    orchestra.arrive("setup");
    const invocation = orchestra.invocation("setup");
    orchestra.process("setup", { kind: "died", invocation, ending: undefined });
    expect(orchestra.process("setup", { kind: "cleared", invocation })).toEqual([]);
    expect(blockers(orchestra, "main")).toEqual(["setup"]);
    const known = { kind: "ending-known", invocation, ending: exited(0) } as const;
    expect(orchestra.process("setup", known)).toEqual(["start main"]);
  });

  test.each([exited(1), signalled(15), { kind: "unknown", reason: "nobody told" } as const])(
    "one that ended otherwise blocks: %p",
    (ending) => {
      const orchestra = new Orchestra({ setup: { ...once.setup, ...notify }, main: once.main });
      orchestra.boot();
      orchestra.arrive("setup");
      orchestra.die("setup", ending);
      expect(orchestra.phase("main")).toBe("waiting");
      expect(blockers(orchestra, "main")).toEqual(["setup"]);
      expect(orchestra.start("setup")).toEqual(["start setup"]);
      orchestra.arrive("setup");
      expect(orchestra.becomeReady("setup")).toEqual(["forget-readiness setup", "start main"]);
    },
  );

  test("one that failed blocks, and is named", () => {
    const orchestra = new Orchestra({ setup: once.setup, main: once.main });
    orchestra.boot();
    const invocation = orchestra.invocation("setup");
    const refusal = { message: "no such file", code: "ENOENT" };
    orchestra.process("setup", { kind: "start-refused", invocation, refusal });
    expect(orchestra.phase("setup")).toBe("failed");
    expect(orchestra.phase("main")).toBe("waiting");
    expect(blockers(orchestra, "main")).toEqual(["setup"]);
    expect(orchestra.start("main")).toEqual(["start setup"]);
    expect(orchestra.arrive("setup")).toEqual(["start main"]);
  });
});

describe("partitions", () => {
  const across = { near: {}, far: { partition: "qm", after: ["near"] } };

  test("a start waits for its partition", () => {
    const orchestra = new Orchestra(across);
    orchestra.boot();
    expect(blockers(orchestra, "far")).toEqual(["near", "partition qm"]);
    expect(orchestra.arrive("near")).toEqual([]);
    expect(blockers(orchestra, "far")).toEqual(["partition qm"]);
    expect(orchestra.reach("other")).toEqual([]);
    expect(orchestra.reach("qm")).toEqual(["start far"]);
    expect(orchestra.reach("qm")).toEqual([]);
  });

  test("what runs there is watched without the agent, and restarted when it is back", () => {
    const orchestra = new Orchestra(across);
    orchestra.reach("qm");
    orchestra.boot();
    orchestra.arrive("near");
    orchestra.arrive("far");
    expect(orchestra.reach("qm", false)).toEqual([]);
    expect(orchestra.phase("far")).toBe("ready");
    expect(orchestra.die("far", signalled(9))).toEqual(["clear far"]);
    expect(orchestra.phase("far")).toBe("waiting");
    expect(blockers(orchestra, "far")).toEqual(["partition qm"]);
    expect(orchestra.reach("qm")).toEqual(["start far"]);
  });

  test("what runs there is stopped without the agent", () => {
    const orchestra = new Orchestra(across);
    orchestra.reach("qm");
    orchestra.boot();
    orchestra.arrive("near");
    orchestra.arrive("far");
    orchestra.reach("qm", false);
    expect(orchestra.stop("far")).toEqual(["signal far"]);
    orchestra.die("far");
    expect(orchestra.phase("far")).toBe("idle");
  });

  test("a start whose answer was lost with the agent is looked for first", () => {
    const orchestra = new Orchestra(across);
    orchestra.reach("qm");
    orchestra.boot();
    orchestra.arrive("near");
    const invocation = orchestra.invocation("far");
    expect(orchestra.process("far", { kind: "answer-lost", invocation })).toEqual(["find far"]);
    orchestra.reach("qm", false);
    expect(orchestra.process("far", { kind: "not-found", invocation })).toEqual([]);
    expect(orchestra.reach("qm")).toEqual(["start far"]);
  });
});

describe("shutdown", () => {
  test("stops in reverse order, each when those after it are gone", () => {
    const orchestra = readyDiamond();
    expect(isDown(orchestra.state)).toBe(false);
    expect(orchestra.shutDown()).toEqual(["signal top"]);
    expect(orchestra.die("top")).toEqual(["clear top", "signal left", "signal right"]);
    expect(orchestra.die("left")).toEqual(["clear left"]);
    expect(isDown(orchestra.state)).toBe(false);
    expect(orchestra.die("right")).toEqual(["clear right", "signal base"]);
    expect(orchestra.die("base")).toEqual(["clear base"]);
    expect(isDown(orchestra.state)).toBe(true);
    expect(nextDeadline(orchestra.state)).toBeUndefined();
  });

  test("a second one kills all at once", () => {
    const orchestra = readyDiamond();
    orchestra.shutDown();
    const killed = ["kill top", "kill left", "kill right", "kill base"];
    expect(orchestra.shutDown()).toEqual(killed);
    expect(orchestra.shutDown(true)).toEqual([]);
    for (const name of ["base", "top", "left", "right"]) {
      expect(orchestra.die(name)).toEqual([`clear ${name}`]);
    }
    expect(isDown(orchestra.state)).toBe(true);
  });

  test("a hurried one kills what arrives after it", () => {
    const orchestra = new Orchestra({ one: {}, other: {} });
    orchestra.boot();
    expect(orchestra.shutDown(true)).toEqual([]);
    expect(orchestra.arrive("one")).toEqual(["signal one", "kill one"]);
    const invocation = orchestra.invocation("other");
    orchestra.process("other", { kind: "answer-lost", invocation });
    expect(isDown(orchestra.state)).toBe(false);
    orchestra.process("other", { kind: "not-found", invocation });
    orchestra.die("one");
    expect(isDown(orchestra.state)).toBe(true);
  });

  test("nothing waits or is started after it", () => {
    const orchestra = readyDiamond();
    orchestra.shutDown();
    for (const name of ["top", "left", "base"]) {
      expect(orchestra.start(name)).toEqual([]);
      expect(orchestra.restart(name)).toEqual([]);
    }
    expect(orchestra.boot()).toEqual([]);
    expect(orchestra.reach("qm")).toEqual([]);
  });

  test("what waits or rests is idle at once", () => {
    const orchestra = new Orchestra({
      base: {},
      waiting: { after: ["base"], partition: "qm" },
      finished: { restart: "never" },
    });
    orchestra.boot();
    orchestra.arrive("base");
    orchestra.arrive("finished");
    orchestra.die("finished");
    expect(orchestra.shutDown()).toEqual(["signal base"]);
    expect(orchestra.phase("waiting")).toBe("idle");
    expect(orchestra.phase("finished")).toBe("idle");
    orchestra.die("base");
    expect(isDown(orchestra.state)).toBe(true);
  });

  test("what others still need is restarted until they are gone", () => {
    const orchestra = new Orchestra({ base: {}, top: { after: ["base"] } });
    orchestra.boot();
    orchestra.arrive("base");
    orchestra.arrive("top");
    expect(orchestra.shutDown()).toEqual(["signal top"]);
    expect(orchestra.die("base", signalled(9))).toEqual(["clear base", "start base"]);
    expect(orchestra.die("top")).toEqual(["clear top"]);
    expect(orchestra.arrive("base")).toEqual(["signal base"]);
    orchestra.die("base");
    expect(isDown(orchestra.state)).toBe(true);
  });

  test("what backs off is not started again", () => {
    const orchestra = new Orchestra({ base: {}, top: { after: ["base"] } });
    orchestra.boot();
    for (const name of ["base", "top"]) orchestra.arrive(name);
    orchestra.die("base", signalled(9));
    orchestra.arrive("base");
    orchestra.shutDown();
    orchestra.die("base", signalled(9));
    expect(orchestra.phase("base")).toBe("backing-off");
    orchestra.die("top");
    expect(orchestra.phase("base")).toBe("idle");
    expect(orchestra.passTime(1_000)).toEqual([]);
    expect(isDown(orchestra.state)).toBe(true);
  });

  test("a grace that is over kills", () => {
    const orchestra = new Orchestra({ one: {} });
    orchestra.boot();
    orchestra.arrive("one");
    orchestra.shutDown();
    expect(nextDeadline(orchestra.state)).toBe(6_000);
    expect(orchestra.passTime(4_999)).toEqual([]);
    expect(orchestra.passTime(1)).toEqual(["kill one"]);
    expect(isActive(orchestra.state.processes.get("one"))).toBe(true);
  });
});

describe("many", () => {
  test("a chain of 2,000 comes up in order and goes down in reverse", () => {
    const names = Array.from({ length: 2_000 }, (_value, index) => `process-${index}`);
    const after = (index: number) => (index === 0 ? [] : [`process-${index - 1}`]);
    const orchestra = new Orchestra(
      Object.fromEntries(names.map((name, index) => [name, { after: after(index) }])),
    );
    const started = orchestra.boot();
    for (const name of names) started.push(...orchestra.arrive(name));
    expect(started).toEqual(names.map((name) => `start ${name}`));
    const stopped = orchestra.shutDown();
    for (const name of names.toReversed()) stopped.push(...orchestra.die(name));
    expect(stopped.filter((effect) => effect.startsWith("signal"))).toEqual(
      names.toReversed().map((name) => `signal ${name}`),
    );
    expect(isDown(orchestra.state)).toBe(true);
  }, 60_000);

  test("the states before a step stay as they were", () => {
    const plan = makePlan({
      holder: true,
      concurrentStarts: undefined,
      partitions: [],
      processes: [makeSpecification({ name: "one" })],
    });
    const before = initialOrchestration(plan);
    const chance = { random: () => 0.5, invocation: () => "i1" };
    const after = step(plan, before, { kind: "boot" }, { now: 5, chance }).state;
    expect(before.processes.get("one")?.phase).toBe("idle");
    expect(after.processes.get("one")?.phase).toBe("starting");
    const idle = step(plan, after, { kind: "time" }, { now: 6, chance }).state;
    expect(idle.processes).toBe(after.processes);
  });

  test("events for processes that there are not change nothing", () => {
    const orchestra = new Orchestra({ one: {} });
    const before = orchestra.state;
    expect(orchestra.start("other")).toEqual([]);
    expect(orchestra.state).toEqual(before);
    expect(blockers(orchestra, "other")).toEqual([]);
  });
});

describe("one that others come after dies of itself", () => {
  const of = (policy: "ignore" | "stop" | "restart") => ({
    base: {},
    middle: { after: ["base"], onDependencyFailure: policy },
    top: { after: ["middle"], onDependencyFailure: policy },
    other: { after: ["base"] },
  });

  function ready(policy: "ignore" | "stop" | "restart"): Orchestra {
    const orchestra = new Orchestra(of(policy));
    orchestra.boot();
    for (const name of ["base", "middle", "other", "top"]) orchestra.arrive(name);
    return orchestra;
  }

  test("ignore: they run on", () => {
    const orchestra = ready("ignore");
    expect(orchestra.die("base", signalled(9))).toEqual(["clear base", "start base"]);
    expect(orchestra.phase("middle")).toBe("ready");
  });

  test("restart: those that ask for it are started again when it is there", () => {
    const orchestra = ready("restart");
    expect(orchestra.die("base", signalled(9))).toEqual([
      ...["clear base", "start base", "signal middle", "signal top"],
    ]);
    expect(orchestra.phase("other")).toBe("ready");
    expect(orchestra.die("middle")).toEqual(["clear middle"]);
    expect(orchestra.die("top")).toEqual(["clear top"]);
    expect([orchestra.phase("middle"), orchestra.phase("top")]).toEqual(["waiting", "waiting"]);
    expect(orchestra.arrive("base")).toEqual(["start middle"]);
    expect(orchestra.arrive("middle")).toEqual(["start top"]);
  });

  test("stop: they are stopped, and stay so", () => {
    const orchestra = ready("stop");
    expect(orchestra.die("base", exited(1))).toEqual([
      ...["clear base", "start base", "signal middle", "signal top"],
    ]);
    orchestra.die("middle");
    orchestra.die("top");
    orchestra.arrive("base");
    expect([orchestra.phase("middle"), orchestra.phase("top")]).toEqual(["idle", "idle"]);
  });

  test("the success of a job is no failure, its failure is one, whenever it is told", () => {
    const of = (base: object) => {
      const after = { after: ["base"], onDependencyFailure: "stop" } as const;
      const orchestra = new Orchestra({ base: { restart: "never", ...base }, top: after });
      orchestra.boot();
      orchestra.arrive("base");
      orchestra.arrive("top");
      return orchestra;
    };
    const done = of({});
    expect(done.die("base", exited(0))).toEqual(["clear base"]);
    expect(done.phase("top")).toBe("ready");
    expect(of({}).die("base", exited(1))).toEqual(["clear base", "signal top"]);
    // One whose ending is told when it is finished already.
    const late = (status: number) => {
      const orchestra = of({});
      const invocation = orchestra.invocation("base");
      orchestra.process("base", { kind: "died", invocation, ending: undefined });
      orchestra.process("base", { kind: "cleared", invocation });
      expect(orchestra.phase("top")).toBe("ready");
      const ending = exited(status);
      return orchestra.process("base", { kind: "ending-known", invocation, ending });
    };
    expect(late(0)).toEqual([]);
    expect(late(1)).toEqual(["signal top"]);
  });

  test("one that is unhealthy concerns them at once, and not again when it has ended", () => {
    const orchestra = ready("restart");
    const invocation = orchestra.invocation("base");
    const unhealthy = { kind: "unhealthy", invocation, reason: "silent" } as const;
    expect(orchestra.process("base", unhealthy)).toEqual([
      ...["signal base", "signal middle", "signal top"],
    ]);
    orchestra.die("middle");
    expect(orchestra.die("base")).toEqual(["clear base", "start base"]);
  });

  test("an operator who stops or restarts it means it alone", () => {
    for (const act of ["stop", "restart"] as const) {
      const orchestra = ready("restart");
      expect(orchestra[act]("base")).toEqual(["signal base"]);
      orchestra.die("base");
      expect(orchestra.phase("middle")).toBe("ready");
    }
  });

  test("a shutdown concerns nobody twice", () => {
    const orchestra = ready("restart");
    orchestra.shutDown(true);
    for (const name of ["base", "middle", "top", "other"]) orchestra.die(name);
    expect(isDown(orchestra.state)).toBe(true);
  });
});

describe("so many start at once", () => {
  const notifying = Object.fromEntries(["a", "b", "c", "d"].map((name) => [name, notify]));

  test("the others wait until one is ready, or is none", () => {
    const orchestra = new Orchestra(notifying, 2);
    expect(orchestra.boot()).toEqual(["start a", "start b"]);
    expect(orchestra.phase("c")).toBe("waiting");
    orchestra.arrive("a");
    expect(orchestra.phase("c")).toBe("waiting");
    expect(orchestra.becomeReady("a")).toEqual(["forget-readiness a", "start c"]);
    orchestra.arrive("b");
    expect(orchestra.stop("b")).toEqual(["signal b", "forget-readiness b", "start d"]);
  });

  test("a restart by the rule waits for nobody", () => {
    const orchestra = new Orchestra({ ...notifying, a: {} }, 1);
    orchestra.boot();
    orchestra.arrive("a");
    expect(orchestra.phase("b")).toBe("starting");
    expect(orchestra.die("a", exited(1))).toEqual(["clear a", "start a"]);
    expect(orchestra.phase("c")).toBe("waiting");
  });

  test("so does an operator's", () => {
    const orchestra = new Orchestra({ a: {}, ...notifying, b: notify }, 1);
    orchestra.start("a");
    orchestra.arrive("a");
    orchestra.start("b");
    orchestra.restart("a");
    expect(orchestra.die("a")).toEqual(["clear a", "start a"]);
  });

  test("an operator's start waits for its turn as well", () => {
    const orchestra = new Orchestra(notifying, 1);
    orchestra.start("a");
    expect(orchestra.start("b")).toEqual([]);
    expect(orchestra.phase("b")).toBe("waiting");
  });
});
