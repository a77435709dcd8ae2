import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { defaultBackoff } from "../units/restarts.ts";
import { Signal } from "../units/signals.ts";
import { type ConfigurationError, formatPath, type Mistake } from "./configuration-reader.ts";
import { checkHoldenCommand, checkRelations } from "./configuration-relations.ts";
import {
  configurationLimits,
  type PartitionTable,
  type ProcessTable,
  type RootTable,
  readRoot,
} from "./configuration-schema.ts";
import type {
  Configuration,
  LaunchConstraints,
  PartitionSpecification,
  ProcessSpecification,
  Readiness,
} from "./specification.ts";
import { parseToml, type TomlTable } from "./toml-tree.ts";

export type { ConfigurationError } from "./configuration-reader.ts";
export { configurationLimits } from "./configuration-schema.ts";

/** What is allowed, and most likely not meant. */
export interface ConfigurationWarning {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly key_path: string;
  readonly message: string;
  readonly mend: string;
}

export type ConfigurationOutcome =
  | {
      readonly kind: "ok";
      readonly configuration: Configuration;
      readonly warnings: readonly ConfigurationWarning[];
    }
  | { readonly kind: "refused"; readonly errors: readonly ConfigurationError[] };

/** Reads and validates a file. What keeps it from being read is an error of the file as well. */
export function readConfiguration(file: string): ConfigurationOutcome {
  const read = readText(file);
  return "text" in read ? parseConfiguration(file, read.text) : refuse(file, [wholeFile(read)]);
}

/** Validates a whole text; all its mistakes are reported at once. Pure. */
export function parseConfiguration(file: string, text: string): ConfigurationOutcome {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > configurationLimits.fileBytes) return refuse(file, [wholeFile(tooLarge(bytes))]);
  const { root, refusals, guessedLines, isBroken } = parseToml(text);
  const mistakes: Mistake[] = refusals.map((refusal) => ({ ...refusal, path: [] }));
  if (root === undefined) return refuse(file, mistakes);
  const report = (mistake: Mistake) => {
    if (guessedLines.has(mistake.at.line)) return;
    mistakes.push(isBroken ? { ...mistake, isBeyondSyntax: true } : mistake);
  };
  const read = readRoot(root, [], report) ?? {};
  checkRelations(root, read, report);
  if (mistakes.length > 0) return refuse(file, mistakes);
  const configuration = makeConfiguration(read);
  return { kind: "ok", configuration, warnings: warningsOf(file, root, configuration) };
}

/** The defaults of every key that is not required. */
const processDefaults = {
  restart: "always",
  backoff: defaultBackoff,
  startLimit: "none",
  after: [],
  readiness: { kind: "started" },
  readyTimeout: 30_000,
  stopSignal: Signal.SIGTERM,
  stopGrace: 10_000,
  leftovers: "kill",
  output: "log",
  logLimit: { lines: 1_000, bytes: 256 * 1024 },
  environment: {},
  constraints: {},
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
  return { kind: "ok", configuration: { partitions: [partition], processes }, warnings: [] };
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
  return { partitions, processes };
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
    restart: read.restart ?? usual.restart,
    backoff: makeBackoff(read.backoff),
    startLimit: makeStartLimit(read.start_limit),
    after: read.after ?? usual.after,
    readiness: makeReadiness(read.ready),
    readyTimeout: read.ready_timeout ?? usual.readyTimeout,
    stopSignal: read.stop_signal ?? usual.stopSignal,
    stopGrace: read.stop_grace ?? usual.stopGrace,
    leftovers: read.leftovers ?? usual.leftovers,
    output: read.output ?? usual.output,
    logLimit: {
      lines: read.log_lines ?? usual.logLimit.lines,
      bytes: read.log_bytes ?? usual.logLimit.bytes,
    },
    autostart: read.autostart ?? usual.autostart,
  };
}

function makeBackoff(read: ProcessTable["backoff"]): ProcessSpecification["backoff"] {
  if (read === undefined || read === "none") return read ?? defaultBackoff;
  const { first, factor, cap, jitter, reset_after } = read;
  return {
    first: first ?? defaultBackoff.first,
    factor: factor ?? defaultBackoff.factor,
    cap: cap ?? defaultBackoff.cap,
    jitter: jitter ?? defaultBackoff.jitter,
    resetAfter: reset_after ?? defaultBackoff.resetAfter,
  };
}

function makeStartLimit(read: ProcessTable["start_limit"]): ProcessSpecification["startLimit"] {
  if (read === undefined || read === "none") return "none";
  const { starts, within } = read;
  return starts === undefined || within === undefined ? "none" : { starts, within };
}

function makeReadiness(read: ProcessTable["ready"]): Readiness {
  if (read === undefined || typeof read === "string") return { kind: read ?? "started" };
  if (read.command !== undefined) return { kind: "command", command: read.command };
  if (read.tcp !== undefined) return { kind: "tcp", ...read.tcp };
  return { kind: "unix", path: read.unix ?? "" };
}

function makeConstraints(read: ProcessTable): LaunchConstraints {
  const { user, group, groups, limits, capabilities, no_new_privileges, cgroup } = read;
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

function refuse(file: string, mistakes: readonly Mistake[]): ConfigurationOutcome {
  const errors = mistakes
    .toSorted((left, right) => left.at.line - right.at.line || left.at.column - right.at.column)
    .map(({ at, path, expected, received, mend, isBeyondSyntax }) => ({
      file,
      line: at.line,
      column: at.column,
      key_path: formatPath(path),
      expected,
      received,
      ...(mend !== undefined && { mend }),
      ...(isBeyondSyntax === true && { beyond_syntax_error: true as const }),
    }));
  return { kind: "refused", errors };
}

interface FileRefusal {
  readonly expected: string;
  readonly received: string;
}

/** A mistake that stands nowhere in particular. */
function wholeFile({ expected, received }: FileRefusal): Mistake {
  return { at: { line: 0, column: 0 }, path: [], expected, received };
}

function tooLarge(bytes: number): FileRefusal {
  const { fileBytes } = configurationLimits;
  return { expected: `at most ${fileBytes} bytes`, received: `${bytes} bytes` };
}

/** Reads a regular file, by a link as well; nothing that could block or never end. */
function readText(file: string): { readonly text: string } | FileRefusal {
  const expected = "a regular file that can be read";
  let descriptor: number | undefined;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = fstatSync(descriptor);
    if (status.isDirectory()) return { expected, received: "a directory" };
    if (!status.isFile()) return { expected, received: "no regular file" };
    if (status.size > configurationLimits.fileBytes) return tooLarge(status.size);
    return decode(readAll(descriptor));
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code !== "ENOENT") return { expected, received: message };
    // Of such bytes the runtime makes U+FFFD, by which no file can be opened.
    if (file.includes("\ufffd"))
      return { expected, received: "a name that is not UTF-8: rename it" };
    return { expected, received: "nothing: there is no such file" };
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** One byte more than the limit tells a file that grows. */
function readAll(descriptor: number): Uint8Array {
  const bytes = new Uint8Array(configurationLimits.fileBytes + 1);
  let length = 0;
  while (length < bytes.length) {
    const count = readSync(descriptor, bytes, length, bytes.length - length, null);
    if (count === 0) break;
    length += count;
  }
  return bytes.subarray(0, length);
}

function decode(bytes: Uint8Array): { readonly text: string } | FileRefusal {
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes) };
  } catch {
    return { expected: "text in UTF-8", received: "bytes that are none" };
  }
}
