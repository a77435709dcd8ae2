import { constants, openSync, readdirSync, readFileSync, statSync } from "node:fs";
import { isatty } from "node:tty";
import { readInto, setCloseOnExec, writeFrom } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage, SystemCallError } from "../../../ffi/system-call-error.ts";
import {
  acceptVsock,
  HOST_CONTEXT,
  LAST_PRIVILEGED_PORT,
  listenVsock,
  type VsockAddress,
} from "../../../ffi/vsock.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import { Dialler } from "../../messaging/dialler.ts";
import { StreamConnection } from "../../messaging/stream-connection.ts";
import type { Milliseconds } from "../../units/units.ts";
import { limits, PORT_NAME, VSOCK_PORT } from "../guest-agent/protocol.ts";

const READ_SIZE = 65_536;
const READS_A_TURN = 4;
/**
 * A virtio-serial port tells for ever that nobody is at its other end, and waking for that would
 * never rest: it is looked at again after this.
 */
const LOOK_AGAIN_AFTER: Milliseconds = 200;
/** What may wait in a socket's queue; programs wait long before. */
const SOCKET_QUEUE = 8 * limits.queuedBytes;

/** Where the agent is asked. */
export type PortPlace =
  | { readonly kind: "device"; readonly path: string }
  /** Somebody listens there: for tests, and for a port that another program has opened. */
  | { readonly kind: "socket"; readonly path: string }
  | { readonly kind: "vsock"; readonly port: number };

export interface PortHandlers {
  /** Valid only during the call. */
  onBytes(bytes: Uint8Array): void;
  /** Nobody is at the other end any more. Whoever comes next is another asker. */
  onGone(): void;
  /** The asker has taken all that waited for it. */
  onDrained(): void;
  /** The port is lost for good. */
  onFailure(reason: string): void;
}

/** A channel of bytes to whoever asks. */
export interface GuestPort extends Disposable {
  /** What the asker has not taken yet. */
  readonly queuedBytes: number;
  /** Whether a hypervisor is at the other end: what is asked here is asked of this machine. */
  readonly isMachine: boolean;
  /** Sends in order; dropped where nobody is at the other end. */
  send(bytes: Uint8Array): void;
}

/** No port to be asked at; the message has the mend. */
export class PortRefused extends Error {
  override readonly name = "PortRefused";
}

/** What udev would have named; a guest without udev has the names in sysfs alone. */
function findDevice(): string | undefined {
  const named = `/dev/virtio-ports/${PORT_NAME}`;
  if (statSync(named, { throwIfNoEntry: false }) !== undefined) return named;
  const folder = "/sys/class/virtio-ports";
  try {
    const found = readdirSync(folder).find((port) => {
      return readFileSync(`${folder}/${port}/name`, "utf8").trim() === PORT_NAME;
    });
    return found === undefined ? undefined : `/dev/${found}`;
  } catch {
    // No virtio-serial at all.
    return undefined;
  }
}

/**
 * The port that `--port` names: a path, or "vsock:NUMBER"; without it, the one that this guest has.
 * @throws PortRefused
 */
export function choosePort(word: string | undefined): PortPlace {
  if (word === undefined) {
    const path = findDevice();
    if (path !== undefined) return { kind: "device", path };
    if (statSync("/dev/vsock", { throwIfNoEntry: false }) !== undefined) {
      return { kind: "vsock", port: VSOCK_PORT };
    }
    throw new PortRefused(
      `Cannot find a port to be asked at: expected a virtio-serial port named ${PORT_NAME} or ` +
        "/dev/vsock, received neither. Is this a guest, and its modules virtio_console or " +
        "vmw_vsock_virtio_transport loaded? Else name the port by --port.",
    );
  }
  const [, number] = /^vsock:(\d{1,9})$/.exec(word) ?? [];
  if (number !== undefined) return { kind: "vsock", port: Number(number) };
  const found = statSync(word, { throwIfNoEntry: false });
  if (found?.isCharacterDevice() === true) return { kind: "device", path: word };
  if (found?.isSocket() === true) return { kind: "socket", path: word };
  const received = found === undefined ? "nothing there" : "a file of another kind";
  throw new PortRefused(
    `Cannot be asked at ${word}: expected a virtio-serial port, a Unix socket or vsock:NUMBER, ` +
      `received ${received}. The VMM gives the port its name: ${PORT_NAME}.`,
  );
}

