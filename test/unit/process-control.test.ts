/** What the control socket answers, over an orchestration and a clock of the test's own. */
import { describe, expect, test } from "bun:test";
import type { MetricPart } from "../../src/http/metrics.ts";
import type { ControlCall } from "../../src/messaging/control-server.ts";
import { answerControl, type Orchestrated } from "../../src/process/control.ts";
import { EventBook } from "../../src/process/event-book.ts";
import { ENDING_LIMIT, type ProcessEvent } from "../../src/process/lifecycle.ts";
import {
  initialOrchestration,
  makePlan,
  type OrchestrationEvent,
  step,
} from "../../src/process/orchestration.ts";
import type { ControlRequest, ProcessSummary } from "../../src/process/protocol.ts";
import type { ProcessSpecification } from "../../src/process/specification.ts";
import { exited, makeSpecification } from "../support/lifecycle/life.ts";

interface Timer {
  readonly at: number;
  readonly call: () => void;
}

/** One process "it", whose events come from the test. */
class Stage {
  readonly #plan;
  readonly #book = new EventBook();
  readonly #listeners = new Set<() => void>();
  readonly timers = new Set<Timer>();
  readonly answers: ProcessSummary[] = [];
  readonly refusals: string[] = [];
  #state;
  #invocations = 0;
  now = 1_000;
  parts: readonly MetricPart[] = [];
  gone: () => void = () => {};

  constructor(change: Partial<ProcessSpecification> = {}) {
    const specification = makeSpecification({ name: "it", ...change });
    this.#plan = makePlan({
      holder: true,
      concurrentStarts: undefined,
      partitions: [],
      processes: [specification],
    });
    this.#state = initialOrchestration(this.#plan);
  }

  get invocation(): string {
    return `i${this.#invocations}`;
  }

  get listenerCount(): number {
    return this.#listeners.size;
  }

  take(event: ProcessEvent): this {
    return this.handle({ kind: "process", name: "it", event });
  }

  starts(): this {
    this.take({ kind: "start" });
    return this.take({ kind: "started", invocation: this.invocation, processId: 7 });
  }

  handle(event: OrchestrationEvent): this {
    const chance = { random: () => 0.5, invocation: () => `i${++this.#invocations}` };
    const outcome = step(this.#plan, this.#state, event, { now: this.now, chance });
    this.#state = outcome.state;
    for (const { name, effect } of outcome.effects) {
      if (effect.kind === "record") this.#book.add(name, effect.entry, this.now);
    }
    for (const listener of [...this.#listeners]) listener();
    return this;
  }

  pass(time: number): this {
    this.now += time;
    for (const timer of [...this.timers]) {
      if (timer.at > this.now || !this.timers.delete(timer)) continue;
      timer.call();
    }
    return this;
  }

  #view(): Orchestrated {
    const stage = this;
    return {
      plan: stage.#plan,
      get state() {
        return stage.#state;
      },
      now: () => stage.now,
      get newestEvent() {
        return stage.#book.newest;
      },
      eventsAfter: (sequence) => stage.#book.after(sequence),
      historyOf: (name) => stage.#book.historyOf(name),
      logOf: () => undefined,
      logFileOf: () => undefined,
      parkedOf: () => [],
      partitions: () => [],
      reexecute: () => {},
      reload: () => {},
      metrics: () => Promise.resolve(stage.parts),
      usage: () => Promise.resolve(new Map()),
      letOthers: () => Promise.resolve(),
      fail: (failure) => {
        throw failure;
      },
      about: () => Promise.reject(new Error("EIO: i/o error, read")),
      tell: (names, event) => stage.handle({ kind: "wish", names, event }),
      signal: () => false,
      onTurn: (call) => {
        stage.#listeners.add(call);
        return { [Symbol.dispose]: () => stage.#listeners.delete(call) };
      },
      wakeAfter: (delay, call) => {
        const timer = { at: stage.now + delay, call };
        stage.timers.add(timer);
        return { [Symbol.dispose]: () => stage.timers.delete(timer) };
      },
    };
  }

  get newest(): number {
    return this.#book.newest;
  }

  /** What happens in one turn, of which listeners are told once, after it. */
  silent(happen: () => void): this {
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    happen();
    for (const listener of listeners) this.#listeners.add(listener);
    for (const listener of listeners) listener();
    return this;
  }

  waits(until: "ready" | "stopped", since?: number): this {
    const from = since === undefined ? {} : { since };
    this.#ask({ id: 1, verb: "wait", name: "it", until, ...from }, (answer) =>
      this.answers.push(answer as ProcessSummary),
    );
    return this;
  }

  /** What is answered at once. */
  asks(
    request: { readonly verb: "list" | "about" } | { readonly verb: "show"; readonly name: string },
  ) {
    let answered: unknown;
    this.#ask({ id: 1, ...request }, (answer) => {
      answered = answer;
    });
    return answered;
  }

  #ask(request: ControlRequest, done: ControlCall["done"]): void {
    const call: ControlCall = {
      peer: {} as ControlCall["peer"],
      item: () => {},
      done,
      refuse: ({ message }) => this.refusals.push(message),
      onGone: (gone) => {
        this.gone = gone;
      },
      isBehind: false,
      onDrained: () => {},
      resumeBy: () => {},
    };
    answerControl(this.#view(), request, call);
  }
}

