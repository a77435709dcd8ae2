import type { CallRecord } from "../http/route.ts";
import type { Bytes, Milliseconds } from "../units/units.ts";
import { AuditError } from "./audit-error.ts";
import { auditDefaults, auditLeast, auditLimits } from "./limits.ts";
import {
  type CutShort,
  type KnownActiveSegment,
  type KnownClosedSegment,
  type LogState,
  readLogState,
} from "./log-state.ts";
import { contentOf, encodeRecord, type Head, type RecordContent, timeText } from "./record.ts";
import { ageAfter, planRetention } from "./retention.ts";
import { AuditFolder, fullMessage, SegmentWriter, writeError } from "./segment-writer.ts";
import { segmentName } from "./segments.ts";
import type { AuditSigner } from "./signature.ts";

export interface AuditOptions {
  /** Made with mode 0700 where it is missing; files in it have 0600. */
  readonly directory: string;
  /** Signs the log's own records. Without one, whoever can write the folder can make a log anew. */
  readonly signer?: AuditSigner;
  /** Records older than this go, in whole segments; a thirty-second more is kept. */
  readonly age?: Milliseconds;
  /** What all segments may take, before the last one of them is written to its end. */
  readonly size?: Bytes;
  readonly segmentBytes?: Bytes;
  /** Free room below which `admit` refuses. */
  readonly reserve?: Bytes;
  /** The wall clock, in milliseconds since 1970: for people, never to order by. */
  readonly now?: () => number;
}

type Phase =
  | { readonly name: "writing" }
  /** The last write was refused, for want of room mostly; the next one tries again. */
  | { readonly name: "refused" }
  | { readonly name: "failed"; readonly error: AuditError }
  | { readonly name: "closed" };

interface Waiting {
  readonly content: RecordContent;
  resolve(head: Head): void;
  reject(error: unknown): void;
}

/**
 * The audit log as its one writer has it. Before a mutating call is carried out, `admit` says
 * whether what it does can be written; after it, or when it was refused, `append` writes it, and
 * the call is answered when that has returned.
 */
export class AuditLog implements AsyncDisposable {
  readonly #options: Required<Omit<AuditOptions, "signer">>;
  readonly #signer: AuditSigner | undefined;
  readonly #folder: AuditFolder;
  #state: LogState;
  #writer: SegmentWriter | undefined;
  #phase: Phase = { name: "writing" };
  /** Records of the log's own that are to be written with the next one. */
  #notes: RecordContent[] = [{ kind: "opened" }];
  #queue: Waiting[] = [];

