import type { EventLoop } from "../../event-loop/event-loop.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";

/** Characters of what a program said that are kept, the last ones. */
const WORDS_KEPT = 256 * 1024;

/** It did not do in time what it was to do, or ended; with the end of what it said. */
export class CompanionFailed extends Error {
  override readonly name = "CompanionFailed";
}

/** A program that the prover starts and ends: what it says is kept, within a limit. */
export class Companion implements AsyncDisposable {
  readonly #loop: EventLoop;
  readonly #name: string;
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #waiting = new Set<() => void>();
  #said = "";
  #isEnded = false;
  /** Told each piece of what it says. */
  #listener: (text: string) => void;

  private constructor(
    loop: EventLoop,
    name: string,
    options: { argv: readonly string[]; onText: (text: string) => void },
  ) {
    this.#loop = loop;
    this.#name = name;
    this.#listener = options.onText;
    const streams = { stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
    this.#child = Bun.spawn([...options.argv], streams);
    void Promise.all([this.#follow(this.#child.stdout), this.#follow(this.#child.stderr)])
      .then(() => this.#child.exited)
      .then(() => {
        this.#isEnded = true;
        for (const look of [...this.#waiting]) look();
      });
  }

  /** @throws CompanionFailed when there is no such program */
  static start(
    loop: EventLoop,
    name: string,
    options: { readonly argv: readonly string[]; readonly onText?: (text: string) => void },
  ): Companion {
    const { argv, onText = () => {} } = options;
    try {
      return new Companion(loop, name, { argv, onText });
    } catch (error) {
      throw new CompanionFailed(`Cannot start ${name} (${argv[0]})`, { cause: error });
    }
  }

  get said(): string {
    return this.#said;
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  async #follow(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of stream) {
      const text = decoder.decode(bytes, { stream: true });
      this.#said = (this.#said + text).slice(-WORDS_KEPT);
      this.#listener(text);
      for (const look of [...this.#waiting]) look();
    }
  }

  /** The first match, now or as soon as it comes. @throws CompanionFailed */
  async says(pattern: RegExp, within: Milliseconds): Promise<RegExpExecArray> {
    const found = Promise.withResolvers<RegExpExecArray>();
    const fail = (how: string) =>
      found.reject(new CompanionFailed(`${this.#name} ${how}. ${this.lastWords()}`));
    const look = () => {
      const match = pattern.exec(this.#said);
      if (match !== null) found.resolve(match);
      else if (this.#isEnded) fail("ended");
    };
    using _timer = this.#loop.wakeAfter(within, () =>
      fail(`did not say ${pattern} within ${formatDuration(within)}`),
    );
    this.#waiting.add(look);
    try {
      look();
      return await found.promise;
    } finally {
      this.#waiting.delete(look);
    }
  }

  /** The end of what it said, for people. */
  lastWords(lines = 20): string {
    const last = this.#said.replaceAll("\r", "").trimEnd().split("\n").slice(-lines);
    return `Its last words:\n${last.map((line) => `  ${line}`).join("\n")}`;
  }

  async stop(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    this.#child.kill(signal);
    await this.#child.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener = () => {};
    await this.stop("SIGKILL");
  }
}
