import { defaultHostDirectory } from "../../authority/protocol.ts";
import { type Command, defineCommand } from "../../command-line/definition.ts";
import { defaultFleetFolder } from "../layout.ts";
import { defaultSuperviseSocket } from "../protocol-supervise.ts";

const folderFlag = {
  folder: {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: defaultFleetFolder,
    description: "The installation: versions, and the links to them",
  },
} as const;

const volatileFlag = {
  volatile: {
    type: "boolean",
    description: "The folder does last, or need not: take one that does not look so",
  },
} as const;

const logFlags = {
  "log-json": { type: "boolean", description: "Log one JSON object a line" },
  verbose: {
    type: "boolean",
    alias: "v",
    description: "Log also what is only of use to a developer",
  },
} as const;

const installCommand = defineCommand({
  meta: {
    name: "install",
    description: "Make this host one that is upgraded: store this program, and link to it",
    examples: [
      ["hostler fleet install", "Then systemctl enable --now hostler-fleet-agent starts it"],
      ["hostler fleet install --root root-1.json", "And say whose releases it takes"],
      ["hostler fleet install --dry-run", "Say what would be done, and do nothing"],
      ["hostler fleet install --without-units --folder /data/hostler", "In a container's volume"],
      ["hostler fleet install --image /mnt/image --prefix /usr --root root-1.json", "For an image"],
      ["hostler fleet install --remove", "Take away what it, and upgrades, have made"],
    ],
    exitCodes: {
      0: "everything is as asked for, also when it was so before",
      111: "the system refused, or something was left as it is; it is named",
    },
  },
  args: {
    ...folderFlag,
    prefix: {
      type: "string",
      valueHint: "path",
      complete: "file",
      default: "/usr/local",
      description: "bin below it gets a link to the current version",
    },
    "unit-directory": {
      type: "string",
      valueHint: "path",
      complete: "file",
      default: "/etc/systemd/system",
      description: "Where units go",
    },
    root: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "Pin this root set: releases that it leads to, and no others, are taken",
    },
    image: {
      type: "string",
      valueHint: "path",
      complete: "file",
      description: "The folder of an image: everything goes below it",
    },
    remove: {
      type: "boolean",
      description: "Take away what was made, versions too; refused while one of them runs",
    },
    "without-units": { type: "boolean", description: "Write no units: hostler fleet supervise" },
    ...volatileFlag,
    force: {
      type: "boolean",
      description: "Also replace what somebody has changed, and a current version by this one",
    },
    "dry-run": { type: "boolean", description: "Say what would be done, and do nothing" },
    json: { type: "boolean", description: "As JSON" },
  },
  run: async (args) => await (await import("./install.ts")).runFleetInstall(args),
});

const enrollCommand = defineCommand({
  meta: {
    name: "enroll",
    description: "Let this host into a fleet, by a token that is good once, and say what is next",
    examples: [
      ["hostler fleet enroll < box-1.token", "As hostler identity token create box-1 has made it"],
    ],
    exitCodes: { 111: "the operator refused, or cannot be reached; nothing is half-done" },
  },
  args: {
    "token-file": {
      type: "string",
      valueHint: "file",
      complete: "file",
      default: "-",
      description: "The token that the operator made; - is stdin",
    },
    directory: {
      type: "string",
      valueHint: "path",
      complete: "file",
      default: defaultHostDirectory,
      description: "Where this host's key and what it knows of the operator lie",
    },
    ...folderFlag,
    json: { type: "boolean", description: "As JSON" },
  },
  run: async (args) => await (await import("./enroll.ts")).runEnroll(args),
});

const guardCommand = defineCommand({
  meta: {
    name: "guard",
    description: "Decide which version may run, and link to it: before each start of the agent",
    examples: [
      ["/opt/hostler/previous/hostler fleet guard", "As the agent's unit does, ExecStartPre="],
    ],
    exitCodes: { 111: "no version on this host is intact, or somebody changes the installation" },
  },
  args: folderFlag,
  run: async (args) => await (await import("./guard.ts")).runGuard(args),
});

const agentCommand = defineCommand({
  meta: {
    name: "agent",
    description: "Follow this host's operator: fetch, prove and try versions, and go back",
    examples: [
      ["hostler fleet agent", "As its unit does, where hostler fleet install has made one"],
      ["hostler fleet agent --identity /data/identity", "With the identity in another folder"],
    ],
    exitCodes: { 111: "this host is not enrolled, or the program is no version of the folder" },
  },
  args: {
    ...folderFlag,
    identity: {
      type: "string",
      valueHint: "path",
      complete: "file",
      default: defaultHostDirectory,
      description: "This host's identity, as hostler identity enrol makes it",
    },
    candidate: {
      type: "string",
      valueHint: "instance",
      description: "As an agent says it to its candidate, which is only heard",
    },
    transaction: {
      type: "string",
      valueHint: "id",
      description: "The upgrade that the candidate is of",
    },
    heartbeat: {
      type: "string",
      valueHint: "duration",
      default: "10s",
      description: "Between two heartbeats of the candidate",
    },
    ...logFlags,
  },
  run: async (args) => await (await import("./agent.ts")).runAgentCommand(args),
});

const superviseCommand = defineCommand({
  meta: {
    name: "supervise",
    description: "Run the agent where no service manager does: as the first process, too",
    examples: [
      ["hostler fleet supervise --folder /data/hostler", "In a container, with a volume at /data"],
      ["hostler fleet supervise -- --verbose", "With a flag for the agent"],
    ],
    exitCodes: { 111: "the folder does not last, or somebody else supervises it" },
  },
  args: {
    ...folderFlag,
    "control-socket": {
      type: "string",
      valueHint: "path",
      complete: "file",
      default: defaultSuperviseSocket,
      description: "Where the agent asks for candidates",
    },
    watchdog: {
      type: "string",
      valueHint: "time",
      default: "30s",
      description: "An agent that has said that it lives, and is silent for so long, is ended",
    },
    adopt: {
      type: "string",
      valueHint: "json",
      description: "As a supervisor says it to itself, when it goes on as another version",
    },
    word: {
      type: "positional",
      required: false,
      repeatable: true,
      description: "What the agent is told besides, after --",
    },
    ...volatileFlag,
    ...logFlags,
  },
  run: async (args) => await (await import("./supervise.ts")).runSuperviseCommand(args),
});

/** What a host itself needs of `hostler fleet`. */
export const hostCommands: readonly Command[] = [
  installCommand,
  enrollCommand,
  agentCommand,
  superviseCommand,
  guardCommand,
];
