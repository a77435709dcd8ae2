import { basename } from "node:path";
import { type Command, defineCommand } from "./definition.ts";
import { printJson, printText } from "./output.ts";
import { runTree } from "./run.ts";

/**
 * The tree of commands. What stands here is all that help and a mistyped word need; a command's
 * module is imported when it is called.
 */
export const root: Command = defineCommand({
  meta: {
    name: "hostler",
    description: "Looks after a Linux host: one file, copied anywhere.",
    examples: [
      ["hostler process orchestrator --config /etc/hostler/process.toml", "Keep processes running"],
      ["hostler process list", "Show what runs, in every partition"],
      ["hostler doctor process", "Say what this host can do, and what to change"],
      ["hostler --self-test", "Load every role, try libc, and read what this host has for it"],
    ],
  },
  args: {
    version: { type: "boolean", description: "Show version, commit, Bun and libc" },
    "self-test": {
      type: "boolean",
      description: "Say whether this file can do its work on this host; nothing is changed",
    },
    digest: {
      type: "string",
      valueHint: "sha256",
      description: "With --self-test: what this file is to be, 64 hexadecimal digits",
    },
    json: { type: "boolean", description: "With --version or --self-test: as JSON" },
  },
  subCommands: {
    process: {
      description: "Keep processes running, also in another partition",
      load: async () => (await import("../process/command.ts")).processCommand,
    },
    "live-update": {
      description: "Change the kernel, and keep what programs hold in memory",
      load: async () => (await import("../live-update/command.ts")).liveUpdateCommand,
    },
    vm: {
      description: "Run virtual machines that outlive their manager",
      load: async () => (await import("../vm/command.ts")).vmCommand,
    },
    doctor: {
      description: "Say what this host can do, and what to change so that it can do the rest",
      load: async () => (await import("../doctor/command.ts")).doctorCommand,
    },
    identity: {
      description: "Say who hosts and operators are, let them in, and end it",
      load: async () => (await import("../authority/command.ts")).identityCommand,
    },
    store: {
      description: "Look after what an authority remembers: its size, backups, a restore",
      load: async () => (await import("../authority/command.ts")).storeCommand,
    },
    audit: {
      description: "Show the log of who did what, and prove that nobody has changed it",
      load: async () => (await import("../authority/commands/audit-command.ts")).auditCommand,
    },
    install: {
      description: "Put this program, its other names and its systemd units in their places",
      load: async () => (await import("../install/command.ts")).installCommand,
    },
    fleet: {
      description: "Replace this program on many hosts, without stranding one",
      load: async () => (await import("../fleet/command.ts")).fleetCommand,
    },
    vetting: {
      description: "Have a host prove its hardware before it serves",
      load: async () => (await import("../vetting/command.ts")).vettingCommand,
    },
    completions: {
      description: "Print what a shell needs to complete commands, flags and names of processes",
      load: async () => (await import("./completions.ts")).completionsCommand(root),
    },
  },
  run: async (args) => {
    if (args["self-test"]) {
      const { selfTest } = await import("../doctor/self-test.ts");
      return await selfTest({ json: args.json, digest: args.digest });
    }
    if (!args.version) return await runTree(root, "hostler", ["--help"]);
    const { reportVersion } = await import("../doctor/version.ts");
    const report = await reportVersion();
    if (args.json) await printJson(report);
    else {
      const { version, commit, bun, libc, kernel } = report;
      await printText(
        `hostler ${version}\ncommit ${commit}\nBun ${bun}\nlibc ${libc}\nkernel ${kernel}\n`,
      );
    }
    return 0;
  },
});

/**
 * Runs the command line. Called by one of Holden's or luo-agent's names, the program is that.
 * @param calledAs argv[0], as the caller gave it
 * @param words what follows the program's name
 * @returns the exit code
 */
export async function runCommandLine(calledAs: string, words: readonly string[]): Promise<number> {
  // By each of its names it is the same file, of the same version.
  if (words[0] === "--version") return await runTree(root, "hostler", words);
  switch (basename(calledAs)) {
    case "holden-agent": {
      const { holdenAgentCommand } = await import("../process/command.ts");
      return await runTree(holdenAgentCommand, "holden-agent", words);
    }
    case "holden-orchestrator": {
      const { holdenOrchestratorCommand } = await import("../process/command.ts");
      return await runTree(holdenOrchestratorCommand, "holden-orchestrator", words);
    }
    case "luod": {
      const { luodCommand } = await import("../live-update/command.ts");
      return await runTree(luodCommand, "luod", words);
    }
    case "luoctl": {
      const { luoctlCommand } = await import("../live-update/command.ts");
      return await runTree(luoctlCommand, "luoctl", words);
    }
    default:
      return await runTree(root, "hostler", words);
  }
}
