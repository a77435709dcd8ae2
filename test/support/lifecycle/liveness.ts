/** Scenarios: a process that is ready, and does its work no more. */
import type { ProcessEffect } from "../../../src/process/lifecycle.ts";
import type { Scenario } from "../lifecycle-scenarios.ts";
import { exited, Life, record, type StepFunction, watchdog } from "./life.ts";

const reason = "no WATCHDOG=1 for 1.00 s";

/** Ready, and watched from then on. */
function watched(step: StepFunction, change: ConstructorParameters<typeof Life>[1] = {}): Life {
  return arrives(new Life(step, { liveness: watchdog, ...change }).start());
}

function arrives(life: Life): Life {
  const { invocation } = life;
  const instance = { invocation, processId: 101, startedAt: life.now };
  life.instance = instance;
  const effects: ProcessEffect[] = [
    record({ what: "started", invocation, processId: 101 }),
    record({ what: "ready", invocation, after: 0 }),
    { kind: "watch-liveness", instance },
  ];
  const ready = { phase: "ready", instance, readyAt: life.now } as const;
  const { restarts, lastInvocation } = life.common;
  const common = {
    lastInvocation: invocation,
    begunBy: "restart",
    restarts: restarts + (lastInvocation === undefined ? 0 : 1),
  } as const;
  return life.take({ kind: "started", invocation, processId: 101 }, ready, effects, common);
}

/** What asks an instance to stop, and watches it no more. */
const stopped = ({ instance }: Life): ProcessEffect[] => [
  { kind: "signal", instance, signal: 15 },
  record({ what: "stop-requested", invocation: instance.invocation }),
  { kind: "forget-liveness", invocation: instance.invocation },
];

function becomesUnhealthy(life: Life): Life {
  const { invocation } = life;
  const effects = [record({ what: "unhealthy", invocation, reason }), ...stopped(life)];
  const stopping = {
    phase: "stopping",
    instance: life.instance,
    why: "unhealthy",
    killAt: life.now + 5_000,
  } as const;
  return life.take({ kind: "unhealthy", invocation, reason }, stopping, effects);
}

export const liveness: readonly Scenario[] = [
  {
    name: "one that is unhealthy is asked to stop, and started again",
    run: (step) => {
      const life = becomesUnhealthy(watched(step).pass(1_000));
      life.pass(20).dies(exited(0), "unhealthy").restarts(1);
    },
  },
  {
    name: "one that is unhealthy again and again waits as one that dies",
    run: (step) => {
      const life = becomesUnhealthy(watched(step).pass(1_000));
      life.pass(20).dies(exited(0), "unhealthy").restarts(1);
      becomesUnhealthy(arrives(life).pass(1_000)).dies(exited(0), "unhealthy").backsOff(100, 2);
    },
  },
  {
    name: "an unhealthy one is started again though a success would be its end",
    run: (step) => {
      const life = becomesUnhealthy(watched(step, { restart: "on-failure" }).pass(1_000));
      life.pass(20).dies(exited(0), "unhealthy").restarts(1);
    },
  },
  {
    name: "an unhealthy one is finished where nothing is started again",
    run: (step) => {
      const life = becomesUnhealthy(watched(step, { restart: "never" }).pass(1_000));
      life.pass(20).dies(exited(0), "unhealthy").take(life.clearedEvent(), { phase: "finished" });
    },
  },
  {
    name: "an unhealthy one that ignores its signal is killed",
    run: (step) => {
      const life = becomesUnhealthy(watched(step).pass(1_000)).pass(5_000);
      const { instance } = life;
      const { invocation } = instance;
      const effects: ProcessEffect[] = [
        { kind: "kill", instance },
        record({ what: "killed", invocation }),
      ];
      const killed = { phase: "stopping", instance, why: "unhealthy", killAt: undefined } as const;
      life.take({ kind: "deadline" }, killed, effects);
    },
  },
  {
    name: "one that is stopped, or dies, is watched no more",
    run: (step) => {
      const one = watched(step);
      const { instance } = one;
      const stopping = {
        phase: "stopping",
        instance,
        why: "stop",
        killAt: one.now + 5_000,
      } as const;
      one.take({ kind: "stop", hurry: false }, stopping, stopped(one), { wanted: false });
      const other = watched(step).pass(100);
      const { invocation } = other;
      const ending = exited(1);
      const clearing = {
        phase: "clearing",
        instance: other.instance,
        why: undefined,
        diedAt: other.now,
        ending,
        endingBy: undefined,
      } as const;
      const effects: ProcessEffect[] = [
        { kind: "clear", instance: other.instance },
        { kind: "forget-liveness", invocation },
        record({ what: "died", invocation, ranFor: 100 }),
        record({ what: "ended", invocation, ending }),
      ];
      other.take({ kind: "died", invocation, ending }, clearing, effects, { lastEnding: ending });
    },
  },
  {
    name: "readiness that comes later is followed by the watch",
    run: (step) => {
      const life = new Life(step, { liveness: watchdog, readiness: { kind: "notify" } }).start();
      const { invocation } = life;
      const instance = { invocation, processId: 101, startedAt: life.now };
      life.instance = instance;
      life.take(
        { kind: "started", invocation, processId: 101 },
        { phase: "running", instance, readyBy: life.now + 2_000 },
        [
          record({ what: "started", invocation, processId: 101 }),
          { kind: "watch-readiness", instance },
        ],
        { lastInvocation: invocation, begunBy: "restart" },
      );
      life.ignores({ kind: "unhealthy", invocation, reason }).pass(30);
      life.take(
        { kind: "became-ready", invocation },
        { phase: "ready", instance, readyAt: life.now },
        [
          { kind: "forget-readiness", invocation },
          record({ what: "ready", invocation, after: 30 }),
          { kind: "watch-liveness", instance },
        ],
      );
    },
  },
];
