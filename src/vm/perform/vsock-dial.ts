import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage } from "../../../ffi/system-call-error.ts";
import { pendingError } from "../../../ffi/unix-socket.ts";
import { connectVsock, type VsockAddress } from "../../../ffi/vsock.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import { StreamConnection, type StreamHandlers } from "../../messaging/stream-connection.ts";

/** Why a guest's port cannot be connected to, with what the reader can look at. */
export function explainVsock(errno: number): string {
  switch (errno) {
    case Errno.ENODEV:
      return "no machine has this context id: does the VMM run?";
    case Errno.ECONNRESET:
      return "nobody listens there, or not to us: does the guest run hostler vm guest-agent?";
    case Errno.ETIMEDOUT:
      return "the guest does not answer: has it booted so far, with its driver of vsock?";
    case Errno.EADDRINUSE:
      return "all ports up to 1023 of this host are used";
    default:
      return errnoMessage(errno);
  }
}

interface DialOptions {
  /** Bytes that may wait for a guest that does not read. */
  readonly queuedBytes: number;
  readonly handlers: StreamHandlers;
}

/**
 * A connection to a port of a guest, by this host's kernel. What is sent before it stands goes as
 * soon as it does.
 */
export class VsockDial {
  readonly #loop: EventLoop;
  readonly #socket: OwnedDescriptor;
  readonly #watch: Watch;
  readonly #options: DialOptions;
  #early: Uint8Array[] = [];
  #connection: StreamConnection | undefined;

  private constructor(loop: EventLoop, socket: OwnedDescriptor, options: DialOptions) {
    this.#loop = loop;
    this.#socket = socket;
    this.#options = options;
    this.#watch = loop.watch(socket, "writable", () => this.#settle());
  }

  /** @returns why it cannot even begin */
  static begin(peer: VsockAddress, loop: EventLoop, options: DialOptions): VsockDial | string {
    const socket = connectVsock(peer);
    if (typeof socket === "number") return explainVsock(-socket);
    return new VsockDial(loop, socket, options);
  }

  #settle(): void {
    const error = pendingError(this.#socket);
    this.#watch[Symbol.dispose]();
    if (error !== 0) {
      this.#socket.close();
      this.#options.handlers.onEnd(explainVsock(error));
      return;
    }
    this.#connection = new StreamConnection(this.#loop, this.#socket, this.#options);
    for (const bytes of this.#early.splice(0)) this.#connection.send(bytes);
  }

  send(bytes: Uint8Array): void {
    if (this.#connection === undefined) this.#early.push(bytes);
    else this.#connection.send(bytes);
  }

  close(): void {
    if (this.#connection !== undefined) {
      this.#connection.close();
      return;
    }
    if (!this.#socket.isOpen) return;
    this.#watch[Symbol.dispose]();
    this.#socket.close();
  }
}
