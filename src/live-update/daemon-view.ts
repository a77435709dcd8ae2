import { formatDuration, type Milliseconds, type MonotonicTime } from "../units/units.ts";
import { nextDeadline, phaseOf } from "./lifecycle.ts";
import type {
  DaemonState,
  Incoming,
  Participant,
  Subscription,
  Update,
} from "./lifecycle-state.ts";
import type { UnclaimedPolicy } from "./options.ts";
import type {
  Blackout,
  ClientSummary,
  KexecResult,
  LoadedKernel,
  Metric,
  SessionSummary,
  Status,
} from "./protocol.ts";
import type { UpdateTimes } from "./registry.ts";

/** What the command line is shown of the daemon's state. Pure. */

export function summarizeClients(state: DaemonState): ClientSummary[] {
  const participants = state.update?.participants ?? new Map<string, Participant>();
  const subscribed = [...state.subscriptions.values()];
  const gone = [...participants.values()].filter(
    ({ subscription }) => state.subscriptions.get(subscription.id) === undefined,
  );
  return [
    ...subscribed.map((one) => summarizeClient(one, participants.get(one.id))),
    ...gone.map((one) => summarizeClient(one.subscription, one)),
  ].toSorted((first, second) => (first.id < second.id ? -1 : 1));
}

/** The clients of an update, as it ended. */
export function summarizeParticipants(update: Update): ClientSummary[] {
  return [...update.participants.values()].map((one) => summarizeClient(one.subscription, one));
}

/** Whom it went without, from its begin or on the way, and why. */
export function summarizeLeftOut(update: Update): KexecResult["left_out"] {
  const onTheWay = [...update.participants.values()].filter(({ stage }) => stage === "left-out");
  const named = onTheWay.map(({ subscription, detail }) => {
    return { id: subscription.id, reason: detail ?? "" };
  });
  return [...update.without, ...named];
}

function summarizeClient(
  subscription: Subscription,
  participant: Participant | undefined,
): ClientSummary {
  const { id, user, processId, bare, required, deadline, sessions } = subscription;
  return {
    id,
    user,
    pid: processId === 0 ? null : processId,
    bare,
    required,
    deadline_ms: deadline,
    sessions: [...sessions],
    state: participant?.stage ?? "subscribed",
    detail: participant?.detail ?? null,
    bytes: participant?.bytes ?? null,
    ready_ms: participant?.readyAfter ?? null,
  };
}

export function summarizeSessions(state: DaemonState, now: MonotonicTime): SessionSummary[] {
  const { update } = state;
  const owners = new Map(
    [...(update?.participants.values() ?? [])].flatMap((participant) =>
      participant.subscription.sessions.map((session) => [session, participant] as const),
    ),
  );
  const outgoing = [...(update?.outgoing ?? [])].map(([name, stage]): SessionSummary => {
    const owner = owners.get(name);
    const reached = stage === "open" && owner !== undefined ? owner.stage : stage;
    return {
      name,
      client: owner?.subscription.id ?? "(luod)",
      direction: "outgoing",
      state: reached,
      user: owner?.subscription.user ?? 0,
      finish_in_ms: null,
    };
  });
  return [...outgoing, ...[...state.incoming.values()].map((one) => summarizeIncoming(one, now))];
}

function summarizeIncoming(one: Incoming, now: MonotonicTime): SessionSummary {
  const { name, id: client, stage, user, finishBy } = one;
  const left = finishBy === undefined ? null : Math.max(0, Math.round(finishBy - now));
  return { name, client, direction: "incoming", state: stage, user, finish_in_ms: left };
}

/** What the status needs beside the state. */
export interface StatusSources {
  readonly now: MonotonicTime;
  readonly loaded: LoadedKernel | undefined;
  readonly policy: UnclaimedPolicy;
  readonly blackout: Blackout | undefined;
  /** What hinders the daemon now, and what can be done. */
  readonly troubles: readonly string[];
}

export function describeStatus(state: DaemonState, sources: StatusSources): Status {
  const { loaded, policy, blackout, now, troubles } = sources;
  const incoming = [...state.incoming.values()];
  return {
    phase: phaseOf(state),
    loaded: loaded ?? null,
    clients: state.subscriptions.size,
    update: state.update === undefined ? null : describeUpdate(state, state.update, now),
    last: describeLast(state, blackout),
    unclaimed: incoming.filter(({ stage }) => stage === "unclaimed").length,
    claimed: incoming.filter(({ stage }) => stage === "claimed").length,
    unclaimed_policy: describePolicy(policy),
    blackout: blackout ?? null,
    troubles: [...troubles],
  };
}

