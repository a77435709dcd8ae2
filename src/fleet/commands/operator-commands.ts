import { authorityFlags, clientFlags, jsonFlag } from "../../authority/flags.ts";
import { type Command, defineCommand } from "../../command-line/definition.ts";

/** What an operator's daemon and whoever asks it type. */

const refused = { 111: "the operator is away, or refused" } as const;

const askFlags = {
  ...clientFlags,
  "control-socket": {
    ...clientFlags["control-socket"],
    description: "Where this host's operator takes requests",
  },
  ...jsonFlag,
} as const;

const deviceArgument = { device: { type: "positional", description: "A device" } } as const;
const rolloutArgument = { rollout: { type: "positional", description: "A rollout" } } as const;
const reasonFlag = {
  reason: { type: "string", valueHint: "text", description: "Why, for whoever looks" },
} as const;

const manifestFlags = {
  source: {
    type: "string",
    repeatable: true,
    valueHint: "address",
    description: "A folder that has the version: https:, http: or file:; tried in order",
  },
  rate: {
    type: "string",
    valueHint: "bytes",
    description: "Fetch at most so much a second on each device, such as 1MiB",
  },
  name: {
    type: "string",
    valueHint: "name",
    description: "What the rollout is called; its version, when nothing is said",
  },
  heartbeat: {
    type: "string",
    valueHint: "duration",
    default: "10s",
    description: "Of devices that are being upgraded, 1s to 10s: each is proven as much sooner",
  },
  root: {
    type: "string",
    valueHint: "file",
    complete: "file",
    description: "Check the release first, as devices do that have pinned this root set",
  },
  "allow-unknown": {
    type: "boolean",
    description: "A device that is named may be one that was never heard: it will come",
  },
  follow: { type: "boolean", description: "Show how far it is, until it has ended: as watch does" },
} as const;

/** Of what waits for the end of a rollout. */
const ended = {
  0: "it is complete",
  111: "it was paused or aborted, others took its devices, or the operator is away, or refused",
} as const;

const operatorCommand = defineCommand({
  meta: {
    name: "operator",
    description: "Look after a fleet: an authority, which alone commits upgrades of its devices",
    examples: [
      ["hostler fleet operator", "For this host alone: it listens on loopback"],
      [
        "hostler fleet operator --listen 0.0.0.0:7443 --address https://fleet.example:7443",
        "For devices elsewhere, which are let in as hosts: hostler identity token create",
      ],
      [
        "hostler fleet operator --config /etc/hostler/fleet-operator.toml",
        "One of several, which keep the fleet in NATS",
      ],
    ],
    exitCodes: { 111: "another one runs here, or the system refused" },
  },
  args: {
    config: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "TOML: where in NATS the fleet is kept, for more than one machine",
    },
    ...authorityFlags,
  },
  run: async (args) => await (await import("./operator.ts")).runOperatorCommand(args),
});

const devicesCommand = defineCommand({
  meta: {
    name: "devices",
    description: "List devices: who is there, what runs, and what is to become of it",
    examples: [["hostler fleet devices --json", "For a program"]],
    exitCodes: refused,
  },
  args: askFlags,
  run: async (args) => await (await import("./fleet.ts")).runDevices(args),
});

const showCommand = defineCommand({
  meta: {
    name: "show",
    description: "Show one device, with the last words of a candidate that failed",
    examples: [["hostler fleet show box-1", "What it runs, and how far its upgrade is"]],
    exitCodes: refused,
  },
  args: { ...deviceArgument, ...askFlags },
  run: async (args) => await (await import("./fleet.ts")).runShow(args),
});

const labelCommand = defineCommand({
  meta: {
    name: "label",
    description: "Say a device's labels in place of the old; asks for the permission rollout",
    examples: [["hostler fleet label box-1 --label site=lab", "It has this one alone"]],
    exitCodes: refused,
  },
  args: {
    ...deviceArgument,
    label: {
      type: "string",
      repeatable: true,
      valueHint: "key=value",
      description: "A label; none at all takes them away",
    },
    ...askFlags,
  },
  run: async (args) => await (await import("./fleet.ts")).runLabel(args),
});

