import * as v from "valibot";
import { tellText } from "../../command-line/output.ts";
import { wholeNumber } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { configureLogging } from "../../logging/logger.ts";
import { readConfigurationText } from "../../toml/configuration-file.ts";
import { formatErrors, formatWarning } from "../../toml/format-errors.ts";
import { ExitCode } from "../../units/exit-code.ts";
import {
  type ConfigurationOutcome,
  configurationLimits,
  holdenConfiguration,
  parseConfiguration,
} from "../configuration.ts";
import { cgroupPathExpected, cgroupPathSchema } from "../configuration-schema.ts";
import {
  type MetricsEndpoint,
  metricsEndpointExpected,
  parseMetricsEndpoint,
} from "../metrics-endpoint.ts";
import type { OrchestratorOptions } from "../orchestrator.ts";
import { defaultAgentSocket, defaultHoldenSocket } from "../protocol.ts";

interface LogFlags {
  readonly "log-json": boolean;
  readonly verbose: boolean;
}

interface AgentFlags extends LogFlags {
  readonly socket: string | undefined;
  readonly connect: string | undefined;
  readonly "allow-uid": readonly string[];
  readonly "allow-gid": readonly string[];
  readonly "allow-label": readonly string[];
  readonly "allow-cgroup": readonly string[];
  readonly "other-pid-namespace": boolean;
  readonly holdenNames: boolean;
}

export async function runAgentCommand(flags: AgentFlags): Promise<number> {
  const { holdenNames } = flags;
  const options = {
    endpoint: chooseEndpoint(flags),
    allowUsers: readIds("--allow-uid", flags["allow-uid"], [0]),
    allowGroups: readIds("--allow-gid", flags["allow-gid"], []),
    allowLabels: flags["allow-label"],
    allowCgroups: flags["allow-cgroup"].map(checkCgroup),
    otherProcessNamespace: flags["other-pid-namespace"],
    holdenNames,
  };
  applyLogFlags(flags);
  const { runAgent } = await import("../agent.ts");
  return await runAgent(options);
}

function chooseEndpoint(flags: AgentFlags) {
  const { socket, connect, holdenNames } = flags;
  if (socket !== undefined && connect !== undefined) {
    throw new UsageError("Expected --socket or --connect, received both");
  }
  if (connect !== undefined) {
    return { kind: "connect" as const, path: checkSocketPath("--connect", connect) };
  }
  const usual = holdenNames ? holdenSocketPath() : defaultAgentSocket;
  return { kind: "listen" as const, path: checkSocketPath("--socket", socket ?? usual) };
}

function holdenSocketPath(): string {
  return process.env["HOLDEN_SOCKET_PATH"] || defaultHoldenSocket;
}

/** sun_path of struct sockaddr_un has 108 bytes, one of them the end: unix(7). */
function checkSocketPath(flag: string, path: string): string {
  const bytes = Buffer.byteLength(path);
  if (path !== "" && bytes <= 107 && !path.includes("\0")) return path;
  throw new UsageError(`Expected a path of 1 to 107 bytes after ${flag}, received ${bytes} bytes`);
}

/** As allow_cgroup of a configuration: another path could match no peer. */
function checkCgroup(path: string): string {
  if (v.is(cgroupPathSchema, path)) return path;
  throw new UsageError(`Expected ${cgroupPathExpected} after --allow-cgroup, received "${path}"`);
}

/** Ids one by one or with commas between them. */
function readIds(name: string, given: readonly string[], usual: readonly number[]): number[] {
  if (given.length === 0) return [...usual];
  return given
    .flatMap((text) => text.split(","))
    .map((text) => wholeNumber(text, { name, least: 0, most: 2 ** 32 - 2 }));
}

interface OrchestratorFlags extends LogFlags {
  readonly config: string;
  readonly "control-socket": string;
  readonly "metrics-listen": string | undefined;
}

export async function runOrchestratorCommand(flags: OrchestratorFlags): Promise<number> {
  const inherited = await stateToGoOnWith();
  const called = { ...flags, calledAs: "hostler process orchestrator" as const, inherited };
  const file = flags.config;
  const read =
    inherited?.configuration === undefined
      ? readConfigurationText(file, configurationLimits.fileBytes)
      : { kind: "text" as const, text: inherited.configuration.text };
  if (read.kind === "refused") return await orchestrate(read, called);
  const { text } = read;
  const configurationText = { file, text };
  return await orchestrate(parseConfiguration(file, text), { ...called, configurationText });
}

interface HoldenOrchestratorFlags extends LogFlags {
  readonly "local-command": string;
  readonly "agent-command": string;
  readonly "control-socket": string;
}

export async function runHoldenOrchestratorCommand(
  flags: HoldenOrchestratorFlags,
): Promise<number> {
  const outcome = holdenConfiguration({
    localCommand: flags["local-command"],
    agentCommand: flags["agent-command"],
    socket: checkSocketPath("HOLDEN_SOCKET_PATH", holdenSocketPath()),
  });
  const called = {
    calledAs: "holden-orchestrator" as const,
    inherited: await stateToGoOnWith(),
  };
  return await orchestrate(outcome, { ...flags, ...called });
}

/** The state that is tried, or that of the program before this one; an agent loads none of it. */
async function stateToGoOnWith(): Promise<OrchestratorOptions["inherited"]> {
  const { stateOnTrial } = await import("../dry-run.ts");
  const { inheritState } = await import("../perform/inheritance.ts");
  return stateOnTrial() ?? inheritState();
}

async function orchestrate(
  outcome: ConfigurationOutcome,
  flags: LogFlags & {
    readonly "control-socket": string;
    readonly "metrics-listen"?: string | undefined;
    readonly calledAs: OrchestratorOptions["calledAs"];
    readonly configurationText?: OrchestratorOptions["configurationText"];
    readonly inherited: OrchestratorOptions["inherited"];
  },
): Promise<number> {
  if (outcome.kind === "refused") {
    tellText(formatErrors(outcome.errors));
    return ExitCode.usage;
  }
  const { calledAs, configurationText, inherited } = flags;
  const controlSocket = checkSocketPath("--control-socket", flags["control-socket"]);
  const metricsEndpoint = metricsEndpointOf(flags["metrics-listen"]);
  applyLogFlags(flags);
  const { finishTrial, stateOnTrial } = await import("../dry-run.ts");
  if (stateOnTrial() !== undefined) return await finishTrial(outcome.configuration);
  const { runOrchestrator } = await import("../orchestrator.ts");
  return await runOrchestrator({
    calledAs,
    configuration: outcome.configuration,
    warnings: outcome.warnings.map(formatWarning),
    controlSocket,
    metricsEndpoint,
    configurationText,
    inherited,
  });
}

function metricsEndpointOf(text: string | undefined): MetricsEndpoint | undefined {
  if (text === undefined) return undefined;
  const endpoint = parseMetricsEndpoint(text);
  if (endpoint === undefined) {
    throw new UsageError(
      `Expected ${metricsEndpointExpected} after --metrics-listen, received ${text}`,
    );
  }
  if (endpoint.kind === "unix") checkSocketPath("--metrics-listen", endpoint.path);
  return endpoint;
}

function applyLogFlags(flags: LogFlags): void {
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
}
