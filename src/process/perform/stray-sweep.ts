import { readFileSync } from "node:fs";
import { openProcess, signalProcess } from "../../../ffi/pidfd.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";
import { allProcesses } from "./process-table.ts";

const SIGKILL = 9;
/** A restart comes first, and so does the first work of the new instance. */
const SWEEP_AFTER: Milliseconds = 1_000;
/** So many processes are looked at in one turn: a death that comes meanwhile waits no longer. */
const LOOKED_AT_A_TURN = 8;
/** Who forks faster than we look is left alone in the end. */
const ROUNDS = 10;

interface Ended {
  readonly name: string;
  readonly rounds: number;
}

/**
 * Ends who fled into another session from an instance that has died. It is found by its
 * INVOCATION_ID, some time after the restart; one that cleared its environment is not.
 */
export class StraySweep {
  readonly #loop: EventLoop;
  readonly #onEnded: (name: string, count: number) => void;
  /** By invocation: what the next sweep looks for. */
  readonly #ended = new Map<string, Ended>();
  #timer: Disposable | undefined;

  constructor(loop: EventLoop, onEnded: (name: string, count: number) => void) {
    this.#loop = loop;
    this.#onEnded = onEnded;
  }

  /** This instance is dead, and nobody of it may go on. */
  add(invocation: string, name: string, rounds = ROUNDS): void {
    this.#ended.set(invocation, { name, rounds });
    this.#timer ??= this.#loop.wakeAfter(SWEEP_AFTER, () => this.#sweep());
  }

  /** What is still to be looked for, for another program to go on with. */
  save(): { readonly invocation: string; readonly name: string; readonly rounds: number }[] {
    return [...this.#ended].map(([invocation, ended]) => ({ invocation, ...ended }));
  }

  #sweep(): void {
    const wanted = new Map(this.#ended);
    const counts = new Map<string, number>();
    const processes = allProcesses();
    const next = () => {
      endAll(processes.splice(0, LOOKED_AT_A_TURN), wanted, counts);
      if (processes.length > 0) {
        this.#timer = this.#loop.wakeAfter(1, next);
        return;
      }
      this.#timer = undefined;
      for (const invocation of wanted.keys()) this.#ended.delete(invocation);
      this.#tell(wanted, counts);
    };
    next();
  }

  #tell(wanted: ReadonlyMap<string, Ended>, counts: ReadonlyMap<string, number>): void {
    for (const [invocation, count] of counts) {
      const { name, rounds } = wanted.get(invocation) as Ended;
      this.#onEnded(name, count);
      // One may have been born while others were looked at.
      if (rounds > 1) this.add(invocation, name, rounds - 1);
    }
    const [waiting] = this.#ended;
    if (waiting !== undefined) {
      this.#timer ??= this.#loop.wakeAfter(SWEEP_AFTER, () => this.#sweep());
    }
  }

  /** Looks once more, at once: the daemon ends. */
  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    if (this.#ended.size > 0) endAll(allProcesses(), this.#ended, new Map());
  }
}

function endAll(
  processes: readonly number[],
  wanted: ReadonlyMap<string, Ended>,
  counts: Map<string, number>,
): void {
  for (const processId of processes) {
    const invocation = invocationOf(processId);
    if (invocation === undefined || !wanted.has(invocation)) continue;
    using process = openProcess(processId);
    // The number may be another's by now.
    if (process === undefined || invocationOf(processId) !== invocation) continue;
    if (signalProcess(process, SIGKILL) !== "sent") continue;
    counts.set(invocation, (counts.get(invocation) ?? 0) + 1);
  }
}

function invocationOf(processId: number): string | undefined {
  try {
    const environment = readFileSync(`/proc/${processId}/environ`, "latin1");
    return /(?:^|\0)INVOCATION_ID=([0-9a-f]{32})\0/.exec(environment)?.[1];
  } catch {
    return undefined;
  }
}
