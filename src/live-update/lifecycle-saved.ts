import type { MonotonicTime } from "../units/units.ts";
import type { DaemonEvent, DaemonState, Update } from "./lifecycle-state.ts";
import { OWN_SESSION } from "./protocol.ts";
import type { Registry } from "./registry.ts";

/** What a decided state leaves to the next daemon of this boot, and to the next kernel. Pure. */

/** Of the state file, what decisions go by. */
export interface SavedDecisions {
  readonly update: string | null;
  readonly entering: boolean;
  readonly last: DaemonState["last"] | null;
  readonly settled: string[];
  readonly finishing: string[];
  readonly given: string[];
}

type Preserved = Pick<Registry, "sessions" | "left_out">;

/**
 * Who takes part, for the registry.
 * @param given sessions of earlier updates
 */
export function preservedBy(update: Update, given: readonly string[]): Preserved {
  const participants = [...update.participants.values()];
  const taking = participants.filter(({ stage }) => stage === "ready");
  const leftOut = participants.filter(({ stage, begun }) => {
    return stage === "left-out" && begun !== undefined;
  });
  const wanted = new Set(taking.flatMap(({ subscription }) => subscription.sessions));
  const names = [...leftOut.flatMap(({ subscription }) => subscription.sessions), ...given];
  return {
    sessions: taking.flatMap(({ subscription: { id, user, sessions } }) =>
      sessions
        .filter((name) => name !== OWN_SESSION)
        .map((name) => ({ name, id, part: name === id ? "" : name.slice(id.length + 1), user })),
    ),
    left_out: [...new Set(names)].filter((name) => !wanted.has(name)),
  };
}

/** @param registry of the kernel before this one */
export function savedDecisions(
  state: DaemonState,
  registry: Preserved | undefined,
): SavedDecisions {
  const { update, incoming, last } = state;
  const { sessions = [], left_out: leftOut = [] } = registry ?? {};
  const names = [...sessions.map(({ name }) => name), ...leftOut];
  const stageOf = (name: string) => incoming.get(name)?.stage;
  return {
    update: update?.id ?? null,
    entering: update?.commit === "kernel",
    last: last ?? null,
    given: [...state.given],
    settled: names.filter((name) => stageOf(name) === undefined || stageOf(name) === "lost"),
    finishing: names.filter((name) => stageOf(name) === "finishing"),
  };
}

type Restored = Extract<DaemonEvent, { kind: "restored" }>;

/** What came over a kexec, less what a daemon before this one has settled. */
export function restoredEvent(
  registry: (Preserved & { readonly update: string }) | undefined,
  known: {
    readonly saved: Pick<SavedDecisions, "settled" | "finishing">;
    /** Sessions that the holder has retrieved. */
    readonly retrieved: ReadonlySet<string>;
    readonly registryHeld: boolean;
    readonly offeredAt: MonotonicTime | undefined;
    readonly unreadable: string | undefined;
  },
): Restored {
  const { saved, retrieved, registryHeld, offeredAt, unreadable } = known;
  const settled = new Set(saved.settled);
  const finishing = new Set(saved.finishing);
  const leftOut = (registry?.left_out ?? []).map((name) => {
    return { name, id: name, part: "", user: 0, stage: "finishing" as const };
  });
  const own = (registry?.sessions ?? []).map((session) => {
    if (finishing.has(session.name)) return { ...session, stage: "finishing" as const };
    const isClaimed = retrieved.has(session.name);
    return { ...session, stage: isClaimed ? ("claimed" as const) : ("unclaimed" as const) };
  });
  return {
    kind: "restored",
    from: registry?.update,
    registryHeld,
    offeredAt,
    unreadable,
    sessions: [...leftOut, ...own].filter(({ name }) => !settled.has(name)),
  };
}
