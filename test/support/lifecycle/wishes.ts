/** Scenarios: what the operator wants, in every phase. */
import type { Phase } from "../../../src/process/lifecycle.ts";
import type { Scenario } from "../lifecycle-scenarios.ts";
import { exited, Life, record, requireEqual, type StepFunction, signalled } from "./life.ts";
import { doubtful, lifeIn } from "./phases.ts";

const stop = { kind: "stop", hurry: false } as const;
const hurriedStop = { kind: "stop", hurry: true } as const;
const start = { kind: "start" } as const;
const restart = { kind: "restart" } as const;

const atRest: readonly Phase[] = ["idle", "backing-off", "finished", "failed"];

const starts: readonly Scenario[] = atRest.flatMap((phase) =>
  [start, restart].flatMap((event) => [
    {
      name: `${event.kind} in ${phase} starts at once, and forgives`,
      run: (step: StepFunction) => {
        const life = lifeIn[phase](step, { startLimit: { starts: 9, within: 60_000 } });
        life.pass(5).asks(event, { wanted: true, failures: 0, recentStarts: [] });
        requireEqual("recent starts", life.state.recentStarts, [life.now]);
        life.arrivesUnready();
      },
    },
    {
      name: `${event.kind} in ${phase} waits for its dependencies`,
      run: (step: StepFunction) => {
        const life = lifeIn[phase](step, { startLimit: { starts: 9, within: 60_000 } });
        life.dependenciesReady = false;
        const forgiven = { wanted: true, failures: 0, recentStarts: [] };
        life.take(event, { phase: "waiting" }, [], forgiven);
      },
    },
  ]),
);

const alreadyWanted: readonly Scenario[] = [
  {
    name: "a start that is on its way or there needs no other",
    run: (step) => {
      for (const phase of ["waiting", "starting", "uncertain", "running", "ready"] as const) {
        lifeIn[phase](step).ignores(start);
      }
      for (const phase of ["waiting", "starting", "uncertain"] as const) {
        lifeIn[phase](step).ignores(restart);
      }
    },
  },
  ...([start, restart] as const).map((event) => ({
    name: `${event.kind} takes a stop back while the start is under way`,
    run: (step: StepFunction) => {
      const life = lifeIn.starting(step).keepsPhase(stop, [], { wanted: false });
      life.keepsPhase(event, [], { wanted: true }).arrivesUnready();
      const doubted = lifeIn.uncertain(step).keepsPhase(stop, [], { wanted: false });
      doubted.keepsPhase(event, [], { wanted: true }).arrivesUnready("found");
    },
  })),
];

const stopsAtRest: readonly Scenario[] = [
  ...(["waiting", "backing-off", "finished", "failed"] as const).map((phase) => ({
    name: `stop in ${phase} is idle at once`,
    run: (step: StepFunction) => {
      const life = lifeIn[phase](step).take(stop, { phase: "idle" }, [], { wanted: false });
      life.ignores(stop).ignores({ kind: "deadline" }).ignores({ kind: "unblocked" });
    },
  })),
  {
    name: "stop in idle has nothing to do",
    run: (step) => {
      new Life(step).ignores(stop).ignores(hurriedStop);
    },
  },
];

const stopsOfStarts: readonly Scenario[] = [
  {
    name: "an instance that arrives after a stop is stopped",
    run: (step) => {
      const life = lifeIn.starting(step).keepsPhase(stop, [], { wanted: false });
      life.pass(4).arrivesUnwanted().pass(1).dies(signalled(15), "stop");
      life.take(life.clearedEvent(), { phase: "idle" });
    },
  },
  {
    name: "an instance that is found after a stop is stopped",
    run: (step) => {
      const life = lifeIn.uncertain(step).keepsPhase(stop, [], { wanted: false });
      life.arrivesUnwanted("found").dies(signalled(15), "stop");
      life.take(life.clearedEvent(), { phase: "idle" });
    },
  },
  {
    name: "an instance that answers during the search after a stop is stopped",
    run: (step) => {
      const life = lifeIn.uncertain(step).keepsPhase(stop, [], { wanted: false });
      life.arrivesUnwanted("started").dies(signalled(15), "stop");
      life.take(life.clearedEvent(), { phase: "idle" });
    },
  },
  {
    name: "a start that was stopped and did not happen is idle",
    run: (step) => {
      const life = lifeIn.starting(step).keepsPhase(stop, [], { wanted: false });
      doubtful(life).take({ kind: "not-found", invocation: "i2" }, { phase: "idle" });
    },
  },
];

/** The grace is over. */
function isKilled(life: Life): Life {
  const { expected, effects } = life.killed("stop");
  return life.take({ kind: "deadline" }, expected, effects);
}

/** Killed without a question. */
function hurries(life: Life): Life {
  const { expected, effects } = life.killed("stop");
  if (life.state.phase === "running") effects.push(life.forgotten());
  return life.take(hurriedStop, expected, effects, { wanted: false });
}

