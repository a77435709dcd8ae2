import * as v from "valibot";

/** The word that has our binary look at a state, in place of a command. */
export const DRY_RUN_WORD = "--try-state";

/** What a dry run says, in one line of JSON on its standard output. */
export const dryRunAnswerSchema = v.variant("answer", [
  v.strictObject({
    answer: v.literal("ready"),
    /** The word behind `--try-state`: whoever repeats what it was given does not know this. */
    nonce: v.string(),
    version: v.string(),
    commit: v.string(),
  }),
  v.strictObject({ answer: v.literal("refused"), expected: v.string(), received: v.string() }),
]);
export type DryRunAnswer = v.InferOutput<typeof dryRunAnswerSchema>;
