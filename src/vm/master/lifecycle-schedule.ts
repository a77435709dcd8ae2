import { masterLimits, type ReportedMachine, type Resources } from "../protocol-master.ts";
import { cardRequestsOf, forwardsOf, hostPortOf } from "../protocol-network.ts";
import type { ClusterDesired, ClusterState, WorkerState } from "./lifecycle-state.ts";

/**
 * Where a machine goes: a worker that is well, has what the machine asks for and the labels that it
 * needs, and none that has its name, its ports of the host or its addresses; of those the one with
 * the fewest of its group, then the least used, then by name. The same state always gives the same
 * places. Pure.
 */

/** What a machine counts for whose declaration leaves it to its image; it says more once it is. */
export const assumed: Resources = { processors: 1, memory_bytes: 512 * 1024 * 1024 };

const MEBIBYTE = 1024 * 1024;
/** Workers that are named in the reason why nothing fits. */
const MOST_NAMED = 8;

export interface Choice {
  readonly machine: string;
  readonly worker: string;
}

export interface Schedule {
  readonly choices: readonly Choice[];
  /** By machine: why it fits nowhere. */
  readonly unplaced: ReadonlyMap<string, string>;
}

interface Candidate {
  readonly worker: WorkerState;
  free: { processors: number; memory_bytes: number };
  machines: number;
  /** Ports of the host, and addresses, that a machine has there, and which. */
  readonly claims: Map<string, string>;
}

/** By group and domain: how many machines are there. */
class Groups {
  readonly #counts = new Map<string, number>();

  count(group: string, domain: string): number {
    return this.#counts.get(`${group} ${domain}`) ?? 0;
  }

  add(group: string, domain: string): void {
    this.#counts.set(`${group} ${domain}`, this.count(group, domain) + 1);
  }
}

/** @param most so many are placed at most; the others are "unplaced" for now */
export function schedule(state: ClusterState, most: number): Schedule {
  const waiting = [...state.desired.machines.values()].filter(
    ({ spec }) => !state.placed.has(spec.name),
  );
  const unplaced = new Map<string, string>();
  const choices: Choice[] = [];
  if (waiting.length === 0) return { choices, unplaced };
  const requests = requestsOf(state);
  const candidates = [...state.workers.values()]
    .map((worker) => candidateOf(worker, requests, state))
    .sort(byName);
  const groups = groupsOf(state);
  // What asks for the same cannot fit either, because room only shrinks.
  const failed = new Map<string, string>();
  for (const machine of waiting.sort(largestFirst)) {
    const { name } = machine.spec;
    const asked = signatureOf(machine, candidates);
    const known = failed.get(asked);
    const best = known === undefined ? choose(machine, candidates, groups) : undefined;
    if (best === undefined) {
      const reason = known ?? whyNowhere(machine, candidates);
      failed.set(asked, reason);
      unplaced.set(name, reason);
    } else if (choices.length >= most) {
      unplaced.set(name, "it is about to be given to a worker");
    } else {
      take(machine, best, groups);
      choices.push({ machine: name, worker: best.worker.name });
    }
  }
  return { choices, unplaced };
}

/** What a machine asks for. */
export function requestOf({ spec }: ClusterDesired): Resources {
  return {
    processors: spec.cpu ?? assumed.processors,
    memory_bytes: spec.memoryMb === undefined ? assumed.memory_bytes : spec.memoryMb * MEBIBYTE,
  };
}

/**
 * What may be given to further machines: what the worker says is free, less what it was given and
 * has not made yet; undefined while it has said nothing.
 */
