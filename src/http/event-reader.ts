import type { Bytes } from "../units/units.ts";
import { HttpAnswerRefused } from "./client-error.ts";

/** One event as it came, its data not looked at yet. */
export interface RawEvent {
  /** The id that this event has; "" for none. */
  readonly id: string;
  readonly event: string;
  readonly data: string;
}

/** Bytes of text/event-stream to events: HTML, section 9.2.6, for what our servers send. */
export class EventReader {
  readonly #limit: Bytes;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #rest = "";

  /** @param limit bytes of one event */
  constructor(limit: Bytes) {
    this.#limit = limit;
  }

  /** @throws HttpAnswerRefused for an event over the limit, or what is no UTF-8 */
  push(bytes: Uint8Array): RawEvent[] {
    this.#rest += this.#decode(bytes);
    const blocks = this.#rest.split("\n\n");
    this.#rest = blocks.pop() ?? "";
    if (this.#rest.length > this.#limit) {
      throw new HttpAnswerRefused(
        `Expected events of at most ${this.#limit} bytes, received a longer one`,
      );
    }
    return blocks.map(readBlock).filter(({ data }) => data !== "");
  }

  #decode(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes, { stream: true });
    } catch (failure) {
      throw new HttpAnswerRefused("Expected events in UTF-8, received something else", {
        cause: failure,
      });
    }
  }
}

function readBlock(block: string): RawEvent {
  const fields = { id: "", event: "message", data: "" };
  for (const line of block.split("\n")) {
    const match = /^(id|event|data): ?(.*)$/.exec(line);
    if (match === null) continue;
    const [, name = "", value = ""] = match;
    if (name === "data") fields.data += fields.data === "" ? value : `\n${value}`;
    else if (name === "id") fields.id = value;
    else fields.event = value;
  }
  return fields;
}
