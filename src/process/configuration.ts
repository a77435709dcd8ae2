import { AUTOMATIC_GROUP } from "../event-loop/instance-groups.ts";
import { makeBackoff, makeStartLimit } from "../toml/common-readers.ts";
import {
  type ConfigurationWarning,
  type Refused,
  readConfigurationText,
  refuse,
  validateText,
  wholeFile,
} from "../toml/configuration-file.ts";
import { formatPath, type Mistake } from "../toml/configuration-reader.ts";
import type { TomlTable } from "../toml/toml-tree.ts";
import { defaultBackoff } from "../units/restarts.ts";
import { Signal } from "../units/signals.ts";
import { checkHoldenCommand, checkRelations } from "./configuration-relations.ts";
import {
  configurationLimits,
  type PartitionTable,
  type ProcessTable,
  type RootTable,
  readRoot,
} from "./configuration-schema.ts";
import { keyOfResource, type Resources, resourceNames } from "./resources.ts";
import type {
  Configuration,
  LaunchConstraints,
  LimitedResources,
  Liveness,
  LogFileSpecification,
  PartitionSpecification,
  ProcessSpecification,
  Readiness,
  Scheduling,
  SchedulingPolicy,
} from "./specification.ts";

export type { ConfigurationWarning } from "../toml/configuration-file.ts";
export type { ConfigurationError } from "../toml/configuration-reader.ts";
export { configurationLimits } from "./configuration-schema.ts";

export type ConfigurationOutcome =
  | {
      readonly kind: "ok";
      readonly configuration: Configuration;
      readonly warnings: readonly ConfigurationWarning[];
    }
  | Refused;

/** Reads and validates a file. What keeps it from being read is an error of the file as well. */
export function readConfiguration(file: string): ConfigurationOutcome {
  const read = readConfigurationText(file, configurationLimits.fileBytes);
  return read.kind === "text" ? parseConfiguration(file, read.text) : read;
}

/** Validates a whole text; all its mistakes are reported at once. Pure. */
export function parseConfiguration(file: string, text: string): ConfigurationOutcome {
  const limit = configurationLimits.fileBytes;
  const options = { limit, reader: readRoot, relations: checkRelations };
  const outcome = validateText(file, text, options);
  if (outcome.kind === "refused") return outcome;
  const { root, read } = outcome;
  const configuration = makeConfiguration(read);
  return { kind: "ok", configuration, warnings: warningsOf(file, root, configuration) };
}

/** The defaults of every key that is not required. */
const processDefaults = {
  restart: "always",
  backoff: defaultBackoff,
  startLimit: "none",
  after: [],
  onDependencyFailure: "ignore",
  hooks: { beforeStart: undefined, afterStop: undefined, timeout: 5_000 },
  readiness: { kind: "started" },
  readyTimeout: 30_000,
  liveness: undefined,
  stopSignal: Signal.SIGTERM,
  stopGrace: 10_000,
  leftovers: "kill",
  output: "log",
  logLimit: { lines: 1_000, bytes: 256 * 1024 },
  environment: {},
  constraints: {},
  scheduling: {},
  logFile: undefined,
  descriptorStore: 0,
  resources: { limits: {}, optional: [] },
  partition: undefined,
  workingDirectory: undefined,
  umask: undefined,
  autostart: true,
} as const satisfies Omit<ProcessSpecification, "name" | "command">;

/**
 * What `holden-orchestrator "<local command>" "<agent command>"` means: one process here, one
 * that a Holden agent starts, both always restarted. Commands are split at spaces, as there.
 */
export function holdenConfiguration(commands: {
  readonly localCommand: string;
  readonly agentCommand: string;
  readonly socket: string;
}): ConfigurationOutcome {
  const split = (command: string) => command.split(" ").filter((word) => word !== "");
  const pairs = [
    { name: "local", key: "local command", command: split(commands.localCommand) },
    { name: "agent", key: "agent command", command: split(commands.agentCommand) },
  ];
  const mistakes = pairs.flatMap(({ name, key, command }): Mistake[] => {
    const empty = { expected: "a program and its arguments", received: "nothing" };
    const found = name === "agent" ? checkHoldenCommand(command) : undefined;
    const refusal = command.length === 0 ? empty : found;
    return refusal === undefined ? [] : [{ ...wholeFile(refusal), path: [key] }];
  });
  if (mistakes.length > 0) return refuse("the command line", mistakes);
  const partition: PartitionSpecification = {
    name: "agent",
    endpoint: { kind: "connect", path: commands.socket },
    allowUsers: [0],
    allowGroups: [],
    allowLabels: [],
    allowCgroups: [],
    otherProcessNamespace: false,
    protocol: "holden",
  };
  const processes = pairs.map(
    ({ name, command }): ProcessSpecification => ({
      ...processDefaults,
      name,
      command,
      output: "inherit",
      partition: name === "agent" ? partition.name : undefined,
    }),
  );
  const rest = { holder: true, concurrentStarts: undefined };
  const configuration = { ...rest, partitions: [partition], processes };
  return { kind: "ok", configuration, warnings: [] };
}

