import type { Milliseconds } from "../units/units.ts";

/**
 * What a host knows of the time without asking its clock, which may stand at 1970 or at 2045: it
 * is not earlier than any of these. All are milliseconds since 1970. Pure.
 */
export interface TimeWitnesses {
  /** When this program was released. */
  readonly build: Milliseconds;
  /** The greatest that was known before, from the journal. */
  readonly journaled: Milliseconds;
  /** What the authority has signed. */
  readonly signed: Milliseconds;
}

/**
 * A time before which this program did not exist: 2026-11-01T00:00:00Z. Raised with a release,
 * and written out, because the time of a build would make two builds of one commit differ.
 */
export const releaseTime: Milliseconds = 1_793_491_200_000;

/** The latest time that is certain to have passed. It never goes back. */
export function trustedTime(witnesses: TimeWitnesses): Milliseconds {
  return Math.max(witnesses.build, witnesses.journaled, witnesses.signed);
}

/**
 * Whether something that is signed with an end has ended for certain. Where this is wrong, it
 * errs to "not yet": what must not be used twice has a serial or a nonce besides.
 */
export function hasExpired(expires: Milliseconds, trusted: Milliseconds): boolean {
  return trusted > expires;
}
