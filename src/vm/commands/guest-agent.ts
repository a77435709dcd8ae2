import { type Command, defineCommand } from "../../command-line/definition.ts";

/** What runs inside of a guest. */
export const guestAgentCommand: Command = defineCommand({
  meta: {
    name: "guest-agent",
    description: "Inside of a virtual machine: answer the worker outside, and run programs for it",
    examples: [
      ["hostler vm guest-agent", "Be asked at the guest's own port: virtio-serial, else vsock"],
      ["hostler vm guest-agent --port /dev/vport1p1", "Be asked at this virtio-serial port"],
      ["hostler vm guest-agent --port vsock:26735", "Be asked at this port of AF_VSOCK"],
    ],
  },
  args: {
    port: {
      type: "string",
      valueHint: "path",
      complete: "file",
      description: "A virtio-serial port, a Unix socket, or vsock:NUMBER",
    },
    "log-json": { type: "boolean", description: "Log one JSON object a line" },
    verbose: {
      type: "boolean",
      alias: "v",
      description: "Log also what is only of use to a developer",
    },
  } as const,
  run: async (args) => {
    const { configureLogging } = await import("../../logging/logger.ts");
    if (args["log-json"]) configureLogging({ format: "json" });
    if (args.verbose) configureLogging({ level: "debug" });
    const { runGuestAgent } = await import("../guest-agent/agent.ts");
    return await runGuestAgent(args.port);
  },
});
