import { writeSync } from "node:fs";

/** Another screen than the one that was there, without a cursor, and back: ctlseqs of xterm. */
const enterScreen = "\u001b[?1049h\u001b[?25l";
const leaveScreen = "\u001b[?25h\u001b[?1049l";
/** From the upper left corner on; each line is cleared to its end, and what is below it. */
const beginFrame = "\u001b[H";
const endLine = "\u001b[K";
const endFrame = "\u001b[J";

/** Ctrl-C, as a terminal gives it that gives every key at once. */
const INTERRUPT = 3;
const leavers = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** The terminal, taken over until it is disposed of, however that comes. */
export class Screen implements Disposable {
  readonly left: Promise<void>;
  readonly #leave: () => void;
  readonly #isTyped = process.stdin.isTTY === true;
  readonly #type = (bytes: Uint8Array) => {
    if (bytes.includes(INTERRUPT) || /[qQ]/.test(String.fromCharCode(...bytes))) this.#leave();
  };
  readonly #restore = () => this[Symbol.dispose]();
  readonly #draw = () => this.#show();
  #lines: readonly string[] = [];
  #isTaken = true;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.left = promise;
    this.#leave = resolve;
    for (const signal of leavers) process.on(signal, resolve);
    // Whatever ends this process by an error of its own, the terminal is as it was before.
    process.once("exit", this.#restore);
    process.stdout.on("resize", this.#draw);
    if (this.#isTyped) {
      process.stdin.setRawMode(true);
      process.stdin.on("data", this.#type);
      process.stdin.once("end", resolve);
    }
    writeAll(enterScreen);
  }

  draw(lines: readonly string[]): void {
    this.#lines = lines;
    this.#show();
  }

  #show(): void {
    if (!this.#isTaken) return;
    const { columns, rows } = process.stdout;
    const fitting = fitLines(this.#lines, { columns: columns || 80, rows: rows || 24 });
    writeAll(beginFrame + fitting.map((line) => line + endLine).join("\r\n") + endFrame);
  }

  [Symbol.dispose](): void {
    if (!this.#isTaken) return;
    this.#isTaken = false;
    process.off("exit", this.#restore);
    process.stdout.off("resize", this.#draw);
    if (this.#isTyped) {
      process.stdin.off("data", this.#type);
      process.stdin.off("end", this.#leave);
      process.stdin.setRawMode(false);
      process.stdin.pause();
    }
    writeAll(leaveScreen);
    for (const signal of leavers) process.off(signal, this.#leave);
  }
}

/** At once, also while this process ends. A terminal that is gone takes nothing any more. */
function writeAll(text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let begin = 0; begin < bytes.length; ) begin += writeSync(1, bytes.subarray(begin));
  } catch {
    // EIO: it was hung up. EAGAIN: it takes nothing now, and the next frame is drawn over this one.
  }
}

/** What fits on a screen: what is left out is said in the last line. */
export function fitLines(
  lines: readonly string[],
  screen: { readonly columns: number; readonly rows: number },
): string[] {
  const { columns, rows } = screen;
  const cut = (line: string) => (Bun.stringWidth(line) <= columns ? line : cutLine(line, columns));
  if (lines.length <= rows) return lines.map(cut);
  const shown = lines.slice(0, Math.max(0, rows - 1));
  return [...shown, `… and ${lines.length - shown.length} more`].slice(0, rows).map(cut);
}

function cutLine(line: string, columns: number): string {
  let kept = "";
  for (const character of line) {
    if (Bun.stringWidth(kept + character) > columns) return kept;
    kept += character;
  }
  return kept;
}