test("about is refused where the file that runs cannot be read", async () => {
  const stage = new Stage();
  stage.asks({ verb: "about" });
  await Promise.resolve();
  await Promise.resolve();
  expect(stage.refusals).toEqual(["Cannot read the file that runs: EIO: i/o error, read"]);
});

describe("wait until stopped", () => {
  /** It has died, and nobody has told how. */
  function diedUntold(): Stage {
    const stage = new Stage({ restart: "never" }).starts().pass(50).waits("stopped");
    stage.take({ kind: "died", invocation: "i1", ending: undefined });
    return stage.take({ kind: "cleared", invocation: "i1" });
  }

  test("answers when the ending is known, and tells it", () => {
    const stage = diedUntold();
    expect(stage.answers).toEqual([]);
    stage.pass(200).take({ kind: "ending-known", invocation: "i1", ending: exited(3) });
    expect(stage.answers).toMatchObject([
      { phase: "finished", last_exit: { kind: "exited", status: 3 } },
    ]);
    expect(stage.listenerCount + stage.timers.size).toBe(0);
  });

  test("answers at once where the ending came with the death", () => {
    const stage = new Stage({ restart: "never" }).starts().waits("stopped");
    stage.take({ kind: "died", invocation: "i1", ending: exited(0) });
    expect(stage.answers).toEqual([]);
    stage.take({ kind: "cleared", invocation: "i1" });
    expect(stage.answers).toMatchObject([{ last_exit: { kind: "exited", status: 0 } }]);
    expect(stage.timers.size).toBe(0);
  });

  test("gives the ending up in time, counted from the death", () => {
    const stage = diedUntold().pass(ENDING_LIMIT - 1);
    expect(stage.answers).toEqual([]);
    stage.pass(1);
    const last_exit = { kind: "unknown", reason: "nobody told within 5.00 s" };
    expect(stage.answers).toMatchObject([{ phase: "finished", last_exit }]);
    expect(stage.listenerCount + stage.timers.size).toBe(0);
    // Whoever asks later does not wait again.
    stage.waits("stopped");
    expect(stage.answers).toHaveLength(2);
    // Everything else that is asked says the same, and believes who tells it after all.
    expect(stage.asks({ verb: "list" })).toMatchObject([{ last_exit }]);
    expect(stage.asks({ verb: "show", name: "it" })).toMatchObject({ summary: { last_exit } });
    stage.take({ kind: "ending-known", invocation: "i1", ending: exited(3) });
    expect(stage.asks({ verb: "list" })).toMatchObject([{ last_exit: { status: 3 } }]);
  });

  test("until it is given up, an ending is said by nobody", () => {
    const stage = diedUntold().pass(ENDING_LIMIT - 1);
    expect(stage.asks({ verb: "list" })).toMatchObject([{ last_exit: null }]);
  });

  test("waits on when it is started again meanwhile", () => {
    const stage = diedUntold().starts().pass(ENDING_LIMIT);
    expect(stage.answers).toEqual([]);
    stage.take({ kind: "died", invocation: "i2", ending: exited(1) });
    stage.take({ kind: "cleared", invocation: "i2" });
    expect(stage.answers).toMatchObject([{ last_exit: { status: 1 } }]);
  });

  test("ends with its client", () => {
    const stage = diedUntold();
    expect(stage.listenerCount + stage.timers.size).toBe(2);
    stage.gone();
    expect(stage.listenerCount + stage.timers.size).toBe(0);
  });

  test("of what never ran, answers at once", () => {
    const { answers } = new Stage().waits("stopped");
    expect(answers).toMatchObject([{ phase: "idle", last_exit: null }]);
  });
});

