import * as v from "valibot";
import { describeIssues } from "../../messaging/describe-issues.ts";
import type { Bytes } from "../../units/units.ts";
import type { VmmEvent } from "../driver.ts";

/** event_monitor/src/lib.rs in cloud-hypervisor. */
const eventSchema = v.object({
  source: v.string(),
  event: v.string(),
  properties: v.nullish(v.record(v.string(), v.string())),
});

/** An event in cloud-hypervisor's own words. */
export interface MonitorEvent {
  readonly source: string;
  readonly event: string;
  readonly properties: Readonly<Record<string, string>>;
}

export type Parsed =
  | { readonly kind: "event"; readonly event: MonitorEvent }
  /** Bytes that are no event; reading goes on with the next one. */
  | { readonly kind: "garbage"; readonly reason: string };

const NEWLINE = 0x0a;
/** Bytes of garbage that are shown. */
const SHOWN = 64;

/**
 * Reads what `--event-monitor` writes: pretty-printed JSON objects with blank lines between. Such
 * an object begins with a line "{" and ends with a line "}", whatever stands in it, because its
 * texts hold no line ends: so an object that was cut off (the VMM drops what a full pipe does not
 * take) costs at most the one after it.
 */
export class EventParser {
  readonly #limit: Bytes;
  #line: Uint8Array[] = [];
  #lineSize = 0;
  /** Lines of the event that has begun; undefined between events. */
  #lines: string[] | undefined;
  #size = 0;
  /** An event went over the limit, and what is left of it is passed over. */
  #isSkipping = false;

  constructor(limit: Bytes) {
    this.#limit = limit;
  }

  /** Bytes that are kept for an event that has not ended. */
  get pending(): Bytes {
    return this.#size + this.#lineSize;
  }

  push(bytes: Uint8Array): Parsed[] {
    const parsed: Parsed[] = [];
    let begin = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, begin)) {
      this.#keep(bytes.subarray(begin, end), parsed);
      begin = end + 1;
      this.#endLine(parsed);
    }
    this.#keep(bytes.subarray(begin), parsed);
    return parsed;
  }

  #keep(bytes: Uint8Array, parsed: Parsed[]): void {
    if (bytes.length === 0 || this.#isSkipping) return;
    if (this.pending + bytes.length > this.#limit) {
      parsed.push(
        garbage(`expected an event of at most ${this.#limit} bytes, received a longer one`),
      );
      this.#forget();
      this.#isSkipping = true;
      return;
    }
    // A copy: the bytes are the reader's, who reads into them again.
    this.#line.push(bytes.slice());
    this.#lineSize += bytes.length;
  }

  #endLine(parsed: Parsed[]): void {
    const line = new TextDecoder().decode(Buffer.concat(this.#line)).trimEnd();
    this.#line = [];
    this.#lineSize = 0;
    if (this.#isSkipping) {
      // The rest of the line that was too long; the next one that is "{" begins an event.
      this.#isSkipping = false;
      return;
    }
    if (line === "{") {
      if (this.#lines !== undefined) parsed.push(unfinished(this.#lines));
      this.#lines = [line];
      this.#size = line.length;
      return;
    }
    if (this.#lines === undefined) {
      if (line === "") return;
      // An object in one line: what a version that prints no other way would write.
      parsed.push(line.startsWith("{") && line.endsWith("}") ? parse(line) : noEvent(line));
      return;
    }
    this.#lines.push(line);
    this.#size += line.length;
    if (line !== "}") return;
    parsed.push(parse(this.#lines.join("\n")));
    this.#forget();
  }

  #forget(): void {
    this.#line = [];
    this.#lineSize = 0;
    this.#lines = undefined;
    this.#size = 0;
  }
}

const garbage = (reason: string): Parsed => ({ kind: "garbage", reason });
const shown = (text: string) => JSON.stringify(text.slice(0, SHOWN));
const noEvent = (line: string) => garbage(`expected an event, received ${shown(line)}`);
const unfinished = (lines: readonly string[]) =>
  garbage(`expected the end of an event, received another after ${shown(lines.join("\n"))}`);

function parse(text: string): Parsed {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return noEvent(text);
  }
  const checked = v.safeParse(eventSchema, value);
  if (!checked.success) return garbage(`no event: ${describeIssues(checked.issues)}`);
  const { source, event, properties } = checked.output;
  return { kind: "event", event: { source, event, properties: properties ?? {} } };
}

/**
 * What an event means to a worker; undefined for what it need not know.
 * @param event.source and what it says: "vm" with "booted", "guest" with "panic"
 * @param isEnding that the VMM was told to end: then the host switched the guest off
 */
export function meaningOf(
  { source, event }: MonitorEvent,
  { isEnding }: { readonly isEnding: boolean },
): VmmEvent | undefined {
  switch (`${source}/${event}`) {
    case "vm/booted":
      return { kind: "booted" };
    case "vm/paused":
      return { kind: "paused" };
    case "vm/resumed":
      return { kind: "resumed" };
    case "vm/rebooted":
      return { kind: "guest-reset" };
    case "vm/shutdown":
      return { kind: "guest-off", by: isEnding ? "host" : "guest" };
    case "guest/panic":
      return { kind: "guest-panic" };
    default:
      return undefined;
  }
}
