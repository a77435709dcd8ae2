/** Scenarios: the first start, what it waits for, readiness of each kind, refusals. */
import type { Readiness } from "../../../src/process/specification.ts";
import { defaultBackoff } from "../../../src/units/restarts.ts";
import type { Scenario } from "../lifecycle-scenarios.ts";
import { Life, record, requireEqual, type StepFunction, signalled } from "./life.ts";

const watchedKinds: readonly Readiness[] = [
  { kind: "notify" },
  { kind: "command", command: ["/bin/true"] },
  { kind: "tcp", host: "localhost", port: 80 },
  { kind: "unix", path: "/run/example.sock" },
];

const notify = { readiness: { kind: "notify" } } as const;
const refusal = { message: "no such file", code: "ENOENT" };

function refused(life: Life) {
  const { invocation } = life;
  const event = { kind: "start-refused", invocation, refusal } as const;
  return { event, entry: record({ what: "start-refused", invocation, refusal }) };
}

const oneMoreRefused = (life: Life) => ({ refusedStarts: life.common.refusedStarts + 1 });

/** A refusal that leads to a wait. */
function refuse(life: Life, wait: number, failures: number): Life {
  const { event, entry } = refused(life);
  const effects = [entry, record({ what: "backing-off", wait, failures })];
  const expected = { phase: "backing-off", until: life.now + wait } as const;
  return life.take(event, expected, effects, { ...oneMoreRefused(life), failures });
}

function countsOf({ state: { restarts, refusedStarts } }: Life) {
  return { restarts, refusedStarts };
}

/** It becomes ready so long after its start. */
function becomesReady(life: Life, after: number): Life {
  const { instance } = life;
  const { invocation } = instance;
  const effects = [life.forgotten(), record({ what: "ready", invocation, after })];
  const expected = { phase: "ready", instance, readyAt: life.now } as const;
  return life.take({ kind: "became-ready", invocation }, expected, effects);
}

/** It is killed because it did not become ready in time. */
function timesOut(life: Life): Life {
  const { invocation } = life.instance;
  const { expected, effects } = life.killed("unready");
  const late = record({ what: "readiness-timeout", invocation });
  return life.take({ kind: "deadline" }, expected, [late, ...effects, life.forgotten()]);
}

const waitings: readonly Scenario[] = [
  {
    name: "a start leads to a start, and its answer to ready",
    run: (step) => new Life(step).start().pass(3).arrives(),
  },
  {
    name: "a start waits for its dependencies, then begins",
    run: (step) => {
      const life = new Life(step);
      life.dependenciesReady = false;
      life.take({ kind: "start" }, { phase: "waiting" }, [], { wanted: true });
      life.ignores({ kind: "deadline" });
      life.dependenciesReady = true;
      life.pass(500).asks({ kind: "unblocked" }).arrives();
    },
  },
  {
    name: "a start waits for its partition, then begins",
    run: (step) => {
      const life = new Life(step, { partition: "qm" });
      life.reachable = false;
      life.take({ kind: "start" }, { phase: "waiting" }, [], { wanted: true });
      life.take({ kind: "unblocked" }, { phase: "waiting" });
      life.reachable = true;
      life.asks({ kind: "unblocked" }).arrives();
    },
  },
  {
    name: "a restart waits for its partition and not for its dependencies",
    run: (step) => {
      const life = new Life(step, { partition: "qm" })
        .start()
        .arrives()
        .pass(50)
        .dies(signalled(9));
      life.dependenciesReady = false;
      life.reachable = false;
      life.take(life.clearedEvent(), { phase: "waiting" }, [], { failures: 1 });
      life.reachable = true;
      life.asks({ kind: "unblocked" }).arrives().pass(50);
      life.dies(signalled(9)).backsOff(100, 2).pass(100);
      life.asks({ kind: "deadline" }).arrives();
    },
  },
  {
    name: "a wait that ends while the partition is away goes on as waiting",
    run: (step) => {
      const life = new Life(step, { startLimit: { starts: 9, within: 60_000 } });
      life.start();
      refuse(life, 100, 1).pass(100);
      life.reachable = false;
      life.take({ kind: "deadline" }, { phase: "waiting" });
    },
  },
];