function isIdle(life: Life): Life {
  return life.take(life.clearedEvent(), { phase: "idle" }).ignores(life.clearedEvent());
}

const stopsOfInstances: readonly Scenario[] = [
  ...(["running", "ready"] as const).flatMap((phase) => [
    {
      name: `stop in ${phase} asks, and is idle when all is gone`,
      run: (step: StepFunction) => {
        isIdle(lifeIn[phase](step).stops("stop").pass(70).dies(signalled(15), "stop"));
      },
    },
    {
      name: `stop in ${phase} kills when the grace is over`,
      run: (step: StepFunction) => {
        const life = lifeIn[phase](step).stops("stop").ignores(stop);
        life.pass(4_999).ignores({ kind: "deadline" });
        isKilled(life.pass(1)).pass(60_000).ignores({ kind: "deadline" }).ignores(hurriedStop);
        isIdle(life.dies(signalled(9), "stop"));
      },
    },
    {
      name: `a hurried stop in ${phase} kills at once`,
      run: (step: StepFunction) => {
        isIdle(hurries(lifeIn[phase](step)).ignores(stop).dies(signalled(9), "stop"));
      },
    },
    {
      name: `a stop in ${phase} may be hurried`,
      run: (step: StepFunction) => {
        const life = lifeIn[phase](step).stops("stop").pass(10);
        isIdle(hurries(life).ignores(hurriedStop).dies(signalled(9), "stop"));
      },
    },
    {
      name: `restart in ${phase} stops, and starts when all is gone`,
      run: (step: StepFunction) => {
        const life = lifeIn[phase](step).stops("restart").ignores(restart).ignores(start);
        life.pass(20).dies(exited(0), "restart").pass(20).restarts(0).arrivesUnready();
      },
    },
  ]),
  {
    name: "a restart waits for what it comes after",
    run: (step) => {
      const startLimit = { starts: 9, within: 60_000 };
      const life = new Life(step, { startLimit }).start().arrives().stops("restart");
      life.pass(20).dies(signalled(15), "restart").dependenciesReady = false;
      life.take(life.clearedEvent(), { phase: "waiting" }, [], { failures: 0, recentStarts: [] });
      life.dependenciesReady = true;
      life.asks({ kind: "unblocked" }).arrives();
    },
  },
  {
    name: "a wish that does not wait for an ending waits for what it comes after",
    run: (step) => {
      for (const event of [start, restart] as const) {
        const life = new Life(step, { restart: "on-failure" }).start().arrives().pass(10);
        life.dies(undefined).awaitsEnding().dependenciesReady = false;
        life.take(event, { phase: "waiting" }, [], { failures: 0 });
        life.dependenciesReady = true;
        life.asks({ kind: "unblocked" }).arrives();
      }
    },
  },
  {
    name: "a grace that is over kills for a restart as well",
    run: (step) => {
      const life = lifeIn.ready(step).stops("restart").pass(5_000);
      const { expected, effects } = life.killed("restart");
      life.take({ kind: "deadline" }, expected, effects).dies(signalled(9), "restart").restarts(0);
    },
  },
];

const changesOfMind: readonly Scenario[] = [
  ...([start, restart] as const).map((event) => ({
    name: `${event.kind} while stopping starts again when all is gone`,
    run: (step: StepFunction) => {
      const life = lifeIn.stopping(step);
      const { killAt } = { killAt: undefined, ...life.phasePart() };
      const { instance } = life;
      const expected = { phase: "stopping", instance, why: "restart", killAt } as const;
      life.take(event, expected, [], { wanted: true });
      life.dies(signalled(15), "restart").restarts(0).arrivesUnready();
    },
  })),
  {
    name: "stop while stopping for a restart is idle in the end",
    run: (step) => {
      const life = lifeIn.ready(step).stops("restart").keepsPhase(stop, [], { wanted: false });
      isIdle(life.dies(signalled(15), "restart"));
    },
  },
  {
    name: "a hurried stop while stopping for a restart is idle in the end",
    run: (step) => {
      isIdle(hurries(lifeIn.ready(step).stops("restart")).dies(signalled(9), "stop"));
    },
  },
  {
    name: "a process that was finished by failing is forgiven by a start",
    run: (step) => {
      for (const event of [start, restart] as const) {
        const life = new Life(step, { restart: "on-failure" }).start().arrives();
        life.dies(exited(1)).restarts(1).arrives().dies(exited(0));
        life.take(life.clearedEvent(), { phase: "finished" });
        life.asks(event, { failures: 0 }).arrives();
      }
    },
  },
  {
    name: "stop while clearing is idle when all is gone",
    run: (step) => {
      isIdle(lifeIn.clearing(step).keepsPhase(stop, [], { wanted: false }));
    },
  },
  ...([start, restart] as const).map((event) => ({
    name: `${event.kind} while clearing starts at once when all is gone`,
    run: (step: StepFunction) => {
      const life = lifeIn.clearing(step).keepsPhase(stop, [], { wanted: false });
      life.take(event, life.clearing(exited(3), "restart"), [], { wanted: true });
      life.pass(8).restarts(0).arrivesUnready();
    },
  })),
  {
    name: "restart makes even a process run again that is never restarted",
    run: (step) => {
      const life = new Life(step, { restart: "never" }).start().arrives().stops("restart");
      life.dies(exited(0), "restart").restarts(0).arrives();
    },
  },
  {
    name: "an instance that was not ready, and is stopped, is idle",
    run: (step) => {
      const life = lifeIn.running(step).pass(2_000);
      const { expected, effects } = life.killed("unready");
      const { invocation } = life.instance;
      const late = record({ what: "readiness-timeout", invocation });
      life.take({ kind: "deadline" }, expected, [late, ...effects, life.forgotten()]);
      isIdle(life.keepsPhase(stop, [], { wanted: false }).dies(signalled(9), "unready"));
    },
  },
];

