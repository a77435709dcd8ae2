import { type Command, defineCommand, subCommandsOf } from "../command-line/definition.ts";
import { artifactCommand, keyCommand, rootCommand } from "./commands/artifact-command.ts";

/** `hostler fleet …` */
export const fleetCommand: Command = defineCommand({
  meta: {
    name: "fleet",
    description: "Bring new versions of this program to many hosts",
    examples: [
      ["hostler fleet key generate release", "Make a key that signs releases"],
      ["hostler fleet artifact build 1.5.0 dist/hostler --folder site", "Make a release"],
    ],
  },
  subCommands: subCommandsOf(artifactCommand, keyCommand, rootCommand),
});
