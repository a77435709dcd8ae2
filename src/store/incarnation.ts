import { readFileSync } from "node:fs";
import * as v from "valibot";
import { writeDurably } from "../journal/append-journal.ts";
import { FileRefused } from "../journal/file-refused.ts";
import type { Revision } from "./store.ts";

export const incarnationLimits = {
  /** Revisions that are promised at once: one write of the file for so many. */
  reservation: 65_536,
  /** What a restore jumps over at least: more than any store gives between two backups. */
  jump: 2 ** 32,
  /** Incarnations that are remembered; each restore begins one. */
  history: 256,
} as const;

const id = v.pipe(v.string(), v.regex(/^[\da-f]{32}$/));
const revision = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const incarnationSchema = v.strictObject({
  format: v.literal(1),
  /** New with each restore. */
  incarnation: id,
  /** The incarnations before it whose spent things this folder's ledger has. */
  history: v.pipe(v.array(id), v.maxLength(incarnationLimits.history)),
  /** The first revision of this incarnation. */
  first: revision,
  /** No revision above it was ever given. */
  reserved: revision,
  /** Whatever was issued before this revision counts as spent. */
  fence: revision,
  /**
   * creating: there was no database before. restoring: one is put in its place. ready: it is there.
   */
  state: v.picklist(["creating", "restoring", "ready"]),
});

/** Who a store is, outside of its database: what no older backup takes back. */
export type Incarnation = v.InferOutput<typeof incarnationSchema>;

export function newIncarnationId(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString("hex");
}

/** The incarnation of a store that has nothing yet. */
export function firstIncarnation(): Incarnation {
  return {
    format: 1,
    incarnation: newIncarnationId(),
    history: [],
    first: 1,
    reserved: 0,
    fence: 0,
    state: "creating",
  };
}

/** @returns the first revision of the next incarnation, after all of these */
export function jumpBeyond(...revisions: readonly Revision[]): Revision {
  const { jump } = incarnationLimits;
  const next = (Math.floor(Math.max(...revisions) / jump) + 2) * jump;
  if (next + jump <= Number.MAX_SAFE_INTEGER) return next;
  throw new FileRefused(
    "Cannot restore once more: expected at most a million restores of one store, received more. " +
      "Begin a new store in another folder.",
  );
}

/** @throws FileRefused for a file that is none of ours */
export function readIncarnation(path: string): Incarnation | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return undefined;
    throw error;
  }
  const result = v.safeParse(incarnationSchema, parseJson(text));
  if (result.success) return result.output;
  throw new FileRefused(
    `Cannot read ${path}: expected what a store wrote there, received something else. It says ` +
      "which revisions were given: remove it, and restore a backup by " +
      "`hostler store restore FILE --without-ledger`.",
  );
}

/** @throws Error (ENOSPC …): the old file is then untouched */
export function writeIncarnation(path: string, incarnation: Incarnation): void {
  writeDurably(path, `${JSON.stringify(incarnation)}\n`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
