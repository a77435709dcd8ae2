/** Scenarios: restarts at once, after waits that grow, within a limit, and by the rule. */
import { AWAITED_ENDINGS_LIMIT } from "../../../src/process/lifecycle.ts";
import { defaultBackoff } from "../../../src/process/specification.ts";
import type { Scenario } from "../lifecycle-scenarios.ts";
import { exited, Life, record, requireEqual, type StepFunction, signalled } from "./life.ts";

/** Dies right after it was ready. */
function diesQuickly(life: Life): Life {
  return life.arrives().pass(10).dies(signalled(9));
}

/** A life in its second quick death, which is the first that waits. */
function secondDeath(step: StepFunction, jitterRandom: number): Life {
  const life = diesQuickly(new Life(step).start()).restarts(1);
  life.random = jitterRandom;
  return diesQuickly(life);
}

const backoffs: readonly Scenario[] = [
  {
    name: "the first restart is immediate, the next ones wait longer up to the cap",
    run: (step) => {
      const life = diesQuickly(new Life(step).start()).restarts(1);
      const waits = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000];
      for (const [index, wait] of waits.entries()) {
        diesQuickly(life).backsOff(wait, index + 2);
        life.pass(wait - 1).ignores({ kind: "deadline" });
        life.pass(1).asks({ kind: "deadline" });
      }
    },
  },
  {
    name: "the wait counts from the death, not from when all was cleared",
    run: (step) => {
      const life = diesQuickly(diesQuickly(new Life(step).start()).restarts(1));
      life.pass(30).backsOff(70, 2).pass(70).asks({ kind: "deadline" });
      diesQuickly(life).pass(200).restarts(3);
    },
  },
  {
    name: "jitter makes a wait shorter or longer by its part",
    run: (step) => {
      secondDeath(step, 0).backsOff(90, 2);
      secondDeath(step, 0.25).backsOff(95, 2);
      secondDeath(step, 0.75).backsOff(105, 2);
    },
  },
  {
    name: "jitter does not lift a wait above the cap",
    run: (step) => {
      const backoff = { ...defaultBackoff, first: 1_000, cap: 1_000, jitter: 1 };
      const life = diesQuickly(new Life(step, { backoff }).start()).restarts(1);
      life.random = 0.9;
      diesQuickly(life).backsOff(1_000, 2);
    },
  },
  {
    name: "a healthy run makes up for the deaths before it",
    run: (step) => {
      const life = diesQuickly(diesQuickly(new Life(step).start()).restarts(1));
      life.backsOff(100, 2).pass(100).asks({ kind: "deadline" });
      life.arrives().pass(9_999).dies(signalled(9)).backsOff(200, 3).pass(200);
      life.asks({ kind: "deadline" }).arrives().pass(10_000).dies(signalled(9)).restarts(1);
      diesQuickly(life).backsOff(100, 2);
    },
  },
  {
    name: "with back-off none every restart is immediate",
    run: (step) => {
      const life = diesQuickly(new Life(step, { backoff: "none" }).start());
      for (let count = 1; count <= 40; count += 1) diesQuickly(life.restarts(count));
      life.restarts(41).arrives().pass(10_000).dies(signalled(9)).restarts(1);
    },
  },
  {
    name: "always restarts a success as well",
    run: (step) => {
      new Life(step).start().arrives().pass(10).dies(exited(0)).restarts(1).arrives();
    },
  },
];

const limit = { startLimit: { starts: 3, within: 1_000 }, backoff: "none" } as const;

/** Three starts, one each 100 ms, and the death of the last. */
function threeStarts(step: StepFunction): Life {
  const life = new Life(step, limit).start();
  for (const failures of [1, 2]) {
    life.arrives().pass(100).dies(signalled(9)).restarts(failures);
  }
  requireEqual("recent starts", life.state.recentStarts, [1_000, 1_100, 1_200]);
  return life.arrives().pass(100).dies(signalled(9));
}

function failsByLimit(life: Life): Life {
  const reason = "3 starts within 1000 ms, the start limit";
  const effects = [record({ what: "failed", reason })];
  return life.take(life.clearedEvent(), { phase: "failed", reason }, effects, {
    restarts: life.common.restarts + 1,
    failures: life.common.failures + 1,
  });
}

