import { type Command, defineCommand, subCommandsOf } from "../../command-line/definition.ts";
import { askFlags, jsonFlag, refused, runArgument } from "./ask-flags.ts";

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

const learnCommand = defineCommand({
  meta: {
    name: "learn",
    description: "Make a golden spec of good hosts; of several, what they share",
    examples: [
      ["hostler vetting spec learn 12 --name rack-2 --out rack-2.json", "For all of its kind"],
      ["hostler vetting spec learn 12 13 14 --name rack-2", "What three hosts share"],
      ["hostler vetting spec learn 12 --name node-7 --serials", "For this one machine"],
    ],
    exitCodes: refused,
  },
  args: {
    run: { type: "positional", repeatable: true, description: "Numbers of runs of good hosts" },
    name: {
      type: "string",
      required: true,
      valueHint: "name",
      description: "What the spec is called",
    },
    serials: {
      type: "boolean",
      description: "Also what tells this machine from all others: serials, cards, its disks",
    },
    without: {
      type: "string",
      repeatable: true,
      valueHint: "part",
      description: "A part that it says nothing of: memory, disks, network, pci, …",
    },
    out: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "Where it is written, as JSON; the file must be new",
    },
    ...askFlags,
  },
  run: async (args) => await (await import("./learn.ts")).runSpecLearn(args),
});

const checkCommand = defineCommand({
  meta: {
    name: "check",
    description: "Read a spec, and say what is wrong with it; or hold a host's inventory to it",
    examples: [
      ["hostler vetting spec check rack-2.toml", "Mistakes by line and column"],
      ["hostler vetting spec check rack-2.toml --inventory host.json", "What of it is not so"],
    ],
    exitCodes: { 3: "the inventory breaks a rule" },
  },
  args: {
    file: { type: "positional", complete: "file", description: "TOML or JSON" },
    inventory: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "An inventory as JSON, or a dossier of a run: hostler vetting show --json",
    },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./learn.ts")).runSpecCheck(args),
});

const diffCommand = defineCommand({
  meta: {
    name: "diff",
    description: "Show a run's host beside its spec: what is broken, and what no rule is about",
    examples: [["hostler vetting spec diff 12", "Down to serials and memory modules"]],
    exitCodes: refused,
  },
  args: { ...runArgument, ...askFlags },
  run: async (args) => await (await import("./learn.ts")).runSpecDiff(args),
});

export const specCommand: Command = defineCommand({
  meta: {
    name: "spec",
    description: "Say what hosts are to be, and how hard they are looked at",
    examples: [["hostler vetting spec list", "All specs, with their newest revision"]],
  },
  subCommands: subCommandsOf(
    listCommand,
    putCommand,
    getCommand,
    removeCommand,
    learnCommand,
    checkCommand,
    diffCommand,
  ),
});
