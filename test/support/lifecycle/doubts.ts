/** Scenarios: starts whose answer is lost, late, or comes when nobody waits for it: never two. */
import { START_ANSWER_LIMIT } from "../../../src/process/lifecycle.ts";
import type { Scenario } from "../lifecycle-scenarios.ts";
import { exited, Life, record, type StepFunction, signalled } from "./life.ts";
import { doubtful, formerInvocation, lifeIn, phases } from "./phases.ts";

const searches: readonly Scenario[] = [
  {
    name: "a lost answer leads to a search, and what is found is adopted",
    run: (step) => {
      const life = doubtful(new Life(step).start()).pass(30).arrives("found");
      life.pass(10).dies(signalled(9)).restarts(1).arrives();
    },
  },
  {
    name: "what is found has yet to become ready",
    run: (step) => {
      lifeIn.uncertain(step).arrivesUnready("found").pass(2_000);
    },
  },
  {
    name: "what is not found is started again",
    run: (step) => {
      const life = doubtful(new Life(step).start()).pass(30);
      life.asks({ kind: "not-found", invocation: "i1" }).arrives();
    },
  },
  {
    name: "what is not found waits for its partition",
    run: (step) => {
      const life = lifeIn.uncertain(step);
      life.reachable = false;
      life.take({ kind: "not-found", invocation: "i2" }, { phase: "waiting" });
      life.reachable = true;
      life.asks({ kind: "unblocked" }).arrivesUnready();
    },
  },
  {
    name: "an answer that comes during the search ends it",
    run: (step) => {
      const life = doubtful(new Life(step).start()).pass(30).arrives();
      life.ignores({ kind: "found", invocation: "i1", processId: 101 });
      life.ignores({ kind: "not-found", invocation: "i1" });
    },
  },
  {
    name: "a refusal that comes during the search waits for what the search says",
    run: (step) => {
      const life = lifeIn.uncertain(step);
      const refusal = { message: "no such file", code: "ENOENT" };
      life.ignores({ kind: "start-refused", invocation: "i2", refusal });
      life.ignores({ kind: "answer-lost", invocation: "i2" });
      life.pass(60_000).ignores({ kind: "deadline" });
      life.asks({ kind: "not-found", invocation: "i2" });
    },
  },
  {
    name: "an answer that does not come in time is lost",
    run: (step) => {
      const life = new Life(step)
        .start()
        .pass(START_ANSWER_LIMIT - 1)
        .ignores({ kind: "deadline" });
      const { invocation } = life;
      const find = { kind: "find", invocation } as const;
      const effects = [find, record({ what: "uncertain", invocation })];
      life.pass(1).take({ kind: "deadline" }, { phase: "uncertain", invocation }, effects);
      life.arrives("found");
    },
  },
  {
    name: "a search that fails again and again starts within the limit",
    run: (step) => {
      const life = new Life(step, { startLimit: { starts: 2, within: 1_000 } });
      doubtful(life.start()).pass(10).asks({ kind: "not-found", invocation: "i1" });
      const reason = "the start limit is reached: at most 2 starts within 1.00 s";
      const effects = [record({ what: "failed", reason })];
      doubtful(life).take(
        { kind: "not-found", invocation: "i2" },
        { phase: "failed", reason },
        effects,
      );
    },
  },
];

/** A start that was given up happens after all. */
function killsStraggler(life: Life, kind: "started" | "found", invocation: string): void {
  const instance = { invocation, processId: 55, startedAt: life.now };
  const effects = [{ kind: "kill", instance } as const, record({ what: "killed", invocation })];
  life.keepsPhase({ kind, invocation, processId: 55 }, effects);
}

/** A start was lost, not found, and begun again before this. */
function startedAgain(step: StepFunction): Life {
  const life = doubtful(new Life(step).start()).pass(30);
  return life.asks({ kind: "not-found", invocation: "i1" });
}

const stragglers: readonly Scenario[] = [
  ...phases.map((phase) => ({
    name: `a start that was given up and happens after all is killed in ${phase}`,
    run: (step: StepFunction) => {
      const life = lifeIn[phase](step).pass(1);
      killsStraggler(life, "started", "i-given-up");
      // The death of the straggler is not the death of the instance.
      life.ignores({ kind: "died", invocation: "i-given-up", ending: exited(9) });
    },
  })),
  {
    name: "what a former search finds is killed",
    run: (step) => killsStraggler(lifeIn.uncertain(step), "found", "i-given-up"),
  },
  {
    name: "a start that was begun again arrives, and the former one is killed",
    run: (step) => {
      const life = startedAgain(step);
      killsStraggler(life, "started", "i1");
      life.arrives();
      killsStraggler(life, "started", "i1");
    },
  },
  {
    name: "an answer that comes twice is no straggler",
    run: (step) => {
      for (const phase of ["running", "ready", "stopping", "clearing", "backing-off"] as const) {
        lifeIn[phase](step).ignores({ kind: "started", invocation: "i2", processId: 102 });
      }
      for (const phase of ["starting", "uncertain"] as const) {
        const twice = { kind: "started", invocation: formerInvocation, processId: 101 } as const;
        lifeIn[phase](step).ignores(twice);
      }
    },
  },
];

export const doubts: readonly Scenario[] = [...searches, ...stragglers];