/** The last one that ended in this kernel; before one has, that which this kernel came of. */
function describeLast({ last }: DaemonState, blackout: Blackout | undefined): Status["last"] {
  if (last !== undefined) return { id: last.id, outcome: last.outcome, detail: last.reason };
  if (blackout === undefined) return null;
  return { id: blackout.update, outcome: "entered", detail: "this kernel came of it" };
}

export function describePolicy(policy: UnclaimedPolicy): string {
  if (policy.kind === "keep") return "keep";
  return `finish after ${formatDuration(policy.after)}`;
}

function describeUpdate(state: DaemonState, update: Update, now: MonotonicTime) {
  const taking = [...update.participants.values()].filter(({ stage }) => stage !== "left-out");
  const waiting = taking.filter(({ stage }) => stage !== "ready");
  const deadline = nextDeadline(state);
  return {
    id: update.id,
    dry_run: update.dryRun,
    ready: taking.length - waiting.length,
    clients: taking.length,
    waiting_for: waiting.map(({ subscription }) => subscription.id),
    left_ms: deadline === undefined ? null : Math.max(0, Math.round(deadline - now)),
  };
}

/** When what happened after a kexec, by the wall clock in milliseconds. */
export interface RestorationTimes {
  readonly bootedAt: number;
  readonly offeredAt: number;
  readonly claimedAt: number | undefined;
}

/** The parts of the time that an update took, as its clients felt it. */
export function measureBlackout(registry: UpdateTimes, times: RestorationTimes): Blackout {
  const { accepted_at_ms: accepted, ready_at_ms: ready, entered_at_ms: entered } = registry;
  const { bootedAt, offeredAt, claimedAt } = times;
  const between = (begin: number | null, end: number | null | undefined): Milliseconds | null => {
    if (begin === null || end === null || end === undefined) return null;
    return Math.max(0, Math.round(end - begin));
  };
  return {
    update: registry.update,
    clients: registry.clients,
    barrier_ms: between(accepted, ready),
    commit_ms: between(ready, entered),
    kexec_ms: between(entered, bootedAt),
    boot_ms: between(bootedAt, offeredAt),
    restore_ms: between(offeredAt, claimedAt),
    total_ms: between(accepted, claimedAt ?? offeredAt),
  };
}

/** What is counted since the daemon began. */
export interface Counters {
  readonly updates: ReadonlyMap<string, number>;
  readonly claims: number;
}

export function listMetrics(state: DaemonState, status: Status, counters: Counters): Metric[] {
  const gauge = (name: string, help: string, value: number): Metric => ({
    name: `hostler_live_update_${name}`,
    help,
    type: "gauge",
    samples: [{ labels: {}, value }],
  });
  const { blackout } = status;
  const parts = Object.entries(blackout ?? {}).flatMap(([name, value]) =>
    name.endsWith("_ms") && typeof value === "number"
      ? [{ labels: { part: name.slice(0, -"_ms".length) }, value: value / 1000 }]
      : [],
  );
  return [
    gauge("clients", "Clients that are subscribed", state.subscriptions.size),
    gauge("kernel_loaded", "1 when a kernel is loaded", status.loaded === null ? 0 : 1),
    gauge("update_in_progress", "1 while an update is under way", status.update === null ? 0 : 1),
    gauge("sessions_unclaimed", "Restored sessions that nobody has claimed", status.unclaimed),
    gauge("sessions_claimed", "Restored sessions that are claimed", status.claimed),
    {
      name: "hostler_live_update_updates_total",
      help: "Updates that ended in this kernel, by their outcome",
      type: "counter",
      samples: ["aborted", "dry-run", "refused-by-kernel"].map((outcome) => ({
        labels: { outcome },
        value: counters.updates.get(outcome) ?? 0,
      })),
    },
    {
      name: "hostler_live_update_claims_total",
      help: "Sessions that were handed to their clients after a kexec",
      type: "counter",
      samples: [{ labels: {}, value: counters.claims }],
    },
    {
      name: "hostler_live_update_blackout_seconds",
      help: "Parts of the update that this kernel follows",
      type: "gauge",
      samples: parts,
    },
  ];
}
