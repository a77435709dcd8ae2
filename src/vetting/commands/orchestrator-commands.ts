import { authorityFlags } from "../../authority/flags.ts";
import { type Command, defineCommand } from "../../command-line/definition.ts";
import {
  askFlags,
  hostArgument,
  jsonFlag,
  reasonFlag,
  refused,
  runArgument,
  stageFlag,
} from "./ask-flags.ts";
import { hostCommand } from "./host-commands.ts";
import { outliersCommand, reportCommand } from "./report-commands.ts";
import { specCommand } from "./spec-commands.ts";

/** What the orchestrator's daemon and whoever asks it type. */

const bootFlags = {
  "listen-boot": {
    type: "string",
    valueHint: "interface",
    description: "Serve network boot here (proxyDHCP, TFTP, plain HTTP); off without it",
  },
  "boot-dir": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: "/var/lib/hostler/boot",
    description: "The live image: vmlinuz, initramfs, and iPXE of your own where you have it",
  },
  "ipxe-dir": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: "/usr/lib/ipxe",
    description: "iPXE, as Debian's package ipxe has it",
  },
  "boot-address": {
    type: "string",
    valueHint: "address",
    description: "The interface's address to boot from, where it has several",
  },
  "boot-parameter": {
    type: "string",
    repeatable: true,
    valueHint: "name=value",
    description: "A further word of the live image's command line, such as console=ttyS0",
  },
} as const;

const orchestratorCommand = defineCommand({
  meta: {
    name: "orchestrator",
    description: "Look after runs: an authority, whose hosts come by the token of their boot",
    examples: [
      ["hostler vetting orchestrator", "For this host alone: it listens on loopback"],
      [
        "hostler vetting orchestrator --listen 0.0.0.0:7443 --address https://vetting.example:7443",
        "For hosts elsewhere, which boot the live image",
      ],
      [
        "hostler vetting orchestrator --retain vetting-logs=720h,1GiB",
        "Logs of runs for a month; vetting-runs and vetting-sensors have bounds as well",
      ],
      [
        "hostler vetting orchestrator --listen 10.0.0.1:7443 --listen-boot eth1 --boot-dir live",
        "Hosts on eth1 boot the live image, beside the DHCP server that is there",
      ],
    ],
    exitCodes: { 111: "another one runs here, or the system refused" },
  },
  args: {
    throughput: {
      type: "string",
      valueHint: "address:port",
      description: "Test hosts' links here, by plain TCP; without it they are not measured",
    },
    ...bootFlags,
    ...authorityFlags,
  },
  run: async (args) => await (await import("./orchestrator.ts")).runOrchestratorCommand(args),
});

