import { formatBytes } from "../units/bytes.ts";
import type { Bytes, Milliseconds } from "../units/units.ts";
import { tellText } from "./output.ts";

/** Where a line of progress is drawn. */
export interface ProgressTerminal {
  readonly isTerminal: boolean;
  /** A monotonic clock. */
  now(): Milliseconds;
  write(text: string): void;
}

/** Between two drawings, and before the first one: what takes a moment shows nothing. */
export const progressRest: Milliseconds = 200;

/** How far long work is, in one line of a terminal; nothing of it is left at the end. */
export class ProgressLine {
  readonly #terminal: ProgressTerminal;
  readonly #what: string;
  #last: Milliseconds;
  #isShown = false;

  /** @param what is being done: "verifying" */
  constructor(what: string, terminal: ProgressTerminal = standardError) {
    this.#what = what;
    this.#terminal = terminal;
    this.#last = terminal.now();
  }

  /** Cheap: call it at every step. */
  show(done: Bytes, of: Bytes): void {
    if (!this.#terminal.isTerminal) return;
    const now = this.#terminal.now();
    if (now - this.#last < progressRest) return;
    this.#last = now;
    this.#isShown = true;
    const percent = of === 0 ? 100 : Math.min(100, Math.floor((done / of) * 100));
    this.#terminal.write(
      `\r\u001b[K${this.#what}: ${formatBytes(done)} of ${formatBytes(of)}, ${percent} %`,
    );
  }

  [Symbol.dispose](): void {
    if (this.#isShown) this.#terminal.write("\r\u001b[K");
    this.#isShown = false;
  }
}

const standardError: ProgressTerminal = {
  get isTerminal() {
    return process.stderr.isTTY === true;
  },
  now: () => performance.now(),
  write: tellText,
};
