import * as v from "valibot";
import type { CallRecord } from "../http/route.ts";
import { firstFinding } from "../messaging/describe-issues.ts";
import { sha256 } from "./hash.ts";
import { auditLimits } from "./limits.ts";
import { boundText, redact } from "./redact.ts";
import { type AuditSigner, keyText, signedBytes } from "./signature.ts";

/**
 * A line of the log. Its last field is the SHA-256 of all bytes of the line before that field,
 * among them the hash of the line before: whatever is changed is found by the line itself or by
 * its successor. A signature, where there is one, stands before the hash and is of all before it.
 */

const sequence = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "64 hexadecimal digits"));
/** As Date.toISOString writes it, whatever the clock says. */
const time = v.pipe(
  v.string(),
  v.regex(/^(\d{4}|[+-]\d{6})-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, "a time in UTC"),
);
/** Letters are no more than bytes; counting those of each line would take longer than its hash. */
const text = v.pipe(v.string(), v.maxLength(auditLimits.textBytes));
const beginning = { sequence, time } as const;
/** The end of a line, in the order in which it is written. */
const chained = { previous: hash, hash } as const;
const signed = {
  previous: hash,
  key: v.optional(v.pipe(v.string(), v.regex(/^[\w-]{43}$/, "an Ed25519 key"))),
  signature: v.optional(v.pipe(v.string(), v.regex(/^[\w-]{86}$/, "an Ed25519 signature"))),
  hash,
} as const;

const callSchema = v.strictObject({
  ...beginning,
  kind: v.literal("call"),
  who: text,
  from: text,
  verb: text,
  object: text,
  before: v.optional(v.unknown()),
  after: v.optional(v.unknown()),
  result: text,
  ...chained,
});
/** The first record of each segment. */
const segmentSchema = v.strictObject({
  ...beginning,
  kind: v.literal("segment"),
  /** The log's age in milliseconds, by which retention goes: here, and where the last one ended. */
  elapsed: count,
  closed: count,
  ...signed,
});
/** A process began to write. */
const openedSchema = v.strictObject({
  ...beginning,
  kind: v.literal("opened"),
  ...signed,
});
/** A signature in between. */
const checkpointSchema = v.strictObject({
  ...beginning,
  kind: v.literal("checkpoint"),
  ...signed,
});
/** A last line that a power cut had cut short was taken off. */
const cutShortSchema = v.strictObject({
  ...beginning,
  kind: v.literal("cut-short"),
  bytes: count,
  sha256: hash,
  ...signed,
});
/** The anchor of what retention dropped: all records up to `last`, whose hash was `head`. */
const droppedSchema = v.strictObject({
  ...beginning,
  kind: v.literal("dropped"),
  first: sequence,
  last: sequence,
  head: hash,
  segments: count,
  bytes: count,
  reason: v.picklist(["age", "size"]),
  ...signed,
});
const recordSchema = v.variant("kind", [
  callSchema,
  segmentSchema,
  openedSchema,
  checkpointSchema,
  cutShortSchema,
  droppedSchema,
]);

export type AuditRecord = v.InferOutput<typeof recordSchema>;
export type CallAuditRecord = v.InferOutput<typeof callSchema>;
export type DroppedRecord = v.InferOutput<typeof droppedSchema>;

type Content<T> = T extends unknown
  ? Omit<T, "sequence" | "time" | "previous" | "hash" | "key" | "signature">
  : never;
/** What a record says, before it has its place in the chain. */
export type RecordContent = Content<AuditRecord>;

/** The last record of a chain, or of a part of it. */
export interface Head {
  readonly sequence: number;
  readonly hash: string;
}

/** What was done, as a record says it: bounded, and without secrets. */
export function contentOf(call: CallRecord): RecordContent {
  const before = redact(call.before);
  const after = redact(call.after);
  return {
    kind: "call",
    who: boundText(call.who),
    from: boundText(call.from),
    verb: boundText(call.verb),
    object: boundText(call.object),
    ...(before !== undefined && { before }),
    ...(after !== undefined && { after }),
    result: boundText(call.result),
  };
}

