/** A daemon that the demo runs: its lines are kept, and can be waited for. */
import { Tidings } from "./deadline.ts";

/** Time that somebody has to end before it is killed, in the taking down. */
const endMilliseconds = 5_000;

export class Program {
  readonly name: string;
  readonly lines: string[] = [];
  readonly #tidings = new Tidings();
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #onLine: (line: string) => void;
  #exitCode: number | undefined;

  /**
   * @param environment added to the demo's own
   * @param onLine called with each of its lines, as it comes
   */
  constructor(
    name: string,
    argv: readonly string[],
    environment: Readonly<Record<string, string>> = {},
    onLine: (line: string) => void = () => {},
  ) {
    this.name = name;
    this.#onLine = onLine;
    this.#child = Bun.spawn([...argv], {
      env: { ...process.env, ...environment },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
      // In a session of its own: Ctrl-C is for the demo, which ends the others in order.
      detached: true,
    });
    const outputs = [this.#follow(this.#child.stdout), this.#follow(this.#child.stderr)];
    void Promise.all([...outputs, this.#child.exited]).then(() => {
      this.#exitCode = this.#child.exitCode ?? 128;
      this.#tidings.end(`${name} has ended with ${this.#child.signalCode ?? this.#exitCode}`);
    });
  }

  get processId(): number {
    return this.#child.pid;
  }

  get hasEnded(): boolean {
    return this.#exitCode !== undefined;
  }

  async #follow(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const bytes of stream) {
      const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      this.lines.push(...lines);
      for (const line of lines) this.#onLine(line);
      this.#tidings.tell();
    }
  }

  kill(signal: NodeJS.Signals): void {
    if (!this.hasEnded) this.#child.kill(signal);
  }

  /** On its standard input. */
  write(text: string): void {
    this.#child.stdin.write(text);
    void this.#child.stdin.flush();
  }

  /** Its standard input ends: for what lives as long as somebody holds that open. */
  endInput(): void {
    void this.#child.stdin.end();
  }

  /** @param after how many of its lines are of no interest */
  said(pattern: RegExp, after = 0, milliseconds?: number): Promise<RegExpExecArray> {
    const look = () => {
      for (const line of this.lines.slice(after)) {
        const match = pattern.exec(line);
        if (match !== null) return match;
      }
      return undefined;
    };
    return this.#tidings.until(`${this.name} to say ${pattern}`, look, milliseconds);
  }

  /** @returns its exit code; 128 when a signal ended it */
  ended(milliseconds?: number): Promise<number> {
    const description = `${this.name} to end`;
    return this.#tidings.until(description, () => this.#exitCode, milliseconds);
  }

  /** In the taking down. @returns false when it had to be killed */
  async endsInTime(): Promise<boolean> {
    try {
      await this.ended(endMilliseconds);
      return true;
    } catch {
      this.kill("SIGKILL");
      return false;
    }
  }
}