const forgetCommand = defineCommand({
  meta: {
    name: "forget",
    description: "Forget a device that is lost, so that no rollout waits for it",
    examples: [["hostler fleet forget box-1", "It never comes back"]],
    exitCodes: { 111: "the operator is away, or the device may be there" },
  },
  args: { ...deviceArgument, ...askFlags },
  run: async (args) => await (await import("./fleet.ts")).runForget(args),
});

const rolloutCommand = defineCommand({
  meta: {
    name: "rollout",
    description: "Give a version to devices, some after others",
    examples: [
      [
        "hostler fleet rollout hostler-1.5.0.manifest.json --source https://files.example/hostler",
        "To all, at most a tenth at once; with the first failure it pauses",
      ],
      [
        "hostler fleet rollout M --source S --canaries 5 --wave 10% --wave 50% --soak 1h",
        "Five first, then a tenth, then half, then all, with an hour between",
      ],
      [
        'hostler fleet rollout M --source S --label site=lab --window "sat,sun 22:00-04:00"',
        "Devices of one site, in nights of the weekend, UTC",
      ],
      [
        "hostler fleet rollout M --source S --root root-1.json --follow",
        "Check what is signed first, then show how far it is until it has ended",
      ],
    ],
    exitCodes: { 0: "it is begun; with --follow, it is complete", 111: ended[111] },
  },
  args: {
    manifest: { type: "positional", description: "A signed manifest" },
    ...manifestFlags,
    canaries: {
      type: "string",
      valueHint: "count",
      description: "So many devices first: with one failure among them it pauses",
    },
    wave: {
      type: "string",
      repeatable: true,
      valueHint: "10%",
      description: "So many devices in all, or such a part, more with each; then all",
    },
    soak: {
      type: "string",
      valueHint: "duration",
      default: "0s",
      description: "Between the end of a wave and the next one, at most 168h",
    },
    "max-unavailable": {
      type: "string",
      valueHint: "10%",
      default: "10%",
      description: "Devices that are being upgraded at once: a number, or a part",
    },
    failures: {
      type: "string",
      valueHint: "percent",
      default: "0%",
      description: "The part of a wave that may fail; with one more it pauses",
    },
    label: {
      type: "string",
      repeatable: true,
      valueHint: "key=value",
      description: "Only devices that have this label",
    },
    device: {
      type: "string",
      repeatable: true,
      valueHint: "name",
      description: "Only this device, and others that are named so",
    },
    window: {
      type: "string",
      repeatable: true,
      valueHint: "days hh:mm-hh:mm",
      description: 'Only then, in UTC: "sat,sun 22:00-04:00" or "daily 01:00-05:00"',
    },
    ...askFlags,
  },
  run: async (args) => await (await import("./fleet.ts")).runRollout(args),
});

const upgradeCommand = defineCommand({
  meta: {
    name: "upgrade",
    description: "Give a version to one device: a rollout to it alone",
    examples: [
      ["hostler fleet upgrade box-1 M --source S", "Now"],
      ["hostler fleet upgrade box-1 M --source S --follow", "And say how it ended"],
    ],
    exitCodes: { 0: "it is begun; with --follow, it is complete", 111: ended[111] },
  },
  args: {
    ...deviceArgument,
    manifest: { type: "positional", description: "A signed manifest" },
    ...manifestFlags,
    ...askFlags,
  },
  run: async (args) => await (await import("./fleet.ts")).runUpgrade(args),
});

