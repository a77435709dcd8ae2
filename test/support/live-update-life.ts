/** luod's decisions, driven by hand: one client with a hello, one without, and a clock. */
import { phaseOf, step } from "../../src/live-update/lifecycle.ts";
import {
  type Context,
  type DaemonEffect,
  type DaemonEvent,
  type DaemonState,
  initialState,
  type Subscription,
} from "../../src/live-update/lifecycle-state.ts";
import { OWN_SESSION } from "../../src/live-update/protocol.ts";

export type Kind = DaemonEvent["kind"];

export const order = { dryRun: false, includeBare: false, discardUnclaimed: false };

export const greeted: Subscription = {
  ...{ id: "vm", connection: 1, user: 107, processId: 11, bare: false, required: true },
  deadline: 1_000,
  sessions: ["vm"],
};
export const bare: Subscription = {
  ...greeted,
  ...{ id: "db", connection: 2, user: 70, processId: 12, bare: true, sessions: ["db"] },
};

const refusal = { code: "EIO", message: "it cannot" };
const ofGreeted = { connection: 1, id: "vm", request: 9 };

/** One event of each kind, by or about the client with a hello. */
export const events: { readonly [K in Kind]: Extract<DaemonEvent, { kind: K }> } = {
  subscribe: {
    kind: "subscribe",
    subscription: { ...greeted, id: "new", connection: 3, sessions: ["new"] },
    request: 9,
    update: undefined,
  },
  unsubscribe: { kind: "unsubscribe", ...ofGreeted },
  disconnected: { kind: "disconnected", connection: 1 },
  ready: { kind: "ready", ...ofGreeted, bytes: 4096, update: undefined },
  progress: {
    kind: "progress",
    request: undefined,
    connection: 1,
    id: "vm",
    bytes: undefined,
    detail: "half",
  },
  "client-aborts": { kind: "client-aborts", ...ofGreeted, reason: "no memory" },
  claim: {
    kind: "claim",
    claimer: { connection: 1, request: 9, bare: false },
    ...{ id: "vm", part: "", user: 107 },
  },
  "client-finished": { kind: "client-finished", ...ofGreeted, part: undefined },
  kernel: { kind: "kernel", loaded: false, device: true },
  "state-file": { kind: "state-file", problem: "no room" },
  update: { kind: "update", order },
  "operator-aborts": { kind: "operator-aborts", reason: "said so" },
  "operator-finishes": { kind: "operator-finishes", id: "vm" },
  "session-created": { kind: "session-created", session: "vm" },
  "session-refused": { kind: "session-refused", session: "vm", refusal },
  "session-dropped": { kind: "session-dropped", session: "vm" },
  "registry-preserved": { kind: "registry-preserved" },
  "registry-refused": { kind: "registry-refused", refusal },
  prepared: { kind: "prepared", update: "u1" },
  "preparation-failed": { kind: "preparation-failed", update: "u1", reason: "a hook" },
  "kernel-refused": { kind: "kernel-refused", refusal },
  restored: {
    kind: "restored",
    ...{
      from: "u0",
      sessions: [],
      registryHeld: true,
      offeredAt: undefined,
      unreadable: undefined,
    },
  },
  "left-behind": { kind: "left-behind", update: "u0", sessions: ["vm"] },
  retrieved: { kind: "retrieved", session: "vm" },
  "retrieve-refused": { kind: "retrieve-refused", session: "vm", refusal },
  "session-finished": { kind: "session-finished", session: "vm" },
  time: { kind: "time" },
};

/** A state with the way that led to it. */
export class LiveUpdateLife {
  state: DaemonState = initialState;
  now = 1_000;
  unclaimedTime: number | undefined;
  /** Of the last event. */
  effects: readonly DaemonEffect[] = [];
  #updates = 0;

  get context(): Context {
    return {
      now: this.now,
      nextUpdate: `u${this.#updates + 1}`,
      unclaimedTime: this.unclaimedTime,
    };
  }

