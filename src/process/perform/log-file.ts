import {
  constants,
  fchmod,
  fstat,
  fstatSync,
  ftruncate,
  open,
  rename,
  type Stats,
  stat,
  unlink,
  write,
} from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { monotonicNow, wallClock } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { describeRefusal, FileRefused, refusalCode } from "../../journal/file-refused.ts";
import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type { StoredLine } from "../log-book.ts";
import { type LogChunk, LogQueue, type QueueRoom, wholeLines } from "../log-queue.ts";
import type { CarriedLogFile } from "../protocol-state.ts";
import type { LogFileSpecification } from "../specification.ts";
import type { Luggage, Unpacking } from "./luggage.ts";

/** After a file could not be written: lines that come so soon are dropped without trying. */
const TRY_AGAIN_AFTER: Milliseconds = 1_000;

/** Of the user who runs this, readable by his group. */
const MODE = 0o640;

/** Calls that may wait for a disk: on threads of Bun's pool, and not on this one. */
const calls = {
  open: promisify(open),
  stat: promisify(stat),
  fstat: promisify(fstat),
  fchmod: promisify(fchmod),
  ftruncate: promisify(ftruncate),
  rename: promisify(rename),
  unlink: promisify(unlink),
};

export interface LogFileHandlers {
  /** Said once when lines begin to be dropped, and once when they are written again. */
  onTrouble(message: string): void;
}

/** Lines that are dropped, from the first one until there is room again. */
interface Episode {
  readonly reason: string;
  lines: number;
  /** undefined: for want of room in memory, and not of the file's. */
  retryAt: MonotonicTime | undefined;
}

/**
 * One process's file of lines: turned over at its size, never more than one write at a time.
 * Whoever writes lines waits for none of it: what cannot be written is dropped and counted.
 *
 * Writes go to a thread of Bun's pool. Measured with 64 KiB at a time on ext4: a write on this
 * thread takes 11 µs in the middle and 73 µs at p99, and as long as the disk wants where it is
 * slow, hangs or is frozen, with nobody supervised meanwhile; handing it over takes 3 µs, whatever
 * the disk does, and is done after 155 µs. A Worker of our own would do the same for 4 MB.
 */
export class LogFile {
  readonly #loop: EventLoop;
  readonly #name: string;
  readonly #specification: LogFileSpecification;
  readonly #handlers: LogFileHandlers;
  readonly #queue: LogQueue;
  #file: OwnedDescriptor | undefined;
  #size = 0;
  #work: Promise<void> | undefined;
  #isScheduled = false;
  #isPaused = false;
  #wantsReopening = false;
  #episode: Episode | undefined;
  #dropped = 0;

