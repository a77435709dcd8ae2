import type { Bytes, Milliseconds } from "../units/units.ts";
import { AuditError } from "./audit-error.ts";
import { Chain, type Fault } from "./chain.ts";
import { noHash, sha256 } from "./hash.ts";
import { type AuditRecord, decodeLine, type Head, isCutShort } from "./record.ts";
import { ageAfter } from "./retention.ts";
import {
  LineReader,
  linesBackwards,
  listSegments,
  OpenSegment,
  type SegmentFile,
} from "./segments.ts";

/** A segment as the writer knows it. */
export interface KnownSegment {
  readonly name: string;
  readonly first: number;
  /** The hash of the record before its first one. */
  readonly previous: string;
}

export interface KnownClosedSegment extends KnownSegment {
  readonly bytes: Bytes;
  readonly elapsed: Milliseconds;
}

/** The segment that is written, and how old the log was when it began. */
export interface KnownActiveSegment extends KnownSegment {
  readonly beginning: Milliseconds;
  readonly bytes: Bytes;
}

/** Where a log stands: what its one writer needs to go on. */
export interface LogState {
  readonly closed: readonly KnownClosedSegment[];
  readonly active: KnownActiveSegment | undefined;
  readonly head: Head;
  readonly elapsed: Milliseconds;
  /** When the last record was written, by the wall clock; undefined for a log that begins. */
  readonly lastTime: number | undefined;
  /** Records after the last signature. */
  readonly unsigned: number;
}

/** What a power cut left at the end. */
export interface CutShort {
  readonly bytes: Bytes;
  readonly sha256: string;
  /** A segment of nothing else; or the bytes of whole lines before it. */
  readonly segment: { readonly name: string; readonly whole: Bytes };
}

const beginning: LogState = {
  closed: [],
  active: undefined,
  head: { sequence: 0, hash: noHash },
  elapsed: 0,
  lastTime: undefined,
  unsigned: 0,
};

/**
 * Reads where a log stands: the first line of each segment, and all of the last one. The others
 * are `verifyAudit`'s, which takes as long as the log is large.
 * @throws AuditError broken
 */
export async function readLogState(
  directory: string,
): Promise<{ readonly state: LogState; readonly cutShort: CutShort | undefined }> {
  const segments = listSegments(directory);
  const emptyPiece = await readEmptyEnd(segments);
  const whole = emptyPiece === undefined ? segments : segments.slice(0, -1);
  const last = whole.at(-1);
  if (last === undefined) return { state: beginning, cutShort: emptyPiece };
  const closed = await readClosed(whole);
  const { state, cutShort } = await readActive(last, emptyPiece === undefined);
  await checkLinkBefore(whole, state.active?.previous ?? noHash);
  const end = emptyPiece?.segment.name;
  if (end !== undefined && segments.at(-1)?.first !== state.head.sequence + 1) {
    throw broken(
      `${directory}/${end}: expected a segment that begins with ` +
        `${state.head.sequence + 1}, received an empty one of that name`,
    );
  }
  return { state: { ...state, closed }, cutShort: cutShort ?? emptyPiece };
}

/** A last segment whose first line was never written whole. */
async function readEmptyEnd(segments: readonly SegmentFile[]): Promise<CutShort | undefined> {
  const last = segments.at(-1);
  if (last === undefined) return undefined;
  using segment = new OpenSegment(last.path);
  const reader = new LineReader(segment);
  const lines = await reader.next();
  if (lines !== undefined && lines.length > 0) return undefined;
  if (!isCutShort(reader.rest, last.first)) return undefined;
  return {
    bytes: reader.rest.length,
    sha256: sha256(reader.rest),
    segment: { name: last.name, whole: 0 },
  };
}