const limits: readonly Scenario[] = [
  {
    name: "one start more than the limit allows has failed, and an operator forgives",
    run: (step) => {
      const life = failsByLimit(threeStarts(step));
      life.ignores({ kind: "unblocked" }).start().arrives();
      requireEqual("recent starts", life.state.recentStarts, [1_300]);
    },
  },
  {
    name: "starts that the window has left do not count",
    run: (step) => {
      const life = threeStarts(step).pass(700).restarts(3);
      requireEqual("recent starts", life.state.recentStarts, [1_100, 1_200, 2_000]);
    },
  },
  {
    name: "a start at the edge of the window counts",
    run: (step) => {
      failsByLimit(threeStarts(step).pass(699));
    },
  },
  {
    name: "an operator's restart is not held against the limit",
    run: (step) => {
      const life = threeStarts(step);
      life.take({ kind: "restart" }, life.clearing(signalled(9), "restart"));
      life.restarts(0, { recentStarts: [] }).arrives();
      requireEqual("recent starts", life.state.recentStarts, [1_300]);
    },
  },
  {
    name: "a wait does not lift the limit",
    run: (step) => {
      const startLimit = { starts: 2, within: 60_000 };
      const life = new Life(step, { startLimit }).start();
      diesQuickly(diesQuickly(life).restarts(1)).backsOff(100, 2).pass(100);
      const reason = "2 starts within 60000 ms, the start limit";
      const failed = [{ phase: "failed", reason }, [record({ what: "failed", reason })]] as const;
      life.take({ kind: "deadline" }, ...failed);
      const other = diesQuickly(new Life(step, { startLimit, partition: "qm" }).start());
      diesQuickly(other.restarts(1)).reachable = false;
      other.pass(200).take(other.clearedEvent(), { phase: "waiting" }, [], {
        restarts: 2,
        failures: 2,
      });
      other.reachable = true;
      other.take({ kind: "unblocked" }, ...failed);
    },
  },
  {
    name: "a start after a wait counts",
    run: (step) => {
      const life = new Life(step, { startLimit: limit.startLimit, partition: "qm" }).start();
      diesQuickly(diesQuickly(life).restarts(1)).backsOff(100, 2).pass(100);
      life.asks({ kind: "deadline" });
      requireEqual("recent starts", life.state.recentStarts, [1_000, 1_010, 1_120]);
      diesQuickly(life).reachable = false;
      const waiting = { phase: "waiting" } as const;
      life.pass(1_000).take(life.clearedEvent(), waiting, [], { restarts: 3, failures: 3 });
      life.reachable = true;
      life.asks({ kind: "unblocked" });
      requireEqual("recent starts", life.state.recentStarts, [2_130]);
    },
  },
];

const rules: readonly Scenario[] = [
  ...[exited(0), exited(1), signalled(15), undefined].map((ending) => ({
    name: `never is finished after ${JSON.stringify(ending) ?? "an ending not known"}`,
    run: (step: StepFunction) => {
      const life = new Life(step, { restart: "never" }).start().arrives().pass(10).dies(ending);
      life.take(life.clearedEvent(), { phase: "finished" });
      life.ignores({ kind: "deadline" });
      life.ignores({ kind: "unblocked" });
      life.pass(5).start().arrives();
    },
  })),
  {
    name: "on-failure is finished after a success",
    run: (step) => {
      const life = new Life(step, { restart: "on-failure" }).start().arrives();
      life.pass(10).dies(exited(0)).take(life.clearedEvent(), { phase: "finished" });
    },
  },
  ...[exited(1), signalled(15), { kind: "unknown", reason: "the agent died" } as const].map(
    (ending) => ({
      name: `on-failure restarts after ${JSON.stringify(ending)}`,
      run: (step: StepFunction) => {
        const life = new Life(step, { restart: "on-failure" }).start().arrives();
        life.pass(10).dies(ending).restarts(1).arrives();
      },
    }),
  ),
  {
    name: "endings that nobody tells are given up, the oldest first",
    run: (step) => {
      const life = new Life(step, { backoff: "none" }).start();
      const invocations: string[] = [];
      for (let count = 1; count <= AWAITED_ENDINGS_LIMIT + 2; count += 1) {
        invocations.push(life.invocation);
        life.arrives().pass(10).dies(undefined).restarts(count);
      }
      life.ignores(life.endingEvent(exited(1), invocations[1]));
      const invocation = invocations[2] ?? "";
      const effects = [record({ what: "ended", invocation, ending: exited(1) })];
      const awaitedEndings = invocations.slice(3);
      life.keepsPhase(life.endingEvent(exited(1), invocation), effects, { awaitedEndings });
    },
  },
];

export const restarts: readonly Scenario[] = [...backoffs, ...limits, ...rules];
