import { type Command, defineCommand, subCommandsOf } from "../command-line/definition.ts";
import { guestAgentCommand } from "./commands/guest-agent.ts";
import { masterCommands, masterFlags } from "./commands/master-commands.ts";
import { defaultControlSocket } from "./protocol.ts";

const controlSocketFlag = {
  "control-socket": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultControlSocket,
    description: "Where the worker takes requests",
  },
} as const;
const jsonFlag = { json: { type: "boolean", description: "Print JSON" } } as const;
const jsonLinesFlag = {
  json: { type: "boolean", description: "Print one JSON object a line" },
} as const;
const oneName = { name: { type: "positional", description: "A virtual machine" } } as const;

/** What the worker alone can know is its refusal, not a mistake of the command line. */
const refused = {
  111: "the worker is away or refused, as it refuses a name that it does not know",
} as const;

const workerCommand = defineCommand({
  meta: {
    name: "worker",
    description: "Run virtual machines, each in a process of its own; they outlive the worker",
    examples: [
      ["hostler vm worker", "With cloud-hypervisor, or QEMU, as this host can"],
      ["hostler vm worker --config /etc/hostler/vm.toml", "As the file says"],
    ],
  },
  args: {
    config: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "TOML; without it the defaults hold",
    },
    "log-json": { type: "boolean", description: "Log one JSON object a line" },
    verbose: {
      type: "boolean",
      alias: "v",
      description: "Log also what is only of use to a developer",
    },
  },
  run: async (args) => await (await import("./commands/worker.ts")).runWorkerCommand(args),
});

