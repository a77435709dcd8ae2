import { lstatSync, mkdirSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { setNonBlocking } from "../../ffi/descriptor.ts";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { setFileModeMask } from "../../ffi/process.ts";
import { Errno, errnoMessage, SystemCallError } from "../../ffi/system-call-error.ts";
import {
  acceptConnection,
  bindUnix,
  connectUnix,
  LONGEST_SOCKET_PATH,
  listen,
  makeUnixSocket,
} from "../../ffi/unix-socket.ts";
import type { EventLoop, Watch } from "../event-loop/event-loop.ts";
import { ExitCode } from "../units/exit-code.ts";

const BACKLOG = 1024;
/** Connections taken in one turn. */
const ACCEPTS_A_TURN = 64;

/** A socket path that cannot be used, and the mend. */
export class SocketPathError extends Error {
  override readonly name = "SocketPathError";
  readonly exitCode = ExitCode.refused;
}

/** Refuses a path that is no socket of ours; removes a socket that nobody listens on any more. */
function clearStale(path: string): void {
  const size = new TextEncoder().encode(path).length;
  if (size > LONGEST_SOCKET_PATH) {
    throw new SocketPathError(
      `Cannot listen on ${path}: expected at most ${LONGEST_SOCKET_PATH} bytes, ` +
        `received ${size}. Choose a shorter path.`,
    );
  }
  const found = lstatSync(path, { throwIfNoEntry: false });
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
  using probe = makeUnixSocket("stream");
  const result = connectUnix(probe, path);
  if (result === -Errno.ECONNREFUSED) {
    unlinkSync(path);
    return;
  }
  if (result === -Errno.ENOENT) return;
  throw new SocketPathError(
    `Cannot listen on ${path}: somebody listens there already. ` +
      "Stop it first, or choose another path.",
  );
}

/** A listening Unix socket at a path, 0600, whose folder is made when it is missing. */
export function listenAt(path: string): OwnedDescriptor {
  if (!path.startsWith("@")) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    clearStale(path);
  }
  const socket = makeUnixSocket("stream");
  const before = setFileModeMask(0o177);
  const result = bindUnix(socket, path);
  setFileModeMask(before);
  if (result < 0) {
    socket.close();
    throw new SocketPathError(`Cannot listen on ${path}: ${errnoMessage(-result)}.`);
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

/** Takes connections as they come. */
export class Listener implements Disposable {
  readonly #socket: OwnedDescriptor;
  readonly #watch: Watch;
  readonly #path: string | undefined;
  readonly #loop: EventLoop;
  #retry: Disposable | undefined;

  /** `path` is removed when the listener is closed; undefined leaves it, as for systemd's. */
  constructor(
    loop: EventLoop,
    socket: OwnedDescriptor,
    options: {
      readonly path: string | undefined;
      readonly onConnection: (socket: OwnedDescriptor) => void;
      /** Told when no descriptor is left for a connection; it is tried again after a while. */
      readonly onExhausted: (error: SystemCallError) => void;
    },
  ) {
    this.#loop = loop;
    this.#socket = socket;
    this.#path = options.path;
    this.#watch = loop.watch(socket, "readable", () => this.#accept(options));
  }

  #accept(options: {
    readonly onConnection: (socket: OwnedDescriptor) => void;
    readonly onExhausted: (error: SystemCallError) => void;
  }): void {
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

  close(): void {
    if (!this.#socket.isOpen) return;
    this.#retry?.[Symbol.dispose]();
    this.#watch[Symbol.dispose]();
    this.#socket.close();
    if (this.#path === undefined || this.#path.startsWith("@")) return;
    try {
      unlinkSync(this.#path);
    } catch {
      // Somebody removed it, or its folder: there is nothing left to remove.
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
