import * as v from "valibot";
import {
  type Entry,
  isBucket,
  isKey,
  isPattern,
  isWriteId,
  type StoreProblem,
  storeLimits,
} from "../store.ts";

/**
 * The wire between a store's server and its clients: JSON in text messages of a WebSocket, over
 * TLS or a Unix socket. The client says `hello` first, and is answered `welcome`. Every request
 * has an id, which its answers carry; ids of a connection are never used twice. Names are
 * snake_case.
 */

/** A hello with another one is refused. */
export const PROTOCOL_VERSION = 1;

/** Where a server has its WebSocket, on whatever address. */
export const storePath = "/v1/store";

/** The limits of the wire; going over one is a refusal that a test shows. */
export const limits = {
  /** Bytes of a message: a value of which each byte is escaped by six, and what is around it. */
  messageBytes: 4 * 1024 * 1024,
  /** Milliseconds in which a connection must say its hello. */
  helloTime: 10_000,
  /** Requests of a connection that are not answered. */
  openRequests: 1024,
  /** Bytes of keys and values in them. */
  openBytes: 16 * 1024 * 1024,
  /** Watches of a connection. */
  watches: 256,
  /** Bytes that wait for a client before its watches wait as well, and tell the latest then. */
  behindBytes: 256 * 1024,
  /** Bytes that wait for a client that does not read, before it is let go. */
  queuedBytes: 16 * 1024 * 1024,
  /** Milliseconds that a client may stay behind. */
  behindTime: 30_000,
  /** Milliseconds without a word of a client, which has pings for this. */
  silence: 60_000,
  /** Entries of one message, and the bytes of their keys and values. */
  batchEntries: 256,
  batchBytes: 512 * 1024,
  /** Characters of what a program says of itself, and of a message for people. */
  textLength: 512,
  /** Bytes of entries that wait on the client's side for whoever watches. */
  pendingBytes: 64 * 1024 * 1024,
} as const;

/** Why a connection was closed: codes of RFC 6455 for applications, never used again. */
export const closeCodes = {
  /** The peer broke the rules of the wire. */
  violation: 4000,
  /** The session of whoever speaks has ended: its key was revoked, say. */
  sessionEnded: 4001,
  /** The client did not read. */
  behind: 4002,
  /** Nothing came for longer than `silence`. */
  silent: 4003,
  /** The server ends, and may come again. */
  goingAway: 1001,
} as const;

const bytesOf = (text: string) => new TextEncoder().encode(text).length;

const id = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const revision = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const bucket = v.pipe(v.string(), v.check(isBucket, "Expected a bucket's name"));
const key = v.pipe(v.string(), v.check(isKey, "Expected a key"));
const pattern = v.pipe(
  v.string(),
  v.check(isPattern, "Expected nothing, a key, or the beginning of one with its dot"),
);
const value = v.pipe(
  v.string(),
  // Three bytes are the most that one of its units can be; the long way is for long ones alone.
  v.check(
    (text) => text.length * 3 <= storeLimits.valueBytes || bytesOf(text) <= storeLimits.valueBytes,
    `Expected at most ${storeLimits.valueBytes} bytes`,
  ),
);
const writeId = v.pipe(v.string(), v.check(isWriteId, "Expected a write id"));
const text = v.pipe(v.string(), v.maxLength(limits.textLength));

/** What a client says. */
export const clientMessageSchema = v.variant("kind", [
  v.object({
    kind: v.literal("hello"),
    version: v.pipe(v.number(), v.safeInteger()),
    /** For people: the program and its version. */
    program: v.optional(text),
  }),
  v.object({ kind: v.literal("get"), id, bucket, key }),
  v.object({
    kind: v.literal("put"),
    id,
    bucket,
    key,
    value,
    write_id: writeId,
    expect: v.optional(revision),
  }),
  v.object({
    kind: v.literal("delete"),
    id,
    bucket,
    key,
    write_id: writeId,
    expect: v.optional(revision),
  }),
  v.object({ kind: v.literal("watch"), id, bucket, pattern, since: v.optional(revision) }),
  /** `id` is the watch's. What was on the way to the client may still come. */
  v.object({ kind: v.literal("unwatch"), id }),
  v.object({ kind: v.literal("ping") }),
]);

/**
 * As our own clients and servers write them: of a link at rest, two messages in three. Whoever
 * sees one of these texts need not look at it by a schema.
 */
export const pingText: string = JSON.stringify({ kind: "ping" });
export const pongText: string = JSON.stringify({ kind: "pong" });

export type ClientMessage = v.InferOutput<typeof clientMessageSchema>;
export type ClientRequest = Exclude<ClientMessage, { kind: "hello" | "ping" | "unwatch" }>;

const entrySchema = v.object({
  bucket,
  key,
  revision,
  operation: v.picklist(["put", "delete"]),
  value,
  write_id: v.string(),
  time: v.number(),
});

export type WireEntry = v.InferOutput<typeof entrySchema>;

const acknowledgement = v.picklist(["fsync", "replicated", "interval", "memory", "unknown"]);

const problemSchema: v.GenericSchema<StoreProblem> = v.variant("kind", [
  v.object({ kind: v.literal("conflict"), received: revision }),
  v.object({ kind: v.literal("ambiguous") }),
  v.object({ kind: v.literal("denied") }),
  v.object({ kind: v.literal("unavailable") }),
  v.object({ kind: v.literal("refused"), expected: v.string(), received: v.string() }),
  v.object({ kind: v.literal("full") }),
  v.object({ kind: v.literal("damaged") }),
]);

/** What a server says. */
export const serverMessageSchema = v.variant("kind", [
  v.object({
    kind: v.literal("welcome"),
    version: v.pipe(v.number(), v.safeInteger()),
    server: text,
    acknowledgement,
    /**
     * Another one than before: this is another store, or one whose revisions began anew. What a
     * client knows of the former is worth nothing.
     */
    incarnation: v.pipe(v.string(), v.minLength(1), v.maxLength(limits.textLength)),
  }),
  v.object({ kind: v.literal("got"), id, entry: v.nullable(entrySchema) }),
  v.object({ kind: v.literal("written"), id, revision }),
  /** A request was not done, or a watch has ended. */
  v.object({ kind: v.literal("refused"), id, problem: problemSchema, message: v.string() }),
  v.object({
    kind: v.literal("entries"),
    id,
    entries: v.pipe(v.array(entrySchema), v.minLength(1), v.maxLength(limits.batchEntries)),
  }),
  v.object({ kind: v.literal("synced"), id, revision }),
  v.object({ kind: v.literal("reset"), id }),
  v.object({ kind: v.literal("pong") }),
]);

export type ServerMessage = v.InferOutput<typeof serverMessageSchema>;
export type Welcome = Extract<ServerMessage, { kind: "welcome" }>;

export function toWireEntry(entry: Entry): WireEntry {
  const { bucket, key, revision, operation, value, writeId, time } = entry;
  return { bucket, key, revision, operation, value, write_id: writeId, time };
}

export function fromWireEntry({ write_id, ...same }: WireEntry): Entry {
  return { ...same, writeId: write_id };
}
