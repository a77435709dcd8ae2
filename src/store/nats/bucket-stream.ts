import type { BucketDefinition } from "../store.ts";

/** The parts of a stream's configuration that a bucket decides: ADR-8 of nats-architecture. */
export interface StreamConfig {
  readonly name: string;
  readonly subjects: readonly string[];
  readonly retention: "limits";
  readonly storage: "file" | "memory";
  readonly discard: "old" | "new";
  /** Nanoseconds; 0 for ever. */
  readonly max_age: number;
  readonly max_bytes: number;
  readonly max_msgs_per_subject: 1;
  readonly num_replicas: number;
  /** Without it a read asks for a stream's message, and its subject has no key to permit. */
  readonly allow_direct: true;
  /** With it whoever may write one key can remove all others, by a header (Nats-Rollup: all). */
  readonly allow_rollup_hdrs: false;
  readonly deny_delete: true;
  /** Each watch is a consumer. Said, because 2.15 has 1,000 where nothing is; it never changes. */
  readonly max_consumers: number;
}

/** Watches of one bucket, over all clients. */
export const mostConsumers = 65_536;

export const streamOf = (bucket: string) => `KV_${bucket}`;
export const subjectOf = (bucket: string, key: string) => `$KV.${bucket}.${key}`;

/** @returns the subject of a watch: "" is all keys, "a." those that begin so */
export function filterOf(bucket: string, pattern: string): string {
  if (pattern === "") return subjectOf(bucket, ">");
  return subjectOf(bucket, pattern.endsWith(".") ? `${pattern}>` : pattern);
}

const NANOSECONDS = 1_000_000;

/**
 * A full bucket whose entries may go loses its oldest; any other refuses writes. What NATS counts
 * as bytes is some 60 more for each entry than its key and value.
 */
export function configOf(bucket: BucketDefinition, replicas: number): StreamConfig {
  return {
    name: streamOf(bucket.name),
    subjects: [subjectOf(bucket.name, ">")],
    retention: "limits",
    storage: bucket.volatile ? "memory" : "file",
    discard: bucket.expendable ? "old" : "new",
    max_age: bucket.age === "forever" ? 0 : bucket.age * NANOSECONDS,
    max_bytes: bucket.size,
    max_msgs_per_subject: 1,
    num_replicas: replicas,
    allow_direct: true,
    allow_rollup_hdrs: false,
    deny_delete: true,
    max_consumers: mostConsumers,
  };
}

export interface Difference {
  readonly name: string;
  readonly expected: string;
  readonly received: string;
}

/** What a stream has otherwise than the bucket says; what is not of the bucket does not count. */
export function differencesOf(
  wanted: StreamConfig,
  found: Readonly<Record<string, unknown>>,
): Difference[] {
  const names = ["storage", "discard", "max_age", "max_bytes", "max_msgs_per_subject"] as const;
  const others = ["num_replicas", "allow_direct", "allow_rollup_hdrs"] as const;
  return [...names, ...others].flatMap((name) => {
    const expected = wanted[name];
    // The server leaves out what is zero or false.
    const received = found[name] ?? (typeof expected === "boolean" ? false : 0);
    if (received === expected) return [];
    return [{ name, expected: String(expected), received: String(received) }];
  });
}

/** What no update of a stream can change. */
export const isFixed = ({ name }: Difference) => name === "storage";
