import { type Command, defineCommand, subCommandsOf } from "../command-line/definition.ts";
import { signalNames } from "../units/signals.ts";
import { defaultAgentSocket, defaultControlSocket, defaultHoldenSocket } from "./protocol.ts";

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
  args: {
    ...agentFlags,
    socket: {
      ...agentFlags.socket,
      description: `Listen here (default HOLDEN_SOCKET_PATH, else ${defaultHoldenSocket})`,
    },
  },
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

const ownControlSocketFlag = {
  "control-socket": {
    ...controlSocketFlag["control-socket"],
    description: "Take requests here; another folder than the default's has to be there",
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
    ...ownControlSocketFlag,
    "metrics-listen": {
      type: "string",
      valueHint: "address",
      complete: "file",
      description:
        "Serve /metrics by plain HTTP at an address of loopback such as 127.0.0.1:9464, or at a " +
        "Unix socket, an absolute path",
    },
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
    "agent-command": {
      type: "positional",
      description:
        "Runs at the agent that listens at HOLDEN_SOCKET_PATH " +
        `(default ${defaultHoldenSocket}); split at spaces`,
    },
    ...ownControlSocketFlag,
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
      [
        `printf '[process.web]\\ncommand = ["/usr/bin/web"]\\n' > web.toml`,
        "The least that a file has to say; then: hostler process check web.toml",
      ],
    ],
    exitCodes: {
      0: "it is valid; there may be warnings",
      100: "it is not valid",
      111: "it is valid, and this host cannot keep what it limits",
    },
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

const jsonFlag = { json: { type: "boolean", description: "Print JSON" } } as const;
const jsonLinesFlag = {
  json: { type: "boolean", description: "Print one JSON object a line" },
} as const;
const nameOrAllArgument = {
  name: {
    type: "positional",
    required: false,
    complete: "process",
    description: "A process of the configuration; all without it",
  },
} as const;
const followFlag = {
  follow: { type: "boolean", alias: "f", description: "Go on with what comes" },
} as const;

const oneName = {
  name: { type: "positional", complete: "process", description: "A process of the configuration" },
} as const;
const someNames = {
  name: {
    type: "positional",
    repeatable: true,
    complete: "process",
    description: "Processes of the configuration",
  },
} as const;

const timeoutFlag = {
  timeout: {
    type: "string",
    valueHint: "duration",
    description: "With --wait at most this long, such as 500ms, 30s or 2min; else for ever",
  },
} as const;

const listCommand = defineCommand({
  meta: {
    name: "list",
    description: "Show all processes: where, in which phase, how often restarted",
    examples: [
      ["hostler process list", "Show them as a table"],
      ["hostler process list --watch", "Show them live; without a terminal a line for each change"],
      ["hostler process list --watch --json", "Print one JSON object for each change"],
      ["hostler process list --json", "Show them as a JSON array"],
    ],
  },
  args: {
    watch: {
      type: "boolean",
      alias: "w",
      description: "Show them at every event and each second, with what they use, until q",
    },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/list.ts")).runList(args),
});

/** What the daemon alone can know is its refusal, not a mistake of the command line. */
const nameRefused = {
  111: "the orchestrator is away or refused, as it refuses a name that it does not know",
} as const;

const partitionsCommand = defineCommand({
  meta: {
    name: "partitions",
    description: "Show all partitions: whether their agents are there, since when, and why not",
    examples: [
      ["hostler process partitions", "Show them as a table"],
      ["hostler process partitions --json", "Show them as a JSON array"],
    ],
  },
  args: { ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/partitions.ts")).runPartitions(args),
});

const metricsCommand = defineCommand({
  meta: {
    name: "metrics",
    description: "Print counters and gauges of all processes, in Prometheus' text format",
    examples: [
      ["hostler process metrics", "Print what --metrics-listen would tell a scraper"],
      [
        "hostler process metrics > /var/lib/node_exporter/hostler.prom",
        "For the node exporter's textfile collector",
      ],
    ],
  },
  args: { ...controlSocketFlag, ...jsonLinesFlag },
  run: async (args) => await (await import("./commands/metrics.ts")).runMetrics(args),
});

const aboutCommand = defineCommand({
  meta: {
    name: "about",
    description: "Show which program the orchestrator runs: version, SHA-256, since when",
    examples: [["hostler process about --json", "Tell a program which file runs"]],
  },
  args: { ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/about.ts")).runAbout(args),
});

const reexecuteCommand = defineCommand({
  meta: {
    name: "reexecute",
    description: "Have the orchestrator go on as another version of itself; nothing is stopped",
    examples: [
      ["hostler process reexecute", "Go on as the file that a new start would run"],
      ["hostler process reexecute /opt/hostler/new/hostler", "Go on as this file"],
    ],
    exitCodes: {
      0: "it goes on as that file, which has answered",
      111: "it is refused, and nothing has changed; or the new program ended without an answer",
    },
  },
  args: {
    file: {
      type: "positional",
      required: false,
      complete: "file",
      description: "An executable file of hostler, by its absolute path",
    },
    digest: {
      type: "string",
      valueHint: "hex",
      description: "The SHA-256 that the file must have, in hexadecimal",
    },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/about.ts")).runReexecute(args),
});

const upgradeCommand = defineCommand({
  meta: {
    name: "upgrade",
    description: "Prove a file of hostler, then have the orchestrator go on as it",
    examples: [
      ["./hostler process upgrade", "Go on as this very file"],
      ["hostler process upgrade --binary /opt/hostler/new/hostler", "Go on as that one"],
    ],
    exitCodes: {
      0: "it goes on as that file, which has answered",
      111:
        "the file's self-test has failed, or it is refused, and nothing has changed; or the new " +
        "program ended without an answer",
    },
  },
  args: {
    binary: {
      type: "string",
      valueHint: "path",
      complete: "file",
      description: "A file of hostler; without it, the one that this command runs",
    },
    digest: {
      type: "string",
      valueHint: "hex",
      description: "The SHA-256 that the file must have, in hexadecimal",
    },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/upgrade.ts")).runUpgrade(args),
});

const reloadCommand = defineCommand({
  meta: {
    name: "reload",
    description: "Have the orchestrator read its configuration anew, as SIGHUP does",
    examples: [
      ["hostler process reload --dry-run", "Say who would come, go, or be restarted, and why"],
      ["hostler process reload --wait", "Return when all of it is put in"],
    ],
    exitCodes: {
      0: "it is begun; with --wait it is put in, and with --dry-run it could be",
      100: "the file is wrong, and nothing has changed",
      111:
        "it is refused, and nothing has changed; or with --wait, a process could not be changed " +
        "while it runs; or the orchestrator is away, or stops",
    },
  },
  args: {
    "dry-run": { type: "boolean", description: "Change nothing" },
    wait: {
      type: "boolean",
      description: "Return when those that go are gone, and the others go by what the file says",
    },
    ...controlSocketFlag,
    ...jsonLinesFlag,
  },
  run: async (args) => await (await import("./commands/reload.ts")).runReload(args),
});

const showCommand = defineCommand({
  meta: {
    name: "show",
    description: "Show all that is known of a process: its rules, its past, the coming waits",
    examples: [["hostler process show media", "Say when it started and why it ended"]],
    exitCodes: nameRefused,
  },
  args: { ...oneName, ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/show.ts")).runShow(args),
});

/** Of a job that ends by itself there is a moment only in which it is ready. */
const readyOrRefused = {
  0: "it was asked for; with --wait all were ready since then, or ended by themselves with exit 0",
  ...nameRefused,
} as const;

const startCommand = defineCommand({
  meta: {
    name: "start",
    description: "Start processes, and what they come after; the past is forgiven",
    examples: [
      ["hostler process start media", "Start it, at once if it waits for a restart"],
      ["hostler process start media --wait", "Return when it is ready"],
    ],
    exitCodes: readyOrRefused,
  },
  args: {
    ...someNames,
    wait: { type: "boolean", description: "Return when they are ready" },
    ...timeoutFlag,
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) =>
    await (await import("./commands/change.ts")).runChange({ ...args, verb: "start" }),
});

const stopCommand = defineCommand({
  meta: {
    name: "stop",
    description: "Stop processes: their signal, grace, SIGKILL; what comes after them runs on",
    examples: [
      ["hostler process stop media --wait", "Return when nothing of it is left"],
      ["hostler process stop media navigation --now", "Kill two at once"],
    ],
    exitCodes: nameRefused,
  },
  args: {
    ...someNames,
    now: { type: "boolean", description: "SIGKILL at once, without grace" },
    wait: { type: "boolean", description: "Return when nothing of them is left" },
    ...timeoutFlag,
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) =>
    await (await import("./commands/change.ts")).runChange({ ...args, verb: "stop" }),
});

const restartCommand = defineCommand({
  meta: {
    name: "restart",
    description:
      "Stop processes and start them again, with what they come after if that is stopped",
    examples: [["hostler process restart media --wait", "Return when it is ready again"]],
    exitCodes: readyOrRefused,
  },
  args: {
    ...someNames,
    wait: { type: "boolean", description: "Return when they are ready again" },
    ...timeoutFlag,
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) =>
    await (await import("./commands/change.ts")).runChange({ ...args, verb: "restart" }),
});

const signalCommand = defineCommand({
  meta: {
    name: "signal",
    description: "Send a signal to a process, by its pidfd",
    examples: [
      ["hostler process signal media SIGHUP", "Have it read its files again"],
      ["hostler process signal -9 media", "As kill(1) is called; it is restarted by its rule"],
    ],
    exitCodes: nameRefused,
  },
  args: {
    ...oneName,
    signal: {
      type: "positional",
      dashed: true,
      options: signalNames,
      description: "A name or a number, such as SIGHUP, HUP, 1, -HUP or -1",
    },
    ...controlSocketFlag,
  },
  run: async (args) => await (await import("./commands/change.ts")).runSignal(args),
});

const logsCommand = defineCommand({
  meta: {
    name: "logs",
    description: "Show what processes wrote: the kept lines, the oldest first",
    examples: [
      ["hostler process logs media -n 20 -f", "Show the last 20 lines, and go on"],
      ["hostler process logs --json", "Show the lines of all processes, for programs"],
    ],
    exitCodes: nameRefused,
  },
  args: {
    ...nameOrAllArgument,
    ...followFlag,
    lines: {
      type: "string",
      alias: "n",
      valueHint: "count",
      description: "Of each process the last so many lines; all that are kept without it",
    },
    ...controlSocketFlag,
    ...jsonLinesFlag,
  },
  run: async (args) => await (await import("./commands/follow.ts")).runLogs(args),
});

const reopenLogsCommand = defineCommand({
  meta: {
    name: "reopen-logs",
    description: "Open the files of log_file anew, after somebody has renamed them",
    examples: [
      ["hostler process reopen-logs", "All of them, as in a postrotate of logrotate"],
      ["hostler process reopen-logs media", "That of one process"],
    ],
    exitCodes: {
      0: "all are open anew",
      111: "one could not be opened, its lines are dropped until it can; or as for other commands",
    },
  },
  args: {
    ...nameOrAllArgument,
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/reopen-logs.ts")).runReopenLogs(args),
});

const eventsCommand = defineCommand({
  meta: {
    name: "events",
    description: "Show what happened to processes, with times in microseconds",
    examples: [["hostler process events -f", "Show what happened, and go on"]],
  },
  args: {
    ...followFlag,
    after: {
      type: "string",
      valueHint: "sequence",
      description: "Only events after this sequence number, as --json tells it",
    },
    ...controlSocketFlag,
    ...jsonLinesFlag,
  },
  run: async (args) => await (await import("./commands/follow.ts")).runEvents(args),
});

const waitCommand = defineCommand({
  meta: {
    name: "wait",
    description: "Wait until a process is ready, or stopped",
    examples: [["hostler process wait media --until ready --timeout 30s", "Wait at most 30 s"]],
    exitCodes: {
      0: "it is, or was meanwhile, in that state; ready is also a job that ended with exit 0",
      111: "it is not in time, its name is not known, or the orchestrator is away",
    },
  },
  args: {
    ...oneName,
    until: {
      type: "enum",
      options: ["ready", "stopped"],
      default: "ready",
      description: "What to wait for",
    },
    timeout: {
      type: "string",
      valueHint: "duration",
      description: "At most this long, such as 500ms, 30s or 2min; without it for ever",
    },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/change.ts")).runWait(args),
});

/** `hostler process …` */
export const processCommand: Command = defineCommand({
  meta: {
    name: "process",
    description: "Keep processes running, also in another partition",
    examples: [
      ["hostler process check process.toml", "Validate a configuration"],
      ["hostler process orchestrator --config process.toml", "Keep running what it says"],
      ["hostler process list", "Show what runs"],
    ],
  },
  subCommands: subCommandsOf(
    orchestratorCommand,
    agentCommand,
    checkCommand,
    listCommand,
    partitionsCommand,
    metricsCommand,
    aboutCommand,
    reloadCommand,
    upgradeCommand,
    reexecuteCommand,
    showCommand,
    startCommand,
    stopCommand,
    restartCommand,
    signalCommand,
    logsCommand,
    reopenLogsCommand,
    eventsCommand,
    waitCommand,
  ),
});
