import { type Command, defineCommand } from "../../command-line/definition.ts";
import { agentPlaces, bootParameters } from "../protocol.ts";

/** `hostler vetting agent` */
export const agentCommand: Command = defineCommand({
  meta: {
    name: "agent",
    description: "Test this host, as the orchestrator says that it was booted by",
    examples: [
      ["hostler vetting agent", "In a live image: all stands on the kernel's command line"],
      [
        "hostler vetting agent --orchestrator URL --pin PIN --run 12 --token-file FILE --no-power",
        "By hand, on a host that stays up",
      ],
    ],
    exitCodes: {
      0: "the run is over and needs this host no more, or SIGTERM came",
      111: "the orchestrator does not know this host any more, or the folder is another agent's",
    },
  },
  args: {
    orchestrator: {
      type: "string",
      valueHint: "url",
      description: `https://HOST:PORT; else ${bootParameters.orchestrator}= of the kernel`,
    },
    run: {
      type: "string",
      valueHint: "number",
      description: `The run; else ${bootParameters.run}= of the kernel`,
    },
    pin: {
      type: "string",
      valueHint: "sha256",
      description: `Of the orchestrator's certificate; else ${bootParameters.pin}= of the kernel`,
    },
    mac: {
      type: "string",
      valueHint: "address",
      description: `The card that was booted from; else ${bootParameters.mac}= of the kernel`,
    },
    "token-file": {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: `With the run's token; else ${bootParameters.token}= of the kernel`,
    },
    folder: {
      type: "string",
      valueHint: "folder",
      default: agentPlaces.folder,
      description: "What is kept for the next start of the agent: in memory",
    },
    "authorized-keys": {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "Where the key of a hold is put; else .ssh/authorized_keys of this user",
    },
    "no-power": {
      type: "boolean",
      description: "Say what would be done to the power, and end",
    },
    "log-json": { type: "boolean", description: "Log lines as JSON" },
    verbose: { type: "boolean", alias: "v", description: "Log more" },
  },
  run: async (flags) => {
    const { runAgentCommand } = await import("./agent.ts");
    return await runAgentCommand(flags);
  },
});
