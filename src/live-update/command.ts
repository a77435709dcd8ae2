import { type Command, defineCommand, subCommandsOf } from "../command-line/definition.ts";
import { defaultStateDirectory } from "./options.ts";
import { defaultClientSocket, defaultControlSocket } from "./protocol.ts";

const controlSocketFlag = {
  "control-socket": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultControlSocket,
    description: "Where luod takes requests",
  },
} as const;
const jsonFlag = { json: { type: "boolean", description: "Print JSON" } } as const;
const jsonLinesFlag = {
  json: { type: "boolean", description: "Print one JSON object a line" },
} as const;

const daemonCommand = defineCommand({
  meta: {
    name: "daemon",
    description: "Keep sessions of memory for clients, through a change of the kernel (luod)",
    examples: [
      ["hostler live-update daemon", "Serve root's clients; luod is the same"],
      [
        "luod --allow-uid 107 --allow-id 'qemu-*=107' --unclaimed 10min",
        "Let user 107 save ids that begin with qemu-; finish what is not claimed in time",
      ],
    ],
    exitCodes: { 111: "another luod runs, or the system refused" },
  },
  args: {
    socket: {
      type: "string",
      valueHint: "path",
      complete: "file",
      default: defaultClientSocket,
      description: "Listen here for clients",
    },
    "control-socket": {
      ...controlSocketFlag["control-socket"],
      description: "Listen here for requests of luoctl",
    },
    "state-directory": {
      type: "string",
      valueHint: "path",
      complete: "file",
      default: defaultStateDirectory,
      description: "Keep the state file and the lock here",
    },
    "allow-uid": {
      type: "string",
      repeatable: true,
      valueHint: "uid",
      description: "A user who may subscribe and claim, by number; luod's own when none is given",
    },
    "allow-gid": {
      type: "string",
      repeatable: true,
      valueHint: "gid",
      description: "A group that may subscribe and claim, by number",
    },
    "allow-id": {
      type: "string",
      repeatable: true,
      valueHint: "pattern=uid",
      description: "Ids that this user may use, with * and ?; with one, no other id may be used",
    },
    "command-uid": {
      type: "string",
      repeatable: true,
      valueHint: "uid",
      description: "A user who may command, by number; luod's own when none is given",
    },
    unclaimed: {
      type: "string",
      valueHint: "keep|duration",
      default: "keep",
      description: "Finish restored sessions that nobody claims after such a time, or keep them",
    },
    "kexec-hook": {
      type: "string",
      repeatable: true,
      valueHint: "path",
      complete: "file",
      description: "Run this before the kexec, when every client is ready; it must exit with 0",
    },
    by: {
      type: "enum",
      options: ["auto", "reboot", "systemctl"],
      default: "auto",
      description: "Who enters the kernel: reboot(2), or systemctl where PID 1 is systemd",
    },
    "log-json": { type: "boolean", description: "Log one JSON object a line" },
    verbose: {
      type: "boolean",
      alias: "v",
      description: "Log also what is only of use to a developer",
    },
  },
  run: async (args) => await (await import("./commands/daemon.ts")).runDaemonCommand(args),
});

/** What the program is under the name luod. */
export const luodCommand: Command = {
  ...daemonCommand,
  meta: { ...daemonCommand.meta, name: "luod" },
};

const loadCommand = defineCommand({
  meta: {
    name: "load",
    description: "Check the next kernel, and load it",
    examples: [
      [
        "luoctl load /boot/vmlinuz --initrd /boot/initrd.img --reuse-cmdline",
        "With the current system's command line, less what the boot loader wrote",
      ],
      ['luoctl load /boot/vmlinuz --cmdline "console=ttyS0 root=/dev/sda1"', "With another one"],
      [
        'luoctl load /boot/vmlinuz --reuse-cmdline --append "liveupdate=on kho=on"',
        "With more words: the next kernel saves nothing over a kexec without these two",
      ],
    ],
    exitCodes: { 0: "it is loaded", 111: "it is refused; the table says why" },
  },
  args: {
    kernel: { type: "positional", complete: "file", description: "A bzImage, or arm64's Image" },
    initrd: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "The initial RAM disk",
    },
    "reuse-cmdline": {
      type: "boolean",
      description: "Take /proc/cmdline, less BOOT_IMAGE= and initrd=",
    },
    cmdline: { type: "string", valueHint: "words", description: "Take this command line" },
    append: {
      type: "string",
      valueHint: "words",
      description: "Put these after it; alone, after the current system's",
    },
    force: {
      type: "boolean",
      description: "Load in spite of findings that the kernel itself would not refuse",
    },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/load.ts")).runLoad(args),
});

