import { lstatSync, mkdirSync, statSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { setNonBlocking } from "../../ffi/descriptor.ts";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { setFileModeMask } from "../../ffi/process.ts";
import { Errno, errnoName, SystemCallError } from "../../ffi/system-call-error.ts";
import {
  acceptConnection,
  bindUnix,
  connectUnix,
  LONGEST_SOCKET_PATH,
  listen,
  makeUnixSocket,
  peerCredentials,
} from "../../ffi/unix-socket.ts";
import type { EventLoop, Watch } from "../event-loop/event-loop.ts";
import { describeRefusal, withFile } from "../journal/file-refused.ts";
import { ExitCode } from "../units/exit-code.ts";

const BACKLOG = 1024;
/** Connections taken in one turn. */
const ACCEPTS_A_TURN = 64;

/** A socket path that cannot be used, and the mend. */
export class SocketPathError extends Error {
  override readonly name = "SocketPathError";
  readonly exitCode = ExitCode.refused;
}

/** A name in the abstract namespace has no file and no folder: unix(7). */
const isAbstract = (path: string) => path.startsWith("@");

/**
 * Refuses a path that can be no socket of ours, before anything is made for it. What remains is
 * whether somebody listens there.
 * @throws SocketPathError
 */
export function checkSocketPath(path: string): void {
  if (isAbstract(path)) return;
  const size = new TextEncoder().encode(path).length;
  if (size > LONGEST_SOCKET_PATH) {
    throw new SocketPathError(
      `Cannot listen on ${path}: expected at most ${LONGEST_SOCKET_PATH} bytes, ` +
        `received ${size}. Choose a shorter path.`,
    );
  }
  checkFolder(path);
  const found = withFile({ what: "look at", path, otherwise }, () =>
    lstatSync(path, { throwIfNoEntry: false }),
  );
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new SocketPathError(
      `Cannot listen on ${path}: expected a socket or nothing there, received ` +
        `${found.isDirectory() ? "a directory" : "a file of another kind"}. ` +
        "Choose another path, or remove it.",
    );
  }
  const own = process.geteuid?.() ?? 0;
  if (found.uid !== own) {
    throw new SocketPathError(
      `Cannot listen on ${path}: expected a socket of user ${own}, received one of user ` +
        `${found.uid}. Another service may use this path: choose another, or remove it.`,
    );
  }
}

const otherwise = "choose another path";

function checkFolder(path: string): void {
  const folder = dirname(path);
  const found = withFile({ what: "look at the folder", path: folder, otherwise }, () =>
    statSync(folder, { throwIfNoEntry: false }),
  );
  if (found?.isDirectory() === true) return;
  const received = found === undefined ? "nothing there" : "a file";
  const mend = found === undefined ? `Make it: mkdir -p ${folder}` : "Remove it";
  throw new SocketPathError(
    `Cannot listen on ${path}: expected the folder ${folder}, received ${received}. ` +
      `${mend}, or choose another path.`,
  );
}

/** Makes the folder of a socket where it is missing. @throws FileRefused */
export function makeSocketFolder(path: string): void {
  if (isAbstract(path)) return;
  const folder = dirname(path);
  withFile({ what: "make the folder", path: folder, otherwise }, () => {
    const before = setFileModeMask(0o022);
    try {
      mkdirSync(folder, { recursive: true, mode: 0o755 });
    } finally {
      setFileModeMask(before);
    }
  });
}

/** Somebody takes connections at this path. A socket that nobody serves any more refuses them. */
export function isListenedAt(path: string): boolean {
  using probe = makeUnixSocket("stream");
  const result = connectUnix(probe, path);
  return result !== -Errno.ECONNREFUSED && result !== -Errno.ENOENT;
}

/** Who listens at a path, as our PID namespace numbers it; undefined when nobody does. */
export function listenerProcess(path: string): number | undefined {
  using probe = makeUnixSocket("stream");
  return connectUnix(probe, path) < 0 ? undefined : peerCredentials(probe).processId;
}

/** The refusal of a path that somebody else serves. */
export function listenedAt(path: string): SocketPathError {
  return new SocketPathError(
    `Cannot listen on ${path}: somebody listens there already. ` +
      "Stop it first, or choose another path.",
  );
}

/** Removes a socket that nobody listens on any more. */
function clearStale(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return;
  if (isListenedAt(path)) throw listenedAt(path);
  withFile({ what: "remove the old socket", path, otherwise }, () => unlinkSync(path));
}

/** Who may connect: the socket's owner alone, or all users, of whom credentials decide. */
export type SocketMode = 0o600 | 0o666;