  /** Its phase, with the step of the commit and of the first session that came. */
  get phase(): string {
    const { update, incoming } = this.state;
    const [first] = incoming.values();
    const detail = update?.commit ?? (update === undefined ? first?.stage : undefined);
    return [phaseOf(this.state), detail].filter((word) => word !== undefined).join(" ");
  }

  tell(...told: readonly DaemonEvent[]): this {
    for (const event of told) {
      const before = this.state.update?.id;
      const { state, effects } = step(this.state, event, this.context);
      if (state.update !== undefined && state.update.id !== before) this.#updates += 1;
      this.state = state;
      this.effects = effects;
    }
    return this;
  }

  pass(milliseconds: number): this {
    this.now += milliseconds;
    return this.tell(events.time);
  }

  subscribe(...subscriptions: readonly Subscription[]): this {
    return this.tell(
      ...subscriptions.map((subscription) => ({
        ...{ kind: "subscribe" as const, subscription, request: undefined, update: undefined },
      })),
    );
  }

  /** What was sent to a connection by the last event: its words' names. */
  said(connection: number): string[] {
    return this.effects.flatMap((effect) =>
      effect.kind === "send" && effect.connection === connection ? [effect.message.event] : [],
    );
  }

  done(kind: DaemonEffect["kind"]): string[] {
    return this.effects.flatMap((effect) => {
      if (effect.kind !== kind) return [];
      return ["session" in effect && typeof effect.session === "string" ? effect.session : kind];
    });
  }
}

/** `registry`, `preparation` and `kernel` are steps of committing; the last four of restoring. */
export const phases = [
  ...(["idle", "loaded", "preserving", "barrier", "registry", "preparation", "kernel"] as const),
  ...(["aborting", "unclaimed", "retrieving", "claimed", "finishing"] as const),
];
export type Phase = (typeof phases)[number];

const made = (session: string): DaemonEvent => ({ kind: "session-created", session });
const isReady = (subscription: Subscription): DaemonEvent => ({
  kind: "ready",
  connection: subscription.connection,
  id: subscription.bare ? undefined : subscription.id,
  ...{ request: undefined, bytes: undefined, update: undefined },
});

const beginning = () =>
  new LiveUpdateLife()
    .subscribe(greeted, bare)
    .tell({ kind: "kernel", loaded: true, device: true });

const restoring = (stage: "unclaimed" | "claimed" | "finishing") =>
  new LiveUpdateLife().subscribe(greeted).tell({
    ...events.restored,
    sessions: [{ name: "vm", id: "vm", part: "", user: 107, stage }],
  });

/** How each phase is reached. */
export const lives: { readonly [P in Phase]: () => LiveUpdateLife } = {
  idle: () => new LiveUpdateLife().subscribe(greeted, bare),
  loaded: beginning,
  preserving: () => beginning().tell(events.update),
  barrier: () => beginning().tell(events.update, made("vm"), made("db")),
  registry: () => lives.barrier().tell(isReady(greeted), isReady(bare)),
  preparation: () => lives.registry().tell(made(OWN_SESSION), events["registry-preserved"]),
  kernel: () => lives.preparation().tell(events.prepared),
  aborting: () => lives.barrier().tell(events["operator-aborts"]),
  unclaimed: () => restoring("unclaimed"),
  retrieving: () => restoring("unclaimed").tell(events.claim),
  claimed: () => lives.retrieving().tell(events.retrieved),
  finishing: () => lives.claimed().tell(events["client-finished"]),
};

/** "-" for nothing at all; else the phase that follows, "=" for the same, and what is done. */
export function outcomeOf(phase: Phase, kind: Kind): string {
  const life = lives[phase]();
  const { state: before, phase: former } = life;
  life.tell(events[kind]);
  const words = life.effects.flatMap((effect) => {
    if (effect.kind === "record") return [];
    return [effect.kind === "send" ? effect.message.event : effect.kind];
  });
  if (Bun.deepEquals(life.state, before) && words.length === 0) return "-";
  return [life.phase === former ? "=" : `${life.phase}:`, ...words].join(" ");
}
