import {
  type Configuration,
  type LaunchConstraints,
  type PartitionSpecification,
  type ProcessSpecification,
  watchdogOf,
} from "./specification.ts";

/** What another configuration means for what runs: who comes, who goes, who is another. Pure. */

/** A process that both configurations have, and which is another in the new one. */
export interface ChangedProcess {
  readonly name: string;
  /** Keys of the configuration that differ, in its words; empty when its partition alone does. */
  readonly keys: readonly string[];
  /** "restart": what runs was started by what the former one says. */
  readonly how: "restart" | "in-place";
}

/** A partition that both have, and which is another in the new one. */
export interface ChangedPartition {
  readonly name: string;
  readonly keys: readonly string[];
}

export interface ReloadPlan {
  /** Keys of [orchestrator] that differ. */
  readonly orchestrator: readonly string[];
  readonly processes: {
    readonly added: readonly string[];
    readonly removed: readonly string[];
    readonly changed: readonly ChangedProcess[];
    /** How many are as they were. */
    readonly unchanged: number;
  };
  readonly partitions: {
    readonly added: readonly string[];
    readonly removed: readonly string[];
    readonly changed: readonly ChangedPartition[];
  };
}

/** What differs, by its key in the configuration. */
type Facets = ReadonlyMap<string, unknown>;

/** Keys that a start is made of, or that its output goes by: what runs keeps the former ones. */
function launchFacets(specification: ProcessSpecification): Facets {
  const { command, partition, environment, workingDirectory, umask } = specification;
  const { constraints, output, readiness, leftovers } = specification;
  return new Map<string, unknown>([
    ["command", command],
    ["partition", partition],
    ["environment", environment],
    ["working_directory", workingDirectory],
    ["umask", umask],
    ...constraintFacets(constraints),
    ["output", output],
    ["leftovers", leftovers],
    // Of another kind, it is told elsewhere; of the same kind, the next check looks elsewhere.
    ["ready", readiness.kind],
    // It is told how often it has to say that it lives.
    ["alive", watchdogOf(specification)],
    // Whether it is told where to park, and is given what is parked.
    ["descriptor_store", specification.descriptorStore > 0],
  ]);
}

function constraintFacets(constraints: LaunchConstraints): [string, unknown][] {
  const { user, group, groups, capabilities, noNewPrivileges, cgroup } = constraints;
  return [
    ["user", user],
    ["group", group],
    ["groups", groups],
    ["capabilities", capabilities],
    ["no_new_privileges", noNewPrivileges],
    ["cgroup", cgroup],
  ];
}

/** Keys that hold from now on, whatever runs. */
function ruleFacets(specification: ProcessSpecification): Facets {
  const { after, autostart, restart, backoff, startLimit, readiness } = specification;
  const { onDependencyFailure, hooks, readyTimeout, liveness } = specification;
  const { stopSignal, stopGrace, logLimit, logFile, descriptorStore } = specification;
  const { resources, constraints } = specification;
  const { nice, affinity, policy, oomScoreAdjust } = specification.scheduling;
  return new Map<string, unknown>([
    ["after", after],
    ["on_dependency_failure", onDependencyFailure],
    ["autostart", autostart],
    ["restart", restart],
    ["backoff", backoff],
    ["start_limit", startLimit],
    ["before_start", hooks.beforeStart],
    ["after_stop", hooks.afterStop],
    ["hook_timeout", hooks.timeout],
    ["ready", readiness],
    ["ready_timeout", readyTimeout],
    ["alive", liveness],
    ["stop_signal", stopSignal],
    ["stop_grace", stopGrace],
    ["log_lines", logLimit.lines],
    ["log_bytes", logLimit.bytes],
    ["log_file", logFile],
    ["descriptor_store", descriptorStore],
    ["nice", nice],
    ["affinity", affinity],
    ["scheduling", policy],
    ["oom_score_adjust", oomScoreAdjust],
    ["resources", resources],
    ["limits", constraints.limits],
  ]);
}

function partitionFacets(specification: PartitionSpecification): Facets {
  const { endpoint, protocol, allowUsers, allowGroups, allowLabels } = specification;
  const { allowCgroups, otherProcessNamespace } = specification;
  const pathOf = (kind: typeof endpoint.kind) => (endpoint.kind === kind ? endpoint.path : null);
  return new Map<string, unknown>([
    ["socket", pathOf("connect")],
    ["listen", pathOf("listen")],
    ["protocol", protocol],
    ["allow_uid", allowUsers],
    ["allow_gid", allowGroups],
    ["allow_label", allowLabels],
    ["allow_cgroup", allowCgroups],
    ["other_pid_namespace", otherProcessNamespace],
  ]);
}