export function freeOf(
  { heard, record }: WorkerState,
  requests: (machine: string) => Resources,
): Resources | undefined {
  if (heard === undefined) return undefined;
  let { processors, memory_bytes } = heard.report.free;
  for (const [name, { owner_generation }] of Object.entries(record.machines)) {
    const made = heard.byName.get(name);
    // What it has by that name under another number is another machine.
    const isOwn = made?.owner_generation === owner_generation;
    if (isOwn && made.processors !== null && made.memory_bytes !== null) continue;
    const request = requests(name);
    processors -= request.processors;
    memory_bytes -= request.memory_bytes;
  }
  return { processors: Math.max(0, processors), memory_bytes: Math.max(0, memory_bytes) };
}

export function requestsOf(state: ClusterState): (machine: string) => Resources {
  return (name) => {
    const machine = state.desired.machines.get(name);
    return machine === undefined ? assumed : requestOf(machine);
  };
}

function groupsOf(state: ClusterState): Groups {
  const groups = new Groups();
  for (const [name, workerName] of state.placed) {
    const spread = state.desired.machines.get(name)?.placement.spread;
    const worker = state.workers.get(workerName);
    const domain = worker === undefined ? undefined : domainOf(worker, spread?.by);
    if (spread !== undefined && domain !== undefined) groups.add(spread.group, domain);
  }
  return groups;
}

/** What machines of a group are kept apart by: the worker itself, or one of its labels. */
function domainOf(worker: WorkerState, by: string | undefined): string | undefined {
  return by === undefined ? worker.name : worker.heard?.report.labels[by];
}

function choose(
  machine: ClusterDesired,
  candidates: readonly Candidate[],
  groups: Groups,
): Candidate | undefined {
  const { spread } = machine.placement;
  let best: { candidate: Candidate; count: number; use: number } | undefined;
  for (const candidate of candidates) {
    if (whyNot(machine, candidate) !== undefined) continue;
    const domain = domainOf(candidate.worker, spread?.by) ?? "";
    const count = spread === undefined ? 0 : groups.count(spread.group, domain);
    const use = useOf(machine, candidate);
    if (best !== undefined && (count > best.count || (count === best.count && use >= best.use))) {
      continue;
    }
    best = { candidate, count, use };
  }
  return best?.candidate;
}

function take(machine: ClusterDesired, candidate: Candidate, groups: Groups): void {
  const { processors, memory_bytes } = requestOf(machine);
  candidate.free.processors -= processors;
  candidate.free.memory_bytes -= memory_bytes;
  candidate.machines += 1;
  for (const claim of claimsOf(machine)) candidate.claims.set(claim, machine.spec.name);
  const { spread } = machine.placement;
  const domain = domainOf(candidate.worker, spread?.by);
  if (spread !== undefined && domain !== undefined) groups.add(spread.group, domain);
}

/** How much of its scarcer resource would be in use with this machine: 0 to 1. */
function useOf(machine: ClusterDesired, { worker, free }: Candidate): number {
  const { processors, memory_bytes } = requestOf(machine);
  const total = worker.heard?.report.total ?? { processors: 1, memory_bytes: 1 };
  const left = Math.min(
    (free.processors - processors) / Math.max(1, total.processors),
    (free.memory_bytes - memory_bytes) / Math.max(1, total.memory_bytes),
  );
  return 1 - left;
}

/** Why this machine cannot go to this worker; undefined when it can. */
function whyNot(machine: ClusterDesired, candidate: Candidate): string | undefined {
  const { worker, free, machines } = candidate;
  if (worker.standing !== "healthy") return `is ${worker.standing}`;
  if (worker.record.cordoned) return "is cordoned";
  const labels = worker.heard?.report.labels ?? {};
  const { labels: needed = {}, spread } = machine.placement;
  const lacks = Object.entries(needed).find(([key, value]) => labels[key] !== value);
  if (lacks !== undefined) return `lacks ${lacks[0]}=${lacks[1]}`;
  if (spread?.by !== undefined && labels[spread.by] === undefined) return `has no ${spread.by}`;
  if (hasNamesake(worker, machine)) return "has a machine of this name that no master gave";
  if (machines >= masterLimits.machinesOfWorker) return `has ${machines} machines`;
  const taken = claimsOf(machine).find((claim) => candidate.claims.has(claim));
  if (taken !== undefined) return `has ${taken} for ${candidate.claims.get(taken)}`;
  const { processors, memory_bytes } = requestOf(machine);
  if (free.processors < processors) return `has ${free.processors} processors free`;
  if (free.memory_bytes < memory_bytes) {
    return `has ${Math.floor(free.memory_bytes / MEBIBYTE)} MiB free`;
  }
  return undefined;
}