/** Milliseconds since 1970 as a record writes them; a clock out of all bounds is at their edge. */
export function timeText(milliseconds: number): string {
  const farthest = 8.64e15;
  const bounded = Number.isNaN(milliseconds) ? 0 : milliseconds;
  return new Date(Math.min(farthest, Math.max(-farthest, bounded))).toISOString();
}

/** A record at its place in the chain, as a line with its newline. */
export function encodeRecord(
  content: RecordContent,
  place: { readonly head: Head; readonly time: string; readonly signer?: AuditSigner | undefined },
): { readonly line: string; readonly head: Head } {
  const { head, time: at, signer } = place;
  const own = { sequence: head.sequence + 1, time: at, ...content, previous: head.hash };
  let body = JSON.stringify(own).slice(0, -1);
  if (signer !== undefined && content.kind !== "call") {
    body += `,"key":"${keyText(signer.publicKey)}"`;
    const signature = Buffer.from(signer.sign(signedBytes(body))).toString("base64url");
    body += `,"signature":"${signature}"`;
  }
  const hashed = sha256(body);
  return {
    line: `${body},"hash":"${hashed}"}\n`,
    head: { sequence: own.sequence, hash: hashed },
  };
}

/** A line says what it should not. */
export interface LineFault {
  /** "hash", "record", "signature" …: which part of the line. */
  readonly what: string;
  readonly expected: string;
  readonly received: string;
}

export type DecodedLine =
  | { readonly record: AuditRecord; readonly signedText: string | undefined }
  | { readonly fault: LineFault; readonly claimed: AuditRecord | undefined };

/** `,"hash":"…"}` */
const endBytes = 9 + 64 + 2;
/** `,"signature":"…"` */
const signatureBytes = 14 + 86 + 1;
const decoder = new TextDecoder("utf-8", { fatal: true });

/**
 * Reads a line without its newline, by itself: the chain and the key are whoever's has them.
 * @returns its record; or the fault, with what the line claims to be where that can be read
 */
export function decodeLine(bytes: Uint8Array): DecodedLine {
  let line: string;
  let value: unknown;
  try {
    line = decoder.decode(bytes);
    value = JSON.parse(line);
  } catch {
    const start = JSON.stringify(new TextDecoder().decode(bytes.subarray(0, 40)));
    const fault = { what: "line", expected: "one JSON object", received: `${start} …` };
    return { fault, claimed: undefined };
  }
  const parsed = v.safeParse(recordSchema, value);
  if (!parsed.success) {
    const { expected, received } = firstFinding(parsed.issues);
    return { fault: { what: "record", expected, received }, claimed: undefined };
  }
  const record = parsed.output;
  const body = bytes.subarray(0, Math.max(0, bytes.length - endBytes));
  const hashed = sha256(body);
  // Compared as the end of the line, so that the hash stands where it must, and nowhere else.
  if (line.slice(-endBytes) !== `,"hash":"${hashed}"}`) {
    const fault = { what: "hash of the line", expected: hashed, received: record.hash };
    return { fault, claimed: record };
  }
  if (!("signature" in record)) return { record, signedText: undefined };
  const signedText = decoder.decode(body.subarray(0, Math.max(0, body.length - signatureBytes)));
  return { record, signedText };
}

/** @returns whether these bytes are a whole line, its newline not among them */
export function isWholeLine(bytes: Uint8Array): boolean {
  return "record" in decodeLine(bytes);
}

/**
 * @returns whether bytes after the last newline can be what a power cut left of a line: its
 *   beginning, and zeros where the file had grown before its data came. A whole line whose
 *   newline became something else cannot.
 */
export function isCutShort(bytes: Uint8Array, expectedSequence: number): boolean {
  let length = bytes.length;
  while (length > 0 && bytes[length - 1] === 0) length -= 1;
  if (length > auditLimits.lineBytes) return false;
  const piece = Buffer.from(bytes.buffer, bytes.byteOffset, length).toString("latin1");
  const start = `{"sequence":${expectedSequence},"time":"`;
  if (!start.startsWith(piece.slice(0, start.length))) return false;
  for (const match of piece.matchAll(/,"hash":"[0-9a-f]{64}"\}/g)) {
    const end = match.index + endBytes;
    if (end < bytes.length && isWholeLine(bytes.subarray(0, end))) return false;
  }
  return true;
}
