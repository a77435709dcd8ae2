import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { Dialler } from "../../messaging/dialler.ts";
import { StreamConnection } from "../../messaging/stream-connection.ts";
import type { Bytes, Milliseconds } from "../../units/units.ts";
import { ConsoleLines } from "../console-text.ts";
import { Scrollback } from "./console-scrollback.ts";

/** People who look at one console at once. */
export const MOST_VIEWERS = 16;
/** What may wait for one of them; whoever reads more slowly is let go. */
export const VIEWER_BYTES: Bytes = 4 * 1024 * 1024;
/** What may wait for a guest that reads no input; what is more is thrown away, as a tty does. */
export const INPUT_BYTES: Bytes = 64 * 1024;

export interface ConsoleHandlers {
  /** A line came; long ones in pieces. A guest decides what is in it. */
  onLine?(line: string): void;
  /** The VMM's socket cannot be reached; told at each attempt. */
  onUnreachable(reason: string, wait: Milliseconds): void;
  /** The file takes nothing; told once, until it does again. */
  onUnkept(reason: string): void;
}

export interface AttachOptions {
  /** Whether what the viewer types goes to the guest. */
  readonly writes: boolean;
  /** Takes the writing from whoever has it, who goes on as a reader. */
  readonly takes: boolean;
  /** Whether it first gets what was said before. */
  readonly scrollback: boolean;
}

export type Attachment =
  | { readonly kind: "attached"; readonly writes: boolean }
  | { readonly kind: "refused"; readonly expected: string; readonly received: string };

interface Viewer {
  readonly stream: StreamConnection;
  writes: boolean;
}

/**
 * Keeps a machine's serial console: is connected to the VMM as long as both are there, keeps what
 * is said in a file, and shows it to whoever attaches. One of them writes, the others look on.
 *
 * What a guest says while no worker is connected is lost with QEMU, whose socket takes it and
 * throws it away (test/machine/vm-guest.test.ts shows it); cloud-hypervisor keeps the last of it
 * since its serial_manager.rs has a SerialBuffer for sockets, and gives it to the next. So a worker
 * connects at once when it has adopted a machine.
 */
export class ConsoleKeeper implements Disposable {
  readonly #loop: EventLoop;
  readonly #handlers: ConsoleHandlers;
  #dialler: Dialler;
  readonly #scrollback: Scrollback;
  readonly #lines: ConsoleLines;
  readonly #viewers = new Set<Viewer>();
  #vmm: StreamConnection | undefined;
  /** Of VMMs that have the machine no more, and may have said more than was read. */
  readonly #formers = new Set<StreamConnection>();

  constructor(
    loop: EventLoop,
    options: {
      /** The VMM's serial socket. */
      readonly socketPath: string;
      /** Where what is said is kept; beside it, with ".1", what was said before. */
      readonly scrollbackPath: string;
      readonly handlers: ConsoleHandlers;
    },
  ) {
    const { handlers, scrollbackPath, socketPath } = options;
    this.#loop = loop;
    this.#handlers = handlers;
    this.#scrollback = new Scrollback(scrollbackPath, (reason) => handlers.onUnkept(reason));
    this.#lines = new ConsoleLines((line) => handlers.onLine?.(line));
    this.#dialler = this.#dial(socketPath);
  }

  #dial(path: string): Dialler {
    const dialler = new Dialler(this.#loop, path, {
      onConnection: (socket) => this.#serve(socket),
      onFailure: (reason, wait) => this.#handlers.onUnreachable(reason, wait),
    });
    this.#dialler = dialler;
    dialler.dial();
    return dialler;
  }

  /**
   * Another VMM has the machine from now on. What the former one still has to say is taken until
   * it ends; whoever looks on goes on doing so.
   */
  moveTo(socketPath: string): void {
    const former = this.#vmm;
    if (former !== undefined) this.#formers.add(former);
    this.#vmm = undefined;
    this.#dialler.stop();
    this.#dial(socketPath);
  }

  get isConnected(): boolean {
    return this.#vmm !== undefined;
  }

  /** Its VMM answers elsewhere, and so listens here: its guest must not speak to nobody. */
  connect(): void {
    if (!this.isConnected) this.#dialler.dialNow();
  }

  get viewerCount(): number {
    return this.#viewers.size;
  }

  /** All that is kept. */
  read(): Uint8Array {
    return this.#scrollback.read();
  }

  /**
   * Shows the console to whoever is at the other end of the socket, raw, and takes what they type.
   * The socket is the keeper's from now on, also when it is refused.
   */
  attach(socket: OwnedDescriptor, options: AttachOptions): Attachment {
    if (this.#viewers.size >= MOST_VIEWERS) {
      socket.close();
      const expected = `at most ${MOST_VIEWERS} who are attached`;
      return { kind: "refused", expected, received: "one more" };
    }
    const writer = [...this.#viewers].find((viewer) => viewer.writes);
    const writes = options.writes && (options.takes || writer === undefined);
    if (writes && writer !== undefined) {
      writer.writes = false;
      this.#notify(writer, "somebody else writes now; you look on");
    }
    const viewer = this.#makeViewer(socket, writes);
    this.#viewers.add(viewer);
    if (options.scrollback) viewer.stream.send(this.read());
    if (options.writes && !writes) {
      this.#notify(viewer, "somebody else writes; you look on, and --take takes it");
    }
    return { kind: "attached", writes };
  }

  #makeViewer(socket: OwnedDescriptor, writes: boolean): Viewer {
    const stream = new StreamConnection(this.#loop, socket, {
      queuedBytes: VIEWER_BYTES,
      handlers: {
        onBytes: (bytes, descriptors) => {
          for (const descriptor of descriptors) descriptor.close();
          if (viewer.writes) this.#type(bytes);
        },
        onEnd: () => this.#viewers.delete(viewer),
      },
    });
    const viewer: Viewer = { stream, writes };
    return viewer;
  }

  /** In the console's own stream, as it has no other: a guest could say the same. */
  #notify(viewer: Viewer, text: string): void {
    viewer.stream.send(new TextEncoder().encode(`\r\n[hostler: ${text}]\r\n`));
  }

  #type(bytes: Uint8Array): void {
    const vmm = this.#vmm;
    if (vmm === undefined || vmm.queuedBytes + bytes.length > INPUT_BYTES) return;
    vmm.send(bytes);
  }

  #serve(socket: OwnedDescriptor): void {
    const dialler = this.#dialler;
    const vmm = new StreamConnection(this.#loop, socket, {
      // Beside the bytes stands what a queue costs for each small piece of them.
      queuedBytes: 2 * INPUT_BYTES,
      handlers: {
        onBytes: (bytes, descriptors) => {
          for (const descriptor of descriptors) descriptor.close();
          dialler.succeed();
          this.#take(bytes);
        },
        onEnd: () => {
          if (this.#formers.delete(vmm)) return;
          this.#vmm = undefined;
          dialler.redial();
        },
      },
    });
    this.#vmm = vmm;
  }

  #take(bytes: Uint8Array): void {
    this.#scrollback.append(bytes);
    for (const { stream } of this.#viewers) stream.send(bytes);
    this.#lines.push(bytes);
  }

  /** Lets everybody go; what is kept stays. */
  [Symbol.dispose](): void {
    this.#dialler.stop();
    this.#vmm?.close();
    this.#vmm = undefined;
    for (const former of this.#formers) former.close();
    this.#formers.clear();
    for (const { stream } of this.#viewers) stream.close();
    this.#viewers.clear();
    this.#scrollback[Symbol.dispose]();
  }
}
