/** The checks of one machine: when they are asked, what they tell, and what is kept of them. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { healthEventOf } from "../../../src/vm/health-follow.ts";
import { step } from "../../../src/vm/lifecycle.ts";
import type { MachineEvent, MachineState } from "../../../src/vm/lifecycle-state.ts";
import { MachineHealth, type ToldTurn } from "../../../src/vm/perform/machine-health.ts";
import type { VmSpec } from "../../../src/vm/protocol.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import type { Life } from "../../support/vm-lifecycle/life.ts";
import { lifeIn } from "../../support/vm-lifecycle/lives.ts";
import { waitFor } from "../../support/wait-for.ts";

type Declared = NonNullable<VmSpec["health"]>;

const quick = { interval: "100ms", timeout: "20s", unhealthyAfter: 1, grace: "0ms" } as const;
const serial: Declared = [{ kind: "serial", pattern: "ready*now", ...quick }];

let loop: EventLoop;
let health: MachineHealth;
let turns: string[];
let said: (readonly string[])[];
let ping: (() => Promise<unknown>) | undefined;
let last: ToldTurn | undefined;

beforeEach(() => {
  loop = testEventLoop();
  turns = [];
  said = [];
  ping = () => Promise.resolve();
  last = undefined;
});
afterEach(() => {
  health?.[Symbol.dispose]();
  loop[Symbol.dispose]();
});

function make(declared: Declared, heard: readonly string[] = []): MachineHealth {
  health = new MachineHealth(loop, {
    declared,
    said: heard,
    handlers: {
      address: () => "127.0.0.1",
      pingAgent: () => ping,
      onTurn: (told) => {
        last = told;
        turns.push(`${told.check}: ${told.turn.to}`);
      },
      onSaid: (patterns) => said.push(patterns),
    },
  });
  return health;
}

/** Its life goes on, and its checks hear of it. */
function follow(life: Life, event: MachineEvent): Life {
  const before = life.state;
  life.tell(event);
  health.follow({ before, event, after: life.state });
  return life;
}

const runs = () => {
  const life = lifeIn("booting", step);
  return follow(life, life.done("boot"));
};
const view = () => health.view?.checks[0];
const turned = (to: string) => waitFor(`a turn to ${to}`, () => turns.at(-1)?.endsWith(to));

describe("what a step of its life is to its checks", () => {
  const event = { kind: "deadline" } as const;
  const inPhase = (phase: MachineState["phase"]) => lifeIn(phase, step).state;
  const told = (before: MachineState["phase"], after: MachineState["phase"], hasRun = true) =>
    healthEventOf({ before: inPhase(before), event, after: inPhase(after) }, hasRun);

  test("a boot begins with its grace, and so does the first that this worker sees", () => {
    for (const phase of ["connecting", "creating", "booting"] as const) {
      expect(told(phase, "running")).toEqual({ kind: "running", booted: true });
    }
    expect(told("detached", "running", false)).toEqual({ kind: "running", booted: true });
    const resumed = { kind: "running", booted: false } as const;
    expect(told("detached", "running")).toEqual(resumed);
    expect(told("resuming", "running")).toEqual(resumed);
    expect(told("capturing", "running")).toEqual(resumed);
  });

  test("nothing is asked of one that is paused, captured, doubted or stopped", () => {
    const others = ["pausing", "capturing", "snapshotting", "detached", "stopping"] as const;
    for (const phase of others) expect(told("running", phase)).toEqual({ kind: "stopped" });
    expect(told("paused", "resuming")).toBeUndefined();
    expect(told("running", "running")).toBeUndefined();
  });

  test("a guest that was reset boots anew; a word of another VMM is none", () => {
    const life = lifeIn("running", step);
    const states = { before: life.state, after: life.state };
    const reset = { kind: "guest-reset", invocation: life.invocation } as const;
    expect(healthEventOf({ ...states, event: reset }, true)).toMatchObject({ booted: true });
    const late = { ...reset, invocation: "i99" };
    expect(healthEventOf({ ...states, event: late }, true)).toBeUndefined();
  });
});