const readinesses: readonly Scenario[] = [
  ...watchedKinds.map((readiness) => ({
    name: `readiness by ${readiness.kind} is watched until it comes`,
    run: (step: StepFunction) => {
      const life = new Life(step, { readiness }).start().pass(5).arrivesUnready();
      becomesReady(life.pass(250), 250);
      life.pass(60_000).ignores({ kind: "deadline" });
    },
  })),
  {
    name: "an instance that is not ready in time is killed and restarted",
    run: (step) => {
      const life = new Life(step, notify).start().arrivesUnready();
      life.pass(1_999).ignores({ kind: "deadline" });
      timesOut(life.pass(1));
      life.ignores({ kind: "deadline" });
      life.pass(2).dies(signalled(9), "unready").pass(3).restarts(1).arrivesUnready();
      timesOut(life.pass(2_000)).dies(signalled(9), "unready").backsOff(100, 2);
    },
  },
  {
    name: "an instance that is not ready has failed, whatever its ending says",
    run: (step) => {
      const life = new Life(step, { ...notify, restart: "on-failure" }).start().arrivesUnready();
      timesOut(life.pass(2_000)).dies({ kind: "exited", status: 0 }, "unready").restarts(1);
      timesOut(life.arrivesUnready().pass(2_000)).dies(undefined, "unready").backsOff(100, 2);
    },
  },
  {
    name: "an instance that is not ready, and never restarted, is finished",
    run: (step) => {
      const life = new Life(step, { ...notify, restart: "never" }).start().arrivesUnready();
      timesOut(life.pass(2_000)).dies(signalled(9), "unready");
      life.take(life.clearedEvent(), { phase: "finished" });
    },
  },
  {
    name: "an instance that dies before it is ready is restarted by the rule",
    run: (step) => {
      const life = new Life(step, notify).start().arrivesUnready().pass(10).dies(signalled(11));
      life.restarts(1).arrivesUnready();
      becomesReady(life.pass(2_000), 2_000);
    },
  },
];

const refusals: readonly Scenario[] = [
  {
    name: "a refused start waits, longer each time, and then tries again",
    run: (step) => {
      const life = new Life(step).start();
      refuse(life, 100, 1).pass(99).ignores({ kind: "deadline" });
      life.pass(1).asks({ kind: "deadline" });
      refuse(life, 200, 2).pass(200).asks({ kind: "deadline" });
      refuse(life, 400, 3).pass(400).asks({ kind: "deadline" }).arrives();
      // A start that is answered does not make up for those before it; a healthy run does.
      life.pass(5).dies(signalled(9)).backsOff(400, 4).pass(400).asks({ kind: "deadline" });
      life.arrives().pass(10_000).dies(signalled(9)).restarts(1);
    },
  },
  {
    name: "a refused start waits even with back-off none",
    run: (step) => {
      const life = new Life(step, { backoff: "none", restart: "on-failure" }).start();
      refuse(life, 100, 1).pass(100).asks({ kind: "deadline" });
      refuse(life, 200, 2);
    },
  },
  {
    name: "a refused start does not wait where the configuration says so",
    run: (step) => {
      const life = new Life(step, { backoff: { ...defaultBackoff, first: 0 } }).start();
      const { event, entry } = refused(life);
      life.asks(event, { refusedStarts: 1, failures: 1 }, [entry]).arrives();
    },
  },
  {
    name: "refused starts are counted apart from restarts",
    run: (step) => {
      const life = new Life(step).start();
      refuse(refuse(life, 100, 1).pass(100).asks({ kind: "deadline" }), 200, 2).pass(200);
      life.asks({ kind: "deadline" }).arrives();
      requireEqual("the first instance", countsOf(life), { restarts: 0, refusedStarts: 2 });
      life.pass(10_000).dies(signalled(9)).restarts(1).arrives();
      requireEqual("the second", countsOf(life), { restarts: 1, refusedStarts: 2 });
    },
  },
  {
    name: "a refused start fails at once where the limit would refuse the next one",
    run: (step) => {
      const startLimit = { starts: 1, within: 60_000 };
      const life = new Life(step, { startLimit }).start();
      const { event, entry } = refused(life);
      const reason = "the start limit is reached: at most 1 start within 1 min 0 s";
      const effects = [entry, record({ what: "failed", reason })];
      const common = { ...oneMoreRefused(life), failures: 1 };
      life.take(event, { phase: "failed", reason }, effects, common);
    },
  },
  {
    name: "a refused start that is never to be restarted has failed",
    run: (step) => {
      const life = new Life(step, { restart: "never" }).start();
      const { event, entry } = refused(life);
      const reason = refusal.message;
      const effects = [entry, record({ what: "failed", reason })];
      life.take(event, { phase: "failed", reason }, effects, oneMoreRefused(life));
      life.start().arrives();
    },
  },
  {
    name: "a refused start that nobody wants any more is idle",
    run: (step) => {
      const life = new Life(step).start();
      life.keepsPhase({ kind: "stop", hurry: false }, [], { wanted: false });
      const { event, entry } = refused(life);
      life.take(event, { phase: "idle" }, [entry], oneMoreRefused(life));
    },
  },
];

export const beginnings: readonly Scenario[] = [...waitings, ...readinesses, ...refusals];
