import { noHash } from "./hash.ts";
import { auditLimits } from "./limits.ts";
import { type AuditRecord, decodeLine, type Head, type LineFault } from "./record.ts";
import type { Line } from "./segments.ts";
import { KeyRing } from "./signature.ts";

/** A place of a log where something is not as it was written. */
export interface Fault extends LineFault {
  /** The segment's name. */
  readonly file: string;
  /** From 1; 0 for a file as a whole. */
  readonly line: number;
  /** What the line should have, or has; undefined where neither can be told. */
  readonly sequence: number | undefined;
}

export interface ChainOptions {
  /** Names of the keys that may sign (`keyText`); absent: any key that a record names itself. */
  readonly keys?: ReadonlySet<string>;
}

/** A line that was looked at. `record` is what it says, whether that is right or not. */
export interface CheckedLine {
  readonly faults: readonly Fault[];
  readonly record: AuditRecord | undefined;
}

/**
 * Goes along a chain, line by line. After a fault it goes on with what the line claims, so that
 * one change is one fault, and the next one is found as well.
 */
export class Chain {
  readonly #keys: ReadonlySet<string> | undefined;
  readonly #ring = new KeyRing();
  #head: Head | undefined;

  constructor(options: ChainOptions = {}) {
    this.#keys = options.keys;
  }

  /** The last record; undefined before the first one. */
  get head(): Head | undefined {
    return this.#head;
  }

  /** @param place the segment's name, and the sequence that its name says it begins with */
  take(line: Line, place: { readonly name: string; readonly first: number }): CheckedLine {
    const expected = line.number === 1 ? place.first : undefined;
    const next = this.#head === undefined ? expected : this.#head.sequence + 1;
    const at = (fault: LineFault, sequence = next): Fault => {
      return { file: place.name, line: line.number, sequence, ...fault };
    };
    if (line.isTooLong) {
      this.#skip(next);
      const most = `at most ${auditLimits.lineBytes} bytes`;
      return {
        faults: [at({ what: "line", expected: most, received: "more" })],
        record: undefined,
      };
    }
    const decoded = decodeLine(line.bytes);
    const record = "fault" in decoded ? decoded.claimed : decoded.record;
    if (record === undefined) {
      this.#skip(next);
      return { faults: "fault" in decoded ? [at(decoded.fault)] : [], record };
    }
    const faults =
      "fault" in decoded ? [at(decoded.fault)] : this.#checkSignature(record, decoded.signedText);
    const links = this.#checkLink(record, expected);
    this.#head = { sequence: record.sequence, hash: record.hash };
    // A line that was changed says so by its own hash; its links are as wrong as it is.
    const told = "fault" in decoded ? faults : [...links, ...faults];
    return { faults: told.map((fault) => at(fault, next ?? record.sequence)), record };
  }

  /** The line cannot be read: its hash is unknown, and the next line's link cannot be compared. */
  #skip(sequence: number | undefined): void {
    this.#head = sequence === undefined ? undefined : { sequence, hash: "" };
  }

  #checkLink(record: AuditRecord, named: number | undefined): LineFault[] {
    const head = this.#head;
    const faults: LineFault[] = [];
    const sequence = head === undefined ? named : head.sequence + 1;
    if (sequence !== undefined && record.sequence !== sequence) {
      const missing = record.sequence - sequence;
      const gap = missing === 1 ? "1 record is missing" : `${missing} records are missing`;
      const received = `${record.sequence}${missing > 0 ? ` (${gap})` : ""}`;
      faults.push({ what: "sequence", expected: String(sequence), received });
    } else if (named !== undefined && record.sequence !== named) {
      faults.push({
        what: "sequence",
        expected: `${named}, as the file is named`,
        received: `${record.sequence}`,
      });
    }
    const previous = previousOf(head, record);
    if (faults.length === 0 && previous !== undefined && record.previous !== previous) {
      faults.push({
        what: "hash of the line before",
        expected: previous,
        received: record.previous,
      });
    }
    if ((named !== undefined) !== (record.kind === "segment")) {
      const [expected, received] = [named === undefined ? "another kind" : "segment", record.kind];
      faults.push({ what: "kind", expected, received });
    }
    return faults;
  }

  #checkSignature(record: AuditRecord, signedText: string | undefined): LineFault[] {
    if (record.kind === "call") return [];
    const { key, signature } = record;
    const what = "signature";
    if (key === undefined || signature === undefined || signedText === undefined) {
      if (key !== undefined || signature !== undefined) {
        return [{ what, expected: "a key and a signature", received: "one of them" }];
      }
      if (this.#keys === undefined) return [];
      return [{ what, expected: `one by ${[...this.#keys].join(" or ")}`, received: "none" }];
    }
    if (this.#keys !== undefined && !this.#keys.has(key)) {
      return [{ what, expected: `one by ${[...this.#keys].join(" or ")}`, received: `by ${key}` }];
    }
    if (this.#ring.isSigned(signedText, { key, signature })) return [];
    return [{ what, expected: `one by ${key}`, received: "another one" }];
  }
}

/** @returns what the record's link must be; undefined where that is not known */
function previousOf(head: Head | undefined, record: AuditRecord): string | undefined {
  if (head === undefined) return record.sequence === 1 ? noHash : undefined;
  return head.hash === "" ? undefined : head.hash;
}
