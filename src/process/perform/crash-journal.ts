import * as v from "valibot";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { AppendJournal } from "../../journal/append-journal.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { clearInvocation } from "./leftovers.ts";
import { bootId, findInvocation } from "./process-table.ts";

/** Bytes after which the journal is written anew with what is alive. */
const COMPACT_ABOVE = 1024 * 1024;

const entrySchema = v.union([
  v.object({ boot: v.string() }),
  v.object({ start: v.string(), name: v.string() }),
  v.object({ end: v.string() }),
]);

/** Another orchestrator holds the same control socket. */
export class AlreadyRunning extends Error {
  override readonly name = "AlreadyRunning";
  readonly exitCode = ExitCode.refused;
}

/**
 * Which instances may be alive, so that an orchestrator that was killed never leaves a double: the
 * next one ends what it finds. Each start is written down before it is made.
 */
export class CrashJournal {
  readonly #journal: AppendJournal;
  readonly #lock: OwnedDescriptor;
  /** Invocation to name, for what has been started and has not ended. */
  readonly #alive = new Map<string, string>();
  readonly #left: ReadonlyMap<string, string>;

  /** @throws AlreadyRunning; Error when the folder cannot be written. */
  constructor(controlSocket: string) {
    const lock = lockFile(`${controlSocket}.lock`);
    if (lock === "held") {
      throw new AlreadyRunning(
        `Another orchestrator runs with the control socket ${controlSocket}. ` +
          "Stop it, or give this one another --control-socket.",
      );
    }
    this.#lock = lock;
    const path = `${controlSocket}.journal`;
    this.#left = readLeftovers(path);
    for (const [invocation, name] of this.#left) this.#alive.set(invocation, name);
    this.#journal = new AppendJournal(path, COMPACT_ABOVE);
    // Until they are ended they stay written down: this orchestrator may be killed as well.
    this.#compact();
  }

  #compact(): void {
    const entries = [...this.#alive].map(([start, name]) => ({ start, name }));
    this.#journal.compact([{ boot: bootId() }, ...entries]);
  }

  /** Before a start is made. */
  starting(invocation: string, name: string): void {
    this.#alive.set(invocation, name);
    this.#journal.append(`{"start":"${invocation}","name":${JSON.stringify(name)}}`);
  }

  /** The instance and its rest are gone. */
  ended(invocation: string): void {
    if (!this.#alive.delete(invocation)) return;
    this.#journal.append(`{"end":"${invocation}"}`);
    if (this.#journal.wantsCompaction) this.#compact();
  }

  /** Ends whatever a killed orchestrator left running, then calls back with what it found. */
  endLeftovers(loop: EventLoop, onDone: (found: readonly string[]) => void): void {
    const found: string[] = [];
    let waiting = this.#left.size;
    if (waiting === 0) {
      onDone(found);
      return;
    }
    for (const [invocation, name] of this.#left) {
      const count = findInvocation(invocation).found.length;
      if (count > 0) found.push(name);
      clearInvocation(loop, invocation, () => {
        this.ended(invocation);
        waiting -= 1;
        if (waiting === 0) onDone(found);
      });
    }
  }

  close(): void {
    this.#journal.close();
    this.#lock.close();
  }
}

/** What the journal of an earlier orchestrator says may be alive, in this boot. */
function readLeftovers(path: string): Map<string, string> {
  const left = new Map<string, string>();
  let thisBoot = false;
  for (const entry of AppendJournal.read(path)) {
    const parsed = v.safeParse(entrySchema, entry);
    if (!parsed.success) continue;
    const known = parsed.output;
    if ("boot" in known) thisBoot = known.boot === bootId();
    else if ("start" in known && thisBoot) left.set(known.start, known.name);
    else if ("end" in known) left.delete(known.end);
  }
  return left;
}
