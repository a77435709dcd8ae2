import { type Command, defineCommand, subCommandsOf } from "../command-line/definition.ts";
import { artifactCommand, keyCommand, rootCommand } from "./commands/artifact-command.ts";
import { hostCommands } from "./commands/host-commands.ts";
import { operatorCommands } from "./commands/operator-commands.ts";

/** `hostler fleet …` */
export const fleetCommand: Command = defineCommand({
  meta: {
    name: "fleet",
    description: "Replace this program on many hosts, without stranding one",
    examples: [
      ["hostler fleet artifact build 1.5.0 dist/hostler --folder site", "Make a release"],
      ["hostler fleet operator", "Look after a fleet: an authority, with rollouts"],
      ["hostler fleet devices", "Who is there, and what each of them runs"],
      ["hostler fleet install", "Make this host one that is upgraded"],
    ],
  },
  subCommands: subCommandsOf(
    ...operatorCommands,
    ...hostCommands,
    artifactCommand,
    keyCommand,
    rootCommand,
  ),
});
