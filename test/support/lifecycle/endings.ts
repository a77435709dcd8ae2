/** Scenarios: endings known at once, later, earlier, never; noted once, and never invented. */
import { ENDING_LIMIT } from "../../../src/process/lifecycle.ts";
import type { Scenario } from "../lifecycle-scenarios.ts";
import { exited, Life, record, type StepFunction, signalled } from "./life.ts";
import { formerInvocation, lifeIn, phases } from "./phases.ts";

/** Dead and cleared under the rule on-failure, while nobody knows how it ended. */
function awaiting(step: StepFunction): Life {
  const life = new Life(step, { restart: "on-failure" }).start().arrives();
  return life.pass(10).dies(undefined).pass(5).awaitsEnding();
}

/** How a told ending stands in the history. */
const ended = (life: Life, ending: ReturnType<typeof exited>) =>
  record({ what: "ended", invocation: life.instance.invocation, ending });

const noted = (ending: ReturnType<typeof exited>) => ({ awaitedEndings: [], lastEnding: ending });

const awaited: readonly Scenario[] = [
  {
    name: "on-failure waits for an ending, and is finished when it is a success",
    run: (step) => {
      const life = awaiting(step).pass(50);
      const effects = [ended(life, exited(0))];
      life.take(life.endingEvent(exited(0)), { phase: "finished" }, effects, noted(exited(0)));
      life.ignores(life.endingEvent(exited(1)));
    },
  },
  {
    name: "on-failure waits for an ending, and restarts when it is a failure",
    run: (step) => {
      const life = awaiting(step).pass(50);
      const common = { ...noted(exited(1)), failures: 1 };
      life.asks(life.endingEvent(exited(1)), common, [ended(life, exited(1))]).arrives();
    },
  },
  {
    name: "on-failure waits for an ending, and the wait counts from the death",
    run: (step) => {
      const life = new Life(step, { restart: "on-failure" }).start().arrives();
      life.dies(exited(1)).restarts(1).arrives().dies(undefined).awaitsEnding().pass(30);
      const wait = record({ what: "backing-off", wait: 70, failures: 2 });
      const effects = [ended(life, exited(1)), wait];
      const common = { ...noted(exited(1)), failures: 2 };
      const expected = { phase: "backing-off", until: life.now + 70 } as const;
      life.take(life.endingEvent(exited(1)), expected, effects, common);
    },
  },
  {
    name: "an ending that comes late is counted within the start limit",
    run: (step) => {
      const startLimit = { starts: 9, within: 60_000 };
      const life = new Life(step, { restart: "on-failure", startLimit }).start().arrives();
      life.dies(undefined).awaitsEnding().pass(30);
      const common = { ...noted(exited(1)), failures: 1 };
      life.asks(life.endingEvent(exited(1)), common, [ended(life, exited(1))]);
      life.arrives().pass(10_000).dies(undefined).awaitsEnding().pass(ENDING_LIMIT);
      const unknown = { kind: "unknown", reason: "nobody told within 5.00 s" } as const;
      const more = { ...noted(unknown), failures: 1 };
      life.asks({ kind: "deadline" }, more, [ended(life, unknown)]);
    },
  },
  {
    name: "an operator who does not wait for an ending forgives",
    run: (step) => {
      for (const kind of ["start", "restart"] as const) {
        const startLimit = { starts: 9, within: 60_000 };
        const life = new Life(step, { restart: "on-failure", startLimit }).start().arrives();
        life.dies(exited(1)).restarts(1).arrives().dies(undefined).awaitsEnding().pass(30);
        life.asks({ kind }, { failures: 0, recentStarts: [] });
      }
    },
  },
  {
    name: "an ending that is told while the rest is cleared decides then",
    run: (step) => {
      const life = new Life(step, { restart: "on-failure" }).start().arrives();
      life.pass(10).dies(undefined);
      const effects = [ended(life, exited(0))];
      const known = life.clearing(exited(0), undefined);
      life.pass(3).take(life.endingEvent(exited(0)), known, effects, noted(exited(0)));
      life.ignores(life.endingEvent(exited(1)));
      life.take(life.clearedEvent(), { phase: "finished" });
    },
  },
  {
    name: "an ending that nobody tells in time is unknown, which is no success",
    run: (step) => {
      const life = awaiting(step).pass(ENDING_LIMIT - 1);
      life.ignores({ kind: "deadline" });
      const unknown = { kind: "unknown", reason: "nobody told within 5.00 s" } as const;
      const common = { ...noted(unknown), failures: 1 };
      life.pass(1).asks({ kind: "deadline" }, common, [ended(life, unknown)]);
      life.ignores(life.endingEvent(exited(0)));
      life.arrives();
    },
  },
  {
    name: "while an ending is awaited, only the operator's wish or the ending decides",
    run: (step) => {
      const life = awaiting(step);
      life.ignores(life.clearedEvent()).ignores(life.endingEvent(exited(0), "i0"));
      life.take({ kind: "stop", hurry: false }, { phase: "idle" }, [], { wanted: false });
      const again = awaiting(step);
      again.asks({ kind: "start" }).arrives();
      const once = awaiting(step);
      once.asks({ kind: "restart" }).arrives();
    },
  },
  {
    name: "nothing is awaited while the rest is not gone",
    run: (step) => {
      const life = new Life(step, { restart: "on-failure" }).start().arrives().dies(undefined);
      life.pass(60_000).ignores({ kind: "deadline" });
      life.awaitsEnding().pass(1).ignores({ kind: "deadline" });
    },
  },
  {
    name: "the ending of an older instance does not decide over a newer one",
    run: (step) => {
      const life = new Life(step, { restart: "on-failure" }).start().arrives();
      life.dies({ kind: "signalled", signal: 9, coreDumped: true }).restarts(1).arrives();
      life
        .dies(undefined)
        .awaitsEnding()
        .ignores(life.endingEvent(exited(0), formerInvocation));
    },
  },
];

