import { defineCommand } from "../command-line/definition.ts";
import { UsageError } from "../command-line/usage-error.ts";
import { nearest } from "../units/nearest.ts";
import { type Subject, subjects } from "./judgement.ts";

export const doctorCommand = defineCommand({
  meta: {
    name: "doctor",
    description: "Say what this host can do, and what to change so that it can do the rest",
    examples: [
      ["hostler doctor", "Examine the host for everything"],
      ["hostler doctor process", "Examine it for keeping processes running"],
      ["hostler doctor process --json", "The same, for programs"],
      ["hostler doctor live-update", "Name every cause for which live update does not work"],
    ],
    exitCodes: { 0: "What was asked for works here", 111: "Something is missing for it" },
  },
  args: {
    subject: {
      type: "positional",
      required: false,
      description: `What to examine the host for: ${subjects.join(", ")}; everything without it`,
    },
    json: { type: "boolean", description: "As JSON: check, status, found, needed_by, mend" },
  },
  run: async (args) => {
    const asked = args.subject === undefined ? subjects : [readSubject(args.subject)];
    const { examine } = await import("./doctor.ts");
    return await examine({ subjects: asked, json: args.json });
  },
});

function readSubject(word: string): Subject {
  const subject = subjects.find((candidate) => candidate === word);
  if (subject !== undefined) return subject;
  const meant = nearest(word, subjects);
  const mend = meant === undefined ? "" : ` Did you mean ${meant}?`;
  throw new UsageError(
    `Expected one of ${subjects.join(", ")}, or no word for all of them, received ` +
      `${JSON.stringify(word)}.${mend}`,
  );
}
