/** luod's decisions, each with one thing taken away: the simulation has to notice every one. */
import { type Handlers, handlers } from "../../src/live-update/lifecycle.ts";
import type {
  Context,
  DaemonEffect,
  DaemonEvent,
  DaemonState,
  Decision,
} from "../../src/live-update/lifecycle-state.ts";
import { type SimulationOptions, simulate } from "./live-update-simulation.ts";

type Handler = (state: DaemonState, event: DaemonEvent, context: Context) => Decision;

export interface Mutant {
  readonly name: string;
  readonly options: Omit<SimulationOptions, "seed">;
}

const kinds = Object.keys(handlers) as DaemonEvent["kind"][];

const handlerOf = (kind: DaemonEvent["kind"]) => handlers[kind] as unknown as Handler;

function changed(kind: DaemonEvent["kind"], handler: Handler): Handlers {
  return { ...handlers, [kind]: handler } as Handlers;
}

/** What each event led to in some seeds: "state" for a change, and every kind of effect. */
export function observe(seeds: number): Map<DaemonEvent["kind"], Set<string>> {
  const seen = new Map(kinds.map((kind) => [kind, new Set<string>()]));
  const watching = Object.fromEntries(
    kinds.map((kind) => [
      kind,
      (...words: Parameters<Handler>): Decision => {
        const decision = handlerOf(kind)(...words);
        const found = seen.get(kind);
        if (decision.state !== words[0]) found?.add("state");
        for (const effect of decision.effects) found?.add(effect.kind);
        return decision;
      },
    ]),
  ) as unknown as Handlers;
  for (let seed = 0; seed < seeds; seed += 1) simulate({ seed, handlers: watching });
  return seen;
}

/** Records are for people, but for those that are said before the commit. */
const isForPeople = (kind: string) => kind === "record";

export function makeMutants(seen: ReadonlyMap<DaemonEvent["kind"], ReadonlySet<string>>): Mutant[] {
  const effects = new Set<string>();
  const mutants: Mutant[] = [];
  for (const [kind, found] of seen) {
    const handler = handlerOf(kind);
    mutants.push({
      name: `${kind} does nothing`,
      options: { handlers: changed(kind, (state) => ({ state, effects: [] })) },
    });
    if (found.has("state")) {
      mutants.push({
        name: `${kind} leaves the state`,
        options: {
          handlers: changed(kind, (state, event, context) => ({
            ...handler(state, event, context),
            state,
          })),
        },
      });
    }
    for (const effect of found) {
      if (effect === "state") continue;
      effects.add(effect);
      if (isForPeople(effect)) continue;
      mutants.push({ name: `${kind} without ${effect}`, options: without(kind, effect) });
    }
  }
  for (const effect of effects) {
    const omits = effect as DaemonEffect["kind"];
    mutants.push({ name: `${effect} is never done`, options: { omits } });
  }
  return mutants;
}

function without(kind: DaemonEvent["kind"], effect: string): Mutant["options"] {
  const handler = handlerOf(kind);
  return {
    handlers: changed(kind, (...words) => {
      const decision = handler(...words);
      return { ...decision, effects: decision.effects.filter((one) => one.kind !== effect) };
    }),
  };
}

/** The seed that notices a mutant; undefined when none of so many does. */
export function findCatcher(mutant: Mutant, most: number): number | undefined {
  for (let seed = 0; seed < most; seed += 1) {
    try {
      simulate({ ...mutant.options, seed });
    } catch {
      return seed;
    }
  }
  return undefined;
}
