/** What the demo says: numbered steps, commands that a user would type, and what was seen. */

const onTerminal = process.stdout.isTTY === true;
const paint = (code: number, text: string) =>
  onTerminal ? `\u001b[${code}m${text}\u001b[0m` : text;
const bold = (text: string) => paint(1, text);
const faint = (text: string) => paint(2, text);
const green = (text: string) => paint(32, text);
const red = (text: string) => paint(31, text);

interface Check {
  readonly step: number;
  readonly what: string;
  readonly seen: string;
  readonly holds: boolean;
}

export class Report {
  readonly #checks: Check[] = [];
  #step = 0;

  /** Begins a step. */
  step(title: string): void {
    this.#step += 1;
    console.log(`\n${bold(`${this.#step}. ${title}`)}`);
  }

  /** A sentence that explains. */
  say(text: string): void {
    console.log(`   ${text}`);
  }

  /** A command as a user would type it. */
  command(text: string): void {
    console.log(`   ${faint("#")} ${text}`);
  }

  /** What a program printed. */
  output(text: string): void {
    for (const line of text.trimEnd().split("\n")) console.log(`     ${line}`);
  }

  /** Something that happened, and when. @param microseconds after the kill */
  moment(microseconds: number, text: string): void {
    console.log(`     ${`+${formatMicroseconds(microseconds)}`.padStart(12)}  ${text}`);
  }

  /** The same of what takes longer. @param milliseconds after the beginning of something */
  moments(milliseconds: number, text: string): void {
    console.log(`     ${`+${(milliseconds / 1000).toFixed(1)} s`.padStart(8)}  ${text}`);
  }

  /** Notes whether something was as it must be, and what was seen. */
  check(what: string, holds: boolean, seen: string): void {
    this.#checks.push({ step: this.#step, what, seen, holds });
    console.log(`   ${mark(holds)} ${what}: ${seen}`);
  }

  /** All checks once more. @returns true when there were some, and all of them hold */
  summary(expected: number): boolean {
    const failed = this.#checks.filter(({ holds }) => !holds).length;
    console.log(`\n${bold("Summary")}`);
    for (const { step, what, seen, holds } of this.#checks) {
      console.log(`   ${mark(holds)} ${String(step).padStart(2)}. ${what}: ${seen}`);
    }
    const missing = expected - this.#checks.length;
    const rest = missing > 0 ? `, ${missing} not reached` : "";
    console.log(`\n${this.#checks.length - failed} of ${expected} seen, ${failed} failed${rest}`);
    return failed === 0 && missing === 0;
  }
}

function mark(holds: boolean): string {
  return holds ? green("✓") : red("✗");
}

/** "412 µs", or "12.3 ms" from ten milliseconds on. */
export function formatMicroseconds(microseconds: number): string {
  if (microseconds < 10_000) return `${Math.round(microseconds)} µs`;
  return `${(microseconds / 1000).toFixed(1)} ms`;
}