/** By the first line of each segment, which tells how the one before it ended. */
async function readClosed(segments: readonly SegmentFile[]): Promise<KnownClosedSegment[]> {
  const closed: KnownClosedSegment[] = [];
  let before: (KnownSegment & { readonly bytes: Bytes }) | undefined;
  for (const place of segments) {
    using segment = new OpenSegment(place.path);
    const [line] = (await new LineReader(segment).next()) ?? [];
    const decoded = line === undefined ? undefined : decodeLine(line.bytes);
    const record = decoded !== undefined && "record" in decoded ? decoded.record : undefined;
    if (record?.kind !== "segment" || record.sequence !== place.first) {
      throw broken(`${place.path}: expected the record ${place.first} of a segment in line 1`);
    }
    if (before !== undefined) closed.push({ ...before, elapsed: record.closed });
    const { name, first } = place;
    before = { name, first, previous: record.previous, bytes: segment.size };
  }
  return closed;
}

async function readActive(
  place: SegmentFile,
  isEnd: boolean,
): Promise<{ state: LogState; cutShort: CutShort | undefined }> {
  using segment = new OpenSegment(place.path);
  const reader = new LineReader(segment);
  const chain = new Chain();
  const tally = new Tally();
  for (let lines = await reader.next(); lines !== undefined; lines = await reader.next()) {
    for (const line of lines) {
      const { faults, record } = chain.take(line, place);
      const [fault] = faults;
      if (fault !== undefined) throw brokenAt(place.path, fault);
      if (record !== undefined) tally.add(record);
    }
  }
  const head = chain.head ?? beginning.head;
  const { rest } = reader;
  const isFine = !reader.isRestTooLong && isCutShort(rest, head.sequence + 1);
  if (rest.length > 0 && !(isEnd && isFine)) {
    throw broken(`${place.path}: ${rest.length} bytes at its end are no line that was cut short`);
  }
  const whole = reader.wholeBytes;
  const cutShort = {
    bytes: rest.length,
    sha256: sha256(rest),
    segment: { name: place.name, whole },
  };
  return {
    state: { ...tally.state(place, whole), head },
    cutShort: rest.length > 0 ? cutShort : undefined,
  };
}

/** What the records of the last segment add up to. */
class Tally {
  #previous: string = noHash;
  #beginning = 0;
  #elapsed = 0;
  #lastTime: number | undefined;
  #unsigned = 0;

  add(record: AuditRecord): void {
    const now = Date.parse(record.time);
    if (record.kind === "segment") {
      this.#previous = record.previous;
      this.#beginning = record.elapsed;
      this.#elapsed = record.elapsed;
    } else if (this.#lastTime !== undefined) {
      this.#elapsed = ageAfter(this.#elapsed, { last: this.#lastTime, now });
    }
    this.#lastTime = now;
    const isSigned = record.kind !== "call" && record.key !== undefined;
    this.#unsigned = isSigned ? 0 : this.#unsigned + 1;
  }

  state(place: SegmentFile, bytes: Bytes): Omit<LogState, "head"> {
    const { name, first } = place;
    return {
      closed: [],
      active: { name, first, previous: this.#previous, beginning: this.#beginning, bytes },
      elapsed: this.#elapsed,
      lastTime: this.#lastTime,
      unsigned: this.#unsigned,
    };
  }
}

/** The last segment goes on where the one before it ended. */
async function checkLinkBefore(segments: readonly SegmentFile[], previous: string): Promise<void> {
  const [before, last] = segments.slice(-2);
  if (before === undefined || last === undefined) return;
  using segment = new OpenSegment(before.path);
  const { value } = await linesBackwards(segment).next();
  const bytes = Array.isArray(value) ? value[0] : undefined;
  const decoded = bytes === undefined ? undefined : decodeLine(bytes);
  const record = decoded !== undefined && "record" in decoded ? decoded.record : undefined;
  if (record?.hash === previous && record.sequence === last.first - 1) return;
  throw broken(
    `${before.path}: expected that it ends with the record ${last.first - 1} (${previous})`,
  );
}

function brokenAt(path: string, fault: Fault): AuditError {
  const { line, what, expected, received } = fault;
  return broken(`${path} line ${line}: ${what}: expected ${expected}, received ${received}`);
}

function broken(what: string): AuditError {
  const mend =
    "hostler audit verify names all of it. Move the folder aside as evidence; a new log begins " +
    "in its place.";
  return new AuditError(`The audit log was changed: ${what}. ${mend}`, { problem: "broken" });
}