/** What a life takes when the ending of its former instance comes at last. */
function takesFormerEnding(life: Life): void {
  const ending = exited(7);
  const effects = [record({ what: "ended", invocation: formerInvocation, ending })];
  const isNewest = life.common.lastEnding === undefined;
  const lastEnding = isNewest ? ending : life.common.lastEnding;
  const event = life.endingEvent(ending, formerInvocation);
  life.keepsPhase(event, effects, { awaitedEndings: [], lastEnding });
  life.ignores(event);
  life.ignores(life.endingEvent(exited(8), formerInvocation));
}

const late: readonly Scenario[] = phases.map((phase) => ({
  name: `an ending that comes late is noted once in ${phase}`,
  run: (step) => takesFormerEnding(lifeIn[phase](step)),
}));

/** It died twice, the second time without an ending, and came to rest. */
function restsIn(phase: "waiting" | "idle" | "finished" | "backing-off", step: StepFunction): Life {
  const restart = phase === "finished" ? "never" : "always";
  const life = new Life(step, { restart, partition: "qm" }).start().arrives();
  if (phase === "finished") {
    return life.dies(undefined).take(life.clearedEvent(), { phase });
  }
  if (phase === "idle") {
    return life.stops("stop").dies(undefined, "stop").take(life.clearedEvent(), { phase });
  }
  life.dies(exited(1)).restarts(1).arrives().dies(undefined).backsOff(100, 2).pass(100);
  life.reachable = false;
  return phase === "waiting" ? life.take({ kind: "deadline" }, { phase }) : life;
}

const newest: readonly Scenario[] = [
  ...(["waiting", "idle", "finished", "backing-off"] as const).map((phase) => ({
    name: `the newest ending may come late in ${phase}`,
    run: (step: StepFunction) => {
      const life = restsIn(phase, step);
      life.keepsPhase(life.endingEvent(exited(2)), [ended(life, exited(2))], noted(exited(2)));
      life.ignores(life.endingEvent(exited(2)));
    },
  })),
  {
    name: "of two endings that come late, the newer instance's is the last",
    run: (step) => {
      const life = lifeIn.ready(step).dies(undefined).backsOff(100, 2);
      const first = [record({ what: "ended", invocation: "i1", ending: exited(1) })];
      const second = [record({ what: "ended", invocation: "i2", ending: exited(2) })];
      life.keepsPhase(life.endingEvent(exited(1), "i1"), first, { awaitedEndings: ["i2"] });
      life.keepsPhase(life.endingEvent(exited(2), "i2"), second, noted(exited(2)));
    },
  },
  {
    name: "of two endings that come late, the older one may come last",
    run: (step) => {
      const life = lifeIn.ready(step).dies(undefined).backsOff(100, 2);
      const second = [record({ what: "ended", invocation: "i2", ending: exited(2) })];
      const change = { awaitedEndings: ["i1"], lastEnding: exited(2) };
      life.keepsPhase(life.endingEvent(exited(2), "i2"), second, change);
      takesFormerEnding(life);
    },
  },
];

/** The living instance's ending is told before its death; it is believed only with the death. */
function hears(life: Life, ending = exited(4)): Life {
  const { invocation } = life.instance;
  life.keepsPhase(life.endingEvent(ending), [], { toldEnding: { invocation, ending } });
  return life.ignores(life.endingEvent(exited(5)));
}

const early: readonly Scenario[] = [
  {
    name: "an ending told before the death is kept while ready",
    run: (step) => hears(lifeIn.ready(step)).dies(undefined, undefined, exited(4)).backsOff(100, 2),
  },
  {
    name: "an ending told before the death is kept while running",
    run: (step) => hears(lifeIn.running(step)).dies(undefined, undefined, exited(4)),
  },
  {
    name: "an ending told before the death is kept while stopping",
    run: (step) => hears(lifeIn.stopping(step)).dies(undefined, "stop", exited(4)),
  },
  {
    name: "what the kernel says of an ending counts more than what was told",
    run: (step) => {
      const life = hears(lifeIn.ready(step)).dies(signalled(9));
      life.ignores(life.endingEvent(exited(4)));
    },
  },
  {
    name: "an ending told before the death decides under on-failure",
    run: (step) => {
      const life = hears(new Life(step, { restart: "on-failure" }).start().arrives(), exited(0));
      life.dies(undefined, undefined, exited(0)).take(life.clearedEvent(), { phase: "finished" });
    },
  },
];

export const endings: readonly Scenario[] = [...awaited, ...late, ...newest, ...early];
