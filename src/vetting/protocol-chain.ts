import type { KeptResult } from "./protocol-operator.ts";
import type { Spec } from "./protocol-spec.ts";

/**
 * The chain of a run: each result is hashed with the hash before it, so that none can be changed,
 * left out or put elsewhere without all that follow. It begins with what the run is held to. Pure:
 * whoever hashes gives `sha256`, of text as UTF-8, in 64 hexadecimal digits.
 */
export type Sha256 = (text: string) => string;

/** What the first link binds: the run, its host, and the spec as it was then. */
export interface ChainSubject {
  readonly run: number;
  readonly mac: string;
  readonly created: string;
  readonly spec_revision: number;
  readonly spec: Spec;
}

/** The hash before the first result. */
export function chainStart(subject: ChainSubject, sha256: Sha256): string {
  const { run, mac, created, spec_revision, spec } = subject;
  return sha256(
    canonicalJson({ kind: "hostler-vetting-run", run, mac, created, spec_revision, spec }),
  );
}

/** @param before of the result before it, or `chainStart` */
export function chainHash(
  record: Omit<KeptResult, "hash">,
  before: string,
  sha256: Sha256,
): string {
  const { stage, attempt, source, cancelled, started, ended, duration_ms, report } = record;
  const covered = { stage, attempt, source, cancelled, started, ended, duration_ms, report };
  return sha256(canonicalJson({ before, record: covered }));
}

/** @returns the place in the list of the first that is not as it was kept; undefined: all are */
export function brokenLink(
  subject: ChainSubject,
  results: readonly KeptResult[],
  sha256: Sha256,
): number | undefined {
  let before = chainStart(subject, sha256);
  for (const [place, result] of results.entries()) {
    if (chainHash(result, before, sha256) !== result.hash) return place;
    before = result.hash;
  }
  return undefined;
}

/**
 * JSON that is the same for the same value, whoever wrote it: keys in the order of their UTF-16
 * units, no spaces, and what is undefined left out (RFC 8785, sections 3.2.2 and 3.2.3).
 */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) {
    return `[${value.map((item) => canonicalJson(item ?? null)).join(",")}]`;
  }
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
  return `{${members.join(",")}}`;
}
