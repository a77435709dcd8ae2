/** Namespaces of a demo, which take all that is in them with them at the end. */
import type { Report } from "./checks.ts";
import { NotSeen } from "./deadline.ts";
import { foreignNamespaces, onlyChildOf } from "./kernel.ts";
import { Program } from "./program.ts";

/**
 * Their first process. dash's `wait` reaps every child, also those that only became its own when
 * their parent died, and it sleeps meanwhile. `cat` reads our pipe: when the demo ends in whatever
 * way, cat ends, the shell ends, and the kernel ends everybody else in there.
 */
export const reaper = "exec 3<&0; cat <&3 & wait";

export class Namespaces {
  readonly #flags: readonly string[];
  #program: Program | undefined;
  #first: number | undefined;
  #isClosed = false;

  /** @param flags of unshare */
  constructor(flags: readonly string[]) {
    this.#flags = flags;
  }

  /**
   * Makes them. @throws NotSeen after the end
   * @param before what their first process does before anybody else is in there, as sh has it
   * @returns that process, as the host numbers it
   */
  async make(before = "true"): Promise<number> {
    this.#refuseClosed();
    const script = `${before} && echo made; ${reaper}`;
    const words = [...this.#flags, "--kill-child", "sh", "-c", script];
    this.#program = new Program("unshare", ["unshare", ...words]);
    await this.#program.said(/^made$/);
    this.#first = onlyChildOf(this.#program.processId);
    return this.#first;
  }

  /** That process, as the host numbers it; undefined before it was made. */
  get first(): number | undefined {
    return this.#first;
  }

  /** Words that run a program in there. @throws NotSeen after the end */
  get enter(): readonly string[] {
    this.#refuseClosed();
    return ["nsenter", "--target", `${this.#first}`, "--pid", "--mount", "--net", "--ipc"];
  }

  /** What made them, for who looks at what was said. */
  get program(): Program | undefined {
    return this.#program;
  }

  /** Ends them by ending what their first process reads. @returns unshare's exit code */
  async end(): Promise<number> {
    this.#program?.endInput();
    return (await this.#program?.ended()) ?? -1;
  }

  /** Ends them in whatever way, if they are there. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#program?.endInput();
    if ((await this.#program?.endsInTime()) !== false) return;
    // --kill-child: with unshare its first process ends, and with that everybody in there.
    await this.#program?.endsInTime();
  }

  #refuseClosed(): void {
    if (this.#isClosed) throw new NotSeen("The demo was interrupted");
  }
}

/** The first step of a demo that is in namespaces as a whole. */
export async function showNamespaces(
  report: Report,
  stage: { makeNamespaces(): Promise<number> },
): Promise<void> {
  report.step("A place of its own");
  report.say("Namespaces: nothing of this machine's network, processes and files is touched,");
  report.say("and whatever is in there ends with this demo.");
  const first = await stage.makeNamespaces();
  const foreign = foreignNamespaces(first);
  const seen = `process ${first} has its own ${foreign.join(", ")}`;
  report.check("it is there", foreign.length === 4, seen);
}
