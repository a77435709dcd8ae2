import * as v from "valibot";

/** Where an authority listens and keeps what it knows, and what its control socket takes. */

export const defaultControlSocket = "/run/hostler/authority.sock";
export const defaultStateDirectory = "/var/lib/hostler/authority";
/** Loopback alone, until an operator says where hosts may come from. */
export const defaultListen = "127.0.0.1:7443";

/** Where a host keeps its key, and what it knows of its authority. */
export const defaultHostDirectory = "/var/lib/hostler/identity";

/** Folders and files of an authority's state directory. */
export const places = {
  store: "store",
  audit: "audit",
  identity: "identity",
  lock: "lock",
} as const;

/** A verb is the name of a route; its input is what the route asks for. */
export const controlRequestSchema = v.strictObject({
  id: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  verb: v.pipe(v.string(), v.maxLength(100)),
  input: v.optional(v.record(v.string(), v.unknown()), {}),
  /** Of a stream: the id of the event that was seen last. */
  after: v.optional(v.pipe(v.string(), v.maxLength(200))),
});
export type AuthorityRequest = v.InferOutput<typeof controlRequestSchema>;

/** One event of a stream, as the control socket tells it. */
export const streamItemSchema = v.strictObject({
  id: v.string(),
  event: v.string(),
  data: v.unknown(),
});
export type StreamItem = v.InferOutput<typeof streamItemSchema>;

/** What a host writes of itself, in its session. */
export const presenceSchema = v.strictObject({
  boot: v.pipe(v.string(), v.maxLength(64)),
  version: v.pipe(v.string(), v.maxLength(64)),
});
export type Presence = v.InferOutput<typeof presenceSchema>;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const growth = { bytes_per_day: v.number(), full_after_ms: v.nullable(v.number()) };

export const usageSchema = v.strictObject({
  buckets: v.array(
    v.strictObject({
      bucket: v.string(),
      entries: count,
      bytes: count,
      size: count,
      oldest_ms: v.nullable(v.number()),
      ...growth,
    }),
  ),
  database: v.strictObject({ bytes: count, format: count, ...growth }),
  disk: v.strictObject({ total: count, free: count }),
  audit: v.strictObject({ bytes: count, size: count }),
  ledger_entries: count,
});
export type Usage = v.InferOutput<typeof usageSchema>;

/** Routes of an authority beside those of identity; what they do stands in routes.ts. */
export const authorityApi = {
  usage: {
    name: "store.usage",
    method: "GET",
    path: "/v1/store/usage",
    summary: "What is stored, its bounds, and when it fills",
    permission: "view",
    mutates: false,
    input: v.object({}),
    output: usageSchema,
  },
  backup: {
    name: "store.backup",
    method: "POST",
    path: "/v1/store/backup",
    summary: "Writes a backup of the database into a file of the authority's host",
    permission: "admin",
    mutates: true,
    input: v.strictObject({ file: v.pipe(v.string(), v.maxLength(4_000)) }),
    output: v.strictObject({
      ...{ file: v.string(), entries: count, sha256: v.string() },
      /** What the daemon keeps beside the store, in a file beside that one: keep both together. */
      beside: v.optional(v.strictObject({ file: v.string(), rows: count, sha256: v.string() })),
    }),
  },
  upgrade: {
    name: "store.upgrade",
    method: "POST",
    path: "/v1/store/upgrade",
    summary: "Takes the newest format of the database into use, for good",
    permission: "admin",
    mutates: true,
    input: v.object({}),
    output: v.strictObject({ before: count, format: count }),
  },
  presence: {
    name: "identity.presence",
    method: "POST",
    path: "/v1/identity/presence",
    summary: "What these hosts said of themselves last, since the authority runs",
    permission: "view",
    mutates: false,
    input: v.strictObject({ hosts: v.pipe(v.array(v.string()), v.maxLength(20_000)) }),
    output: v.strictObject({
      hosts: v.array(
        v.strictObject({ host: v.string(), time: v.number(), ...presenceSchema.entries }),
      ),
    }),
  },
} as const;