function differing(before: Facets, after: Facets): string[] {
  return [...before].flatMap(([key, value]) =>
    Bun.deepEquals(value, after.get(key)) ? [] : [key],
  );
}

export const byName = <T extends { readonly name: string }>(all: readonly T[]) =>
  new Map(all.map((one) => [one.name, one]));

const namesMissingIn = <T>(all: ReadonlyMap<string, T>, others: ReadonlyMap<string, T>) =>
  [...all.keys()].filter((name) => !others.has(name));

/** What the next configuration means for what runs by this one. */
export function planReload(current: Configuration, next: Configuration): ReloadPlan {
  const [partitionsBefore, partitionsAfter] = [current, next].map((one) =>
    byName(one.partitions),
  ) as [Map<string, PartitionSpecification>, Map<string, PartitionSpecification>];
  const changedPartitions = [...partitionsBefore].flatMap(([name, before]) => {
    const after = partitionsAfter.get(name);
    if (after === undefined) return [];
    const keys = differing(partitionFacets(before), partitionFacets(after));
    return keys.length === 0 ? [] : [{ name, keys }];
  });
  const otherPartitions = new Set(changedPartitions.map(({ name }) => name));
  const before = byName(current.processes);
  const after = byName(next.processes);
  const changed = [...before].flatMap(([name, one]): ChangedProcess[] => {
    const other = after.get(name);
    return other === undefined ? [] : changeOf(one, other, otherPartitions);
  });
  const added = namesMissingIn(after, before);
  return {
    orchestrator: current.concurrentStarts === next.concurrentStarts ? [] : ["concurrent_starts"],
    processes: {
      added,
      removed: namesMissingIn(before, after),
      changed,
      unchanged: after.size - added.length - changed.length,
    },
    partitions: {
      added: namesMissingIn(partitionsAfter, partitionsBefore),
      removed: namesMissingIn(partitionsBefore, partitionsAfter),
      changed: changedPartitions,
    },
  };
}

function changeOf(
  before: ProcessSpecification,
  after: ProcessSpecification,
  otherPartitions: ReadonlySet<string>,
): ChangedProcess[] {
  const { name, partition } = before;
  const launch = differing(launchFacets(before), launchFacets(after));
  const rules = differing(ruleFacets(before), ruleFacets(after));
  const keys = [...new Set([...launch, ...rules])];
  // What it had before nobody knows.
  const isFreed =
    lacks(after.scheduling, before.scheduling) ||
    lacks(after.constraints.limits ?? {}, before.constraints.limits ?? {});
  // Who speaks for a partition is another: what it started for us ends with the former one.
  const isMoved = partition !== undefined && otherPartitions.has(partition);
  if (launch.length > 0 || isMoved || isFreed) return [{ name, keys, how: "restart" }];
  return keys.length === 0 ? [] : [{ name, keys, how: "in-place" }];
}

/** A key that the other one has is not in it. */
const lacks = (one: object, other: object) =>
  Object.entries(other).some(([key, value]) => value !== undefined && !Object.hasOwn(one, key));

/** Nothing would be another than it is. */
export function isEmptyPlan({ orchestrator, processes, partitions }: ReloadPlan): boolean {
  const hasNone = [processes, partitions].every(
    ({ added, removed, changed }) => added.length + removed.length + changed.length === 0,
  );
  return hasNone && orchestrator.length === 0;
}

/** Whom it concerns, one line for each kind: at most so many names in one. */
export function describePlan(
  { orchestrator, processes, partitions }: ReloadPlan,
  most = Number.POSITIVE_INFINITY,
): string[] {
  const withKeys = ({ name, keys }: { readonly name: string; readonly keys: readonly string[] }) =>
    `${name} (${keys.length === 0 ? "its partition" : keys.join(", ")})`;
  const by = (how: ChangedProcess["how"]) =>
    processes.changed.filter((one) => one.how === how).map(withKeys);
  const kinds: readonly (readonly [what: string, names: readonly string[]])[] = [
    ["added", processes.added],
    ["removed", processes.removed],
    ["restarted", by("restart")],
    ["changed while it runs", by("in-place")],
    ["orchestrator changed", orchestrator],
    ["partitions added", partitions.added],
    ["partitions removed", partitions.removed],
    ["partitions changed", partitions.changed.map(withKeys)],
  ];
  const lines = kinds.flatMap(([what, names]) => {
    if (names.length === 0) return [];
    const left = names.length - most;
    const rest = left > 0 ? [`and ${left} more`] : [];
    return [`${what}: ${[...names.slice(0, most), ...rest].join(", ")}`];
  });
  return [...lines, `${processes.unchanged} as before`];
}
