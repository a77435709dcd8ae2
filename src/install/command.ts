import { type Command, defineCommand } from "../command-line/definition.ts";

/** `hostler install` */
export const installCommand: Command = defineCommand({
  meta: {
    name: "install",
    description: "Put this program, its other names and its systemd units in their places",
    examples: [
      ["hostler install --role luod", "Then systemctl enable --now luod starts it"],
      ["hostler install --role all --dry-run", "Say what would be done, and do nothing"],
      ["hostler install --role process-agent --root /mnt/image --prefix /usr", "Prepare an image"],
      ["hostler install --role luod --remove", "Take away what install has made, nothing else"],
    ],
    exitCodes: {
      0: "everything is as asked for, also when it was so before",
      111: "the system refused, or something was left as it is; it is named",
    },
  },
  args: {
    role: {
      type: "enum",
      // As in roles.ts, which a mistyped word need not load.
      options: [
        "all",
        "luod",
        "luoctl",
        "authority",
        "process",
        "process-orchestrator",
        "process-agent",
        "fleet-operator",
        "vetting-orchestrator",
        "vm-master",
        "vm-worker",
        "holden-agent",
        "holden-orchestrator",
      ],
      repeatable: true,
      valueHint: "role",
      description:
        "What this host is to be: all, luod, luoctl, authority, process (process-orchestrator " +
        "and process-agent), fleet-operator, vetting-orchestrator, vm-master, vm-worker, " +
        "holden-agent, holden-orchestrator",
    },
    prefix: {
      type: "string",
      valueHint: "path",
      complete: "file",
      default: "/usr/local",
      description: "The program goes to bin below it, luod's name to sbin",
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
      valueHint: "path",
      complete: "file",
      default: "/",
      description: "The folder of an image: everything goes below it",
    },
    remove: { type: "boolean", description: "Take away what install has made, nothing else" },
    force: {
      type: "boolean",
      description: "Also overwrite, or remove, what somebody has changed or put there",
    },
    "dry-run": { type: "boolean", description: "Say what would be done, and do nothing" },
    json: { type: "boolean", description: "As JSON" },
  },
  run: async (args) => await (await import("./commands/install.ts")).runInstall(args),
});
