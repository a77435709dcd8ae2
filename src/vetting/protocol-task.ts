import * as v from "valibot";
import { kernelLineSchema, readingSchema } from "../hardware/samples.ts";
import { resultLimits } from "./protocol-result.ts";

/**
 * Between an agent and a child of the same file that does one thing to one piece of hardware:
 * `hostler --vetting-task`. The order is one line of JSON on the child's standard input, what it
 * says is lines of JSON on its standard output, and its last line is a report. Lines after the
 * order are questions, each with a number; of those that wait, the last is answered for all. Each
 * task has a name, the schema of its input and of its report (`src/vetting/tasks/`). The agent's
 * own loop reads no hardware: a read on a dying disk blocks for minutes, and nothing can end it.
 *
 * A child whose standard input ends stops, removes what it made, and reports nothing.
 */

export const taskLimits = {
  /** Bytes of one line, in either direction. */
  lineBytes: resultLimits.bytes,
  /** Children at the same time: one for each processor; each has 3 MB of its own, 6 MB in all. */
  children: 512,
  /** Bytes of standard error that are kept, the last ones. */
  errorBytes: 16 * 1024,
} as const;

/** From SIGKILL until a child that is still there is called stuck in the kernel. Milliseconds. */
export const STUCK_AFTER = 5_000;

export const taskOrderSchema = v.strictObject({
  task: v.pipe(v.string(), v.regex(/^[a-z][a-z0-9-]{0,63}$/, "words with dashes")),
  input: v.unknown(),
});
export type TaskOrder = v.InferOutput<typeof taskOrderSchema>;

/** Asked of a child that has its order: now, and not when its own time has come. */
export const taskQuestionSchema = v.strictObject({
  question: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
});
export type TaskQuestion = v.InferOutput<typeof taskQuestionSchema>;

const text = v.pipe(v.string(), v.maxLength(resultLimits.text));

export const taskLineSchema = v.variant("kind", [
  /** `done` of `total`, in the task's own unit; nobody counts on getting each. */
  v.strictObject({
    kind: v.literal("progress"),
    done: v.pipe(v.number(), v.minValue(0)),
    total: v.pipe(v.number(), v.minValue(0)),
  }),
  v.strictObject({
    kind: v.literal("log"),
    level: v.picklist(["info", "warn", "error"]),
    text,
  }),
  /** Of the sampler alone. */
  v.strictObject({
    kind: v.literal("reading"),
    reading: readingSchema,
    /** The question that had it read; absent where its own time had come. */
    answers: v.optional(taskQuestionSchema.entries.question),
  }),
  v.strictObject({ kind: v.literal("kernel"), line: kernelLineSchema }),
  v.strictObject({ kind: v.literal("report"), report: v.unknown() }),
  /** It could not do it: expected where the machine refuses, and an ERROR of the stage. */
  v.strictObject({ kind: v.literal("failure"), message: text }),
]);
export type TaskLine = v.InferOutput<typeof taskLineSchema>;

/** How a child ended, for whoever judges its stage. */
export type TaskEnding =
  | { readonly kind: "report"; readonly report: unknown }
  | { readonly kind: "failure"; readonly message: string }
  /** Its time was over, and SIGKILL ended it; `done` is the last progress that it told. */
  | { readonly kind: "overdue"; readonly done: number; readonly total: number }
  /** It died of itself. */
  | { readonly kind: "died"; readonly how: string; readonly lastWords: string }
  /** SIGKILL did not end it: the stack of its threads, as /proc has it. */
  | { readonly kind: "stuck"; readonly stack: string; readonly wait: string }
  | { readonly kind: "cancelled" };