describe("a machine", () => {
  test("without checks has no health", () => {
    make([]);
    runs();
    expect(health.view).toBeNull();
  });

  test("is asked while it runs, and not while it is paused", async () => {
    make([{ kind: "agent", ...quick }]);
    expect(health.view?.state).toBe("resting");
    const life = runs();
    await turned("healthy");
    expect(view()).toMatchObject({ check: "agent", state: "healthy", reason: null, failures: 0 });
    ping = () => Promise.reject(new Error("the agent is silent"));
    await turned("unhealthy");
    expect(last).toMatchObject({ wasHealthy: true, turn: { reason: "the agent is silent" } });
    expect(view()).toMatchObject({ state: "unhealthy", reason: "the agent is silent" });
    follow(life, { kind: "pause" });
    expect(view()).toMatchObject({ state: "resting", reason: null, answered_ms: null });
    const { probes = 0 } = view() ?? {};
    ping = () => Promise.resolve();
    follow(life, life.done("pause"));
    follow(life, { kind: "resume" });
    expect(view()?.probes).toBe(probes);
    follow(life, life.done("resume"));
    await turned("healthy");
  });

  test("is as the worst of its checks", async () => {
    make([{ kind: "agent", ...quick }, ...serial]);
    health.listenAnew();
    runs();
    await waitFor("both", () => turns.length === 2);
    expect(health.view?.state).toBe("unhealthy");
    expect(turns.toSorted()).toEqual(["agent: healthy", 'serial "ready*now": unhealthy']);
    health.hear("it is ready right now");
    await waitFor("the other", () => health.view?.state === "healthy");
  });

  test("with an agent that does not answer is asked once at a time", async () => {
    let asked = 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    ping = () => {
      asked += 1;
      return promise;
    };
    make([{ kind: "agent", ...quick, timeout: "100ms" }]);
    runs();
    await waitFor("three failures", () => (view()?.failures ?? 0) >= 3);
    expect(view()?.reason).toBe("no answer within 100 ms");
    expect(asked).toBe(1);
    resolve();
    await turned("healthy");
    await waitFor("another ping", () => asked > 1);
  });

  test("in which nobody can ask an agent is neither healthy nor unhealthy", async () => {
    ping = undefined;
    make([{ kind: "agent", ...quick }]);
    runs();
    await waitFor("two probes", () => (view()?.probes ?? 0) > 2);
    expect(view()).toMatchObject({ state: "starting", failures: 0 });
    expect(view()?.reason).toBe("this hypervisor has no agent");
    expect(turns).toEqual([]);
  });

  test("whose checks are declared otherwise begins anew with them", async () => {
    make([{ kind: "agent", ...quick }]);
    runs();
    await turned("healthy");
    health.declare([{ kind: "tcp", port: 1, ...quick }]);
    expect(view()).toMatchObject({ check: "tcp port 1", state: "starting" });
    await turned("unhealthy");
    expect(last?.wasHealthy).toBe(false);
    health.declare([]);
    expect(health.view).toBeNull();
  });
});

describe("what its console has said", () => {
  test("is told once, and forgotten when it boots anew", async () => {
    make(serial);
    health.listenAnew();
    const life = runs();
    await turned("unhealthy");
    health.hear("nothing");
    health.hear("ready just now");
    health.hear("ready again now");
    expect(said).toEqual([["ready*now"]]);
    await turned("healthy");
    health.listenAnew();
    follow(life, { kind: "guest-reset", invocation: life.invocation });
    await turned("unhealthy");
  });

  test("to an earlier worker is known to this one", async () => {
    make(serial, ["ready*now"]);
    runs();
    await turned("healthy");
  });

  test("to nobody makes it neither healthy nor unhealthy", async () => {
    make(serial);
    runs();
    await waitFor("two probes", () => (view()?.probes ?? 0) > 2);
    expect(view()).toMatchObject({ state: "starting", failures: 0 });
    expect(view()?.reason).toContain("some were heard by nobody");
    health.hear("ready: now");
    await turned("healthy");
  });

  test("is not known of a pattern that is declared later", async () => {
    make([]);
    health.listenAnew();
    runs();
    health.declare(serial);
    await waitFor("a probe", () => (view()?.reason ?? "").includes("heard by nobody"));
    expect(turns).toEqual([]);
  });
});