/** One that no master gave: its own, whatever the cluster declares. */
export const isByHand = ({ owner_generation, phase }: ReportedMachine): boolean =>
  owner_generation === null && phase !== "absent" && phase !== "removed";

function hasNamesake({ heard }: WorkerState, { spec }: ClusterDesired): boolean {
  const named = heard?.byName.get(spec.name);
  return named !== undefined && isByHand(named);
}

function whyNowhere(machine: ClusterDesired, candidates: readonly Candidate[]): string {
  const asked = askedText(machine);
  if (candidates.length === 0) return `there is no worker yet; it asks for ${asked}`;
  const told = candidates
    .slice(0, MOST_NAMED)
    .map((candidate) => `${candidate.worker.name} ${whyNot(machine, candidate)}`);
  const more = candidates.length - told.length;
  const rest = more > 0 ? [`and ${more} more`] : [];
  const text = `it fits on no worker: it asks for ${asked}; ${[...told, ...rest].join(", ")}`;
  return text.slice(0, masterLimits.textLength);
}

function askedText(machine: ClusterDesired): string {
  const { processors, memory_bytes } = requestOf(machine);
  const { labels = {} } = machine.placement;
  const words = [
    `${processors} processors`,
    `${Math.ceil(memory_bytes / MEBIBYTE)} MiB`,
    ...Object.entries(labels).map(([key, value]) => `${key}=${value}`),
  ];
  return words.join(", ");
}

function candidateOf(
  worker: WorkerState,
  requests: (machine: string) => Resources,
  { desired }: ClusterState,
): Candidate {
  const free = freeOf(worker, requests) ?? { processors: 0, memory_bytes: 0 };
  const names = Object.keys(worker.record.machines);
  const claims = new Map<string, string>();
  for (const name of names) {
    const machine = desired.machines.get(name);
    if (machine === undefined) continue;
    for (const claim of claimsOf(machine)) claims.set(claim, name);
  }
  return { worker, free: { ...free }, machines: names.length, claims };
}

/** What one machine of a worker alone can have, by the words that it is told in. */
function claimsOf({ spec }: ClusterDesired): readonly string[] {
  const addresses = cardRequestsOf(spec).flatMap(({ network, address }) =>
    address === undefined ? [] : [`${address} of ${network}`],
  );
  return [...forwardsOf(spec).map(hostPortOf), ...addresses];
}

const byName = (left: Candidate, right: Candidate) =>
  left.worker.name < right.worker.name ? -1 : 1;

function signatureOf(machine: ClusterDesired, candidates: readonly Candidate[]): string {
  const { spec, placement } = machine;
  // The name is asked for as well, where somebody has made one of it.
  const isNamed = candidates.some(({ worker }) => hasNamesake(worker, machine));
  const { labels = {}, spread } = placement;
  const needed = Object.entries(labels).sort();
  const name = isNamed ? spec.name : null;
  return JSON.stringify([spec.cpu, spec.memoryMb, needed, spread?.by, claimsOf(machine), name]);
}

/** The large ones first: they fit only where much is left. */
function largestFirst(left: ClusterDesired, right: ClusterDesired): number {
  const [one, other] = [requestOf(left), requestOf(right)];
  if (one.memory_bytes !== other.memory_bytes) return other.memory_bytes - one.memory_bytes;
  if (one.processors !== other.processors) return other.processors - one.processors;
  return left.spec.name < right.spec.name ? -1 : 1;
}
