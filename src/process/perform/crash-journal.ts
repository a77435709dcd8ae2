import { fstatSync, ftruncateSync, lstatSync, readFileSync, writeSync } from "node:fs";
import * as v from "valibot";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { AppendJournal } from "../../journal/append-journal.ts";
import { describeRefusal, refusalCode, withFile } from "../../journal/file-refused.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { clearInvocation } from "./leftovers.ts";
import { bootId, findInvocation } from "./process-table.ts";

/** Bytes after which the journal is written anew with what is alive. */
const COMPACT_ABOVE = 1024 * 1024;

/** How often processes without an environment are looked at again, and after how long. */
const LOOKS = 100;
const LOOK_AGAIN_AFTER = 10;

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
  readonly #controlSocket: string;
  readonly #path: string;
  readonly #journal: AppendJournal;
  #lock: OwnedDescriptor;
  /** Invocation to name, for what has been started and has not ended. */
  readonly #alive = new Map<string, string>();
  readonly #left: ReadonlyMap<string, string>;

  readonly #onTrouble: (message: string) => void;
  /** The file lacks lines, because it could not be written; the next success writes all anew. */
  #isBehind = false;

  /** @throws AlreadyRunning; FileRefused when the files cannot be used. */
  constructor(controlSocket: string, onTrouble: (message: string) => void) {
    this.#onTrouble = onTrouble;
    this.#controlSocket = controlSocket;
    this.#lock = takeLock(controlSocket);
    const path = `${controlSocket}.journal`;
    this.#path = path;
    this.#left = withFile({ what: "read the crash journal", path, otherwise }, () =>
      readLeftovers(path),
    );
    for (const [invocation, name] of this.#left) this.#alive.set(invocation, name);
    const what = "write the crash journal";
    this.#journal = withFile(
      { what, path, otherwise },
      () => new AppendJournal(path, COMPACT_ABOVE),
    );
    // Until they are ended they stay written down: this orchestrator may be killed as well.
    withFile({ what, path, otherwise }, () => this.#compact());
  }

  /**
   * After somebody removed the control socket: what stood beside it may be gone as well, and
   * another orchestrator must still find the lock, and after a death the journal.
   * @throws AlreadyRunning when another one has made a lock of its own meanwhile
   */
  restore(): void {
    if (!isStillAt(lockPath(this.#controlSocket), this.#lock)) {
      const lock = takeLock(this.#controlSocket);
      this.#lock.close();
      this.#lock = lock;
    }
    if (lstatSync(this.#path, { throwIfNoEntry: false }) === undefined) this.#write();
  }

  /** Invocation to name of what an earlier orchestrator may have left. */
  get left(): ReadonlyMap<string, string> {
    return this.#left;
  }

  #compact(): void {
    const entries = [...this.#alive].map(([start, name]) => ({ start, name }));
    this.#journal.compact([{ boot: bootId() }, ...entries]);
  }

  /** Before a start is made; one that was expected stands there already. */
  starting(invocation: string, name: string): void {
    if (this.#alive.has(invocation)) return;
    this.#alive.set(invocation, name);
    this.#write(`{"start":"${invocation}","name":${JSON.stringify(name)}}`);
  }

  /**
   * Supervision goes on when the journal cannot be written (a full disk): without its lines an
   * orchestrator that follows a killed one may not find what was started meanwhile.
   */
  #write(line?: string): void {
    try {
      if (line === undefined || this.#isBehind || this.#journal.wantsCompaction) this.#compact();
      else this.#journal.append(line);
      if (this.#isBehind) this.#onTrouble("the crash journal is written again");
      this.#isBehind = false;
    } catch (error) {
      const code = refusalCode(error);
      if (code === undefined) throw error;
      if (!this.#isBehind) {
        const { why, mend } = describeRefusal(code);
        this.#onTrouble(
          `the crash journal ${this.#path} cannot be written: ${why}; supervision goes on. Until ` +
            `it can, what an orchestrator that is killed leaves behind may not be found. ${mend}`,
        );
      }
      this.#isBehind = true;
    }
  }

  /** The instance and its rest are gone. */
  ended(invocation: string): void {
    if (!this.#alive.delete(invocation)) return;
    this.#write(`{"end":"${invocation}"}`);
  }

  /**
   * Ends whatever a killed orchestrator left running, then calls back with what it found. It is
   * asked again when an agent is reached: that may have carried out a request of the dead
   * orchestrator after the first look, but not after it has greeted us. `isLast` says that nobody
   * is left to ask for: only then are they written off.
   */
  endLeftovers(
    loop: EventLoop,
    options: { readonly isLast: boolean },
    onDone: (found: readonly string[]) => void,
  ): void {
    if (this.#left.size === 0) onDone([]);
    else this.#endLeftovers(loop, { ...options, looks: LOOKS }, onDone);
  }

  #endLeftovers(
    loop: EventLoop,
    options: { readonly isLast: boolean; readonly looks: number },
    onDone: (found: readonly string[]) => void,
  ): void {
    const { isLast, looks } = options;
    const found: string[] = [];
    let waiting = this.#left.size;
    let isSure = true;
    for (const [invocation, name] of this.#left) {
      const search = findInvocation(invocation);
      if (search.unreadable.length > 0) isSure = false;
      if (search.found.length > 0) found.push(name);
      clearInvocation(loop, invocation, () => {
        waiting -= 1;
        if (waiting > 0) return;
        if (!isSure && looks > 0) {
          // Somebody in the middle of exec had no environment to look at.
          loop.wakeAfter(LOOK_AGAIN_AFTER, () =>
            this.#endLeftovers(loop, { isLast, looks: looks - 1 }, (more) =>
              onDone([...new Set([...found, ...more])]),
            ),
          );
          return;
        }
        if (isLast) for (const left of this.#left.keys()) this.ended(left);
        onDone(found);
      });
    }
  }

  close(): void {
    this.#journal.close();
    this.#lock.close();
  }
}

const otherwise = "give another --control-socket";

export const lockPath = (controlSocket: string) => `${controlSocket}.lock`;

/** Takes the lock, and writes into it who holds it. @throws AlreadyRunning, FileRefused */
function takeLock(controlSocket: string): OwnedDescriptor {
  const path = lockPath(controlSocket);
  const lock = withFile({ what: "open the lock", path, otherwise }, () => lockFile(path));
  if (lock !== "held") {
    tellHolder(lock);
    return lock;
  }
  const holder = readHolder(path);
  const which = holder === undefined ? "" : `, process ${holder}`;
  const how = holder === undefined ? `fuser ${path} names it` : `kill ${holder}, or by its unit`;
  throw new AlreadyRunning(
    `Another orchestrator runs with the control socket ${controlSocket}${which}: expected that ` +
      `nobody holds ${path}. Stop that one (${how}), or give this one another --control-socket.`,
  );
}

/** For who comes second. The lock holds without it. */
function tellHolder(lock: OwnedDescriptor): void {
  try {
    ftruncateSync(lock.number);
    writeSync(lock.number, `${process.pid}\n`);
  } catch (error) {
    if (refusalCode(error) === undefined) throw error;
  }
}

function readHolder(path: string): number | undefined {
  try {
    const number = Number(/^(\d{1,10})\n$/.exec(readFileSync(path, "utf8"))?.[1]);
    return number > 0 ? number : undefined;
  } catch {
    return undefined;
  }
}

function isStillAt(path: string, file: OwnedDescriptor): boolean {
  const found = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  const own = fstatSync(file.number, { bigint: true });
  return found?.ino === own.ino && found.dev === own.dev;
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