const restartsOf = (life: Life) => life.state.restarts;

/** A job that ran once. */
const ranOnce = (step: StepFunction) => {
  const life = new Life(step, { restart: "never" }).start().arrives().pass(5).dies(exited(0));
  return life.take(life.clearedEvent(), { phase: "finished" });
};

const counts: readonly Scenario[] = [
  {
    name: "a start by hand is no restart, a restart is one",
    run: (step) => {
      const life = ranOnce(step).asks(start).arrives();
      requireEqual("restarts after a start", restartsOf(life), 0);
      life.stops("restart").dies(exited(0), "restart").restarts(0).arrives();
      requireEqual("restarts after a restart", restartsOf(life), 1);
      life.stops("stop").dies(exited(0), "stop").take(life.clearedEvent(), { phase: "idle" });
      life.asks(start, { wanted: true }).arrives();
      requireEqual("restarts after another start", restartsOf(life), 1);
      life.stops("stop").dies(exited(0), "stop").take(life.clearedEvent(), { phase: "idle" });
      life.asks(restart, { wanted: true }).arrives();
      requireEqual("restarts after a restart from idle", restartsOf(life), 2);
      const first = new Life(step).asks(restart, { wanted: true }).arrives();
      requireEqual("restarts of the first", restartsOf(first), 0);
    },
  },
  {
    name: "a start that takes back a stop is no restart, a restart is one",
    run: (step) => {
      for (const [event, expected] of [
        [start, 0],
        [restart, 1],
      ] as const) {
        const stopping = new Life(step).start().arrives().stops("stop");
        const { killAt } = { killAt: undefined, ...stopping.phasePart() };
        const { instance } = stopping;
        const again = { phase: "stopping", instance, why: "restart", killAt } as const;
        stopping.take(event, again, [], { wanted: true }).dies(exited(0), "restart").restarts(0);
        requireEqual("after stopping", restartsOf(stopping.arrives()), expected);
        const cleared = new Life(step).start().arrives().dies(exited(3));
        cleared.keepsPhase(stop, [], { wanted: false });
        cleared.take(event, cleared.clearing(exited(3), "restart"), [], { wanted: true });
        cleared.restarts(0);
        requireEqual("after clearing", restartsOf(cleared.arrives()), expected);
      }
    },
  },
  {
    name: "a start that hastens a restart is one",
    run: (step) => {
      for (const event of [start, restart]) {
        const life = new Life(step).start().arrives().dies(exited(1)).restarts(1).arrives();
        life.dies(exited(1)).backsOff(100, 2).asks(event, { failures: 0 }).arrives();
        requireEqual("restarts", restartsOf(life), 2);
      }
    },
  },
  ...[start, restart, undefined].map((event) => ({
    name: `what a start by hand tries again stays a start: ${event?.kind ?? "time"}`,
    run: (step: StepFunction) => {
      const life = new Life(step).start().arrives().stops("stop").dies(exited(0), "stop");
      life.take(life.clearedEvent(), { phase: "idle" }).asks(start, { wanted: true });
      const { invocation } = life;
      const refusal = { message: "no such file", code: "ENOENT" };
      const effects = [
        record({ what: "start-refused", invocation, refusal }),
        record({ what: "backing-off", wait: 100, failures: 1 }),
      ];
      const waits = { phase: "backing-off", until: life.now + 100 } as const;
      const counted = { refusedStarts: 1, failures: 1 };
      life.take({ kind: "start-refused", invocation, refusal }, waits, effects, counted);
      if (event === undefined) life.pass(100).asks({ kind: "deadline" }).arrives();
      else life.asks(event, { failures: 0 }).arrives();
      requireEqual("restarts", restartsOf(life), event === restart ? 1 : 0);
    },
  })),
];

export const wishes: readonly Scenario[] = [
  ...counts,
  ...starts,
  ...alreadyWanted,
  ...stopsAtRest,
  ...stopsOfStarts,
  ...stopsOfInstances,
  ...changesOfMind,
];
