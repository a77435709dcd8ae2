import { libc } from "./c-library.ts";
import { AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK } from "./constants.ts";
import { DatagramCall } from "./datagram.ts";
import { layouts } from "./layouts.ts";
import type { NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { bindToDevice } from "./packet-socket.ts";
import { attempt, check } from "./system-call-error.ts";

const { sockaddr_in, sockaddr_in6 } = layouts;

/** An address of 4 or 16 bytes, and a port. */
export interface SocketAddress {
  readonly address: Uint8Array;
  readonly port: number;
}

export interface UdpReceived {
  /** The socket's own memory until the next call. */
  readonly bytes: Uint8Array;
  readonly from: SocketAddress;
  readonly truncated: boolean;
}

export interface UdpOptions {
  readonly family: "ipv4" | "ipv6";
  /** Bytes of the longest message, in both directions. */
  readonly longest: number;
  /** What it sends leaves by this interface alone, and what it receives came by it: socket(7). */
  readonly device?: string;
}

/** A UDP socket of this process's network namespace, non-blocking: udp(7). */
export class UdpSocket implements Disposable {
  readonly descriptor: OwnedDescriptor;
  readonly #isIpv4: boolean;
  readonly #call: DatagramCall;

  /** @throws SystemCallError ENODEV without such a device, EPERM without CAP_NET_RAW for it */
  constructor(options: UdpOptions) {
    this.#isIpv4 = options.family === "ipv4";
    const type = SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    const domain = this.#isIpv4 ? AF_INET : AF_INET6;
    this.descriptor = new OwnedDescriptor(check("socket", libc.socket(domain, type, 0)));
    const name = this.#isIpv4 ? sockaddr_in.size : sockaddr_in6.size;
    this.#call = new DatagramCall({ name, data: options.longest, control: 0 });
    if (options.device === undefined) return;
    try {
      bindToDevice(this.descriptor, options.device);
    } catch (error) {
      this.descriptor.close();
      throw error;
    }
  }

  /** 0, or minus the error number (EADDRINUSE, EADDRNOTAVAIL, EACCES): bind(2). */
  bind(address: SocketAddress): number {
    const memory = this.#call.name;
    this.#write(address);
    return attempt(() => libc.bind(this.descriptor.number, memory.address, memory.size));
  }

  /**
   * From now on it sends to this address, from a port of the kernel's choice, and receives from it
   * alone. 0, or minus the error number (ENETUNREACH): connect(2).
   */
  connect(address: SocketAddress): number {
    const memory = this.#call.name;
    this.#write(address);
    return attempt(() => libc.connect(this.descriptor.number, memory.address, memory.size));
  }

  /** Bytes sent, or minus the error number; without an address, to whom it is connected. */
  send(bytes: Uint8Array, to?: SocketAddress): number {
    if (to !== undefined) this.#write(to);
    return this.#call.send(this.descriptor, bytes, to === undefined ? 0 : this.#call.name.size);
  }

  /** @returns the message, or minus the error number (EAGAIN when none waits, ECONNREFUSED) */
  receive(): UdpReceived | number {
    const { length, truncated } = this.#call.receive(this.descriptor);
    if (length < 0) return length;
    const { view, bytes } = this.#call.name;
    const start = this.#isIpv4 ? sockaddr_in.sin_addr : sockaddr_in6.sin6_addr;
    const address = bytes.slice(start, start + this.#addressSize);
    const from = { address, port: view.getUint16(sockaddr_in.sin_port, false) };
    return { bytes: this.#call.data.bytes.subarray(0, length), from, truncated };
  }

  get #addressSize(): number {
    return this.#isIpv4 ? 4 : 16;
  }

  #write({ address, port }: SocketAddress): void {
    if (address.length !== this.#addressSize) {
      throw new RangeError(`Expected ${this.#addressSize} bytes of an address, received another`);
    }
    const { view, bytes }: NativeMemory = this.#call.name;
    bytes.fill(0);
    view.setUint16(sockaddr_in.sin_family, this.#isIpv4 ? AF_INET : AF_INET6, true);
    view.setUint16(sockaddr_in.sin_port, port, false);
    bytes.set(address, this.#isIpv4 ? sockaddr_in.sin_addr : sockaddr_in6.sin6_addr);
  }

  [Symbol.dispose](): void {
    this.descriptor.close();
  }
}
