import type { Bytes, Milliseconds } from "../units/units.ts";

const KIB = 1024;
const MIB = 1024 ** 2;
const DAY = 24 * 3_600_000;

/** What a log may hold. Bytes are those of UTF-8 as JSON writes it. */
export const auditLimits = {
  /** Each of who, from, verb, object and result; what is longer is cut, and says so. */
  textBytes: KIB as Bytes,
  /** Each of before and after; what is longer is replaced by its length and its hash. */
  changeBytes: (16 * KIB) as Bytes,
  /** How deep before and after may nest, and how many values may be in one. */
  changeDepth: 16,
  changeValues: 10_000,
  /** A line with its newline: five texts, two changes and what stands around them fit. */
  lineBytes: (64 * KIB) as Bytes,
  /** What the log itself may add to the records that are written together, its anchor mostly. */
  ownBytes: (4 * KIB) as Bytes,
  /** Records that wait for the end of the turn: over it, an append is refused. */
  queueRecords: 512,
  /** Records between two signatures, at most. */
  unsignedRecords: 100,
  /** Time between two records that counts as age of the log, at most: see README, Retention. */
  longestGap: (90 * DAY) as Milliseconds,
  /** Milliseconds after which a follower looks again, whether it was told of something or not. */
  followSoon: 5 as Milliseconds,
  followLate: 1_000 as Milliseconds,
  /** Segments of a folder that are looked at. */
  segments: 100_000,
  /** Faults that a verification names; it counts the others. */
  faults: 100,
} as const;

/** What is kept when the configuration does not say otherwise. */
export const auditDefaults = {
  age: (3_653 * DAY) as Milliseconds,
  size: (10 * KIB * MIB) as Bytes,
  /** Bytes after which the next segment begins; a sixteenth of `size` where that is less. */
  segmentBytes: (32 * MIB) as Bytes,
  /** Free room below which a mutating call is refused before it is carried out. */
  reserve: MIB as Bytes,
} as const;

/** The least that a configuration may say: a log of less would lose what was written just now. */
export const auditLeast = { age: DAY as Milliseconds, size: MIB as Bytes } as const;
