import { type Command, defineCommand, subCommandsOf } from "../command-line/definition.ts";
import { agentCommand } from "./commands/agent-command.ts";
import { orchestratorCommands } from "./commands/orchestrator-commands.ts";
import { proveCommand } from "./commands/prove-command.ts";

/** `hostler vetting …` */
export const vettingCommand: Command = defineCommand({
  meta: {
    name: "vetting",
    description: "Have a host prove its hardware before it serves",
    examples: [
      [
        "hostler vetting orchestrator",
        "Look after runs: an authority, with hosts that come by boot",
      ],
      ["hostler vetting start node-7 --spec rack-2 --window 30min", "Vet a host when it boots"],
      ["hostler vetting runs", "How far each of them is"],
      ["hostler vetting agent", "In a live image: do what the orchestrator says"],
    ],
  },
  subCommands: subCommandsOf(...orchestratorCommands, agentCommand, proveCommand),
});
