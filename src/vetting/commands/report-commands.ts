import { type Command, defineCommand, subCommandsOf } from "../../command-line/definition.ts";
import { askFlags, jsonFlag, refused, runArgument } from "./ask-flags.ts";

/** `hostler vetting report …`, and what compares a run with others. */

const verifyCommand = defineCommand({
  meta: {
    name: "verify",
    description: "Hold a folder of reports against what the orchestrator signed",
    examples: [["hostler vetting report verify ./run-12 --pin 6f01294f…", "Of run 12"]],
    exitCodes: { 0: "it is as it was signed", 1: "something is not; all of it is named" },
  },
  args: {
    folder: { type: "positional", complete: "file", description: "Where report --out put it" },
    pin: {
      type: "string",
      required: true,
      valueHint: "hash",
      description: "Of the orchestrator's key: identity certificate list, behind authority",
    },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./reports.ts")).runReportVerify(args),
});

export const reportCommand: Command = defineCommand({
  meta: {
    name: "report",
    description: "Write the reports of a run: signed as a folder, or one of them",
    examples: [
      ["hostler vetting report 12 --out run-12", "All of them, and the manifest that proves them"],
      ["hostler vetting report 12 --format html --out run-12.html", "To look at, or to print"],
      ["hostler vetting report 12 --format ocp", "Lines of OCP's test and validation output"],
    ],
    exitCodes: refused,
  },
  args: {
    ...runArgument,
    format: {
      type: "enum",
      options: ["html", "json", "ocp"],
      description: "That one alone",
    },
    out: {
      type: "string",
      valueHint: "path",
      complete: "file",
      description: "A file, or without --format a folder; it must be new",
    },
    ...askFlags,
  },
  subCommands: subCommandsOf(verifyCommand),
  run: async (args) => await (await import("./reports.ts")).runReport(args),
});

export const outliersCommand: Command = defineCommand({
  meta: {
    name: "outliers",
    description: "Say what of a run is far from other hosts of its spec",
    examples: [["hostler vetting outliers 12", "A disk that reads at half the speed of its like"]],
    exitCodes: refused,
  },
  args: { ...runArgument, ...askFlags },
  run: async (args) => await (await import("./reports.ts")).runOutliers(args),
});
