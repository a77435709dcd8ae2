import { resolve } from "node:path";
import { defaultHostDirectory } from "../authority/protocol.ts";
import { defineCommand } from "../command-line/definition.ts";
import { tellText } from "../command-line/output.ts";
import { UsageError } from "../command-line/usage-error.ts";
import { defaultFleetFolder } from "../fleet/layout.ts";
import { formatErrors } from "../toml/format-errors.ts";
import { ExitCode } from "../units/exit-code.ts";
import { nearest } from "../units/nearest.ts";
import type { WorkerOutcome } from "../vm/worker-configuration.ts";
import { namedSubjects, type Subject, subjects } from "./judgement.ts";

/** Those of `hostler vetting orchestrator`. */
const vettingFlags = {
  listen: {
    type: "string",
    valueHint: "address:port",
    default: "127.0.0.1:7443",
    description: "For vetting: where it is to listen",
  },
  "state-directory": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: "/var/lib/hostler/authority",
    description: "For vetting: where it keeps what it remembers",
  },
  "listen-boot": {
    type: "string",
    valueHint: "interface",
    description: "For vetting: where hosts are to boot from",
  },
  "boot-dir": {
    type: "string",
    valueHint: "path",
    complete: "file",
    default: "/var/lib/hostler/boot",
    description: "For vetting: the live image",
  },
} as const;

export const doctorCommand = defineCommand({
  meta: {
    name: "doctor",
    description: "Say what this host can do, and what to change so that it can do the rest",
    examples: [
      ["hostler doctor", "Examine the host for everything"],
      ["hostler doctor process", "Examine it for keeping processes running"],
      ["hostler doctor process --json", "The same, for programs"],
      ["hostler doctor live-update", "Name every cause for which live update does not work"],
      ["hostler doctor vm", "Say which hypervisor runs machines here, and what hinders them"],
      ["hostler doctor vm --config /etc/hostler/vm.toml", "For a worker with this configuration"],
      ["hostler doctor fleet", "As a device of a fleet, and as its operator where one runs"],
      ["hostler doctor vetting --listen-boot eth1", "For an orchestrator that hosts boot from"],
      ["hostler doctor vetting-agent", "In the live image: what of its host can be tested"],
    ],
    exitCodes: { 0: "What was asked for works here", 111: "Something is missing for it" },
  },
  args: {
    subject: {
      type: "positional",
      required: false,
      description:
        `What to examine the host for: ${subjects.join(", ")}, all of them without it; or ` +
        `${namedSubjects.join(", ")}`,
    },
    config: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "For vm: the worker's TOML; without it the worker's defaults",
    },
    folder: {
      type: "string",
      valueHint: "path",
      complete: "file",
      description: `For fleet: the installation; ${defaultFleetFolder} without it`,
    },
    identity: {
      type: "string",
      valueHint: "path",
      complete: "file",
      description: `For fleet: this host's identity; ${defaultHostDirectory} without it`,
    },
    ...vettingFlags,
    json: { type: "boolean", description: "As JSON: check, status, found, needed_by, mend" },
  },
  run: async (args) => {
    const asked = args.subject === undefined ? subjects : [readSubject(args.subject)];
    const { examine } = await import("./doctor.ts");
    const outcome = await readConfiguration(args.config, asked);
    if (outcome.kind === "refused") {
      tellText(formatErrors(outcome.errors));
      return ExitCode.usage;
    }
    const { configuration } = outcome;
    const places = readPlaces(args, asked);
    const port = /^\S+:(\d{1,5})$/.exec(args.listen)?.[1];
    if (port === undefined || Number(port) > 65_535) {
      throw new UsageError(
        `Expected ADDRESS:PORT, a port of at most 65535, for --listen, received ${args.listen}`,
      );
    }
    const place = {
      ...{ stateDirectory: args["state-directory"], listen: args.listen },
      ...{ bootDirectory: args["boot-dir"], bootInterface: args["listen-boot"] },
    };
    return await examine({ subjects: asked, configuration, places, place, json: args.json });
  },
});

/** The file is read as the worker reads it: what that refuses is no configuration. */
async function readConfiguration(
  file: string | undefined,
  asked: readonly Subject[],
): Promise<WorkerOutcome> {
  const { readWorkerConfiguration, workerDefaults } = await import("../vm/worker-configuration.ts");
  if (file === undefined) return { kind: "ok", configuration: workerDefaults, warnings: [] };
  if (!asked.includes("vm")) {
    throw new UsageError(`Expected --config with vm alone, received it with ${asked.join(", ")}.`);
  }
  return readWorkerConfiguration(file);
}

/** @throws UsageError where nothing is looked for there */
function readPlaces(
  {
    folder,
    identity,
  }: { readonly folder: string | undefined; readonly identity: string | undefined },
  asked: readonly Subject[],
) {
  const flag = folder === undefined ? identity && "--identity" : "--folder";
  if (flag !== undefined && !asked.includes("fleet")) {
    throw new UsageError(
      `Expected ${flag} with fleet alone, received it with ${asked.join(", ")}.`,
    );
  }
  return {
    folder: resolve(folder ?? defaultFleetFolder),
    identity: resolve(identity ?? defaultHostDirectory),
  };
}

function readSubject(word: string): Subject {
  const all = [...subjects, ...namedSubjects];
  const subject = all.find((candidate) => candidate === word);
  if (subject !== undefined) return subject;
  const meant = nearest(word, all);
  const mend = meant === undefined ? "" : ` Did you mean ${meant}?`;
  throw new UsageError(
    `Expected one of ${all.join(", ")}, or no word for all of them, received ` +
      `${JSON.stringify(word)}.${mend}`,
  );
}