  constructor(
    loop: EventLoop,
    specification: LogFileSpecification,
    options: {
      readonly name: string;
      readonly room: QueueRoom;
      readonly handlers: LogFileHandlers;
    },
  ) {
    this.#loop = loop;
    this.#specification = specification;
    this.#name = options.name;
    this.#handlers = options.handlers;
    const { time, stream } = specification;
    this.#queue = new LogQueue((line) => {
      return `${time ? `${wallClock(line.at)} ` : ""}${stream ? `${line.stream} ` : ""}`;
    }, options.room);
  }

  /**
   * Opens the file before anything starts.
   * @throws FileRefused when the folder, or what stands at the path, is not to be written to; a
   * full disk is no refusal
   */
  async begin(): Promise<void> {
    try {
      await this.#open();
    } catch (error) {
      if (!isWantOfRoom(error)) throw refused(this.#specification.path, error);
      this.#fail(error, 0);
    }
  }

  get path(): string {
    return this.#specification.path;
  }

  get size(): number {
    return this.#size;
  }

  /** Lines that were not written, since the beginning. */
  get dropped(): number {
    return this.#dropped;
  }

  /** A call is under way that no other program can go on with. */
  get isBusy(): boolean {
    return this.#work !== undefined;
  }

  push(line: StoredLine): void {
    const retryAt = this.#episode?.retryAt;
    if (retryAt !== undefined && monotonicNow() < retryAt) {
      this.#drop(1);
      return;
    }
    if (!this.#queue.add(line)) {
      this.#episode ??= this.#beginEpisode("lines come faster than they can be written", undefined);
      this.#drop(1);
    }
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#loop.afterTurn(() => {
      this.#isScheduled = false;
      this.#goOn();
    });
  }

  /** Begins no further write; the one that is under way comes to its end. */
  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#goOn();
  }

  /**
   * Opens the path anew before the next line, as after somebody renamed the file.
   * @throws FileRefused when it cannot be; it is tried again for each line that comes
   */
  async reopen(): Promise<void> {
    this.#wantsReopening = true;
    try {
      await this.#do(async () => {
        if (this.#wantsReopening) await this.#reopenNow();
      });
    } catch (error) {
      throw refused(this.#specification.path, error);
    }
    this.#goOn();
  }

  /** Resolves when nothing waits any more, or nothing can be written now. */
  async finish(): Promise<void> {
    this.#goOn();
    await this.#work;
  }

  close(): void {
    this.#file?.close();
  }

  #goOn(): void {
    if (this.#isPaused || this.#work !== undefined || this.#queue.length === 0) return;
    this.#do(() => this.#writeAll()).catch((failure) => this.#loop.fail(failure));
  }

  /** One piece of work at a time. */
  async #do(act: () => Promise<void>): Promise<void> {
    while (this.#work !== undefined) await this.#work;
    const work = act().finally(() => {
      this.#work = undefined;
    });
    // Who waits for its end is not told of its failure: whoever asked for it is.
    this.#work = work.catch(() => undefined);
    await work;
  }

  async #writeAll(): Promise<void> {
    while (!this.#isPaused && this.#queue.length > 0) {
      let chunk: LogChunk | undefined;
      try {
        if (this.#wantsReopening) await this.#reopenNow();
        if (this.#file === undefined) await this.#open();
        chunk = this.#queue.take(this.#specification.size - this.#size);
        if (chunk === undefined) await this.#rotate();
        else await this.#write(chunk);
      } catch (error) {
        const { cause, lost } =
          error instanceof PartlyWritten ? error : { cause: error, lost: chunk?.lines ?? 0 };
        if (refusalCode(cause) === undefined && !(cause instanceof FileRefused)) throw cause;
        this.#fail(cause, lost);
        return;
      }
    }
    if (this.#queue.length === 0) this.#endEpisode();
  }

  async #write({ bytes, lines }: LogChunk): Promise<void> {
    const file = this.#file as OwnedDescriptor;
    let written = 0;
    try {
      while (written < bytes.length) written += await writeSome(file.number, bytes, written);
    } catch (error) {
      // Half a line would be taken for a whole one.
      const whole = wholeLines(bytes, written);
      this.#size += written;
      await calls.ftruncate(file.number, this.#size - written + whole.end).then(
        () => {
          this.#size += whole.end - written;
        },
        () => undefined,
      );
      throw new PartlyWritten(lines - whole.lines, { cause: error });
    }
    this.#size += bytes.length;
    if (this.#episode?.retryAt !== undefined) this.#endEpisode();
  }

  /** @throws Error (EACCES, ENOSPC …), FileRefused */
  async #open(): Promise<void> {
    const { file, size } = await openLog(this.#specification.path);
    this.#file = file;
    this.#size = size;
  }

  async #reopenNow(): Promise<void> {
    this.#wantsReopening = false;
    this.#file?.close();
    this.#file = undefined;
    await this.#open();
  }

  /** The newest becomes .1, the one before .2 and so on; what is over the count is gone. */
  async #rotate(): Promise<void> {
    const { path, count } = this.#specification;
    for (let index = count - 1; index >= 1; index -= 1) {
      await renameIfThere(`${path}.${index}`, `${path}.${index + 1}`);
    }
    if (count > 0) await renameIfThere(path, `${path}.1`);
    else await calls.unlink(path).catch(ignoreMissing);
    await this.#reopenNow();
  }

  /** What waits is dropped with it: nobody knows how long it lasts. */
  #fail(error: unknown, lost: number): void {
    const code = refusalCode(error);
    const reason = code === undefined ? (error as Error).message : describeRefusal(code).why;
    const retryAt = monotonicNow() + TRY_AGAIN_AFTER;
    if (this.#episode?.retryAt === undefined) this.#episode = this.#beginEpisode(reason, retryAt);
    else this.#episode.retryAt = retryAt;
    this.#drop(lost + this.#queue.clear());
  }

  #beginEpisode(reason: string, retryAt: MonotonicTime | undefined): Episode {
    const { path } = this.#specification;
    this.#handlers.onTrouble(
      `${this.#name}: cannot write its log to ${path}: ${reason}. Lines are dropped and counted ` +
        "until it can be written again",
    );
    return { reason, lines: this.#episode?.lines ?? 0, retryAt };
  }

  #endEpisode(): void {
    const episode = this.#episode;
    if (episode === undefined) return;
    this.#episode = undefined;
    const { path } = this.#specification;
    this.#handlers.onTrouble(
      `${this.#name}: its log is written to ${path} again; ${episode.lines} lines were dropped`,
    );
  }

  #drop(lines: number): void {
    this.#dropped += lines;
    if (this.#episode !== undefined) this.#episode.lines += lines;
  }

  /** For another program to go on with; nothing is under way then. */
  pack(luggage: Luggage): CarriedLogFile {
    return {
      file: this.#file && luggage.pack(this.#file),
      waiting: this.#queue.save(),
      dropped: this.#dropped,
      wantsReopening: this.#wantsReopening,
      episode: this.#episode && { ...this.#episode },
    };
  }

  /** @throws WrongLuggage */
  unpack(carried: CarriedLogFile, unpacking: Unpacking): void {
    this.#file = carried.file && unpacking.take(carried.file);
    if (this.#file !== undefined) this.#size = fstatSync(this.#file.number).size;
    this.#queue.restore(carried.waiting);
    this.#dropped = carried.dropped;
    this.#wantsReopening = carried.wantsReopening;
    this.#episode = carried.episode && { ...carried.episode };
    this.#schedule();
  }
}

