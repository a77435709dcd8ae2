/** A life in each phase, whose former instance died and has not been told the ending of. */
import type { Phase } from "../../../src/process/lifecycle.ts";
import type { ProcessSpecification } from "../../../src/process/specification.ts";
import { exited, Life, record, type StepFunction } from "./life.ts";

/** The instance that died before the present one. */
export const formerInvocation = "i1";

const notify: Partial<ProcessSpecification> = { readiness: { kind: "notify" } };

type Change = Partial<ProcessSpecification>;

/** Its second start is under way. */
function starting(step: StepFunction, change: Change = {}): Life {
  const life = new Life(step, { ...notify, partition: "qm", ...change });
  return life.start().arrivesUnready().pass(50).dies(undefined).restarts(1).pass(1);
}

/** As starting, where nothing but an operator restarts it. */
function startingForOnce(step: StepFunction, change: Change = {}): Life {
  const life = new Life(step, { ...notify, restart: "never", ...change });
  life.start().arrivesUnready().pass(50).dies(undefined);
  return life.take(life.clearedEvent(), { phase: "finished" }).start().pass(1);
}

function uncertain(step: StepFunction, change?: Change): Life {
  return doubtful(starting(step, change));
}

/** The answer to a start is lost. */
export function doubtful(life: Life): Life {
  const { invocation } = life;
  const effects = [
    { kind: "find", invocation } as const,
    record({ what: "uncertain", invocation }),
  ];
  return life.take(
    { kind: "answer-lost", invocation },
    { phase: "uncertain", invocation },
    effects,
  );
}

function ready(step: StepFunction, change?: Change): Life {
  const life = starting(step, change).arrivesUnready().pass(10);
  const { instance } = life;
  const { invocation } = instance;
  const effects = [life.forgotten(), record({ what: "ready", invocation, after: 10 })];
  const expected = { phase: "ready", instance, readyAt: life.now } as const;
  return life.take({ kind: "became-ready", invocation }, expected, effects);
}

/** Waits for its partition after a back-off. */
function waiting(step: StepFunction, change?: Change): Life {
  const life = ready(step, change).dies(exited(3)).backsOff(100, 2).pass(100);
  life.reachable = false;
  life.take({ kind: "deadline" }, { phase: "waiting" });
  life.reachable = true;
  return life;
}

function idle(step: StepFunction, change?: Change): Life {
  const life = ready(step, change).stops("stop").dies(exited(3), "stop");
  return life.take(life.clearedEvent(), { phase: "idle" });
}

function finished(step: StepFunction, change?: Change): Life {
  const life = startingForOnce(step, change).arrivesUnready().dies(exited(3));
  return life.take(life.clearedEvent(), { phase: "finished" });
}

function failed(step: StepFunction, change?: Change): Life {
  const life = startingForOnce(step, change);
  const { invocation } = life;
  const reason = "no such file";
  const refusal = { message: reason, code: "ENOENT" };
  const effects = [
    record({ what: "start-refused", invocation, refusal }),
    record({ what: "failed", reason }),
  ];
  const event = { kind: "start-refused", invocation, refusal } as const;
  return life.take(event, { phase: "failed", reason }, effects, { refusedStarts: 1 });
}

/** How to come into each phase; the second instance is "i2". */
export const lifeIn: { readonly [P in Phase]: (step: StepFunction, change?: Change) => Life } = {
  idle,
  waiting,
  starting,
  uncertain,
  running: (step, change) => starting(step, change).arrivesUnready(),
  ready,
  stopping: (step, change) => ready(step, change).stops("stop"),
  clearing: (step, change) => ready(step, change).dies(exited(3)),
  "backing-off": (step, change) => ready(step, change).dies(exited(3)).backsOff(100, 2),
  finished,
  failed,
};

export const phases = Object.keys(lifeIn) as Phase[];
