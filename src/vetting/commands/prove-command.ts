import { type Command, defineCommand } from "../../command-line/definition.ts";
import { askFlags } from "./ask-flags.ts";

/** `hostler vetting prove`. */
export const proveCommand: Command = defineCommand({
  meta: {
    name: "prove",
    description: "Prove that vetting finds faults: in emulated hosts, one fault at a time",
    examples: [
      [
        "hostler vetting prove --kernel dist/live/vmlinuz --initramfs dist/live/initramfs",
        "All of them, and a host without one, by QEMU of this machine",
      ],
      [
        "hostler vetting prove --kernel vmlinuz --initramfs initramfs --only smart-warning,healthy",
        "These two alone",
      ],
    ],
    exitCodes: {
      0: "every fault was found, and nothing was told of the healthy host",
      4: "a fault was not found, something was told that is not so, or a run broke",
      111: "QEMU or the orchestrator of the proof cannot be started",
    },
  },
  args: {
    kernel: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "The live image's kernel",
    },
    initramfs: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "The live image's initramfs",
    },
    only: {
      type: "string",
      valueHint: "names",
      description: "These faults alone, with commas; healthy is the host without one",
    },
    list: { type: "boolean", description: "List the faults, and start nothing" },
    qemu: {
      type: "string",
      valueHint: "file",
      default: "qemu-system-x86_64",
      description: "The emulator",
    },
    memory: {
      type: "string",
      valueHint: "MiB",
      default: "1536",
      description: "Of each host; the live image alone is unpacked into 200",
    },
    patience: {
      type: "string",
      valueHint: "duration",
      default: "15min",
      description: "For each host, from its switch to the end of its run",
    },
    console: { type: "boolean", description: "Show the consoles of the hosts" },
    json: askFlags.json,
  },
  run: async (args) => await (await import("./prove.ts")).runProve(args),
});
