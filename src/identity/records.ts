import * as v from "valibot";
import { roles, specialPermissions } from "../http/principal.ts";
import type { BucketDefinition } from "../store/store.ts";
import type { HostState } from "./lifecycle-host.ts";
import type { OperatorState } from "./lifecycle-operator.ts";
import { readingSchema } from "./lifecycle-time.ts";
import type { TokenState } from "./lifecycle-token.ts";

/** What an authority remembers, and where. No secret stands here: of tokens, only the hash. */

const mebibyte = 1024 * 1024;
const facts = { age: "forever", expendable: false, volatile: false } as const;

/** A record of a host has some 2 KB at most, when all its boots and clones are noted. */
export const hostsBucket: BucketDefinition = {
  name: "identity-hosts",
  size: 64 * mebibyte,
  ...facts,
};
export const tokensBucket: BucketDefinition = {
  name: "identity-tokens",
  size: 8 * mebibyte,
  ...facts,
};
export const operatorsBucket: BucketDefinition = {
  name: "identity-operators",
  size: 4 * mebibyte,
  ...facts,
};
export const pinsBucket: BucketDefinition = {
  name: "identity-pins",
  size: mebibyte,
  ...facts,
};
/** The buckets that a store must have for an authority. */
export const identityBuckets: readonly BucketDefinition[] = [
  hostsBucket,
  tokensBucket,
  operatorsBucket,
  pinsBucket,
];

/** The version of every record here: one that says another is not understood, and not touched. */
const version = v.literal(1);
const hostKey = v.strictObject({ fingerprint: v.string(), key: v.string() });
const notes = {
  boots: v.array(v.string()),
  clones: v.array(
    v.strictObject({
      boots: v.strictTuple([v.string(), v.string()]),
      how: v.picklist(["answers", "returned", "spoke"]),
    }),
  ),
  pins: v.array(v.string()),
};
const hostState: v.GenericSchema<unknown, HostState> = v.variant("phase", [
  v.strictObject({ phase: v.literal("enrolled"), key: hostKey, ...notes }),
  v.strictObject({ phase: v.literal("rotating"), key: hostKey, next: hostKey, ...notes }),
  v.strictObject({ phase: v.literal("revoked"), fingerprints: v.array(v.string()), ...notes }),
]);

export const hostRecordSchema = v.strictObject({
  version,
  state: hostState,
  /** The token that let it in. */
  token: v.string(),
  /** Milliseconds since 1970 by the authority's clock: for people. */
  enrolled_at: v.number(),
});
export type HostRecord = v.InferOutput<typeof hostRecordSchema>;

const suspects = v.array(v.string());
const tokenState: v.GenericSchema<unknown, TokenState> = v.variant("phase", [
  v.strictObject({ phase: v.literal("unused") }),
  v.strictObject({ phase: v.literal("used"), key: v.string(), suspects }),
  v.strictObject({ phase: v.literal("spent-before"), suspects }),
  v.strictObject({ phase: v.literal("revoked") }),
]);

export const tokenRecordSchema = v.strictObject({
  version,
  state: tokenState,
  /** SHA-256 of the secret. */
  hash: v.string(),
  host: v.string(),
  /** It may put its key in the place of another one of that name. */
  replace: v.boolean(),
  made: readingSchema,
  lifetime: v.number(),
  by: v.string(),
});
export type TokenRecord = v.InferOutput<typeof tokenRecordSchema>;

const rights = { role: v.picklist(roles), special: v.array(v.picklist(specialPermissions)) };
const operatorState: v.GenericSchema<unknown, OperatorState> = v.variant("phase", [
  v.strictObject({
    phase: v.literal("active"),
    /** SHA-256 of the token. */
    token: v.string(),
    old: v.nullish(
      v.strictObject({ hash: v.string(), since: readingSchema, overlap: v.number() }),
    ) as v.GenericSchema<unknown, Extract<OperatorState, { phase: "active" }>["old"]>,
    ...rights,
  }),
  v.strictObject({ phase: v.literal("revoked"), ...rights }),
]) as v.GenericSchema<unknown, OperatorState>;

export const operatorRecordSchema = v.strictObject({
  version,
  state: operatorState,
  added_at: v.number(),
  by: v.string(),
});
export type OperatorRecord = v.InferOutput<typeof operatorRecordSchema>;

export const pinsRecordSchema = v.strictObject({
  version,
  current: v.string(),
  next: v.nullable(v.string()),
});
export type PinsRecord = v.InferOutput<typeof pinsRecordSchema>;
