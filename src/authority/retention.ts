import { auditDefaults, auditLeast } from "../audit/limits.ts";
import type { BucketDefinition } from "../store/store.ts";
import { parseBytes } from "../units/bytes.ts";
import { type Bytes, type Milliseconds, parseDuration } from "../units/units.ts";

/** How long and how much is kept, of everything that an authority writes; pure. */

export interface Bounds {
  readonly age: Milliseconds | "forever";
  readonly size: Bytes;
}

/** The audit log is bounded beside the buckets, by a name that none of them has. */
export const AUDIT = "audit";

export interface Retention {
  readonly buckets: readonly BucketDefinition[];
  readonly audit: { readonly age: Milliseconds; readonly size: Bytes };
}

/** The least that a bucket may have: less would refuse a single fleet's records. */
const LEAST_BUCKET: Bytes = 64 * 1024;

type Read = { readonly retention: Retention } | { readonly expected: string };

/**
 * @param given words such as "audit=87600h,10GiB" or "identity-hosts=forever,128MiB"
 * @returns the bounds with these in the place of the usual ones, or what was expected
 */
export function readRetention(
  buckets: readonly BucketDefinition[],
  given: readonly string[],
): Read & { readonly received?: string } {
  let retention: Retention = { buckets, audit: auditDefaults };
  const names = [...buckets.map(({ name }) => name), AUDIT];
  for (const received of given) {
    const [, name = "", age = "", size = ""] = /^([^=]+)=([^,]+),(.+)$/.exec(received) ?? [];
    if (!names.includes(name)) {
      return { expected: `NAME=AGE,SIZE, where NAME is ${names.join(", ")}`, received };
    }
    const bounds = readBounds(age, size);
    if (bounds === undefined) {
      return { expected: `${name}=AGE,SIZE, such as ${name}=forever,64MiB`, received };
    }
    const next = withBounds(retention, name, bounds);
    if ("expected" in next) return { ...next, received };
    retention = next.retention;
  }
  return { retention };
}

function readBounds(age: string, size: string): Bounds | undefined {
  const duration = age === "forever" ? age : parseDuration(age);
  const bytes = parseBytes(size);
  return duration === undefined || bytes === undefined ? undefined : { age: duration, size: bytes };
}

function withBounds(retention: Retention, name: string, { age, size }: Bounds): Read {
  if (name === AUDIT) {
    if (age === "forever" || age < auditLeast.age || size < auditLeast.size) {
      return { expected: "an age of 24h and a size of 1MiB for the audit log at least" };
    }
    return { retention: { ...retention, audit: { age, size } } };
  }
  if (size < LEAST_BUCKET) return { expected: `64KiB for ${name} at least` };
  const isFact = retention.buckets.some((bucket) => bucket.name === name && !bucket.expendable);
  // What was let in or revoked must not be forgotten because it is old.
  if (isFact && age !== "forever") return { expected: `forever as the age of ${name}` };
  const buckets = retention.buckets.map((bucket) =>
    bucket.name === name ? { ...bucket, age, size } : bucket,
  );
  return { retention: { ...retention, buckets } };
}
