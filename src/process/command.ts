import { type Command, defineCommand, subCommandsOf } from "../command-line/definition.ts";
import { defaultAgentSocket, defaultControlSocket } from "./protocol.ts";

const logFlags = {
  "log-json": { type: "boolean", description: "Log one JSON object a line" },
  verbose: {
    type: "boolean",
    alias: "v",
    description: "Log also what is only of use to a developer",
  },
} as const;

const allowFlags = {
  "allow-uid": {
    type: "string",
    repeatable: true,
    valueHint: "uid",
    description: "A user who may connect, by number; 0 when none is given",
  },
  "allow-gid": {
    type: "string",
    repeatable: true,
    valueHint: "gid",
    description: "A group that may connect, by number",
  },
  "allow-label": {
    type: "string",
    repeatable: true,
    valueHint: "label",
    description: "A security label (SO_PEERSEC) that a peer must have besides",
  },
  "allow-cgroup": {
    type: "string",
    repeatable: true,
    valueHint: "path",
    description: "A cgroup that a peer must be in or below besides",
  },
  "other-pid-namespace": {
    type: "boolean",
    description: "A peer must besides be outside of the agent's own PID namespace",
  },
} as const;

const agentFlags = {
  socket: {
    type: "string",
    valueHint: "path",
    complete: "file",
    description: `Listen here (default ${defaultAgentSocket})`,
  },
  connect: {
    type: "string",
    valueHint: "path",
    complete: "file",
    description: "Connect to an orchestrator that listens here, for ever",
  },
  ...allowFlags,
  ...logFlags,
} as const;

const agentCommand = defineCommand({
  meta: {
    name: "agent",
    description: "Start processes for an orchestrator in another partition",
    examples: [
      ["hostler process agent", `Listen at ${defaultAgentSocket}`],
      ["hostler process agent --connect /run/ipc/qm.sock", "Dial out, as QM's policy allows"],
    ],
  },
  args: agentFlags,
  run: async (args) => {
    const { runAgentCommand } = await import("./commands/daemons.ts");
    return await runAgentCommand({ ...args, holdenNames: false });
  },
});

/** What the program is under the name holden-agent. */
export const holdenAgentCommand: Command = defineCommand({
  meta: {
    name: "holden-agent",
    description: "Start processes for an orchestrator in another partition (hostler process agent)",
    examples: [
      ["HOLDEN_SOCKET_PATH=/run/holden/qm_orchestrator.sock holden-agent", "Listen there"],
    ],
  },
  args: agentFlags,
  run: async (args) => {
    const { runAgentCommand } = await import("./commands/daemons.ts");
    return await runAgentCommand({ ...args, holdenNames: true });
  },
});

const controlSocketFlag = {
  "control-socket": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultControlSocket,
    description: "Where the orchestrator takes requests",
  },
} as const;

const orchestratorCommand = defineCommand({
  meta: {
    name: "orchestrator",
    description: "Start, watch, restart and stop processes in every partition",
    examples: [
      [
        "hostler process orchestrator --config /etc/hostler/process.toml",
        "Keep running what the file says, until SIGTERM",
      ],
    ],
  },
  args: {
    config: {
      type: "string",
      required: true,
      valueHint: "file",
      complete: "file",
      description: "What to keep running, as TOML; see hostler process check",
    },
    ...controlSocketFlag,
    ...logFlags,
  },
  run: async (args) => {
    const { runOrchestratorCommand } = await import("./commands/daemons.ts");
    return await runOrchestratorCommand(args);
  },
});

/** What the program is under the name holden-orchestrator. */
export const holdenOrchestratorCommand: Command = defineCommand({
  meta: {
    name: "holden-orchestrator",
    description: "Keep one local process and one of a Holden agent running",
    examples: [
      ['holden-orchestrator "/usr/bin/local --flag" "/usr/bin/remote"', "As Holden v0.2 does"],
    ],
  },
  args: {
    "local-command": { type: "positional", description: "Runs here; split at spaces" },
    "agent-command": { type: "positional", description: "The agent runs it; split at spaces" },
    ...controlSocketFlag,
    ...logFlags,
  },
  run: async (args) => {
    const { runHoldenOrchestratorCommand } = await import("./commands/daemons.ts");
    return await runHoldenOrchestratorCommand(args);
  },
});

const checkCommand = defineCommand({
  meta: {
    name: "check",
    description: "Validate a configuration without starting anything",
    examples: [
      ["hostler process check /etc/hostler/process.toml", "Say all that is wrong with it"],
    ],
    exitCodes: { 0: "it is valid; there may be warnings", 100: "it is not valid" },
  },
  args: {
    file: { type: "positional", complete: "file", description: "A configuration, as TOML" },
    json: { type: "boolean", description: "Print JSON" },
  },
  run: async (args) => {
    const { runCheck } = await import("./commands/check.ts");
    return await runCheck(args);
  },
});

/** `hostler process …` */
export const processCommand: Command = defineCommand({
  meta: { name: "process", description: "Keep processes running, also in another partition" },
  subCommands: subCommandsOf(orchestratorCommand, agentCommand, checkCommand),
});