const restoreCommand = defineCommand({
  meta: {
    name: "restore",
    description: "Put a backup in the place of all that an orchestrator keeps, while it is stopped",
    examples: [
      [
        "hostler store backup /srv/backups/vetting-2026-11-28",
        "First, while it runs: two files, this one and one with .vetting behind its name",
      ],
      [
        "hostler vetting restore /srv/backups/vetting-2026-11-28",
        "Both files; what was there is kept beside, and no session of before counts",
      ],
    ],
    exitCodes: { 111: "it runs, the backup is damaged, or the system refused" },
  },
  args: {
    file: { type: "positional", complete: "file", description: "What hostler store backup wrote" },
    "without-ledger": {
      type: "boolean",
      description: "On another machine: take all that was issued before for spent",
    },
    "state-directory": {
      ...authorityFlags["state-directory"],
      description: "Where the orchestrator keeps what it remembers",
    },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./restore.ts")).runRestore(args),
});

const runsCommand = defineCommand({
  meta: {
    name: "runs",
    description: "List runs, the newest first: where each is, and what it came to",
    examples: [
      ["hostler vetting runs --open", "Those that have not ended"],
      ["hostler vetting runs --host node-7 --json", "All of one host, for a program"],
    ],
    exitCodes: refused,
  },
  args: {
    open: { type: "boolean", description: "Those alone that have not ended" },
    host: { type: "string", valueHint: "host", description: "Of this host alone" },
    spec: { type: "string", valueHint: "name", description: "Held to this spec alone" },
    ...askFlags,
  },
  run: async (args) => await (await import("./runs.ts")).runRuns(args),
});

const showCommand = defineCommand({
  meta: {
    name: "show",
    description: "Show one run: its stages, what was found, and what happened",
    examples: [["hostler vetting show 12 --json", "All of it, as its reports are made of"]],
    exitCodes: {
      0: "it is under way, or it has passed",
      3: "it has passed with warnings",
      4: "it has failed, or holds",
      5: "it has ended cancelled, aborted, or lost",
      111: "the orchestrator is away, or refused",
    },
  },
  args: { ...runArgument, ...askFlags },
  run: async (args) => await (await import("./runs.ts")).runShow(args),
});

const startCommand = defineCommand({
  meta: {
    name: "start",
    description: "Begin a run of a host, which waits until the host boots",
    examples: [
      ["hostler vetting start node-7 --spec rack-2 --window 30min", "And let it boot for so long"],
    ],
    exitCodes: refused,
  },
  args: {
    ...hostArgument,
    spec: { type: "string", valueHint: "name", description: "The host's own, when none is said" },
    window: {
      type: "string",
      valueHint: "duration",
      description: "Opens the host's boot window for so long, at most 720h",
    },
    ...askFlags,
  },
  run: async (args) => await (await import("./runs.ts")).runStart(args),
});

const tokenCommand = defineCommand({
  meta: {
    name: "token",
    description: "Print kernel parameters for a host that boots by a disk, or by its own loader",
    examples: [
      [
        "hostler vetting token 12 --address https://vetting.example:7443",
        "Good for one claim within 15min, inside the boot window",
      ],
      [
        "hostler vetting token 12 --replace --address https://vetting.example:7443",
        "The host that has a session is to boot anew: its session ends now",
      ],
    ],
    exitCodes: refused,
  },
  args: {
    ...runArgument,
    address: {
      type: "string",
      required: true,
      valueHint: "https://name:port",
      description: "How the host reaches the orchestrator",
    },
    replace: {
      type: "boolean",
      description: "End the session of a host that was heard within a minute",
    },
    ...askFlags,
  },
  run: async (args) => await (await import("./runs.ts")).runToken(args),
});

const cancelCommand = defineCommand({
  meta: {
    name: "cancel",
    description: "End the stage that runs, then the run; the host powers off",
    examples: [["hostler vetting cancel 12", "It is cancelled when its stage has ended"]],
    exitCodes: refused,
  },
  args: { ...runArgument, ...reasonFlag, ...askFlags },
  run: async (args) => await (await import("./directives.ts")).runCancel(args),
});

const abortCommand = defineCommand({
  meta: {
    name: "abort",
    description: "End all that the agent does, at once; the host stays up, without a key",
    examples: [["hostler vetting abort 12 --reason smoke", "Nothing is waited for"]],
    exitCodes: refused,
  },
  args: { ...runArgument, ...reasonFlag, ...askFlags },
  run: async (args) => await (await import("./directives.ts")).runAbort(args),
});

const retryCommand = defineCommand({
  meta: {
    name: "retry",
    description: "Have a host that holds do its failed stage again",
    examples: [
      ["hostler vetting retry 12", "The stage that failed; the inventory where the spec did"],
      [
        "hostler vetting retry 12 --stage Storage --wipe S64ANX0R",
        "What is on this disk is given up: asks for the permission wipe",
      ],
    ],
    exitCodes: refused,
  },
  args: {
    ...runArgument,
    ...stageFlag,
    wipe: {
      type: "string",
      repeatable: true,
      valueHint: "serial",
      description: "A disk whose contents are given up, for this attempt alone",
    },
    ...reasonFlag,
    ...askFlags,
  },
  run: async (args) => await (await import("./directives.ts")).runRetry(args),
});

const overrideCommand = defineCommand({
  meta: {
    name: "override",
    description: "Accept what failed, and go on after it; the verdict says so",
    examples: [
      ["hostler vetting override 12 PSU --reason 'one supply by design'", "Of a stage"],
      ["hostler vetting override 12 SpecValidate --reason 'older BIOS'", "Of broken rules"],
      ["hostler vetting override 12 identity --reason 'new board'", "Of another machine"],
    ],
    exitCodes: refused,
  },
  args: {
    ...runArgument,
    what: { type: "positional", description: "The stage, SpecValidate, or identity" },
    reason: {
      type: "string",
      required: true,
      valueHint: "text",
      description: "Why it may be so, for whoever looks",
    },
    ...askFlags,
  },
  run: async (args) => await (await import("./directives.ts")).runOverride(args),
});

const holdCommand = defineCommand({
  meta: {
    name: "hold",
    description: "Give a host that holds a key by which a person may come in",
    examples: [
      ["hostler vetting hold 12 --key alice.pub --for 1h", "Then the key and its sessions go"],
    ],
    exitCodes: refused,
  },
  args: {
    ...runArgument,
    key: {
      type: "string",
      required: true,
      valueHint: "file",
      complete: "file",
      description: "A public key of OpenSSH; the private one stays where it is",
    },
    for: {
      type: "string",
      valueHint: "duration",
      default: "1h",
      description: "For so long, at most 168h",
    },
    ...askFlags,
  },
  run: async (args) => await (await import("./directives.ts")).runHold(args),
});

const releaseCommand = defineCommand({
  meta: {
    name: "release",
    description: "Take a hold's key back, and end the run as failed unless the host is to stay",
    examples: [
      ["hostler vetting release 12", "The host powers off; also one whose run is over"],
      ["hostler vetting release 12 --after stay", "The key goes, and the host goes on to hold"],
    ],
    exitCodes: refused,
  },
  args: {
    ...runArgument,
    after: {
      type: "enum",
      options: ["shutdown", "reboot", "stay"],
      default: "shutdown",
      description: "What the host does then",
    },
    ...reasonFlag,
    ...askFlags,
  },
  run: async (args) => await (await import("./directives.ts")).runRelease(args),
});

const logsCommand = defineCommand({
  meta: {
    name: "logs",
    description: "Print the log of a run's host, with its kernel's lines",
    examples: [["hostler vetting logs 12 --follow --stage Storage", "As it grows"]],
    exitCodes: refused,
  },
  args: {
    ...runArgument,
    ...stageFlag,
    follow: { type: "boolean", alias: "f", description: "Go on with what comes" },
    ...askFlags,
  },
  run: async (args) => await (await import("./runs.ts")).runLogs(args),
});

export const orchestratorCommands: readonly Command[] = [
  orchestratorCommand,
  restoreCommand,
  hostCommand,
  specCommand,
  startCommand,
  tokenCommand,
  runsCommand,
  showCommand,
  logsCommand,
  reportCommand,
  outliersCommand,
  cancelCommand,
  abortCommand,
  retryCommand,
  overrideCommand,
  holdCommand,
  releaseCommand,
];
