import { libc } from "./c-library.ts";
import {
  AF_INET,
  AF_PACKET,
  PACKET_AUXDATA,
  SIOCGIFINDEX,
  SO_ATTACH_FILTER,
  SO_BINDTODEVICE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_PACKET,
  SOL_SOCKET,
  TP_STATUS_CSUMNOTREADY,
} from "./constants.ts";
import { DatagramCall } from "./datagram.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check } from "./system-call-error.ts";

/** Packets of one interface, below routes, neighbours and the firewall: packet(7). */

/** IFNAMSIZ less the ending zero, in bytes: netdevice(7). */
export const LONGEST_INTERFACE_NAME = 15;

const { cmsghdr, ifreq, sock_filter, sock_fprog, sockaddr_ll, tpacket_auxdata } = layouts;
const ETHERNET_ADDRESS_SIZE = 6;
const CONTROL_SIZE = 64;

/**
 * The number of an interface in this process's network namespace; undefined when there is none of
 * that name: SIOCGIFINDEX, netdevice(7). (/sys shows the namespace that it was mounted in.)
 * @throws RangeError for what can be no name
 */
export function interfaceIndex(name: string): number | undefined {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length > LONGEST_INTERFACE_NAME || name.includes("\0")) {
    throw new RangeError(
      `Expected an interface's name of 1 to ${LONGEST_INTERFACE_NAME} bytes, ` +
        `received ${JSON.stringify(name)}`,
    );
  }
  const request = new NativeMemory(ifreq.size);
  request.bytes.set(bytes, ifreq.ifr_name);
  using socket = makeDatagramSocket(AF_INET, 0);
  const result = attempt(() => libc.ioctl(socket.number, SIOCGIFINDEX, request.address));
  return result < 0 ? undefined : request.view.getInt32(ifreq.ifr_ifindex, true);
}

function makeDatagramSocket(family: number, protocol: number): OwnedDescriptor {
  const type = SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  return new OwnedDescriptor(check("socket", libc.socket(family, type, protocol)));
}

/** Ties a socket to an interface, for what it sends and what it receives: socket(7). */
export function bindToDevice(socket: OwnedDescriptor, name: string): void {
  const text = cString(name);
  const result = libc.setsockopt(
    socket.number,
    SOL_SOCKET,
    SO_BINDTODEVICE,
    text.address,
    text.size,
  );
  check("setsockopt SO_BINDTODEVICE", result, name);
}

/** One instruction of a classic filter: code, jumps if true and if false, and its value. */
export type FilterInstruction = readonly [code: number, jt: number, jf: number, k: number];

/** Has the kernel drop what the program does not accept, before it wakes us: socket(7). */
export function attachFilter(socket: OwnedDescriptor, program: readonly FilterInstruction[]): void {
  const memory = new NativeMemory(program.length * sock_filter.size);
  for (const [index, [code, jumpIfTrue, jumpIfFalse, value]] of program.entries()) {
    const at = index * sock_filter.size;
    memory.view.setUint16(at + sock_filter.code, code, true);
    memory.view.setUint8(at + sock_filter.jt, jumpIfTrue);
    memory.view.setUint8(at + sock_filter.jf, jumpIfFalse);
    memory.view.setUint32(at + sock_filter.k, value, true);
  }
  const head = new NativeMemory(sock_fprog.size);
  head.view.setUint16(sock_fprog.len, program.length, true);
  head.setPointer(sock_fprog.filter, memory.address);
  const result = libc.setsockopt(
    socket.number,
    SOL_SOCKET,
    SO_ATTACH_FILTER,
    head.address,
    head.size,
  );
  check("setsockopt SO_ATTACH_FILTER", result);
}

/** In the order of their numbers: packet(7). */
const kinds = ["host", "broadcast", "multicast", "other-host", "outgoing"] as const;
export type PacketKind = (typeof kinds)[number] | "unknown";

/** What came in by one interface. The bytes are the socket's own memory until the next call. */
export interface PacketReceived {
  /** From the network layer's header on. */
  readonly bytes: Uint8Array;
  /** The sender of the frame: 6 bytes on Ethernet. */
  readonly hardwareAddress: Uint8Array;
  /** To whom it was, or that it is one of our own. */
  readonly kind: PacketKind;
  /** The transport checksum is left to a network card that there never was (a local sender). */
  readonly checksumPending: boolean;
  readonly truncated: boolean;
}

/** A socket for packets of one protocol on one interface, without link-layer headers. */
export class PacketSocket implements Disposable {
  readonly descriptor: OwnedDescriptor;
  readonly #index: number;
  readonly #protocol: number;
  readonly #receiving: DatagramCall;
  readonly #sending: DatagramCall;

