import { statSync } from "node:fs";
import { refusalCode } from "../journal/file-refused.ts";
import type { Bytes } from "../units/units.ts";
import { Chain, type Fault } from "./chain.ts";
import { noHash } from "./hash.ts";
import { auditLimits } from "./limits.ts";
import { type AuditRecord, type DroppedRecord, type Head, isCutShort } from "./record.ts";
import { LineReader, listSegments, OpenSegment, type SegmentFile } from "./segments.ts";

/** What a log came to when all of it was read. Nothing is written, and no lock is needed. */
export interface Verification {
  readonly verdict: "intact" | "broken";
  /** Those that are named; `faultCount` are there. */
  readonly faults: readonly Fault[];
  readonly faultCount: number;
  readonly segments: number;
  readonly records: number;
  readonly bytes: Bytes;
  /** The sequence of the oldest record that is there; null for an empty log. */
  readonly first: number | null;
  /** The newest record: note it elsewhere, and give it as a noted head later. */
  readonly head: Head | null;
  /** All records up to this one were dropped by retention, as the log itself says. */
  readonly dropped: (Head & { readonly time: string; readonly reason: string }) | null;
  /** The last record with a signature, and how many after it have none. */
  readonly signed: { readonly sequence: number; readonly key: string } | null;
  readonly unsigned: number;
  /** Whether the signatures were held to keys that were given. */
  readonly keysGiven: boolean;
  /** Bytes of a last line that was cut short, or is being written. */
  readonly cutShort: Bytes;
  readonly heads: readonly (Head & { readonly status: HeadStatus })[];
}

/** dropped: retention took the record, and nothing is left to compare. */
export type HeadStatus = "matches" | "differs" | "missing" | "dropped";

export interface VerifyOptions {
  readonly directory: string;
  /** Names of the keys that may sign, as `keyText` gives them. */
  readonly keys?: ReadonlySet<string>;
  /** Heads that were noted elsewhere earlier. */
  readonly heads?: readonly Head[];
  /** Told after each part that was read. */
  readonly progress?: (read: { readonly bytes: Bytes; readonly of: Bytes }) => void;
  readonly signal?: AbortSignal;
}

/** How often a log that changes meanwhile is read anew. */
const mostAttempts = 5;
/** Segments that are open at a time. */
const openAhead = 64;

/**
 * Reads a whole log, and says what in it is not as it was written.
 * @throws Error (ENOENT for the folder, EACCES …)
 */
export async function verifyAudit(options: VerifyOptions): Promise<Verification> {
  for (let attempt = 1; ; attempt += 1) {
    const isLastAttempt = attempt === mostAttempts;
    const segments = listSegments(options.directory);
    const before = stateOf(segments);
    const pass = new Pass(options, segments);
    try {
      const found = await pass.run();
      if (found.verdict === "intact" || isLastAttempt || !pass.isWrongAtEdgesAlone) return found;
      // A writer that takes back what found no room, or what a power cut left, takes it from
      // under a reader; and a folder that is read while the newest segment comes and the oldest
      // goes may show neither. What is wrong there counts when nobody wrote.
      if (before === stateOf(listSegments(options.directory))) return found;
    } catch (error) {
      // A segment went while this read: retention says so in the log, or the next pass finds it.
      if (refusalCode(error) !== "ENOENT" || isLastAttempt) throw error;
    }
  }
}

/** Changes whenever somebody writes. */
function stateOf(segments: readonly SegmentFile[]): string {
  const [oldest] = segments;
  const newest = segments.at(-1);
  if (oldest === undefined || newest === undefined) return "";
  const status = statSync(newest.path, { bigint: true, throwIfNoEntry: false });
  const end = status === undefined ? "" : `${status.ino} ${status.size} ${status.mtimeNs}`;
  return `${oldest.name} ${newest.name} ${end}`;
}

