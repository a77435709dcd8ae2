import type { DeviceStatus, Marker } from "../protocol.ts";
import { operatorLimits, type RolloutSpec } from "../protocol-operator.ts";
import { driftOf, driftWords, isAlive, phaseOf } from "./lifecycle-device.ts";
import { isSettled, meant } from "./lifecycle-slot.ts";
import type {
  DeviceState,
  FleetState,
  OperatorContext,
  RolloutCounts,
  RolloutRecord,
  RolloutState,
} from "./lifecycle-state.ts";

/** Whose a device is, and where it stands in that rollout. Pure. */

/** When it is looked. */
export interface Look {
  readonly context: Pick<OperatorContext, "now" | "settings">;
}

export type MemberStanding =
  | "done"
  | "failed"
  /** Its host could not, by itself: another device takes its turn. */
  | "hindered"
  /** It holds one of the places that `max_unavailable` gives. */
  | "flight"
  /** Taken back, and not ended: nothing can come of it, and its place is free. */
  | "returning"
  | "waiting"
  | "away"
  | "unfit";

export interface Member {
  readonly device: DeviceState;
  readonly standing: MemberStanding;
  /** Of those that somebody may ask about; "" for the others. */
  readonly reason: string;
}

/** A rollout that was written down, and whom it names. */
export interface ActiveRollout {
  readonly rollout: RolloutState;
  readonly record: RolloutRecord;
  readonly named: ReadonlySet<string> | undefined;
}

/** The newest first: of several that want a device it has it. */
export function activeRollouts(rollouts: FleetState["rollouts"]): ActiveRollout[] {
  return [...rollouts.values()]
    .flatMap((rollout): ActiveRollout[] => {
      const record = meant(rollout.record);
      if (record === undefined || rollout.record.stored === undefined) return [];
      const { devices } = record.spec.select;
      return [{ rollout, record, named: devices === null ? undefined : new Set(devices) }];
    })
    .sort((left, right) => right.record.number - left.record.number);
}

export interface Claims<One extends ActiveRollout> {
  /** Whose marker it has. */
  readonly owner: One | undefined;
  /** Who has it: its turn comes, or came, with this one. */
  readonly holder: One | undefined;
  /** Who selects it as well, and does not have it, the newest first. */
  readonly others: readonly One[];
}

/** @param active the newest first */
export function claimsOn<One extends ActiveRollout>(
  device: DeviceState,
  active: readonly One[],
): Claims<One> {
  const last = meant(device.marker)?.rollout?.name;
  const owner = active.find(({ record }) => record.name === last);
  let holder: One | undefined;
  const others: One[] = [];
  for (const one of active) {
    if (one.record.phase === "aborted" || !isSelected(one, device)) continue;
    // A later one has had it, and was aborted: an earlier one does not take it back.
    const isLater = owner === undefined || one.record.number >= owner.record.number;
    if (holder === undefined && isLater) holder = one;
    else others.push(one);
  }
  return { owner, holder, others };
}

function isSelected({ record, named }: ActiveRollout, device: DeviceState): boolean {
  if (named !== undefined && !named.has(device.name)) return false;
  const labels = meant(device.labels) ?? {};
  return Object.entries(record.spec.select.labels).every(([name, value]) => labels[name] === value);
}

/** Where a device stands in the rollout that has it. */
export function judgeMember(record: RolloutRecord, device: DeviceState, look: Look): Member {
  const phase = phaseOf(device);
  const marker = meant(device.marker);
  const isOwn = marker?.rollout?.name === record.name;
  const of = (standing: MemberStanding, reason = ""): Member => ({ device, standing, reason });
  switch (phase) {
    case "withdrawn":
      return isSettled(device.marker) ? of("returning") : of("flight");
    case "done":
      if (isOwn) return of("done");
      break;
    case "failed":
      if (isOwn && marker.rollout?.round === record.round) {
        return of(isHostsFault(device) ? "hindered" : "failed", reasonOf(device));
      }
      break;
    case "returned":
      if (isOwn && marker.rollout?.round === record.round && isWornOut(marker)) {
        return of("failed", `it came back ${operatorLimits.attempts} times: ${reasonOf(device)}`);
      }
      break;
    case "free":
      break;
    default:
      return of("flight", isAlive(device, look.context) ? "" : `silent, and ${phase}`);
  }
  return judgeResting(record, device, look);
}

function judgeResting(record: RolloutRecord, device: DeviceState, look: Look): Member {
  const of = (standing: MemberStanding, reason = ""): Member => ({ device, standing, reason });
  if (device.trouble !== undefined) return of("unfit", device.trouble);
  const status = device.status?.value;
  if (status === undefined) return of("away", "it has told no status");
  const target = buildFor(record.spec, status);
  if (status.executor === "immutable") return of("unfit", "immutable: update its image");
  if (target === undefined) {
    return of("unfit", `there is no build for ${status.architecture} with ${status.libc}`);
  }
  if ((driftOf(device) ?? status.current).digest === target) return of("done");
  return isAlive(device, look.context) ? of("waiting") : of("away");
}

/** No room, no source, no way to start a candidate: the version was not judged. */
function isHostsFault(device: DeviceState): boolean {
  return driftOf(device) === undefined && device.status?.value.cause === "host";
}

function isWornOut({ rollout }: Marker): boolean {
  return (rollout?.attempt ?? 0) >= operatorLimits.attempts;
}

function reasonOf(device: DeviceState): string {
  const drift = driftWords(device);
  if (drift !== null) return drift;
  const { reason = null, last_words: words = null } = device.status?.value ?? {};
  return reason ?? words?.ending ?? "it said no reason";
}

/** The digest that a device is to become. */
export function buildFor(spec: RolloutSpec, status: DeviceStatus): string | undefined {
  const { architecture, libc } = status;
  return spec.builds.find((build) => build.architecture === architecture && build.libc === libc)
    ?.digest;
}

export function countsOf(members: readonly Member[]): RolloutCounts {
  const count = (...standings: readonly MemberStanding[]) =>
    members.filter(({ standing }) => standings.includes(standing)).length;
  return {
    members: members.length - count("unfit"),
    done: count("done"),
    failed: count("failed"),
    hindered: count("hindered"),
    flight: count("flight"),
    waiting: count("waiting", "returning"),
    away: count("away"),
    unfit: count("unfit"),
  };
}