  private constructor(descriptor: OwnedDescriptor, options: PacketOptions) {
    this.descriptor = descriptor;
    this.#index = options.interface;
    this.#protocol = options.protocol;
    const name = sockaddr_ll.size;
    this.#receiving = new DatagramCall({ name, data: options.longest, control: CONTROL_SIZE });
    this.#sending = new DatagramCall({ name, data: options.longest, control: 0 });
  }

  /**
   * Opens it with the filter in place before the first packet can come.
   * @throws SystemCallError EPERM without CAP_NET_RAW, ENODEV without such an interface
   */
  static open(options: PacketOptions): PacketSocket {
    // Of protocol 0 nothing is received until bind(2) names one.
    const descriptor = makeDatagramSocket(AF_PACKET, 0);
    try {
      if (options.filter !== undefined) attachFilter(descriptor, options.filter);
      const on = new NativeMemory(4);
      on.view.setInt32(0, 1, true);
      const auxiliary = libc.setsockopt(
        descriptor.number,
        SOL_PACKET,
        PACKET_AUXDATA,
        on.address,
        4,
      );
      check("setsockopt PACKET_AUXDATA", auxiliary);
      const address = new NativeMemory(sockaddr_ll.size);
      writeAddress(address, { ...options, index: options.interface, hardwareAddress: undefined });
      const bound = libc.bind(descriptor.number, address.address, address.size);
      check("bind", bound, `to interface ${options.interface}`);
      return new PacketSocket(descriptor, options);
    } catch (error) {
      descriptor.close();
      throw error;
    }
  }

  /** @returns the packet, or minus the error number (EAGAIN when none waits, ENETDOWN) */
  receive(): PacketReceived | number {
    const { length, truncated, controlLength } = this.#receiving.receive(this.descriptor);
    if (length < 0) return length;
    const { view, bytes } = this.#receiving.name;
    const kind = view.getUint8(sockaddr_ll.sll_pkttype);
    const size = Math.min(view.getUint8(sockaddr_ll.sll_halen), 8);
    return {
      bytes: this.#receiving.data.bytes.subarray(0, length),
      hardwareAddress: bytes.slice(sockaddr_ll.sll_addr, sockaddr_ll.sll_addr + size),
      kind: kinds[kind] ?? "unknown",
      checksumPending: this.#checksumPending(controlLength),
      truncated,
    };
  }

  #checksumPending(controlLength: number): boolean {
    const { control } = this.#receiving;
    if (controlLength < cmsghdr.size + tpacket_auxdata.size) return false;
    const level = control.view.getInt32(cmsghdr.cmsg_level, true);
    const type = control.view.getInt32(cmsghdr.cmsg_type, true);
    if (level !== SOL_PACKET || type !== PACKET_AUXDATA) return false;
    const status = control.view.getUint32(cmsghdr.size + tpacket_auxdata.tp_status, true);
    return (status & TP_STATUS_CSUMNOTREADY) !== 0;
  }

  /**
   * Sends a packet to a link-layer address, asking neither routes nor neighbours.
   * @returns bytes sent, or minus the error number (EAGAIN, ENETDOWN, ENXIO, ENOBUFS)
   */
  send(bytes: Uint8Array, hardwareAddress: Uint8Array): number {
    const { name } = this.#sending;
    writeAddress(name, { index: this.#index, protocol: this.#protocol, hardwareAddress });
    return this.#sending.send(this.descriptor, bytes, name.size);
  }

  [Symbol.dispose](): void {
    this.descriptor.close();
  }
}

export interface PacketOptions {
  /** Its number. */
  readonly interface: number;
  /** Such as ETH_P_IP. */
  readonly protocol: number;
  /** Bytes of the longest packet, in both directions. */
  readonly longest: number;
  readonly filter?: readonly FilterInstruction[];
}

function writeAddress(
  memory: NativeMemory,
  address: { index: number; protocol: number; hardwareAddress: Uint8Array | undefined },
): void {
  const { view, bytes } = memory;
  view.setUint16(sockaddr_ll.sll_family, AF_PACKET, true);
  view.setUint16(sockaddr_ll.sll_protocol, address.protocol, false);
  view.setInt32(sockaddr_ll.sll_ifindex, address.index, true);
  const { hardwareAddress } = address;
  if (hardwareAddress === undefined) return;
  if (hardwareAddress.length !== ETHERNET_ADDRESS_SIZE) {
    throw new RangeError(`Expected 6 bytes of an address, received ${hardwareAddress.length}`);
  }
  view.setUint8(sockaddr_ll.sll_halen, hardwareAddress.length);
  bytes.set(hardwareAddress, sockaddr_ll.sll_addr);
}