/** @throws PortRefused */
export function openPort(loop: EventLoop, place: PortPlace, handlers: PortHandlers): GuestPort {
  switch (place.kind) {
    case "device":
      return new DevicePort(loop, openDevice(place.path), handlers);
    case "socket":
      return new SocketPort(loop, place.path, handlers);
    case "vsock":
      return new VsockPort(loop, place.port, handlers);
  }
}

function openDevice(path: string): OwnedDescriptor {
  let number: number;
  try {
    const flags = constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOCTTY;
    number = openSync(path, flags);
  } catch (error) {
    const { code } = error as { code?: string };
    const mend =
      code === "EBUSY"
        ? "Another agent has it: end that one first."
        : "The agent runs as root, and the port must be its own.";
    throw new PortRefused(`Cannot open ${path}: ${code}. ${mend}`, { cause: error });
  }
  const device = new OwnedDescriptor(number);
  setCloseOnExec(number);
  if (!isatty(number)) return device;
  device.close();
  throw new PortRefused(
    `Cannot be asked at ${path}: expected a virtio-serial port, received a terminal, ` +
      "which would change what is said. Give the guest a virtio-serial port.",
  );
}

/** /dev/vportNpM: read and written without waiting, and never at an end. */
export class DevicePort implements GuestPort {
  readonly isMachine = true;
  readonly #loop: EventLoop;
  readonly #device: OwnedDescriptor;
  readonly #handlers: PortHandlers;
  readonly #watch: Watch;
  readonly #memory = new NativeMemory(READ_SIZE);
  readonly #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #isPresent = false;
  #look: Disposable | undefined;

  constructor(loop: EventLoop, device: OwnedDescriptor, handlers: PortHandlers) {
    this.#loop = loop;
    this.#device = device;
    this.#handlers = handlers;
    this.#watch = loop.watch(device, "readable", () => this.#turn());
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  send(bytes: Uint8Array): void {
    if (!this.#isPresent || !this.#device.isOpen) return;
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
    if (this.#queue.length === 1) this.#flush();
    this.#arm();
  }

  #turn(): void {
    this.#flush();
    // An asker that does not read its answers is not asked for more.
    for (let count = 0; count < READS_A_TURN && this.#isTaking(); count++) {
      const length = readInto(this.#device, this.#memory);
      if (length === -Errno.EAGAIN) break;
      if (length === 0) {
        this.#leave();
        return;
      }
      if (length < 0) {
        this.#fail(errnoMessage(-length));
        return;
      }
      this.#isPresent = true;
      this.#handlers.onBytes(this.#memory.bytes.subarray(0, length));
    }
    this.#arm();
  }

  #isTaking(): boolean {
    return this.#device.isOpen && this.#queuedBytes <= limits.queuedBytes;
  }

  #arm(): void {
    if (!this.#device.isOpen) return;
    const wantsRead = this.#queuedBytes <= limits.queuedBytes;
    if (this.#queue.length === 0) this.#watch.change("readable");
    else this.#watch.change(wantsRead ? "both" : "writable");
  }

  #flush(): void {
    const had = this.#queue.length > 0;
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      const size = Math.min(first.length, READ_SIZE);
      this.#memory.bytes.set(first.subarray(0, size));
      const length = writeFrom(this.#device, this.#memory, size);
      if (length === -Errno.EAGAIN) return;
      if (length < 0) {
        this.#fail(errnoMessage(-length));
        return;
      }
      this.#queuedBytes -= length;
      if (length === first.length) this.#queue.shift();
      else this.#queue[0] = first.subarray(length);
    }
    if (had) this.#handlers.onDrained();
  }

  /** What waits was for whoever has gone. */
  #leave(): void {
    this.#queue.splice(0);
    this.#queuedBytes = 0;
    this.#watch.pause();
    this.#look = this.#loop.wakeAfter(LOOK_AGAIN_AFTER, () => this.#watch.change("readable"));
    if (!this.#isPresent) return;
    this.#isPresent = false;
    this.#handlers.onGone();
  }

  #fail(reason: string): void {
    this[Symbol.dispose]();
    this.#handlers.onFailure(reason);
  }

  [Symbol.dispose](): void {
    if (!this.#device.isOpen) return;
    this.#look?.[Symbol.dispose]();
    this.#watch[Symbol.dispose]();
    this.#device.close();
  }
}

/** What a socket's connection is to an asker. */
function serve(loop: EventLoop, socket: OwnedDescriptor, handlers: PortHandlers) {
  return new StreamConnection(loop, socket, {
    queuedBytes: SOCKET_QUEUE,
    handlers: {
      onBytes: (bytes, descriptors) => {
        for (const descriptor of descriptors) descriptor.close();
        handlers.onBytes(bytes);
      },
      onEnd: () => handlers.onGone(),
      onDrained: () => handlers.onDrained(),
    },
  });
}

/** A Unix socket that somebody else listens at; dialled again when it ends. */
class SocketPort implements GuestPort {
  readonly isMachine = false;
  readonly #dialler: Dialler;
  #connection: StreamConnection | undefined;

  constructor(loop: EventLoop, path: string, handlers: PortHandlers) {
    const onGone = () => {
      this.#connection = undefined;
      handlers.onGone();
      this.#dialler.redial();
    };
    this.#dialler = new Dialler(loop, path, {
      onConnection: (socket) => {
        this.#connection = serve(loop, socket, {
          ...handlers,
          onBytes: (bytes) => {
            this.#dialler.succeed();
            handlers.onBytes(bytes);
          },
          onDrained: () => handlers.onDrained(),
          onGone,
        });
      },
      onFailure: () => {},
    });
    this.#dialler.dial();
  }

  get queuedBytes(): number {
    return this.#connection?.queuedBytes ?? 0;
  }

  send(bytes: Uint8Array): void {
    this.#connection?.send(bytes);
  }

  [Symbol.dispose](): void {
    this.#dialler.stop();
    this.#connection?.close();
  }
}

