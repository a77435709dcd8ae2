import { type Command, defineCommand, subCommandsOf } from "../../command-line/definition.ts";
import { askFlags, hostArgument, refused } from "./ask-flags.ts";

/** `hostler vetting host …` */

const addCommand = defineCommand({
  meta: {
    name: "add",
    description: "Take a host in, by the card that it boots from, or name it anew",
    examples: [
      ["hostler vetting host add 52:54:00:12:34:56 --name node-7 --spec rack-2", "A new one"],
    ],
    exitCodes: refused,
  },
  args: {
    mac: { type: "positional", description: "The card that it boots from: 52:54:00:12:34:56" },
    name: { type: "string", valueHint: "name", description: "For people; else made of the card" },
    spec: { type: "string", valueHint: "name", description: "Of runs for which none is said" },
    ...askFlags,
  },
  run: async (args) => await (await import("./hosts.ts")).runHostAdd(args),
});

const listCommand = defineCommand({
  meta: {
    name: "list",
    description: "List hosts, with their last verdict; unknown ones that asked to boot as well",
    examples: [["hostler vetting host list --json", "For a program"]],
    exitCodes: refused,
  },
  args: askFlags,
  run: async (args) => await (await import("./hosts.ts")).runHostList(args),
});

const windowCommand = defineCommand({
  meta: {
    name: "window",
    description: "Let a host boot into its open run for so long",
    examples: [
      ["hostler vetting host window node-7 --for 30min", "Open"],
      ["hostler vetting host window node-7 --for 0s", "Close it"],
    ],
    exitCodes: refused,
  },
  args: {
    ...hostArgument,
    for: { type: "string", valueHint: "duration", default: "30min", description: "At most 720h" },
    ...askFlags,
  },
  run: async (args) => await (await import("./hosts.ts")).runHostWindow(args),
});

const removeCommand = defineCommand({
  meta: {
    name: "remove",
    description: "Forget a host that has no open run, and what it was known by",
    examples: [["hostler vetting host remove node-7", "Its runs stay"]],
    exitCodes: refused,
  },
  args: { ...hostArgument, ...askFlags },
  run: async (args) => await (await import("./hosts.ts")).runHostRemove(args),
});

export const hostCommand: Command = defineCommand({
  meta: {
    name: "host",
    description: "Take hosts in, let them boot, and forget them",
    examples: [["hostler vetting host list", "Who is known, and with what verdict"]],
  },
  subCommands: subCommandsOf(listCommand, addCommand, windowCommand, removeCommand),
});