/** One reading of all segments. */
class Pass {
  readonly #options: VerifyOptions;
  readonly #segments: readonly SegmentFile[];
  readonly #chain: Chain;
  readonly #faults: Fault[] = [];
  #faultCount = 0;
  #records = 0;
  #bytes = 0;
  #bytesBefore = 0;
  /** What there was to read when it began. */
  readonly #total: Bytes;
  #first: number | null = null;
  #previous: string | undefined;
  #dropped: DroppedRecord | undefined;
  #signed: { sequence: number; key: string } | null = null;
  #cutShort = 0;
  readonly #hashes = new Map<number, string>();
  readonly #wanted: ReadonlySet<number>;

  constructor(options: VerifyOptions, segments: readonly SegmentFile[]) {
    this.#options = options;
    this.#segments = segments;
    this.#chain = new Chain(options.keys === undefined ? {} : { keys: options.keys });
    this.#total = options.progress === undefined ? 0 : sizeOf(segments);
    this.#wanted = new Set(options.heads?.map((head) => head.sequence) ?? []);
  }

  /** Nothing but the beginning and the last segment is at fault. */
  get isWrongAtEdgesAlone(): boolean {
    const last = this.#segments.at(-1)?.name;
    return this.#faults.every(({ file, what }) => file === last || what === "beginning");
  }

  async run(): Promise<Verification> {
    await this.#readSegments();
    this.#checkBeginning();
    this.#checkSigned();
    const heads = this.#compareHeads();
    const head = this.#chain.head ?? null;
    return {
      verdict: this.#faultCount === 0 ? "intact" : "broken",
      faults: this.#faults,
      faultCount: this.#faultCount,
      segments: this.#segments.length,
      records: this.#records,
      bytes: this.#bytes,
      first: this.#first,
      head,
      dropped: this.#droppedSummary(),
      signed: this.#signed,
      unsigned: Math.max(
        0,
        (head?.sequence ?? 0) - (this.#signed?.sequence ?? (this.#first ?? 1) - 1),
      ),
      keysGiven: this.#options.keys !== undefined,
      cutShort: this.#cutShort,
      heads,
    };
  }

  /** Retention takes the oldest away meanwhile: what is open by then is read all the same. */
  async #readSegments(): Promise<void> {
    const waiting = [...this.#segments];
    const opened: OpenSegment[] = [];
    try {
      for (const [index, place] of this.#segments.entries()) {
        for (const { path } of waiting.splice(0, openAhead - opened.length)) {
          opened.push(new OpenSegment(path));
        }
        using segment = opened.shift() as OpenSegment;
        await this.#readSegment(segment, place, index === this.#segments.length - 1);
      }
    } finally {
      for (const segment of opened) segment[Symbol.dispose]();
    }
  }

  async #readSegment(segment: OpenSegment, place: SegmentFile, isLast: boolean): Promise<void> {
    const reader = new LineReader(segment);
    for (;;) {
      this.#options.signal?.throwIfAborted();
      const lines = await reader.next();
      if (lines === undefined) break;
      for (const line of lines) {
        const { faults, record } = this.#chain.take(line, place);
        for (const fault of faults) this.#note(fault);
        this.#records += 1;
        if (record !== undefined) this.#noteRecord(record);
      }
      this.#bytes = this.#bytesBefore + reader.position;
      this.#options.progress?.({ bytes: this.#bytes, of: Math.max(this.#total, this.#bytes) });
    }
    this.#bytesBefore += reader.position;
    this.#bytes = this.#bytesBefore;
    this.#checkRest(reader, place, isLast);
  }

  #noteRecord(record: AuditRecord): void {
    if (this.#first === null) {
      this.#first = record.sequence;
      this.#previous = record.previous;
    }
    if (this.#wanted.has(record.sequence)) this.#hashes.set(record.sequence, record.hash);
    // Where the chain is there, what an anchor says of it can be compared.
    if (record.kind === "dropped") this.#dropped = record;
    if (record.kind !== "call" && record.key !== undefined) {
      this.#signed = { sequence: record.sequence, key: record.key };
    }
  }