/**
 * Whether somebody who connects by AF_VSOCK may have programs run as root: the host alone, because
 * any user of the guest could connect as well. Where the host's side is its kernel's vhost-vsock,
 * any of its users could too, and only root from such a port; cloud-hypervisor's side is a Unix
 * socket, whose mode decides, and its ports are others. Pure.
 */
export function mayAsk(from: VsockAddress, isCloudHypervisor: boolean): boolean {
  if (from.context !== HOST_CONTEXT) return false;
  return isCloudHypervisor || from.port <= LAST_PRIVILEGED_PORT;
}

/** As the firmware's tables say; who does not is held to be another. */
function isCloudHypervisor(): boolean {
  try {
    return readFileSync("/sys/class/dmi/id/sys_vendor", "utf8").trim() === "Cloud Hypervisor";
  } catch {
    return false;
  }
}

/** Listens at a port of AF_VSOCK. Whoever connects last of those who may is the asker. */
class VsockPort implements GuestPort {
  readonly isMachine = true;
  readonly #listener: OwnedDescriptor;
  readonly #watch: Watch;
  #connection: StreamConnection | undefined;

  constructor(loop: EventLoop, port: number, handlers: PortHandlers) {
    try {
      this.#listener = listenVsock(port);
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      throw new PortRefused(
        `Cannot listen at port ${port} of AF_VSOCK: ${error.code}. ` +
          "Load vmw_vsock_virtio_transport, or choose another port by --port vsock:NUMBER.",
        { cause: error },
      );
    }
    const anyPort = isCloudHypervisor();
    this.#watch = loop.watch(this.#listener, "readable", () => {
      const accepted = acceptVsock(this.#listener);
      if (accepted === undefined) return;
      const { socket, from } = accepted;
      if (!mayAsk(from, anyPort)) {
        socket.close();
        return;
      }
      if (this.#connection !== undefined) {
        this.#connection.close();
        handlers.onGone();
      }
      this.#connection = serve(loop, socket, handlers);
    });
  }

  get queuedBytes(): number {
    return this.#connection?.queuedBytes ?? 0;
  }

  send(bytes: Uint8Array): void {
    this.#connection?.send(bytes);
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#listener.close();
    this.#connection?.close();
  }
}
