import * as v from "valibot";
import type { Note } from "./lifecycle-state.ts";

/**
 * A note as it stands on the disk: one line of JSON with the version of its form. It is read by
 * the next worker, which may be a newer program, and is not believed unseen.
 */

/** Another version is refused: whoever wrote it knew things that this program does not. */
export const NOTE_VERSION = 1;

/** Bytes of a note, all of it. */
export const NOTE_LIMIT = 16 * 1024;

const invocation = v.pipe(v.string(), v.minLength(1), v.maxLength(64));
const time = v.pipe(v.number(), v.finite());
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const instance = v.strictObject({
  invocation,
  processId: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  startTicks: count,
  startedAt: time,
});

export const noteSchema = v.strictObject({
  version: v.literal(NOTE_VERSION),
  stage: v.picklist([
    ...(["absent", "preparing", "starting", "living", "ending", "clearing"] as const),
    ...(["given", "arrived"] as const),
    ...(["waiting", "off", "failed", "removing", "removed"] as const),
  ]),
  wanted: v.picklist(["absent", "off", "created", "running", "paused"]),
  prepared: v.boolean(),
  restarts: count,
  invocation: v.optional(invocation),
  migration: v.optional(invocation),
  instance: v.optional(instance),
  why: v.optional(v.picklist(["wish", "off", "crash", "unhealthy", "replace", "elsewhere"])),
  killing: v.optional(v.literal(true)),
  lastInvocation: v.optional(invocation),
  beside: v.optional(invocation),
  capture: v.optional(
    v.strictObject({
      id: invocation,
      source: v.optional(invocation),
      stage: v.picklist(["pending", "held", "spent", "arriving"]),
    }),
  ),
  reason: v.optional(v.string()),
});

/** Characters of a reason that are kept: the VMM's words may be long. */
const LONGEST_REASON = 1024;

export function encodeNote(note: Note): string {
  const reason = note.reason?.slice(0, LONGEST_REASON);
  return `${JSON.stringify({ version: NOTE_VERSION, ...note, reason })}\n`;
}

export type DecodedNote =
  | { readonly kind: "ok"; readonly note: Note }
  | { readonly kind: "refused"; readonly issues: readonly v.BaseIssue<unknown>[] | string };

/** A machine whose note is refused is nobody's to start or to end: see the reconciler's owner. */
export function decodeNote(text: string): DecodedNote {
  if (text.length > NOTE_LIMIT) {
    const issues = `expected a note of at most ${NOTE_LIMIT} characters, received ${text.length}`;
    return { kind: "refused", issues };
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { kind: "refused", issues: "expected a line of JSON" };
  }
  const result = v.safeParse(noteSchema, value);
  if (!result.success) return { kind: "refused", issues: result.issues };
  return completed(result.output);
}

/** A stage without what it speaks of is no note. */
function completed(read: v.InferOutput<typeof noteSchema>): DecodedNote {
  const { stage, capture } = read;
  const hasInstance = ["living", "arrived", "ending", "clearing"].includes(stage);
  if (hasInstance && read.instance === undefined) {
    return { kind: "refused", issues: `expected an instance in the stage "${stage}"` };
  }
  if (stage === "given" && read.migration === undefined) {
    return { kind: "refused", issues: 'expected a migration in the stage "given"' };
  }
  if (stage === "arrived" && capture?.stage !== "arriving") {
    return { kind: "refused", issues: 'expected what arrives in the stage "arrived"' };
  }
  if (stage === "starting" && read.invocation === undefined) {
    return { kind: "refused", issues: 'expected an invocation in the stage "starting"' };
  }
  const note: Note = {
    stage,
    wanted: read.wanted,
    prepared: read.prepared,
    restarts: read.restarts,
    invocation: read.invocation,
    migration: read.migration,
    instance: read.instance,
    why: read.why,
    killing: read.killing,
    lastInvocation: read.lastInvocation,
    beside: read.beside,
    capture: capture === undefined ? undefined : { ...capture, source: capture.source },
    reason: read.reason,
  };
  return { kind: "ok", note };
}
