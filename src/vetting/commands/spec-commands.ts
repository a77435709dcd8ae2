import { type Command, defineCommand, subCommandsOf } from "../../command-line/definition.ts";
import { askFlags, refused } from "./ask-flags.ts";

/** `hostler vetting spec …` */

const specArgument = { spec: { type: "positional", description: "The name of a spec" } } as const;

const putCommand = defineCommand({
  meta: {
    name: "put",
    description: "Make a revision of a spec; runs that are under way keep theirs",
    examples: [["hostler vetting spec put rack-2.toml", "The name stands in the file"]],
    exitCodes: refused,
  },
  args: {
    file: { type: "positional", description: "TOML or JSON" },
    revision: {
      type: "string",
      valueHint: "number",
      description: "The one that this is made of: refused where another is; 0: there is none",
    },
    ...askFlags,
  },
  run: async (args) => await (await import("./specs.ts")).runSpecPut(args),
});

const getCommand = defineCommand({
  meta: {
    name: "get",
    description: "Print a spec as JSON, with every limit that it sets or leaves as it is",
    examples: [["hostler vetting spec get rack-2 --revision 3", "An older one"]],
    exitCodes: refused,
  },
  args: {
    ...specArgument,
    revision: { type: "string", valueHint: "number", description: "The newest when none is said" },
    ...askFlags,
  },
  run: async (args) => await (await import("./specs.ts")).runSpecGet(args),
});

const listCommand = defineCommand({
  meta: {
    name: "list",
    description: "List specs, with their newest revision",
    examples: [["hostler vetting spec list", "All of them"]],
    exitCodes: refused,
  },
  args: askFlags,
  run: async (args) => await (await import("./specs.ts")).runSpecList(args),
});

const removeCommand = defineCommand({
  meta: {
    name: "remove",
    description: "Take a spec away that no host has; what runs were held to stays with them",
    examples: [["hostler vetting spec remove rack-1", "No run can be held to it any more"]],
    exitCodes: refused,
  },
  args: { ...specArgument, ...askFlags },
  run: async (args) => await (await import("./specs.ts")).runSpecRemove(args),
});

export const specCommand: Command = defineCommand({
  meta: {
    name: "spec",
    description: "Say what hosts are to be, and how hard they are looked at",
    examples: [["hostler vetting spec list", "All specs, with their newest revision"]],
  },
  subCommands: subCommandsOf(listCommand, putCommand, getCommand, removeCommand),
});
