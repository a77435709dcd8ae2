import { randomBytes } from "node:crypto";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage } from "../../../ffi/system-call-error.ts";
import {
  bindUnix,
  makeUnixSocket,
  receiveCredentials,
  receiveMessage,
} from "../../../ffi/unix-socket.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import type { ProcessId } from "../../units/units.ts";
import { runLimits } from "../run/manifest.ts";
import { parseNotice } from "../run/notices.ts";
import { statusOf } from "./process-group.ts";
import { keyOf, type Parked } from "./program-memory.ts";

const MESSAGE_BYTES = 4096;
const MESSAGES_A_TURN = 64;

export interface ParkingHandlers {
  onReady(): void;
  /** Lines for our own service manager. */
  onForward(lines: readonly string[]): void;
  onTrouble(message: string): void;
}

/**
 * The program's NOTIFY_SOCKET: its readiness, and the descriptors that it parks here with
 * FDSTORE=1 as with systemd: sd_pid_notify_with_fds(3).
 */
export class Parking implements Disposable {
  /** For the program's environment; in the abstract name space, so nothing is left of it. */
  readonly path: string;
  readonly #socket = makeUnixSocket("datagram");
  readonly #watch: Watch;
  readonly #memory = new NativeMemory(MESSAGE_BYTES);
  readonly #handlers: ParkingHandlers;
  readonly #stored: Parked[] = [];
  /** The session of the program, which nobody else is in. */
  #session: ProcessId | undefined;

  constructor(loop: EventLoop, handlers: ParkingHandlers) {
    this.#handlers = handlers;
    this.path = `@hostler-run-${process.pid}-${randomBytes(8).toString("hex")}`;
    receiveCredentials(this.#socket);
    const bound = bindUnix(this.#socket, this.path);
    if (bound < 0) throw new Error(`Cannot make the program's socket: ${errnoMessage(-bound)}`);
    this.#watch = loop.watch(this.#socket, "readable", () => this.receive());
  }

  /** Notices count when they come from this session. */
  serve(session: ProcessId): void {
    this.#session = session;
  }

  get stored(): readonly Parked[] {
    return this.#stored;
  }

  /** Keeps a descriptor, which is ours to close from now on. */
  store(name: string, descriptor: OwnedDescriptor): void {
    const key = keyOf(descriptor);
    const isKnown = this.#stored.some((one) => one.name === name && keyOf(one.descriptor) === key);
    if (isKnown) {
      descriptor.close();
      return;
    }
    if (this.#stored.length >= runLimits.parked) {
      descriptor.close();
      this.#handlers.onTrouble(
        `the program parks too much: expected at most ${runLimits.parked} descriptors, ` +
          `received one more (${name})`,
      );
      return;
    }
    this.#stored.push({ name, descriptor });
  }

  /** Takes what has come: also called when the program has stopped, and says no more. */
  receive(): void {
    for (let count = 0; count < MESSAGES_A_TURN; count++) {
      const message = receiveMessage(this.#socket, this.#memory);
      if (message.length === -Errno.EAGAIN || message.length < 0) return;
      const sender = message.credentials?.processId ?? 0;
      const text = new TextDecoder().decode(this.#memory.bytes.subarray(0, message.length));
      if (message.truncated || !this.#isFromProgram(sender)) {
        for (const descriptor of message.descriptors) descriptor.close();
        continue;
      }
      this.#take(text, message.descriptors);
    }
  }

  /** One that has ended since cannot be asked; that it knew the name speaks for it. */
  #isFromProgram(sender: ProcessId): boolean {
    if (this.#session === undefined || sender === 0) return false;
    const status = statusOf(sender);
    return status === undefined || status.session === this.#session;
  }

  #take(text: string, descriptors: readonly OwnedDescriptor[]): void {
    const notice = parseNotice(text);
    const { name, isNameWrong } = notice;
    if (notice.remove) this.#remove(name);
    for (const descriptor of descriptors) {
      if (notice.store && !isNameWrong) this.store(name, descriptor);
      else descriptor.close();
    }
    if (notice.store && isNameWrong) {
      this.#handlers.onTrouble(
        `the program parks ${JSON.stringify(name)}: expected a name of 1 to ` +
          `${runLimits.nameBytes} printable characters without a colon`,
      );
    }
    if (notice.forward.length > 0) this.#handlers.onForward(notice.forward);
    if (notice.ready) this.#handlers.onReady();
  }

  #remove(name: string): void {
    for (const [index, one] of [...this.#stored.entries()].toReversed()) {
      if (one.name !== name) continue;
      one.descriptor.close();
      this.#stored.splice(index, 1);
    }
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#socket.close();
    for (const { descriptor } of this.#stored.splice(0)) descriptor.close();
  }
}
