/** Scenarios: restarts at once, after waits that grow, within a limit, and by the rule. */
import { AWAITED_ENDINGS_LIMIT } from "../../../src/process/lifecycle.ts";
import { defaultBackoff } from "../../../src/units/restarts.ts";
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
  const reason = "the start limit is reached: at most 3 starts within 1.00 s";
  const effects = [record({ what: "failed", reason })];
  return life.take(life.clearedEvent(), { phase: "failed", reason }, effects, {
    failures: life.common.failures + 1,
  });
}

const twoStarts = { starts: 2, within: 60_000 };
const overTwo = "the start limit is reached: at most 2 starts within 1 min 0 s";
const overTwoStarts = [
  { phase: "failed", reason: overTwo },
  [record({ what: "failed", reason: overTwo })],
] as const;

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
    name: "a wait after which the limit would hold is not begun: it has failed",
    run: (step) => {
      const life = new Life(step, { startLimit: twoStarts }).start();
      diesQuickly(diesQuickly(life).restarts(1));
      life.take(life.clearedEvent(), ...overTwoStarts, { failures: 2 });
    },
  },
  {
    name: "a wait that the oldest start leaves the window in is begun",
    run: (step) => {
      // Starts at 1000 and 1010, a death at 1020: the wait of 100 ends at 1120.
      const begun = new Life(step, { startLimit: { starts: 2, within: 120 } }).start();
      diesQuickly(diesQuickly(begun).restarts(1)).backsOff(100, 2).pass(100);
      begun.asks({ kind: "deadline" });
      const failed = new Life(step, { startLimit: { starts: 2, within: 121 } }).start();
      diesQuickly(diesQuickly(failed).restarts(1));
      const reason = "the start limit is reached: at most 2 starts within 121 ms";
      const effects = [record({ what: "failed", reason })];
      failed.take(failed.clearedEvent(), { phase: "failed", reason }, effects, { failures: 2 });
    },
  },
  {
    name: "while the partition is away a wait is begun, and does not lift the limit",
    run: (step) => {
      const life = new Life(step, { startLimit: twoStarts, partition: "qm" }).start();
      diesQuickly(diesQuickly(life).restarts(1)).reachable = false;
      life.backsOff(100, 2).pass(100);
      life.reachable = true;
      life.take({ kind: "deadline" }, ...overTwoStarts);
      const other = diesQuickly(new Life(step, { startLimit: twoStarts, partition: "qm" }).start());
      diesQuickly(other.restarts(1)).reachable = false;
      other.pass(200).take(other.clearedEvent(), { phase: "waiting" }, [], { failures: 2 });
      other.reachable = true;
      other.take({ kind: "unblocked" }, ...overTwoStarts);
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
      life.pass(1_000).take(life.clearedEvent(), waiting, [], { failures: 3 });
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
