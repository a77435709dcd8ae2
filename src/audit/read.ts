import { watch } from "node:fs";
import { refusalCode } from "../journal/file-refused.ts";
import type { Milliseconds } from "../units/units.ts";
import { auditLimits } from "./limits.ts";
import { type AuditRecord, decodeLine, type LineFault } from "./record.ts";
import { LineReader, linesBackwards, listSegments, OpenSegment } from "./segments.ts";

/** Which records are asked for. Patterns are whole texts, in which * is any text. */
export interface ReadFilter {
  /** Only records after this sequence. */
  readonly after?: number;
  readonly who?: string;
  readonly verb?: string;
  readonly object?: string;
  /** Also the log's own records: signatures, openings, what was dropped. */
  readonly isAll?: boolean;
}

export interface ReadOptions extends ReadFilter {
  readonly directory: string;
  /** At most so many; those that come first in the order that was asked for. */
  readonly limit?: number;
  readonly newestFirst?: boolean;
}

/** A record, or a line that is none any more: it was changed, and verification says more. */
export type ReadItem =
  | { readonly kind: "record"; readonly record: AuditRecord }
  | { readonly kind: "broken"; readonly file: string; readonly fault: LineFault };

/**
 * Records that match, segment by segment with bounded memory, also while another process writes.
 * Each line is held to its own hash; the chain is `verifyAudit`'s.
 * @throws Error (ENOENT for the folder, EACCES …)
 */
export async function* readAudit(options: ReadOptions): AsyncGenerator<ReadItem> {
  const { limit = Number.POSITIVE_INFINITY } = options;
  const lines =
    options.newestFirst === true ? readBackwards(options) : readForwards(options, new Place());
  let count = 0;
  if (limit <= 0) return;
  for await (const item of lines) {
    yield item;
    if (item.kind !== "record") continue;
    count += 1;
    if (count >= limit) return;
  }
}

/**
 * Records that match and are there, and then those that come, until the signal. `after` tells
 * where to begin; without it, with what is there.
 */
export async function* followAudit(
  options: ReadFilter & { readonly directory: string; readonly signal: AbortSignal },
): AsyncGenerator<ReadItem> {
  const { directory, signal } = options;
  let wake = Promise.withResolvers<"told" | "stopped">();
  // Before anything is read, so that nothing is written in between unseen.
  const watcher = watch(directory, () => wake.resolve("told"));
  watcher.on("error", (error) => wake.reject(error));
  const stop = () => wake.resolve("stopped");
  signal.addEventListener("abort", stop);
  try {
    const place = new Place();
    let wait: Milliseconds = auditLimits.followLate;
    while (!signal.aborted) {
      yield* readForwards(options, place);
      const woken = await Promise.race([wake.promise, after(wait)]);
      // Bun keeps back what comes within a millisecond of the last notice: look again soon.
      wait = woken === "told" ? auditLimits.followSoon : auditLimits.followLate;
      if (woken === "told") wake = Promise.withResolvers();
    }
  } finally {
    signal.removeEventListener("abort", stop);
    watcher.close();
  }
}

const after = (wait: Milliseconds): Promise<"late"> =>
  new Promise((resolve) => {
    AbortSignal.timeout(wait).addEventListener("abort", () => resolve("late"));
  });

/** How far a reader has come. */
class Place {
  /** Of the segment that is being read, by its first sequence; 0 before the first one. */
  segment = 0;
  /** Bytes of whole lines of it that were read. */
  offset = 0;
}

async function* readForwards(
  options: ReadFilter & { readonly directory: string },
  place: Place,
): AsyncGenerator<ReadItem> {
  const segments = listSegments(options.directory);
  const { after = 0 } = options;
  const reached = Math.max(place.segment, after + 1);
  // The last segment that begins at or before the place; later ones follow.
  const start = segments.findLastIndex((segment) => segment.first <= reached);
  for (const { name, path, first } of segments.slice(Math.max(0, start))) {
    using segment = tryOpen(path);
    // Retention dropped it meanwhile.
    if (segment === undefined) continue;
    const offset = first === place.segment ? place.offset : 0;
    const reader = new LineReader(segment, offset);
    place.segment = first;
    for (let lines = await reader.next(); lines !== undefined; lines = await reader.next()) {
      for (const line of lines) {
        const item = itemOf(line.bytes, name, options);
        if (item !== undefined) yield item;
      }
    }
    place.offset = reader.wholeBytes;
  }
}

async function* readBackwards(options: ReadOptions): AsyncGenerator<ReadItem> {
  const { after = 0, directory } = options;
  for (const { name, path, first } of listSegments(directory).toReversed()) {
    using segment = tryOpen(path);
    if (segment === undefined) return;
    for await (const lines of linesBackwards(segment)) {
      for (const bytes of lines) {
        const item = itemOf(bytes, name, options);
        if (item !== undefined) yield item;
      }
    }
    if (first <= after) return;
  }
}

function tryOpen(path: string): OpenSegment | undefined {
  try {
    return new OpenSegment(path);
  } catch (error) {
    if (refusalCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function itemOf(bytes: Uint8Array, file: string, filter: ReadFilter): ReadItem | undefined {
  const decoded = decodeLine(bytes);
  if ("fault" in decoded) return { kind: "broken", file, fault: decoded.fault };
  const { record } = decoded;
  return isWanted(record, filter) ? { kind: "record", record } : undefined;
}

function isWanted(record: AuditRecord, filter: ReadFilter): boolean {
  const { after = 0, who, verb, object, isAll = false } = filter;
  if (record.sequence <= after) return false;
  if (record.kind !== "call") {
    return isAll && who === undefined && verb === undefined && object === undefined;
  }
  return (
    (who === undefined || matchesText(record.who, who)) &&
    (verb === undefined || matchesText(record.verb, verb)) &&
    (object === undefined || matchesText(record.object, object))
  );
}

/** @returns whether a text is what the pattern says, in which * is any text; in linear time */
export function matchesText(text: string, pattern: string): boolean {
  const [start = "", ...parts] = pattern.slice(0, auditLimits.textBytes).split("*");
  const end = parts.pop();
  if (end === undefined) return text === start;
  if (!text.startsWith(start)) return false;
  let at = start.length;
  for (const part of parts) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return text.length - end.length >= at && text.endsWith(end);
}