function makeConfiguration(read: RootTable): Configuration {
  const partitions = [...(read.partition ?? [])].map(([name, partition]) =>
    makePartition(name, partition),
  );
  const holden = new Set(
    partitions.filter(({ protocol }) => protocol === "holden").map(({ name }) => name),
  );
  const processes = [...(read.process ?? [])].map(([name, process]) => ({
    ...makeProcess(name, process),
    // Holden v0.2 passes no pipes.
    ...(holden.has(process.partition ?? "") && { output: "inherit" as const }),
  }));
  const { holder = true, concurrent_starts: concurrentStarts } = read.orchestrator ?? {};
  return { holder, concurrentStarts, partitions, processes };
}

function makePartition(name: string, read: PartitionTable): PartitionSpecification {
  const endpoint =
    read.listen === undefined
      ? { kind: "connect" as const, path: read.socket ?? "" }
      : { kind: "listen" as const, path: read.listen };
  return {
    name,
    endpoint,
    allowUsers: read.allow_uid ?? [0],
    allowGroups: read.allow_gid ?? [],
    allowLabels: read.allow_label ?? [],
    allowCgroups: read.allow_cgroup ?? [],
    otherProcessNamespace: read.other_pid_namespace ?? false,
    protocol: read.protocol ?? "hostler",
  };
}

function makeProcess(name: string, read: ProcessTable): ProcessSpecification {
  const usual = processDefaults;
  return {
    name,
    partition: read.partition,
    command: read.command ?? [],
    environment: Object.fromEntries(read.environment ?? []),
    workingDirectory: read.working_directory,
    umask: read.umask,
    constraints: makeConstraints(read),
    scheduling: makeScheduling(read),
    resources: makeResources(read.resources),
    restart: read.restart ?? usual.restart,
    backoff: makeBackoff(read.backoff),
    startLimit: makeStartLimit(read.start_limit),
    after: read.after ?? usual.after,
    onDependencyFailure: read.on_dependency_failure ?? usual.onDependencyFailure,
    hooks: {
      beforeStart: read.before_start,
      afterStop: read.after_stop,
      timeout: read.hook_timeout ?? usual.hooks.timeout,
    },
    readiness: makeReadiness(read.ready),
    readyTimeout: read.ready_timeout ?? usual.readyTimeout,
    liveness: makeLiveness(read.alive),
    stopSignal: read.stop_signal ?? usual.stopSignal,
    stopGrace: read.stop_grace ?? usual.stopGrace,
    leftovers: read.leftovers ?? usual.leftovers,
    output: read.output ?? usual.output,
    logLimit: {
      lines: read.log_lines ?? usual.logLimit.lines,
      bytes: read.log_bytes ?? usual.logLimit.bytes,
    },
    logFile: makeLogFile(read.log_file),
    descriptorStore: read.descriptor_store ?? processDefaults.descriptorStore,
    autostart: read.autostart ?? usual.autostart,
  };
}

const usualLogFile = { size: 10 * 1024 * 1024, count: 5, time: true, stream: true } as const;

function makeLogFile(read: ProcessTable["log_file"]): LogFileSpecification | undefined {
  if (read?.path === undefined) return undefined;
  const { path, size, count, time, stream } = read;
  return {
    path,
    size: size ?? usualLogFile.size,
    count: count ?? usualLogFile.count,
    time: time ?? usualLogFile.time,
    stream: stream ?? usualLogFile.stream,
  };
}

const usualLiveness = { interval: 10_000, timeout: 3_000, failures: 3 } as const;

function makeLiveness(read: ProcessTable["alive"]): Liveness | undefined {
  if (read === undefined) return undefined;
  const { watchdog, on_failure: onFailure = "restart" } = read;
  if (watchdog !== undefined) {
    const own = { interval: watchdog, timeout: watchdog, failures: 1 };
    return { check: { kind: "watchdog" }, ...own, onFailure };
  }
  const { interval, timeout, failures } = read;
  return {
    check: makeCheck(read),
    interval: interval ?? usualLiveness.interval,
    timeout: timeout ?? usualLiveness.timeout,
    failures: failures ?? usualLiveness.failures,
    onFailure,
  };
}

