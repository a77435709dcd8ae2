import { escapeControls } from "../logging/format.ts";

/** UTF-16 units of a line that are looked at; a longer one is taken in pieces. */
export const LONGEST_LINE = 4096;

/** What changes the order of characters: a guest must not have a line read as another. */
const reordering = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/**
 * What a console said, for a terminal that is not attached to it: lines as they were, and nothing
 * in them that drives the terminal. Each ends with a newline.
 * @param lines at most so many, the last ones
 */
export function plainConsoleText(bytes: Uint8Array, lines = Number.POSITIVE_INFINITY): string {
  const all = new TextDecoder().decode(bytes).split("\n");
  if (all.at(-1) === "") all.pop();
  const told = lines === 0 ? [] : all.slice(Math.max(0, all.length - lines));
  return told.map((line) => `${plainLine(line)}\n`).join("");
}

function plainLine(line: string): string {
  const escaped = escapeControls(line.replace(/\r+$/, ""));
  return escaped.replace(reordering, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

/** Takes lines out of what a console says; it keeps at most one, and that is bounded. */
export class ConsoleLines {
  readonly #decoder = new TextDecoder();
  readonly #onLine: (line: string) => void;
  #line = "";

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  push(bytes: Uint8Array): void {
    const parts = this.#decoder.decode(bytes, { stream: true }).split("\n");
    for (const [index, part] of parts.entries()) {
      this.#line += part;
      while (this.#line.length > LONGEST_LINE) {
        this.#onLine(this.#line.slice(0, LONGEST_LINE));
        this.#line = this.#line.slice(LONGEST_LINE);
      }
      if (index === parts.length - 1) break;
      this.#onLine(this.#line.replace(/\r+$/, ""));
      this.#line = "";
    }
  }
}
