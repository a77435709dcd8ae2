import { existsSync, fstatSync, lstatSync, unlinkSync } from "node:fs";
import * as v from "valibot";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { AppendJournal } from "../../journal/append-journal.ts";
import { describeRefusal, refusalCode, withFile } from "../../journal/file-refused.ts";
import { readHolder, tellHolder } from "../../journal/lock-holder.ts";
import { ExitCode } from "../../units/exit-code.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { CarriedJournal } from "../protocol-state.ts";
import { clearInvocation } from "./leftovers.ts";
import type { Luggage } from "./luggage.ts";
import { findLeft, type OwnerMark, ownerMark, ownerVariable } from "./owner-mark.ts";
import { bootId, findInvocation } from "./process-table.ts";

/** Bytes after which the journal is written anew with what is alive. */
const COMPACT_ABOVE = 1024 * 1024;

/** How often processes without an environment are looked at again, and after how long. */
const LOOKS = 100;
const LOOK_AGAIN_AFTER = 10;

/** How often the lock and the journal are looked at: nobody tells when somebody removes them. */
const LOOK_AT_FILES_EVERY: Milliseconds = 2_000;

const entrySchema = v.union([
  v.object({ boot: v.string() }),
  /** `check`: not the process itself, but a command that looks for its readiness. */
  v.object({ start: v.string(), name: v.string(), check: v.optional(v.boolean()) }),
  v.object({ end: v.string() }),
  /** A folder of cgroups that was made, and which one it is. */
  v.object({ made: v.string(), inode: v.string() }),
]);

/** Another orchestrator holds the same control socket. */
export class AlreadyRunning extends Error {
  override readonly name = "AlreadyRunning";
  readonly exitCode = ExitCode.refused;
}

/**
 * Which instances may be alive, so that an orchestrator that was killed never leaves a double: the
 * next one ends what it finds. Each start is written down before it is made. Where the file was
 * removed or damaged, what runs is found by the variable that every process carries.
 */
export class CrashJournal {
  readonly #controlSocket: string;
  readonly #path: string;
  readonly #journal: AppendJournal;
  #lock: OwnedDescriptor;
  /** Invocation to name, for what has been started and has not ended. */
  readonly #alive = new Map<string, string>();
  readonly #left: Map<string, string>;
  /** Of those, which are an instance of their process, and nothing else of it. */
  readonly #starts: ReadonlySet<string>;
  /** What an earlier orchestrator left, and this one goes on with: nothing of it is ended. */
  #adopted: ReadonlySet<string> = new Set();
  /** Invocations of checks. */
  readonly #checks = new Set<string>();
  /** Path to inode of folders that this orchestrator made, or one before it that was killed. */
  readonly #made: Map<string, string>;
  readonly #mark: OwnerMark;
  /** The earlier orchestrator's journal is not there, or does not say everything. */
  readonly #isDoubtful: boolean;
  #look: Disposable | undefined;
  /** The files cannot be made anew, which has been said. */
  #isUnkept = false;

  readonly #onTrouble: (message: string) => void;
  /** The file lacks lines, because it could not be written; the next success writes all anew. */
  #isBehind = false;