function makeReadiness(read: ProcessTable["ready"]): Readiness {
  if (read === undefined || typeof read === "string") return { kind: read ?? "started" };
  return makeCheck(read);
}

/** Of a table with one way to look. */
function makeCheck(
  read: Pick<NonNullable<ProcessTable["alive"]>, "command" | "tcp" | "unix" | "http">,
): Exclude<Readiness, { kind: "notify" | "started" }> {
  if (read.command !== undefined) return { kind: "command", command: read.command };
  if (read.tcp !== undefined) return { kind: "tcp", ...read.tcp };
  if (read.http !== undefined) return { kind: "http", ...read.http };
  return { kind: "unix", path: read.unix ?? "" };
}

function makeConstraints(read: ProcessTable): LaunchConstraints {
  const { user, group, groups, limits, capabilities, no_new_privileges } = read;
  const cgroup = read.cgroup ?? (read.resources === undefined ? undefined : AUTOMATIC_GROUP);
  return {
    ...(user !== undefined && { user }),
    ...(group !== undefined && { group }),
    ...(groups !== undefined && { groups }),
    ...(limits !== undefined && { limits: limits as NonNullable<LaunchConstraints["limits"]> }),
    ...(capabilities !== undefined && { capabilities }),
    ...(no_new_privileges !== undefined && { noNewPrivileges: no_new_privileges }),
    ...(cgroup !== undefined && { cgroup }),
  };
}

function makeScheduling(read: ProcessTable): Scheduling {
  const { nice, affinity, scheduling, oom_score_adjust } = read;
  return {
    ...(nice !== undefined && { nice }),
    ...(affinity !== undefined && { affinity: [...new Set(affinity.flat())].toSorted(byNumber) }),
    ...(scheduling !== undefined && { policy: makePolicy(scheduling) }),
    ...(oom_score_adjust !== undefined && { oomScoreAdjust: oom_score_adjust }),
  };
}

function makeResources(read: ProcessTable["resources"]): LimitedResources {
  if (read === undefined) return processDefaults.resources;
  const limits = resourceNames.flatMap((resource) => {
    const amount = read[keyOfResource(resource) as Exclude<keyof typeof read, "optional">];
    return amount === undefined ? [] : [[resource, amount] as const];
  });
  const optional = new Set<string>(read.optional);
  return {
    limits: Object.fromEntries(limits) as Resources,
    optional: resourceNames.filter((resource) => optional.has(keyOfResource(resource))),
  };
}

const byNumber = (one: number, other: number) => one - other;

function makePolicy(read: NonNullable<ProcessTable["scheduling"]>): SchedulingPolicy {
  if (typeof read === "string") return { name: read };
  const { fifo, round_robin: roundRobin } = read;
  if (fifo !== undefined) return { name: "fifo", priority: fifo };
  return { name: "round-robin", priority: roundRobin ?? 1 };
}

function warningsOf(
  file: string,
  root: TomlTable,
  configuration: Configuration,
): ConfigurationWarning[] {
  const warnings = configuration.partitions
    .filter(
      ({ allowLabels, allowCgroups, otherProcessNamespace }) =>
        allowLabels.length === 0 && allowCgroups.length === 0 && !otherProcessNamespace,
    )
    .map(({ name, allowUsers, allowGroups }) => {
      const tables = root.entries.get("partition")?.node;
      const node = tables?.kind === "table" ? tables.entries.get(name)?.node : undefined;
      const { line, column } = node?.at ?? { line: 0, column: 0 };
      const ids = [
        ...allowUsers.map((id) => `uid ${id}`),
        ...allowGroups.map((id) => `gid ${id}`),
      ].join(", ");
      return {
        file,
        line,
        column,
        key_path: formatPath(["partition", name]),
        message:
          `only ${ids || "nobody's id"} guards partition ${name}: ` +
          "the same number may stand on both sides",
        mend:
          'Add allow_label = ["…"], the security label of its agent, allow_cgroup = ["…"], ' +
          "or other_pid_namespace = true.",
      };
    });
  if (configuration.processes.length > 0) return warnings;
  const none = { file, line: 0, column: 0, key_path: "", message: "there is no process" };
  return [...warnings, { ...none, mend: "Add a table [process.NAME] with its command." }];
}