/** A listening Unix socket at a path. Its folder has to be there. @throws SocketPathError */
export function listenAt(path: string, mode: SocketMode = 0o600): OwnedDescriptor {
  if (!isAbstract(path)) {
    checkSocketPath(path);
    clearStale(path);
  }
  const socket = makeUnixSocket("stream");
  const before = setFileModeMask(0o777 & ~mode);
  const result = bindUnix(socket, path);
  setFileModeMask(before);
  if (result < 0) {
    socket.close();
    const { why, mend } = describeRefusal(errnoName(-result));
    throw new SocketPathError(`Cannot listen on ${path}: ${why}. ${mend}, or ${otherwise}.`);
  }
  listen(socket, BACKLOG);
  return socket;
}

/**
 * The listening socket that systemd opened for this process, if it did: sd_listen_fds(3). The
 * variables are taken out of the environment.
 */
export function inheritedListener(): OwnedDescriptor | undefined {
  const { LISTEN_PID: owner, LISTEN_FDS: count } = process.env;
  delete process.env["LISTEN_PID"];
  delete process.env["LISTEN_FDS"];
  delete process.env["LISTEN_FDNAMES"];
  if (owner !== String(process.pid) || Number(count) < 1) return undefined;
  const FIRST_INHERITED_DESCRIPTOR = 3;
  const socket = new OwnedDescriptor(FIRST_INHERITED_DESCRIPTOR);
  setNonBlocking(socket);
  return socket;
}

interface ListenerOptions {
  /** It is removed when the listener is closed; undefined leaves it, as for systemd's. */
  readonly path: string | undefined;
  readonly onConnection: (socket: OwnedDescriptor) => void;
  /** Told when no descriptor is left for a connection; it is tried again after a while. */
  readonly onExhausted: (error: SystemCallError) => void;
  /** The file that a program before this one made at the path; else the one that is there. */
  readonly file?: string | undefined;
}

/** Which file stands at a path; undefined when none does, or it cannot be seen. */
function fileAt(path: string | undefined): string | undefined {
  if (path === undefined || isAbstract(path)) return undefined;
  try {
    const { dev, ino } = lstatSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** Takes connections as they come. */
export class Listener implements Disposable {
  readonly #socket: OwnedDescriptor;
  readonly #watch: Watch;
  readonly #options: ListenerOptions;
  readonly #file: string | undefined;
  readonly #loop: EventLoop;
  #retry: Disposable | undefined;

  constructor(loop: EventLoop, socket: OwnedDescriptor, options: ListenerOptions) {
    this.#loop = loop;
    this.#socket = socket;
    this.#options = options;
    this.#file = options.file ?? fileAt(options.path);
    this.#watch = loop.watch(socket, "readable", () => this.#accept(options));
  }

  get socket(): OwnedDescriptor {
    return this.#socket;
  }

  /** The file at its path, which was made for it: device and inode. */
  get file(): string | undefined {
    return this.#file;
  }

  /** Its path still leads to it. */
  get isReachable(): boolean {
    return this.#socket.isOpen && this.#file === fileAt(this.#options.path);
  }

  #accept(options: ListenerOptions): void {
    for (let count = 0; count < ACCEPTS_A_TURN; count++) {
      let connection: OwnedDescriptor | undefined;
      try {
        connection = acceptConnection(this.#socket);
      } catch (error) {
        if (!(error instanceof SystemCallError)) throw error;
        this.#waitForDescriptors();
        options.onExhausted(error);
        return;
      }
      if (connection === undefined) return;
      options.onConnection(connection);
    }
  }

  /** EMFILE stays as long as no descriptor is freed: level-triggered, it would spin. */
  #waitForDescriptors(): void {
    this.#watch.pause();
    const AGAIN_AFTER = 100;
    this.#retry = this.#loop.wakeAfter(AGAIN_AFTER, () => this.#watch.change("readable"));
  }

  /** Takes who has connected already, and leaves the path, which leads elsewhere or nowhere. */
  abandon(): void {
    this.#accept(this.#options);
    this.close();
  }

  close(): void {
    if (!this.#socket.isOpen) return;
    const { path } = this.#options;
    const isOurs = this.#file !== undefined && this.isReachable;
    this.#retry?.[Symbol.dispose]();
    this.#watch[Symbol.dispose]();
    this.#socket.close();
    if (path === undefined || !isOurs) return;
    try {
      unlinkSync(path);
    } catch {
      // Somebody removed it, or its folder: there is nothing left to remove.
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