  /** A segment ends with a newline; the last one may end with a line that was cut short. */
  #checkRest(reader: LineReader, place: SegmentFile, isLast: boolean): void {
    const { rest } = reader;
    const expected = this.#nextSequence(place, reader.wholeBytes === 0);
    if (isLast && !reader.isRestTooLong && isCutShort(rest, expected)) {
      this.#cutShort = rest.length;
      // An empty segment is one whose first line was never written.
      if (reader.wholeBytes === 0) this.#checkEmpty(place);
      return;
    }
    if (rest.length === 0 && reader.wholeBytes > 0) return;
    this.#note({
      file: place.name,
      line: 0,
      sequence: expected,
      what: "end of the file",
      expected: "a line that ends with a newline",
      received: rest.length === 0 ? "an empty file" : `${rest.length} bytes without one`,
    });
  }

  #nextSequence(place: SegmentFile, isEmpty: boolean): number {
    const { head } = this.#chain;
    return head === undefined || isEmpty ? place.first : head.sequence + 1;
  }

  #checkEmpty(place: SegmentFile): void {
    const expected = (this.#chain.head?.sequence ?? 0) + 1;
    if (place.first === expected) return;
    this.#note({
      file: place.name,
      line: 0,
      sequence: expected,
      what: "name",
      expected: `a segment that begins with ${expected}`,
      received: `an empty one that begins with ${place.first}`,
    });
  }

  /** The log begins with record 1, or the log itself says what was before. */
  #checkBeginning(): void {
    const [oldest] = this.#segments;
    if (oldest === undefined || this.#first === null || this.#first === 1) return;
    const said = this.#dropped;
    const isSaid = said !== undefined && said.last >= this.#first - 1;
    const isHead = said?.last !== this.#first - 1 || said.head === this.#previous;
    if (isSaid && isHead) return;
    const last = this.#first - 1;
    this.#note({
      file: oldest.name,
      line: 1,
      sequence: 1,
      what: "beginning",
      expected: `the records 1 to ${last}, or a record that retention dropped them`,
      received:
        said === undefined ? "neither" : `that it dropped up to ${said.last} (${said.head})`,
    });
  }

  /** A chain that anybody can make has no signature; nothing is what a log begins with. */
  #checkSigned(): void {
    const { keys } = this.#options;
    if (keys === undefined || this.#signed !== null || this.#faultCount > 0) return;
    if (this.#records === 0) return;
    this.#note({
      file: this.#segments[0]?.name ?? "",
      line: 0,
      sequence: undefined,
      what: "signature",
      expected: `records signed by ${[...keys].join(" or ")}`,
      received: "none",
    });
  }

  #compareHeads(): (Head & { status: HeadStatus })[] {
    return (this.#options.heads ?? []).map((noted) => {
      const status = this.#statusOf(noted);
      if (status === "differs" || status === "missing") {
        const last = this.#chain.head?.sequence ?? 0;
        this.#note({
          file: this.#segments.at(-1)?.name ?? "",
          line: 0,
          sequence: noted.sequence,
          what: "noted head",
          expected: noted.hash,
          received: this.#hashes.get(noted.sequence) ?? `a log that ends with record ${last}`,
        });
      }
      return { ...noted, status };
    });
  }

  #statusOf(noted: Head): HeadStatus {
    const found = this.#hashes.get(noted.sequence);
    if (found !== undefined) return found === noted.hash ? "matches" : "differs";
    const first = this.#first ?? 1;
    if (noted.sequence === first - 1) {
      this.#hashes.set(noted.sequence, this.#previous ?? noHash);
      return this.#previous === noted.hash ? "matches" : "differs";
    }
    return noted.sequence < first ? "dropped" : "missing";
  }

  #droppedSummary(): Verification["dropped"] {
    const said = this.#dropped;
    if (said === undefined) return null;
    return { sequence: said.last, hash: said.head, time: said.time, reason: said.reason };
  }

  #note(fault: Fault): void {
    this.#faultCount += 1;
    if (this.#faults.length < auditLimits.faults) this.#faults.push(fault);
  }
}

function sizeOf(segments: readonly SegmentFile[]): Bytes {
  const sizes = segments.map(({ path }) => statSync(path, { throwIfNoEntry: false })?.size ?? 0);
  return sizes.reduce((sum, size) => sum + size, 0);
}