const unloadCommand = defineCommand({
  meta: {
    name: "unload",
    description: "Take the loaded kernel back out",
    examples: [["luoctl unload", "No kernel is loaded then"]],
  },
  args: { ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/change.ts")).runUnload(args),
});

const kexecCommand = defineCommand({
  meta: {
    name: "kexec",
    description: "Have every client save what it holds, and enter the loaded kernel",
    examples: [
      ["luoctl kexec", "Wait for the clients, then enter it; an interrupt (Ctrl-C) aborts"],
      ["luoctl kexec --dry-run", "Only measure: the time and the bytes of each client"],
      ["luoctl kexec --by reboot", "By reboot(2), whatever PID 1 is"],
    ],
    exitCodes: {
      0: "the new kernel is being entered; the dry run went well",
      111: "aborted, or refused by luod or the kernel; everything is as before",
    },
  },
  args: {
    "dry-run": {
      type: "boolean",
      description: "Wait until all are ready, then roll back and enter nothing",
    },
    "include-bare": {
      type: "boolean",
      description: "In a dry run take part also clients without a hello; their connections end",
    },
    "discard-unclaimed": {
      type: "boolean",
      description: "Lose the sessions of the last update that nobody has claimed",
    },
    by: {
      type: "enum",
      options: ["auto", "reboot", "systemctl"],
      default: "auto",
      description: "Who enters the kernel; auto is what luod was told",
    },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/kexec.ts")).runKexec(args),
});

const abortCommand = defineCommand({
  meta: {
    name: "abort",
    description: "Roll the update under way back: every client goes on as before",
    examples: [['luoctl abort --reason "the backup runs"', "The clients are told why"]],
  },
  args: {
    reason: { type: "string", valueHint: "text", description: "Why; every client is told" },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/change.ts")).runAbort(args),
});

const statusCommand = defineCommand({
  meta: {
    name: "status",
    description: "Show the phase, the loaded kernel, and where the time of the last update went",
    examples: [
      ["luoctl status", "Show it"],
      ["luoctl status --json", "Show it for programs; times are in milliseconds"],
    ],
  },
  args: { ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/show.ts")).runStatus(args),
});

const listCommand = defineCommand({
  meta: {
    name: "list",
    description: "Show the clients: who takes part in the next update, and how far each is",
    examples: [
      ["luoctl list", "Show them as a table"],
      ["luoctl list --json", "Show them as a JSON array"],
    ],
  },
  args: { ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/show.ts")).runList(args),
});

const sessionsCommand = defineCommand({
  meta: {
    name: "sessions",
    description: "Show the sessions: what is being saved, and what was restored",
    examples: [["luoctl sessions", "Show them, and which nobody has claimed"]],
  },
  args: { ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/show.ts")).runSessions(args),
});

const finishCommand = defineCommand({
  meta: {
    name: "finish",
    description: "Finish what was restored for a client: what it has not retrieved is freed",
    examples: [["luoctl finish qemu-1", "Give its memory back, claimed or not"]],
  },
  args: {
    id: { type: "positional", complete: "client", description: "A client with restored sessions" },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/change.ts")).runFinish(args),
});

const eventsCommand = defineCommand({
  meta: {
    name: "events",
    description: "Show what happened to clients and updates, with times in microseconds",
    examples: [
      ["luoctl events -f", "Show what happened, and go on"],
      ["luoctl events --after 17 --json", "For programs: what came after number 17"],
    ],
  },
  args: {
    follow: { type: "boolean", alias: "f", description: "Go on with what comes" },
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

const metricsCommand = defineCommand({
  meta: {
    name: "metrics",
    description: "Print counters and times as Prometheus takes them",
    examples: [
      ["luoctl metrics > /var/lib/node_exporter/luod.prom", "For the textfile collector"],
      ["luoctl metrics --json", "As a JSON array"],
    ],
  },
  args: { ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/metrics.ts")).runMetrics(args),
});

const clientFlags = {
  id: {
    type: "string",
    required: true,
    valueHint: "name",
    description: "Its name at luod: the same before and after the kexec",
  },
  socket: {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultClientSocket,
    description: "Where luod listens for clients",
  },
  required: {
    type: "boolean",
    description: "When it cannot, the whole update is rolled back; this is so without --optional",
  },
  optional: { type: "boolean", description: "When it cannot, the update goes on without it" },
  deadline: {
    type: "string",
    valueHint: "duration",
    default: "1min",
    description: "Be ready for a kexec within this time, or have failed",
  },
} as const;

const runCommand = defineCommand({
  meta: {
    name: "run",
    description: "Run a program that knows nothing of live updates, and carry its memfds",
    examples: [
      [
        "hostler live-update run --id cache -- /usr/bin/cache-server --port 7000",
        "After a kexec, start it the same way: it gets its memfds as LISTEN_FDS",
      ],
      [
        "hostler live-update run --id db --ready notify --optional -- db",
        "It has its memory when it says READY=1; an update may go on without it",
      ],
    ],
    exitCodes: {
      111: "it was not started: no luod to ask for its memory, or that cannot be restored",
    },
  },
  args: {
    ...clientFlags,
    ready: {
      type: "enum",
      options: ["started", "notify"],
      default: "started",
      description: "When it has its memory: when it runs, or when it says READY=1 (sd_notify)",
    },
    wait: {
      type: "string",
      valueHint: "duration",
      default: "1min",
      description: "Wait so long for luod; then fail, or with --optional start without it",
    },
    "skip-others": {
      type: "boolean",
      description: "Go without what cannot be preserved, such as a parked socket",
    },
    json: { type: "boolean", description: "Say what happens as JSON lines, on stderr" },
    command: {
      type: "positional",
      repeatable: true,
      description: "The program and its words, behind --",
    },
  },
  run: async (args) => await (await import("./commands/run.ts")).runRun(args),
});

const holdCommand = defineCommand({
  meta: {
    name: "hold",
    description: "Carry files through memory: copied before a kexec, restored after it",
    examples: [
      ["hostler live-update hold --id state /run/app", "Hold a folder; start it so again after it"],
      ["hostler live-update hold --id state --once /run/app", "Restore what waits, and end"],
    ],
    exitCodes: { 111: "what waits could not be restored; it stays at luod" },
  },
  args: {
    ...clientFlags,
    once: { type: "boolean", description: "Restore, and end" },
    limit: {
      type: "string",
      valueHint: "size",
      default: "16GiB",
      description: "Refuse to carry more than this",
    },
    wait: {
      type: "string",
      valueHint: "duration",
      default: "1min",
      description: "With --once, wait so long for luod",
    },
    "skip-others": {
      type: "boolean",
      description: "Go without symbolic links, sockets and what else is no file or folder",
    },
    json: { type: "boolean", description: "Say what happens as JSON lines" },
    paths: {
      type: "positional",
      repeatable: true,
      valueHint: "path",
      complete: "file",
      description: "Files, and folders with all that is in them",
    },
  },
  run: async (args) => await (await import("./commands/hold.ts")).runHold(args),
});

/** `hostler live-update …` */
export const liveUpdateCommand: Command = defineCommand({
  meta: {
    name: "live-update",
    description: "Change the kernel, and keep what programs hold in memory",
    examples: [
      [
        "hostler live-update load /boot/vmlinuz --initrd /boot/initrd.img --reuse-cmdline",
        "Load the next kernel; luoctl load … is the same",
      ],
      ["hostler live-update list", "Show who takes part"],
      ["hostler live-update kexec", "Wait until all are ready, then enter it"],
    ],
  },
  subCommands: subCommandsOf(
    daemonCommand,
    loadCommand,
    unloadCommand,
    kexecCommand,
    abortCommand,
    statusCommand,
    listCommand,
    sessionsCommand,
    finishCommand,
    eventsCommand,
    metricsCommand,
    runCommand,
    holdCommand,
  ),
});

/** What the program is under the name luoctl. */
export const luoctlCommand: Command = {
  ...liveUpdateCommand,
  meta: {
    ...liveUpdateCommand.meta,
    name: "luoctl",
    examples: [
      [
        "luoctl load /boot/vmlinuz --initrd /boot/initrd.img --reuse-cmdline",
        "Load the next kernel",
      ],
      ["luoctl list", "Show who takes part"],
      ["luoctl kexec", "Wait until all are ready, then enter it"],
    ],
  },
};