const createCommand = defineCommand({
  meta: {
    name: "create",
    description: "Make a virtual machine from an image: verified once, while it is copied",
    examples: [
      [
        "hostler vm create web --image /nix/store/xxx-vm-image --hash sha256-…",
        "Make it; hostler vm boot web starts it",
      ],
      [
        "hostler vm create web --image ./web-image --hash $(hostler vm hash ./web-image) --start",
        "Make it and start it",
      ],
    ],
    exitCodes: refused,
  },
  args: {
    name: { type: "positional", description: "1 to 63 of a-z, 0-9 and -" },
    image: {
      type: "string",
      required: true,
      valueHint: "folder",
      complete: "file",
      description: "A folder with vm-config.json",
    },
    hash: {
      type: "string",
      required: true,
      valueHint: "sha256-…",
      description: "Of that folder, as nix hash path and hostler vm hash print it",
    },
    cpu: { type: "string", valueHint: "count", description: "Processors, in place of the image's" },
    memory: { type: "string", valueHint: "MiB", description: "Memory, in place of the image's" },
    cmdline: {
      type: "string",
      valueHint: "words",
      description: "The kernel's command line, in place of the image's",
    },
    "machine-type": {
      type: "string",
      valueHint: "pc-q35-7.2",
      description: "Of QEMU: a version of q35, or microvm",
    },
    "processor-model": {
      type: "string",
      valueHint: "Nehalem-v1",
      description: "Of QEMU, by its name there",
    },
    "allow-domain": {
      type: "string",
      repeatable: true,
      valueHint: "domain",
      description: "It reaches these domains alone, such as example.org or *.example.org",
    },
    network: {
      type: "string",
      repeatable: true,
      valueHint: "name[=address]",
      description: "A card in this network; the first one has the default route",
    },
    forward: {
      type: "string",
      repeatable: true,
      valueHint: "tcp:8080:80",
      description: "A port of this host that leads to a port of its first card",
    },
    start: { type: "boolean", description: "Boot it at once" },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/create.ts")).runCreate(args),
});

const declarationFlags = {
  file: {
    type: "positional",
    complete: "file",
    description: "Machines, as TOML or JSON: [[machine]] with name, imagePath, hash, power",
  },
  ...controlSocketFlag,
  ...masterFlags,
  ...jsonFlag,
} as const;

const applyCommand = defineCommand({
  meta: {
    name: "apply",
    description: "Make the machines as a file declares them, and keep them so",
    examples: [
      ["hostler vm apply machines.toml", "Create what is missing, remove what is declared no more"],
      ["hostler vm apply cluster.toml --master", "On all workers of this host's master"],
    ],
    exitCodes: { 0: "it is declared; hostler vm status or cluster says how far it is", ...refused },
  },
  args: declarationFlags,
  run: async (args) =>
    await (await import("./commands/apply.ts")).runApply({ ...args, verb: "apply" }),
});

const diffCommand = defineCommand({
  meta: {
    name: "diff",
    description: "Say what apply of a file would do",
    examples: [["hostler vm diff machines.toml", "Exit code 0: nothing, all is so"]],
    exitCodes: {
      0: "all is as it is declared",
      1: "something is not, or not yet, as declared: apply would change it, or cannot",
      ...refused,
    },
  },
  args: declarationFlags,
  run: async (args) =>
    await (await import("./commands/apply.ts")).runApply({ ...args, verb: "diff" }),
});

const snapshotCommand = defineCommand({
  meta: {
    name: "snapshot",
    description:
      "Keep memory and disks of a virtual machine as they are; it stands still meanwhile",
    examples: [
      ["hostler vm snapshot web before-upgrade", "Make one, and let the machine go on"],
      [
        "hostler vm snapshot web nightly --encrypt-to backup.pub",
        "Make one that the secret key of that pair alone opens",
      ],
      ["hostler vm snapshot --list web", "Show those of web; without a name, all"],
      ["hostler vm snapshot --delete web before-upgrade", "Remove one"],
    ],
    exitCodes: refused,
  },
  args: {
    name: { type: "positional", required: false, description: "A virtual machine" },
    snapshot: { type: "positional", required: false, description: "1 to 63 of a-z, 0-9 and -" },
    list: { type: "boolean", description: "Show what there is" },
    delete: { type: "boolean", description: "Remove it" },
    "encrypt-to": {
      type: "string",
      valueHint: "path",
      description: "A file with a public key, to which all of it is encrypted",
    },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/snapshot.ts")).runSnapshot(args),
});

const restoreCommand = defineCommand({
  meta: {
    name: "restore",
    description: "Make a virtual machine of its snapshot, verified first: it goes on from there",
    examples: [
      ["hostler vm restore web before-upgrade", "After hostler vm delete web"],
      ["hostler vm restore web nightly --key backup", "One that is encrypted"],
    ],
    exitCodes: refused,
  },
  args: {
    ...oneName,
    snapshot: { type: "positional", description: "One of hostler vm snapshot --list" },
    key: {
      type: "string",
      valueHint: "path",
      description: "A file with the secret key, 0600; a plain snapshot is refused with it",
    },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/snapshot.ts")).runRestore(args),
});

const receiveCommand = defineCommand({
  meta: {
    name: "receive",
    description: "Make a ticket by which another host can send a virtual machine to this one",
    examples: [
      ["hostler vm receive web --listen 192.0.2.7:0 --out web.ticket", "Keep it in a file, 0600"],
      ["hostler vm receive web --listen 192.0.2.7:0 --network default", "With another address"],
      ["hostler vm receive web --cancel", "Take it back"],
    ],
    exitCodes: refused,
  },
  args: {
    name: { type: "positional", description: "The virtual machine that is to come" },
    listen: {
      type: "string",
      valueHint: "address:port",
      description: "Where the other host reaches this one; port 0: any that is free",
    },
    expires: {
      type: "string",
      valueHint: "duration",
      description: "When it is worth nothing any more; 10m without it",
    },
    out: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "Write it there, and not to standard output: it is a secret",
    },
    network: {
      type: "string",
      repeatable: true,
      valueHint: "name[=address]",
      description:
        "Where its address in this network is taken, a free one; or this one in any case",
    },
    cancel: { type: "boolean", description: "Take back one that nobody has used" },
    ...controlSocketFlag,
  },
  run: async (args) => await (await import("./commands/migrate.ts")).runReceive(args),
});

const migrateCommand = defineCommand({
  meta: {
    name: "migrate",
    description: "Give a running virtual machine to another host; its guest goes on there",
    examples: [
      ["hostler vm migrate web --ticket web.ticket", "To the host that made it"],
      ["ssh HOST hostler vm receive … | hostler vm migrate web --ticket -", "By standard input"],
      ["hostler vm migrate web --resume-here", "When it is not known whose it is: this host's"],
    ],
    exitCodes: refused,
  },
  args: {
    ...oneName,
    ticket: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "What hostler vm receive made on the other host; -: standard input",
    },
    "resume-here": {
      type: "boolean",
      description: "After it was deleted on the other host: it is this host's",
    },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/migrate.ts")).runMigrate(args),
});

const forgetMigratedCommand = defineCommand({
  meta: {
    name: "forget-migrated",
    description: "Make a declared virtual machine anew here that was given to another host",
    examples: [["hostler vm forget-migrated web", "It is gone there, and stays declared here"]],
    exitCodes: refused,
  },
  args: { ...oneName, ...controlSocketFlag },
  run: async (args) => await (await import("./commands/migrate.ts")).runForgetMigrated(args),
});

const hashCommand = defineCommand({
  meta: {
    name: "hash",
    description: "Print the hash of an image's folder, as nix hash path does",
    examples: [["hostler vm hash ./web-image", "sha256-… of its NAR serialisation"]],
  },
  args: {
    folder: { type: "positional", complete: "file", description: "A file or a folder" },
    contents: { type: "boolean", description: "Of a file's contents alone, as nix hash file does" },
  },
  run: async (args) => await (await import("./commands/hash.ts")).runHash(args),
});

const changeFlags = {
  ...oneName,
  wait: { type: "boolean", description: "Return when it is there" },
  ...controlSocketFlag,
  ...jsonFlag,
} as const;

function changeCommand(
  name: "boot" | "pause" | "resume" | "replace-vmm",
  description: string,
  example: string,
): Command {
  return defineCommand({
    meta: {
      name,
      description,
      examples: [[`hostler vm ${name} web`, example]],
      exitCodes: refused,
    },
    args: changeFlags,
    run: async (args) =>
      await (await import("./commands/change.ts")).runChange({ ...args, now: false, verb: name }),
  });
}

const bootCommand = changeCommand("boot", "Start a virtual machine", "Return at once");
const pauseCommand = changeCommand(
  "pause",
  "Stop its processors; its memory stays",
  "Until resume",
);
const resumeCommand = changeCommand("resume", "Let its processors go on", "Where they were");
const replaceCommand = changeCommand(
  "replace-vmm",
  "Give a running virtual machine to a new process of its hypervisor",
  "Such as a newer version; its guest goes on after milliseconds",
);

const stopFlags = {
  ...changeFlags,
  now: { type: "boolean", description: "Kill its hypervisor, without asking the guest" },
} as const;

const shutdownCommand = defineCommand({
  meta: {
    name: "shutdown",
    description: "Ask the guest to shut down, by its power button; later its hypervisor is ended",
    examples: [["hostler vm shutdown web --wait", "Return when it is off"]],
    exitCodes: refused,
  },
  args: stopFlags,
  run: async (args) =>
    await (await import("./commands/change.ts")).runChange({ ...args, verb: "shutdown" }),
});

const deleteCommand = defineCommand({
  meta: {
    name: "delete",
    description: "Shut a virtual machine down, and remove it with all its disks",
    examples: [["hostler vm delete web --wait", "Return when nothing of it is left"]],
    exitCodes: refused,
  },
  args: {
    ...stopFlags,
    recreate: {
      type: "boolean",
      description: "Also one that is declared, which is made anew without its disks",
    },
  },
  run: async (args) =>
    await (await import("./commands/change.ts")).runChange({ ...args, verb: "delete" }),
});

const listCommand = defineCommand({
  meta: {
    name: "list",
    description: "Show all virtual machines: phase, address, hypervisor",
    examples: [["hostler vm list", "Show them as a table"]],
  },
  args: { ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/list.ts")).runList(args),
});

const showCommand = defineCommand({
  meta: {
    name: "show",
    description: "Show all that is known of a virtual machine",
    examples: [["hostler vm show web", "Its declaration, its VMM, its past"]],
    exitCodes: refused,
  },
  args: { ...oneName, ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/show.ts")).runShow(args),
});

const survivableCommand = defineCommand({
  meta: {
    name: "survivable",
    description: "Say whether its VMM can be replaced under it, and if not, exactly why",
    examples: [["hostler vm survivable web", "Exit code 0: it can"]],
    exitCodes: { 0: "it can", 1: "it cannot", ...refused },
  },
  args: { ...oneName, ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/show.ts")).runSurvivable(args),
});

const statusCommand = defineCommand({
  meta: {
    name: "status",
    description: "Show how the worker is: hypervisors, network, what is not as it should be",
    examples: [["hostler vm status", "Whether machines run with KVM"]],
  },
  args: { ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/list.ts")).runStatus(args),
});

const metricsCommand = defineCommand({
  meta: {
    name: "metrics",
    description: "Show what virtual machines use: processor, memory, network, disks",
    examples: [
      ["hostler vm metrics", "For Prometheus"],
      ["hostler vm metrics --json", "As a JSON array"],
    ],
  },
  args: {
    name: { type: "positional", required: false, description: "A virtual machine; else all" },
    ...controlSocketFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/metrics.ts")).runMetrics(args),
});

const topCommand = defineCommand({
  meta: {
    name: "top",
    description: "Watch what virtual machines use: on a terminal, refreshed until q is typed",
    examples: [
      ["hostler vm top", "Watch them"],
      ["hostler vm top --json --count 10", "Ten lines of JSON, one for each interval"],
    ],
    exitCodes: refused,
  },
  args: {
    count: {
      type: "string",
      alias: "n",
      valueHint: "count",
      description: "Looks; without it, 1, and on a terminal no end",
    },
    interval: {
      type: "string",
      valueHint: "duration",
      description: "Between two looks, 100ms at least; 2s without it",
    },
    ...controlSocketFlag,
    ...jsonLinesFlag,
  },
  run: async (args) => await (await import("./commands/top.ts")).runTop(args),
});

const eventsCommand = defineCommand({
  meta: {
    name: "events",
    description: "Show what happened to virtual machines, with times in microseconds",
    examples: [["hostler vm events -f", "Show what happened, and go on"]],
  },
  args: {
    name: { type: "positional", required: false, description: "A virtual machine; else all" },
    follow: { type: "boolean", alias: "f", description: "Go on with what comes" },
    ...controlSocketFlag,
    ...jsonLinesFlag,
  },
  run: async (args) => await (await import("./commands/events.ts")).runEvents(args),
});

const consoleCommand = defineCommand({
  meta: {
    name: "console",
    description: "Attach to its serial console, with what it said before; Ctrl-] leaves it",
    examples: [
      ["hostler vm console web", "Write there, when nobody else does"],
      ["hostler vm console web --read-only", "Look on"],
    ],
    exitCodes: refused,
  },
  args: {
    ...oneName,
    "read-only": { type: "boolean", description: "What is typed goes nowhere" },
    take: { type: "boolean", description: "Take the writing from whoever has it" },
    ...controlSocketFlag,
  },
  run: async (args) => await (await import("./commands/console.ts")).runConsole(args),
});

const execCommand = defineCommand({
  meta: {
    name: "exec",
    description: "Run a program in its guest, by the agent there, and exit as it does",
    examples: [
      ["hostler vm exec web -- uname -r", "Its output comes as it is, its input is /dev/null"],
      ["hostler vm exec web --time-limit 30s -- sh -c 'df -h; free'", "Kill it after that time"],
    ],
    exitCodes: {
      0: "the program's own status, whatever it is; 128 and the number of its signal",
      ...refused,
    },
  },
  args: {
    ...oneName,
    command: {
      type: "positional",
      repeatable: true,
      description: "The program and its arguments, after --",
    },
    env: {
      type: "string",
      repeatable: true,
      valueHint: "NAME=value",
      description: "Its whole environment; PATH, HOME and LANG without it",
    },
    directory: { type: "string", valueHint: "path", description: "Where it runs, in the guest" },
    "time-limit": {
      type: "string",
      valueHint: "duration",
      description: "Kill it then, with its process group; 24h without it",
    },
    "output-limit": {
      type: "string",
      valueHint: "size",
      description: "Leave out what it says beyond that; 64MiB without it, which is the most",
    },
    ...controlSocketFlag,
  },
  run: async (args) => await (await import("./commands/exec.ts")).runExec(args),
});

const pingCommand = defineCommand({
  meta: {
    name: "ping",
    description: "Ask whether the agent in its guest answers",
    examples: [["hostler vm ping web", "Exit code 0: it does"]],
    exitCodes: refused,
  },
  args: { ...oneName, ...controlSocketFlag, ...jsonFlag },
  run: async (args) => await (await import("./commands/exec.ts")).runPing(args),
});

const logsCommand = defineCommand({
  meta: {
    name: "logs",
    description: "Show what its serial console said; nothing in it drives the terminal",
    examples: [["hostler vm logs web -n 20", "Show the last 20 lines"]],
    exitCodes: refused,
  },
  args: {
    ...oneName,
    lines: {
      type: "string",
      alias: "n",
      valueHint: "count",
      description: "The last so many lines; all that are kept without it",
    },
    ...controlSocketFlag,
  },
  run: async (args) => await (await import("./commands/console.ts")).runLogs(args),
});

const snapshotKeyCommand = defineCommand({
  meta: {
    name: "snapshot-key",
    description: "Make a pair of keys for encrypted snapshots",
    examples: [
      ["hostler vm snapshot-key backup", "The secret key in backup, the public one in backup.pub"],
    ],
    exitCodes: refused,
  },
  args: {
    file: { type: "positional", description: "A new file for the secret key, 0600" },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./commands/snapshot-key.ts")).runSnapshotKey(args),
});

/** `hostler vm …` */
export const vmCommand: Command = defineCommand({
  meta: {
    name: "vm",
    description: "Run virtual machines that outlive their manager",
    examples: [
      ["hostler vm worker", "Take requests, and run machines"],
      ["hostler vm create web --image FOLDER --hash HASH --start", "Make one and start it"],
      ["hostler vm list", "Show them"],
    ],
  },
  subCommands: subCommandsOf(
    workerCommand,
    createCommand,
    applyCommand,
    diffCommand,
    bootCommand,
    pauseCommand,
    resumeCommand,
    shutdownCommand,
    deleteCommand,
    listCommand,
    showCommand,
    statusCommand,
    topCommand,
    metricsCommand,
    eventsCommand,
    consoleCommand,
    logsCommand,
    execCommand,
    pingCommand,
    replaceCommand,
    snapshotCommand,
    restoreCommand,
    receiveCommand,
    migrateCommand,
    forgetMigratedCommand,
    snapshotKeyCommand,
    survivableCommand,
    ...masterCommands,
    hashCommand,
    guestAgentCommand,
  ),
});