  private constructor(options: AuditOptions, folder: AuditFolder, state: LogState) {
    const { age, size, reserve } = auditDefaults;
    const limit = options.size ?? size;
    this.#options = {
      ...{ age, size, reserve, now: Date.now },
      segmentBytes: Math.min(auditDefaults.segmentBytes, limit / 16),
      ...options,
    };
    this.#signer = options.signer;
    this.#folder = folder;
    this.#state = state;
  }

  /**
   * Opens a log, or begins one. A last line that was cut short is taken off, with a note.
   * @throws AuditError locked, broken; FileRefused for the folder; RangeError for the options
   */
  static async open(options: AuditOptions): Promise<AuditLog> {
    checkOptions(options);
    const folder = AuditFolder.open(options.directory);
    try {
      const { state, cutShort } = await readLogState(options.directory);
      const log = new AuditLog(options, folder, state);
      log.#begin(cutShort);
      return log;
    } catch (error) {
      folder[Symbol.dispose]();
      throw error;
    }
  }

  /** The newest record; note it elsewhere, and a log that is cut off or made anew is found. */
  get head(): Head {
    return this.#state.head;
  }

  /** The bytes of all segments. */
  get size(): Bytes {
    return this.#closedBytes() + (this.#writer?.size ?? 0);
  }

  /**
   * Says whether a mutating call may be carried out.
   * @throws AuditError full, refused, failed, busy, closed: the call must be refused then, and
   *   nothing changed
   */
  admit(): void {
    this.#checkPhase();
    // A quota is not what statfs tells: after a refusal, only a write shows that there is room.
    if (this.#phase.name === "refused") this.#commit([{ kind: "checkpoint" }]);
    const free = this.#folder.freeBytes;
    if (free < this.#options.reserve) {
      const received = `${free} bytes, and ${this.#options.reserve} are the least`;
      throw new AuditError(fullMessage(this.#folder.path, received), { problem: "full" });
    }
    if (this.#queue.length >= auditLimits.queueRecords) throw busy();
  }

  /**
   * Writes what was done, or refused. Records of one turn of the event loop share one fsync.
   * @returns the record's place, once it is on the disk
   * @throws AuditError as `admit`: the call must be answered with a failure
   */
  append(call: CallRecord): Promise<Head> {
    const { promise, resolve, reject } = Promise.withResolvers<Head>();
    try {
      this.#checkPhase();
      if (this.#queue.length >= auditLimits.queueRecords) throw busy();
      this.#queue.push({ content: contentOf(call), resolve, reject });
      if (this.#queue.length === 1) setImmediate(() => this.#flush());
    } catch (error) {
      reject(error);
    }
    return promise;
  }

  /** Writes what waits and a last signature, and lets the next writer in. */
  async close(): Promise<void> {
    if (this.#phase.name === "closed") return;
    this.#flush();
    try {
      const isSigned = this.#signer === undefined || this.#state.unsigned === 0;
      if (!isSigned && this.#phase.name === "writing") this.#commit([{ kind: "checkpoint" }]);
    } catch {
      // The next writer signs what is there by its first record, when there is room.
    } finally {
      this.#phase = { name: "closed" };
      this.#writer?.[Symbol.dispose]();
      this.#folder[Symbol.dispose]();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #begin(cutShort: CutShort | undefined): void {
    const { active } = this.#state;
    if (active !== undefined) {
      this.#writer = new SegmentWriter(this.#folder, active.name, { isNew: false });
    }
    if (cutShort !== undefined) this.#takeOff(cutShort);
    try {
      this.#commit([]);
    } catch (error) {
      // A full disk must not keep its daemon from being asked: nothing is admitted until there
      // is room, and what is to be said first stays to be said.
      if (!(error instanceof AuditError && error.problem === "full")) throw error;
    }
  }

  #takeOff({ segment, bytes, sha256 }: CutShort): void {
    if (segment.name === this.#writer?.name) this.#writer.truncate(segment.whole);
    else this.#folder.remove(segment.name);
    if (bytes > 0) this.#notes.unshift({ kind: "cut-short", bytes, sha256 });
  }

  #checkPhase(): void {
    if (this.#phase.name === "closed")
      throw new AuditError("The audit log is closed", { problem: "closed" });
    if (this.#phase.name !== "failed") return;
    const { error } = this.#phase;
    const message = "The audit log takes nothing more before it is opened anew";
    throw new AuditError(message, { problem: error.problem, cause: error });
  }

  #flush(): void {
    const waiting = this.#queue;
    this.#queue = [];
    if (waiting.length === 0) return;
    try {
      this.#checkPhase();
      const heads = this.#commit(waiting.map(({ content }) => content));
      for (const [index, { resolve }] of waiting.entries()) resolve(heads[index] ?? this.head);
    } catch (error) {
      for (const { reject } of waiting) reject(error);
    }
  }

  /**
   * Writes records with what the log has to say itself, all or none of them.
   * @returns their places. @throws AuditError
   */
  #commit(contents: readonly RecordContent[]): Head[] {
    try {
      const heads = this.#write(contents);
      this.#phase = { name: "writing" };
      return heads;
    } catch (error) {
      const known = error instanceof AuditError ? error : writeError(this.#folder.path, error);
      const isFinal = known.problem === "failed" || known.problem === "broken";
      this.#phase = isFinal ? { name: "failed", error: known } : { name: "refused" };
      throw known;
    }
  }

  #write(contents: readonly RecordContent[]): Head[] {
    const draft = new Draft(this.#state, { now: this.#options.now(), signer: this.#signer });
    const rotates = this.#wantsSegment(draft.elapsed);
    if (rotates)
      draft.add({ kind: "segment", elapsed: draft.elapsed, closed: this.#state.elapsed });
    for (const note of this.#notes) draft.add(note);
    const heads = contents.map((content) => draft.add(content));
    const closed = rotates ? this.#closedWithActive() : this.#state.closed;
    const dropped = this.#drop(closed, draft, rotates);
    if (this.#signer !== undefined && draft.unsigned >= auditLimits.unsignedRecords) {
      draft.add({ kind: "checkpoint" });
    }
    const active = rotates ? this.#appendToNew(draft) : this.#appendToActive(draft);
    this.#state = draft.state({ closed: closed.slice(dropped), active });
    this.#notes = [];
    for (const { name } of closed.slice(0, dropped)) this.#folder.remove(name);
    if (dropped > 0) this.#folder.sync();
    return heads;
  }

  #wantsSegment(elapsed: Milliseconds): boolean {
    const { active } = this.#state;
    if (active === undefined || this.#writer === undefined) return true;
    const isOld = elapsed - active.beginning > this.#options.age / 32;
    return isOld || this.#writer.size >= this.#options.segmentBytes;
  }

  #closedWithActive(): readonly KnownClosedSegment[] {
    const { active, closed, elapsed } = this.#state;
    if (active === undefined || this.#writer === undefined) return closed;
    const { name, first, previous } = active;
    return [...closed, { name, first, previous, elapsed, bytes: this.#writer.size }];
  }

  /** Says what retention drops, before it does. @returns how many of the closed segments go */
  #drop(closed: readonly KnownClosedSegment[], draft: Draft, rotates: boolean): number {
    const written = sumBytes(closed) + (rotates ? 0 : (this.#writer?.size ?? 0));
    const bytes = written + draft.bytes + auditLimits.ownBytes;
    const plan = planRetention(closed, { bytes, elapsed: draft.elapsed }, this.#options);
    const [oldest] = closed;
    if (plan === undefined || oldest === undefined) return 0;
    const { count, reason } = plan;
    const next = closed[count] ?? (rotates ? undefined : this.#state.active);
    draft.add({
      kind: "dropped",
      first: oldest.first,
      last: next === undefined ? this.#state.head.sequence : next.first - 1,
      head: next === undefined ? this.#state.head.hash : next.previous,
      segments: count,
      bytes: sumBytes(closed.slice(0, count)),
      reason,
    });
    return count;
  }

  #appendToActive(draft: Draft): KnownActiveSegment | undefined {
    this.#writer?.append(draft.text);
    return this.#state.active;
  }

  #appendToNew(draft: Draft): KnownActiveSegment {
    const { head } = this.#state;
    const first = head.sequence + 1;
    const name = segmentName(first);
    const writer = new SegmentWriter(this.#folder, name, { isNew: true });
    try {
      writer.append(draft.text);
      this.#folder.sync();
    } catch (error) {
      writer[Symbol.dispose]();
      // Not one that is full: it would be found there by the next try.
      this.#folder.remove(name);
      throw error;
    }
    this.#writer?.[Symbol.dispose]();
    this.#writer = writer;
    return { name, first, previous: head.hash, beginning: draft.elapsed, bytes: writer.size };
  }

  #closedBytes(): Bytes {
    return sumBytes(this.#state.closed);
  }
}

/** Lines that are to be written together, and where the log stands after them. */
class Draft {
  readonly elapsed: Milliseconds;
  text = "";
  bytes: Bytes = 0;
  unsigned: number;
  readonly #now: number;
  readonly #time: string;
  readonly #signer: AuditSigner | undefined;
  #head: Head;

  constructor(
    state: LogState,
    options: { readonly now: number; readonly signer: AuditSigner | undefined },
  ) {
    const { now } = options;
    this.#time = timeText(now);
    // As whoever reads the record reads it.
    this.#now = Date.parse(this.#time);
    const last = state.lastTime ?? this.#now;
    this.elapsed = ageAfter(state.elapsed, { last, now: this.#now });
    this.unsigned = state.unsigned;
    this.#head = state.head;
    this.#signer = options.signer;
  }

  add(content: RecordContent): Head {
    const place = { head: this.#head, time: this.#time, signer: this.#signer };
    const { line, head } = encodeRecord(content, place);
    const isSigned = this.#signer !== undefined && content.kind !== "call";
    this.unsigned = isSigned ? 0 : this.unsigned + 1;
    this.text += line;
    this.bytes += Buffer.byteLength(line);
    this.#head = head;
    return head;
  }

  state(segments: Pick<LogState, "closed" | "active">): LogState {
    const { elapsed, unsigned } = this;
    return { ...segments, head: this.#head, elapsed, lastTime: this.#now, unsigned };
  }
}

function sumBytes(segments: readonly { readonly bytes: Bytes }[]): Bytes {
  return segments.reduce((sum, { bytes }) => sum + bytes, 0);
}

function busy(): AuditError {
  const most = `at most ${auditLimits.queueRecords} records that wait`;
  const message = `Cannot take another record: expected ${most}, received one more`;
  return new AuditError(message, { problem: "busy" });
}

/** @throws RangeError: whoever reads the configuration has looked before */
function checkOptions({ age, size = auditDefaults.size, segmentBytes }: AuditOptions): void {
  const { lineBytes } = auditLimits;
  checkRange("age", age, auditLeast.age, Number.POSITIVE_INFINITY);
  checkRange("size", size, auditLeast.size, Number.POSITIVE_INFINITY);
  // The segment that is written never goes: it must be a small part of the whole.
  checkRange("segmentBytes", segmentBytes, lineBytes, size / 4);
}

function checkRange(name: string, value: number | undefined, least: number, most: number): void {
  if (value === undefined || (value >= least && value <= most)) return;
  throw new RangeError(`Expected ${name} from ${least} to ${most}, received ${value}`);
}
