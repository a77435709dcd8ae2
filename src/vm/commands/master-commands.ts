import { authorityFlags, clientFlags, jsonFlag } from "../../authority/flags.ts";
import { type Command, defineCommand } from "../../command-line/definition.ts";

/** What a master's daemon and its operators type. */

const refused = { 111: "the master is away, or refused" } as const;

const { "control-socket": masterSocket, ...elsewhere } = clientFlags;

/** For commands that ask this host's worker without them. */
export const masterFlags = {
  master: { type: "boolean", description: "Ask the master, and not this host's worker" },
  "master-socket": { ...masterSocket, description: "Where this host's master takes requests" },
  ...elsewhere,
} as const;

const masterClientFlags = {
  "control-socket": { ...masterSocket, description: "Where this host's master takes requests" },
  ...elsewhere,
} as const;

const workerArgument = { worker: { type: "positional", description: "A worker" } } as const;

const masterCommand = defineCommand({
  meta: {
    name: "master",
    description: "Give virtual machines to workers: an authority, with a declared state",
    examples: [
      ["hostler vm master", "For this host's worker alone: it listens on loopback"],
      [
        "hostler vm master --listen 0.0.0.0:7443 --address https://master.example:7443",
        "For workers elsewhere, which are let in as hosts: hostler identity token create",
      ],
      ["hostler vm master --config /etc/hostler/master.toml", "With a program that cuts power"],
    ],
    exitCodes: { 111: "another one runs here, or the system refused" },
  },
  args: {
    config: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "TOML: when a worker counts as lost, and what cuts its power",
    },
    ...authorityFlags,
  },
  run: async (args) => await (await import("./master.ts")).runMasterCommand(args),
});

const clusterCommand = defineCommand({
  meta: {
    name: "cluster",
    description: "Show all workers and machines of a master, and how far they are as declared",
    examples: [["hostler vm cluster --json", "For a program"]],
    exitCodes: refused,
  },
  args: { ...masterClientFlags, ...jsonFlag },
  run: async (args) => await (await import("./cluster.ts")).runStatus(args),
});

const workersCommand = defineCommand({
  meta: {
    name: "workers",
    description: "List the workers of a master, or show one and what it has",
    examples: [
      ["hostler vm workers", "Who is there, silent, or lost, and what each has free"],
      ["hostler vm workers rack-1", "One, with its machines as it reported them"],
    ],
    exitCodes: refused,
  },
  args: {
    worker: { type: "positional", required: false, description: "A worker; all without it" },
    ...masterClientFlags,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./cluster.ts")).runWorkers(args),
});

const cordonCommand = defineCommand({
  meta: {
    name: "cordon",
    description: "Give a worker no further machines; those that it has stay",
    examples: [["hostler vm cordon rack-1", "Before it is taken away"]],
    exitCodes: refused,
  },
  args: { ...workerArgument, ...masterClientFlags, ...jsonFlag },
  run: async (args) => await (await import("./cluster.ts")).runCordon(args, "cordon"),
});

const uncordonCommand = defineCommand({
  meta: {
    name: "uncordon",
    description: "Give a worker machines again",
    examples: [["hostler vm uncordon rack-1", "After hostler vm cordon"]],
    exitCodes: refused,
  },
  args: { ...workerArgument, ...masterClientFlags, ...jsonFlag },
  run: async (args) => await (await import("./cluster.ts")).runCordon(args, "uncordon"),
});

const fenceCommand = defineCommand({
  meta: {
    name: "fence",
    description: "Say that a silent worker is off, so that its movable machines run elsewhere",
    examples: [
      [
        "hostler vm fence --confirm rack-1",
        "After somebody saw that it is off: two machines would write to one disk else",
      ],
    ],
    exitCodes: { 111: "the master is away, or the worker is there, or may be: nothing moves" },
  },
  args: {
    confirm: {
      type: "string",
      required: true,
      valueHint: "worker",
      description: "The worker of which nothing runs any more",
    },
    ...masterClientFlags,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./cluster.ts")).runFence(args),
});

const forgetCommand = defineCommand({
  meta: {
    name: "forget",
    description: "Forget a worker that is lost and has no machines, or never comes back",
    examples: [
      ["hostler vm forget rack-1", "It has no machines"],
      ["hostler vm forget rack-1 --for-good", "Its machines are made anew elsewhere"],
    ],
    exitCodes: refused,
  },
  args: {
    ...workerArgument,
    "for-good": {
      type: "boolean",
      description: "It never starts anything again: it is taken apart, or its disk is gone",
    },
    ...masterClientFlags,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./cluster.ts")).runForget(args),
});

export const masterCommands: readonly Command[] = [
  masterCommand,
  clusterCommand,
  workersCommand,
  cordonCommand,
  uncordonCommand,
  fenceCommand,
  forgetCommand,
];