  /**
   * @param carried what the program before this one had of it: nobody was left by anybody then
   * @throws AlreadyRunning; FileRefused when the files cannot be used.
   */
  constructor(
    controlSocket: string,
    onTrouble: (message: string) => void,
    carried?: { readonly journal: CarriedJournal; readonly lock: OwnedDescriptor },
  ) {
    this.#onTrouble = onTrouble;
    this.#controlSocket = controlSocket;
    const path = journalPath(controlSocket);
    this.#path = path;
    if (carried !== undefined) {
      const { alive, left, made, isDoubtful, run } = carried.journal;
      this.#lock = carried.lock;
      this.#mark = { ...ownerMark(controlSocket, this.#lock), run };
      this.#left = new Map(left);
      this.#starts = new Set();
      this.#made = new Map(made);
      this.#isDoubtful = isDoubtful;
      for (const [invocation, name] of alive) this.#alive.set(invocation, name);
      this.#journal = openJournal(path);
      this.#write();
      return;
    }
    const hadLock = existsSync(lockPath(controlSocket));
    this.#lock = takeLock(controlSocket);
    this.#mark = ownerMark(controlSocket, this.#lock);
    const read = withFile({ what: "read the crash journal", path, otherwise }, () =>
      readLeftovers(path),
    );
    this.#left = read?.left ?? new Map();
    this.#starts = new Set([...this.#left.keys()].filter((id) => read?.checks.has(id) === false));
    for (const check of read?.checks ?? []) if (this.#left.has(check)) this.#checks.add(check);
    // One that somebody removed and made anew is not ours to take down.
    const isStillThere = ([path, inode]: readonly [string, string]) => inodeOf(path) === inode;
    this.#made = new Map([...(read?.made ?? [])].filter(isStillThere));
    this.#isDoubtful = read === undefined ? hadLock : read.broken > 0;
    if (this.#isDoubtful) {
      const what = read === undefined ? "is missing" : `is damaged: ${read.broken} broken lines`;
      onTrouble(
        `the crash journal ${path} ${what}. What an earlier orchestrator left running is found ` +
          'by its environment; what has none of ours (leftovers = "keep", Holden v0.2) is not',
      );
    }
    for (const { invocation, name } of findLeft(this.#mark).left) {
      if (!this.#left.has(invocation)) this.#left.set(invocation, name);
    }
    for (const [invocation, name] of this.#left) this.#alive.set(invocation, name);
    this.#journal = openJournal(path);
    // Until they are ended they stay written down: this orchestrator may be killed as well.
    withFile({ what: "write the crash journal", path, otherwise }, () => this.#compact());
  }

  /** For another program to go on with; what was drawn for starts to come is left out. */
  pack(luggage: Luggage, drawn: readonly string[]): CarriedJournal {
    return {
      lock: luggage.pack(this.#lock),
      run: this.#mark.run,
      alive: [...this.#alive].filter(([invocation]) => !drawn.includes(invocation)),
      left: [...this.#left],
      made: [...this.#made],
      isDoubtful: this.#isDoubtful,
    };
  }

  /**
   * After somebody removed the control socket: what stood beside it may be gone as well, and
   * another orchestrator must still find the lock, and after a death the journal.
   * @throws AlreadyRunning when another one has made a lock of its own meanwhile
   */
  restore(): void {
    const lock = lockPath(this.#controlSocket);
    if (!isStillAt(lock, this.#lock)) {
      const taken = takeLock(this.#controlSocket);
      this.#lock.close();
      this.#lock = taken;
      this.#onTrouble(`the lock ${lock} was removed by somebody; it is made anew`);
    }
    if (this.#journal.isIntact) return;
    const wasBehind = this.#isBehind;
    this.#write();
    if (wasBehind || this.#isBehind) return;
    this.#onTrouble(
      `the crash journal ${this.#path} was removed or changed by somebody; it is made anew`,
    );
  }

  /** Makes the lock and the journal anew when somebody removed them, until `close`. */
  keepFiles(loop: EventLoop): void {
    this.#look = loop.wakeAfter(LOOK_AT_FILES_EVERY, () => {
      try {
        this.restore();
        this.#isUnkept = false;
      } catch (error) {
        const { exitCode, message } = error as { exitCode?: unknown; message: string };
        if (exitCode !== ExitCode.refused && refusalCode(error) === undefined) throw error;
        if (!this.#isUnkept) this.#onTrouble(`its files cannot be made anew: ${message}`);
        this.#isUnkept = true;
      }
      this.keepFiles(loop);
    });
  }

  /** The variable that a process of this name carries, whatever start it is. */
  variableOf(name: string): string {
    return ownerVariable(this.#mark, name);
  }

  /** Invocation to name of what an earlier orchestrator may have left. */
  get left(): ReadonlyMap<string, string> {
    return this.#left;
  }

  /** Starts of a process that an earlier orchestrator had written down, the oldest first. */
  startsOf(name: string): readonly string[] {
    return [...this.#left].flatMap(([invocation, owner]) =>
      owner === name && this.#starts.has(invocation) ? [invocation] : [],
    );
  }

  /** These go on, by invocation and name: they are no leftovers, whatever is found of them. */
  adopt(instances: ReadonlyMap<string, string>): void {
    this.#adopted = new Set(instances.keys());
    for (const [invocation, name] of instances) {
      this.#left.delete(invocation);
      this.starting(invocation, name);
    }
  }

  #compact(): void {
    const entries = [...this.#alive].map(([start, name]) =>
      this.#checks.has(start) ? { start, name, check: true } : { start, name },
    );
    const folders = [...this.#made].map(([made, inode]) => ({ made, inode }));
    this.#journal.compact([{ boot: bootId() }, ...folders, ...entries]);
  }

  /** Folders that are to be taken down at the end, in the order in which they were made. */
  get madeFolders(): readonly string[] {
    return [...this.#made.keys()];
  }

  /** A folder was made, which an orchestrator that follows a killed one takes down as well. */
  made(path: string): void {
    const inode = inodeOf(path);
    if (inode === undefined) return;
    this.#made.delete(path);
    this.#made.set(path, inode);
    this.#write(JSON.stringify({ made: path, inode }));
  }

  /** Before a start is made; one that was expected stands there already. */
  starting(invocation: string, name: string): void {
    if (this.#alive.has(invocation)) return;
    this.#alive.set(invocation, name);
    this.#write(`{"start":"${invocation}","name":${JSON.stringify(name)}}`);
  }

  /** As `starting`, of a command that looks for the readiness of a process. */
  checking(invocation: string, name: string): void {
    this.#alive.set(invocation, name);
    this.#checks.add(invocation);
    this.#write(`{"start":"${invocation}","name":${JSON.stringify(name)},"check":true}`);
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
    this.#checks.delete(invocation);
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
    this.#endLeftovers(loop, { ...options, looks: LOOKS }, onDone);
  }

  #endLeftovers(
    loop: EventLoop,
    options: { readonly isLast: boolean; readonly looks: number },
    onDone: (found: readonly string[]) => void,
  ): void {
    const { isLast, looks } = options;
    const found: string[] = [];
    const marked = findLeft(this.#mark);
    for (const { invocation, name } of marked.left) this.#leave(invocation, name);
    let isSure = marked.isSure || !this.#isDoubtful;
    if (this.#left.size === 0 && isSure) {
      onDone([]);
      return;
    }
    // One more than there are, so that an empty list comes to its end as well.
    let waiting = this.#left.size + 1;
    const oneIsGone = () => {
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
    };
    for (const [invocation, name] of this.#left) {
      const search = findInvocation(invocation);
      if (search.unreadable.length > 0) isSure = false;
      if (search.found.length > 0) found.push(name);
      clearInvocation(loop, invocation, oneIsGone);
    }
    oneIsGone();
  }

  /** Known as left from now on, and written down until it is ended. */
  #leave(invocation: string, name: string): void {
    if (this.#left.has(invocation) || this.#adopted.has(invocation)) return;
    this.#left.set(invocation, name);
    this.starting(invocation, name);
  }

  close(): void {
    this.#look?.[Symbol.dispose]();
    this.#journal.close();
    this.#lock.close();
  }
}

/**
 * Removes what of the lock and the journal was not there before, for an orchestrator that is
 * refused after it has made them. Called before the lock is let go.
 */
export function noteMissingFiles(controlSocket: string): { removeMade(): void } {
  const paths = [journalPath(controlSocket), lockPath(controlSocket)];
  const missing = paths.filter((path) => !existsSync(path));
  return {
    removeMade: () => {
      for (const path of missing) {
        try {
          unlinkSync(path);
        } catch {
          // It was refused before it was made, and the refusal tells it better.
        }
      }
    },
  };
}

const otherwise = "give another --control-socket";

const journalPath = (controlSocket: string) => `${controlSocket}.journal`;

export const lockPath = (controlSocket: string) => `${controlSocket}.lock`;

/** @throws FileRefused */
function openJournal(path: string): AppendJournal {
  const what = "write the crash journal";
  return withFile({ what, path, otherwise }, () => new AppendJournal(path, COMPACT_ABOVE));
}

/** Takes the lock, and writes into it who holds it. @throws AlreadyRunning, FileRefused */
function takeLock(controlSocket: string): OwnedDescriptor {
  const path = lockPath(controlSocket);
  const lock = withFile({ what: "open the lock", path, otherwise }, () => lockFile(path));
  if (lock !== "held" && !isStillAt(path, lock)) {
    // Its maker was refused, and removed it just before it let go: it locks nobody out.
    lock.close();
    return takeLock(controlSocket);
  }
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

/** Which folder stands at a path; the kernel gives a cgroup's number to no other in this boot. */
function inodeOf(path: string): string | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino.toString();
}

function isStillAt(path: string, file: OwnedDescriptor): boolean {
  const found = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  const own = fstatSync(file.number, { bigint: true });
  return found?.ino === own.ino && found.dev === own.dev;
}

/**
 * What the journal of an earlier orchestrator says may be alive, in this boot; undefined without a
 * file. Of a file whose first line is broken, what it names is looked for: it may be this boot's.
 */
function readLeftovers(path: string):
  | {
      readonly left: Map<string, string>;
      readonly checks: ReadonlySet<string>;
      readonly made: Map<string, string>;
      readonly broken: number;
    }
  | undefined {
  const lines = AppendJournal.read(path);
  if (lines === undefined) return undefined;
  const left = new Map<string, string>();
  const checks = new Set<string>();
  const made = new Map<string, string>();
  let { broken } = lines;
  let thisBoot = true;
  for (const entry of lines.entries) {
    const parsed = v.safeParse(entrySchema, entry);
    if (!parsed.success) {
      broken += 1;
      continue;
    }
    const known = parsed.output;
    if ("boot" in known) thisBoot = known.boot === bootId();
    else if ("start" in known && thisBoot) {
      left.set(known.start, known.name);
      if (known.check === true) checks.add(known.start);
    } else if ("end" in known) left.delete(known.end);
    else if ("made" in known && thisBoot) made.set(known.made, known.inode);
  }
  return { left, checks, made, broken };
}