const watchCommand = defineCommand({
  meta: {
    name: "watch",
    description: "Show how far a rollout is, until it has ended or waits for somebody",
    examples: [
      ["hostler fleet watch 1.5.0", "One line of a terminal; elsewhere nothing but how it ended"],
      ["hostler fleet watch 1.5.0 --timeout 30min && notify", "For a script"],
      ["hostler fleet watch 1.5.0 --json", "One JSON object a line, for each change"],
    ],
    exitCodes: { ...ended, 111: `${ended[111]}; or the time is over` },
  },
  args: {
    ...rolloutArgument,
    timeout: {
      type: "string",
      valueHint: "duration",
      description: "Wait no longer; the rollout goes on",
    },
    ...askFlags,
    json: { type: "boolean", description: "Print one JSON object a line" },
  },
  run: async (args) => await (await import("./watch.ts")).runWatch(args),
});

const pauseCommand = defineCommand({
  meta: {
    name: "pause",
    description: "Begin and commit nothing more of a rollout, until it is resumed",
    examples: [['hostler fleet pause 1.5.0 --reason "a look at box-1"', "For a while"]],
    exitCodes: refused,
  },
  args: { ...rolloutArgument, ...reasonFlag, ...askFlags },
  run: async (args) => await (await import("./fleet.ts")).runPause(args),
});

const resumeCommand = defineCommand({
  meta: {
    name: "resume",
    description: "Go on with a rollout: what has failed is accepted, or tried again",
    examples: [
      ["hostler fleet resume 1.5.0", "Leave those that failed as they are"],
      ["hostler fleet resume 1.5.0 --retry", "Try them again"],
    ],
    exitCodes: refused,
  },
  args: {
    ...rolloutArgument,
    retry: { type: "boolean", description: "Try again what has failed" },
    ...askFlags,
  },
  run: async (args) => await (await import("./fleet.ts")).runResume(args),
});

const abortCommand = defineCommand({
  meta: {
    name: "abort",
    description: "End a rollout for good, and take back what is not committed",
    examples: [["hostler fleet abort 1.5.0 --reason withdrawn", "Devices that have it keep it"]],
    exitCodes: refused,
  },
  args: { ...rolloutArgument, ...reasonFlag, ...askFlags },
  run: async (args) => await (await import("./fleet.ts")).runAbort(args),
});

const historyCommand = defineCommand({
  meta: {
    name: "history",
    description: "List rollouts, the newest first, or show one",
    examples: [
      ["hostler fleet history", "All of them, and how they ended"],
      ["hostler fleet history 1.5.0", "How far it is, and what became of each of its devices"],
    ],
    exitCodes: refused,
  },
  args: {
    rollout: { type: "positional", required: false, description: "A rollout; all without it" },
    ...askFlags,
  },
  run: async (args) => await (await import("./fleet.ts")).runHistory(args),
});

const eventsCommand = defineCommand({
  meta: {
    name: "events",
    description: "Print what happens to devices and rollouts",
    examples: [["hostler fleet events --follow", "As it happens, until it is interrupted"]],
    exitCodes: refused,
  },
  args: {
    follow: { type: "boolean", description: "Go on as it happens" },
    after: {
      type: "string",
      valueHint: "id",
      description: "Only what came after this one, also before the operator was started again",
    },
    ...askFlags,
    json: { type: "boolean", description: "Print one JSON object a line" },
  },
  run: async (args) => await (await import("./fleet.ts")).runEvents(args),
});

const metricsCommand = defineCommand({
  meta: {
    name: "metrics",
    description: "Print numbers of the fleet, as Prometheus reads them",
    examples: [["hostler fleet metrics", "The same as /metrics of the operator"]],
    exitCodes: refused,
  },
  args: askFlags,
  run: async (args) => await (await import("./fleet.ts")).runMetrics(args),
});

export const operatorCommands: readonly Command[] = [
  operatorCommand,
  devicesCommand,
  showCommand,
  labelCommand,
  forgetCommand,
  rolloutCommand,
  upgradeCommand,
  watchCommand,
  pauseCommand,
  resumeCommand,
  abortCommand,
  historyCommand,
  eventsCommand,
  metricsCommand,
];