describe("wait until ready", () => {
  const job = { restart: "never" } as const;
  const late = { restart: "never", readiness: { kind: "notify" } } as const;

  /** All of a life before anybody is told of it, as a quick one may be. */
  function live(stage: Stage, status: number): Stage {
    const { invocation } = stage.starts();
    stage.take({ kind: "died", invocation, ending: exited(status) });
    return stage.take({ kind: "cleared", invocation });
  }

  test.each([0, 1])(
    "what was ready since the start is ready, though it ended: exit %d",
    (status) => {
      const stage = live(new Stage(job), status).waits("ready", 0);
      expect(stage.refusals).toEqual([]);
      const last_exit = { kind: "exited", status };
      expect(stage.answers).toMatchObject([{ phase: "finished", last_exit }]);
      expect(stage.listenerCount + stage.timers.size).toBe(0);
    },
  );

  test("an earlier life does not count", () => {
    const stage = live(new Stage({ ...job, ...late }), 1);
    const since = stage.newest;
    stage.starts().waits("ready", since);
    expect([stage.answers, stage.refusals]).toEqual([[], []]);
    stage.take({ kind: "became-ready", invocation: "i2" });
    expect(stage.answers).toMatchObject([{ phase: "ready" }]);
  });

  test("what was ready between two turns is ready", () => {
    const stage = new Stage(late).starts().waits("ready");
    stage.silent(() => {
      stage.take({ kind: "became-ready", invocation: "i1" });
      stage.take({ kind: "died", invocation: "i1", ending: exited(1) });
      stage.take({ kind: "cleared", invocation: "i1" });
    });
    expect(stage.answers).toMatchObject([{ phase: "finished" }]);
  });

  test("what ended with exit 0 counts as ready, now and for who asks later", () => {
    const stage = live(new Stage(late), 0).waits("ready");
    expect(stage.answers).toMatchObject([{ phase: "finished", last_exit: { status: 0 } }]);
  });

  test("what failed before it was ready is refused, and how it ended", () => {
    const stage = live(new Stage(late), 3).waits("ready", 0);
    const message = "it has finished: exit 3, and will not be ready by itself";
    expect(stage.refusals).toEqual([message]);
    expect(stage.listenerCount + stage.timers.size).toBe(0);
  });

  test("how it ended may be told late, or never", () => {
    const untold = () => {
      const stage = new Stage(late).starts().waits("ready");
      stage.take({ kind: "died", invocation: "i1", ending: undefined });
      return stage.take({ kind: "cleared", invocation: "i1" });
    };
    const told = untold();
    expect([told.answers, told.refusals]).toEqual([[], []]);
    told.take({ kind: "ending-known", invocation: "i1", ending: exited(0) });
    expect(told.answers).toMatchObject([{ phase: "finished" }]);
    const never = untold().pass(ENDING_LIMIT);
    expect(never.refusals).toEqual([
      "it has finished: unknown: nobody told within 5.00 s, and will not be ready by itself",
    ]);
  });
});
