/** What `restartsAtOnceFrom` says, held against what would be decided if the instance ended. */
import {
  type Context,
  instanceOf,
  type ProcessEvent,
  type ProcessState,
  restartsAtOnceFrom,
  step,
  type Table,
  table,
} from "../../../src/process/lifecycle.ts";
import type { ProcessSpecification } from "../../../src/process/specification.ts";
import type { Ending } from "../../../src/units/ending.ts";
import type { MonotonicTime } from "../../../src/units/units.ts";
import type { Moment } from "../process-simulation.ts";

const endings: readonly (Ending | undefined)[] = [
  { kind: "exited", status: 0 },
  { kind: "exited", status: 1 },
  { kind: "signalled", signal: 9, coreDumped: false },
  { kind: "unknown", reason: "nobody told" },
  undefined,
];

/** Milliseconds after the moment from which on the restart is certain. */
const delays = [0, 1, 60_000];

/** Milliseconds that the clearing of what the instance left behind may take. */
const clearings = [0, 3_000];

export class CertainRestarts {
  readonly #table: Table;
  checked = 0;

  /** @param decisions another table, to see that a difference is found */
  constructor(decisions: Table = table) {
    this.#table = decisions;
  }

  /** @throws Error when one that is said to be certain would not come, or would come later */
  check({ plan, state, now }: Moment): void {
    for (const [name, process] of state.processes) {
      const specification = plan.specifications.get(name);
      if (specification === undefined) continue;
      const from = restartsAtOnceFrom(process, specification);
      if (from === undefined) continue;
      this.#requireStays(process, { specification, now, from });
      for (const delay of delays) {
        const at = Math.max(now, from) + delay;
        for (const ending of endings) this.#requireRestart(process, { specification, at, ending });
      }
    }
  }

  #step(
    state: ProcessState,
    event: ProcessEvent,
    moment: { readonly specification: ProcessSpecification; readonly now: MonotonicTime },
  ) {
    const context: Context = {
      ...moment,
      // The longest wait that chance can give.
      random: 1 - Number.EPSILON,
      nextInvocation: "the next",
      reachable: true,
      dependenciesReady: false,
    };
    return step(state, event, context, this.#table);
  }

  #requireRestart(
    process: ProcessState,
    end: {
      readonly specification: ProcessSpecification;
      readonly at: MonotonicTime;
      readonly ending: Ending | undefined;
    },
  ): void {
    const { specification, at, ending } = end;
    const invocation = instanceOf(process)?.invocation ?? "none";
    const died = this.#step(
      process,
      { kind: "died", invocation, ending },
      { specification, now: at },
    );
    for (const clearing of clearings) {
      const { state, effects } = this.#step(
        died.state,
        { kind: "cleared", invocation },
        { specification, now: at + clearing },
      );
      this.checked += 1;
      const isStarted = effects.some(
        (effect) => effect.kind === "start" && effect.replaces === invocation,
      );
      if (isStarted) continue;
      const what = `${JSON.stringify(ending)} at ${at} of ${JSON.stringify(process)}`;
      throw new Error(`${what} is followed by ${state.phase}, of ${JSON.stringify(specification)}`);
    }
  }

  /** Nothing but an end, or the operator, changes it. */
  #requireStays(
    process: ProcessState,
    moment: {
      readonly specification: ProcessSpecification;
      readonly now: MonotonicTime;
      readonly from: MonotonicTime;
    },
  ): void {
    const { specification, from } = moment;
    const invocation = instanceOf(process)?.invocation ?? "none";
    const events: readonly ProcessEvent[] = [
      { kind: "start" },
      { kind: "unblocked" },
      { kind: "became-ready", invocation },
      { kind: "ending-known", invocation, ending: { kind: "exited", status: 0 } },
      { kind: "started", invocation: "another", processId: 77 },
      { kind: "cleared", invocation: "another" },
    ];
    for (const event of events) {
      const { state } = this.#step(process, event, moment);
      const after = restartsAtOnceFrom(state, specification);
      if (after !== from) throw new Error(`${event.kind} moves it from ${from} to ${after}`);
    }
  }
}
