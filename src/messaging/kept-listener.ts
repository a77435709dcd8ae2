import { type FSWatcher, watch } from "node:fs";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { SystemCallError } from "../../ffi/system-call-error.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { refusalCode } from "../journal/file-refused.ts";
import { ExitCode } from "../units/exit-code.ts";
import type { Milliseconds } from "../units/units.ts";
import { Listener, listenAt, type SocketMode } from "./listener.ts";

/** Waits before a socket that could not be made anew is tried again: doubled up to the longest. */
const FIRST_WAIT: Milliseconds = 50;
const LONGEST_WAIT: Milliseconds = 5_000;

interface Options {
  /** 0600 when nothing is said. */
  readonly mode?: SocketMode;
  readonly onConnection: (socket: OwnedDescriptor) => void;
  readonly onExhausted: (error: SystemCallError) => void;
  /** Called before the socket is made anew. */
  readonly onRemoved: () => void;
  readonly onTrouble: (message: string) => void;
  /** Called for each socket that listens, before anybody connects to be taken. */
  readonly prepare?: (socket: OwnedDescriptor) => void;
  /** Listens already: the program before this one made it. */
  readonly inherited?: InheritedListener | undefined;
}

/** A socket that listens, and the file that was made at its path: device and inode. */
export interface InheritedListener {
  readonly socket: OwnedDescriptor;
  readonly file: string | undefined;
}

/**
 * Listens at a path, and again when its socket was removed or moved away, for as long as the
 * daemon lives. The kernel tells of it (inotify on the socket itself: its number of links), and of
 * nothing else in the folder, where the journal is written at every restart. It does not tell when
 * a folder above it is renamed.
 */
export class KeptListener {
  readonly #loop: EventLoop;
  readonly #path: string;
  readonly #options: Options;
  #listener: Listener;
  #watcher: FSWatcher | undefined;
  #look: Disposable | undefined;
  #wait = FIRST_WAIT;
  #isClosed = false;

  /** @throws SocketPathError when the path cannot be used. */
  constructor(loop: EventLoop, path: string, options: Options) {
    this.#loop = loop;
    this.#path = path;
    this.#options = options;
    this.#listener = this.#goOn() ?? this.#listen();
    this.#watch();
    // Nobody watched its path meanwhile.
    if (options.inherited !== undefined) this.#lookAfter(0);
  }

  #goOn(): Listener | undefined {
    const { onConnection, onExhausted, inherited } = this.#options;
    if (inherited === undefined) return undefined;
    const { socket, file } = inherited;
    return new Listener(this.#loop, socket, { path: this.#path, onConnection, onExhausted, file });
  }

  /** For another program to go on with; undefined while it is still to be made anew. */
  get carried(): InheritedListener | undefined {
    const { socket, file } = this.#listener;
    return socket.isOpen ? { socket, file } : undefined;
  }

  #listen(): Listener {
    const { onConnection, onExhausted } = this.#options;
    const socket = listenAt(this.#path, this.#options.mode);
    this.#options.prepare?.(socket);
    return new Listener(this.#loop, socket, { path: this.#path, onConnection, onExhausted });
  }

  #watch(): void {
    this.#watcher?.close();
    // A name in the abstract namespace has no file that could be removed.
    if (this.#path.startsWith("@")) return;
    try {
      this.#watcher = watch(this.#path, { persistent: false }, () => this.#lookAfter(0));
      this.#watcher.on("error", () => this.#lookAfter(0));
    } catch (error) {
      const code = refusalCode(error);
      if (code === undefined) throw error;
      // Removed since it was made; or no inotify instance is left.
      if (code === "ENOENT") this.#lookAfter(0);
      else this.#tellUnwatched(code);
    }
  }

  #tellUnwatched(code: string): void {
    this.#options.onTrouble(
      `${this.#path} cannot be watched (${code}): if it is removed, it is not made anew. ` +
        "Raise sysctl fs.inotify.max_user_instances and fs.inotify.max_user_watches",
    );
  }

  /** In a turn of the loop's own, which tells what goes wrong there. */
  #lookAfter(wait: Milliseconds): void {
    if (this.#isClosed || this.#look !== undefined) return;
    this.#look = this.#loop.wakeAfter(wait, () => {
      this.#look = undefined;
      if (!this.#listener.isReachable) this.#renew();
    });
  }

  #renew(): void {
    const { onRemoved, onTrouble } = this.#options;
    const isFirst = this.#wait === FIRST_WAIT;
    if (isFirst) this.#listener.abandon();
    try {
      onRemoved();
      this.#listener = this.#listen();
    } catch (error) {
      const { exitCode, message } = error as { exitCode?: unknown; message: string };
      if (exitCode !== ExitCode.refused && refusalCode(error) === undefined) throw error;
      if (isFirst) {
        onTrouble(
          `the socket ${this.#path} was removed, and cannot be made anew: ${message} ` +
            "It is tried again; who is connected is served on",
        );
      }
      this.#lookAfter(this.#wait);
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
      return;
    }
    this.#wait = FIRST_WAIT;
    onTrouble(`the socket ${this.#path} was removed by somebody; it is made anew`);
    this.#watch();
  }

  close(): void {
    this.#isClosed = true;
    this.#watcher?.close();
    this.#look?.[Symbol.dispose]();
    this.#listener.close();
  }
}