/** Why a write ended, and how many of its lines are lost. */
class PartlyWritten extends Error {
  override readonly name = "PartlyWritten";
  readonly lost: number;

  constructor(lost: number, options: ErrorOptions) {
    super("a log was written in part", options);
    this.lost = lost;
  }
}

function writeSome(file: number, bytes: Uint8Array, from: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(file, bytes, from, bytes.length - from, null, (error, written) => {
      if (error === null || error === undefined) resolve(written);
      else reject(error);
    });
  });
}

const isWantOfRoom = (error: unknown) => ["ENOSPC", "EDQUOT"].includes(refusalCode(error) ?? "");

function ignoreMissing(error: unknown): void {
  if (refusalCode(error) !== "ENOENT") throw error;
}

const renameIfThere = (from: string, to: string) => calls.rename(from, to).catch(ignoreMissing);

function refused(path: string, error: unknown): unknown {
  const code = refusalCode(error);
  if (code === undefined) return error;
  const { why, mend } = describeRefusal(code);
  return new FileRefused(`Cannot write a log to ${path}: ${why}. ${mend}, or name another file.`);
}

/**
 * Opens a file for lines at its end, and makes it where it is missing. No link is followed.
 * @throws FileRefused when somebody else could put something else in its place, or has; Error
 * (ELOOP, ENOENT …)
 */
async function openLog(path: string): Promise<{ file: OwnedDescriptor; size: number }> {
  refuseFolder(path, await calls.stat(dirname(path)));
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  // Without O_NONBLOCK one would wait for whoever reads a FIFO. Bun sets O_CLOEXEC.
  const flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
  const file = new OwnedDescriptor(await calls.open(path, flags, MODE));
  try {
    const found = await calls.fstat(file.number);
    refuseFile(path, found);
    // A new one has what the umask left of it.
    if (found.size === 0) await calls.fchmod(file.number, MODE);
    return { file, size: found.size };
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Whether lines can be written there, without making the file. @throws FileRefused */
export async function checkLogFile(path: string): Promise<void> {
  try {
    refuseFolder(path, await calls.stat(dirname(path)));
    const found = await calls.stat(path).catch(ignoreMissing);
    if (found !== undefined) refuseFile(path, found);
  } catch (error) {
    throw refused(path, error);
  }
}

const own = () => process.geteuid?.() ?? 0;

function refuseFolder(path: string, folder: Stats): void {
  const where = dirname(path);
  const refuse = (expected: string, received: string, mend: string) =>
    new FileRefused(
      `Cannot write a log to ${path}: expected ${expected}, received ${received}. ${mend}.`,
    );
  if (!folder.isDirectory()) throw refuse(`the folder ${where}`, "a file", "Name another one");
  const mend = "Give it a folder of its own: install -d -m 0755 FOLDER";
  if (folder.uid !== 0 && folder.uid !== own()) {
    throw refuse(`a folder of user ${own()} or 0`, `one of user ${folder.uid}`, mend);
  }
  const isGroupsOwn = folder.gid === 0 || folder.gid === process.getegid?.();
  const forbidden = isGroupsOwn ? 0o002 : 0o022;
  if ((folder.mode & forbidden) !== 0) {
    const mode = (folder.mode & 0o7777).toString(8).padStart(4, "0");
    throw refuse(`a folder that no other user can write to`, `${where} with mode ${mode}`, mend);
  }
}

function wrongFile(file: Stats): string | undefined {
  if (!file.isFile()) return "something that is no file";
  if (file.uid !== own()) return `one of user ${file.uid}`;
  return file.nlink === 1 ? undefined : `one with ${file.nlink} links`;
}

function refuseFile(path: string, file: Stats): void {
  const received = wrongFile(file);
  if (received === undefined) return;
  throw new FileRefused(
    `Cannot write a log to ${path}: expected a file of user ${own()} with one link, or nothing ` +
      `there, received ${received}. Remove it, or name another file.`,
  );
}
