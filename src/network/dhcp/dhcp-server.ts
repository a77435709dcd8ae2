import { ETH_P_IP } from "../../../ffi/constants.ts";
import {
  attachFilter,
  type FilterInstruction,
  interfaceIndex,
  type PacketReceived,
  PacketSocket,
} from "../../../ffi/packet-socket.ts";
import { Errno, errnoName, SystemCallError } from "../../../ffi/system-call-error.ts";
import { UdpSocket } from "../../../ffi/udp-socket.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import type { MonotonicTime } from "../../units/units.ts";
import { formatMacAddress, parseMacAddress } from "../subnet.ts";
import { encodeDatagram, parseDatagram } from "./datagram.ts";
import { eventOf, replyTo, SERVER_PORT } from "./exchange.ts";
import { type ClientState, type DhcpEffect, type Ignored, step, unseen } from "./lifecycle.ts";
import { LONGEST_PACKET, MESSAGES_A_TURN } from "./limits.ts";
import { type DhcpMessage, parseMessage } from "./message.ts";
import {
  checkNetwork,
  checkReservation,
  type DhcpNetwork,
  type Reservation,
} from "./reservation.ts";

/** DHCP on one bridge, by the caller's own addresses. */

export interface DhcpServerOptions extends DhcpNetwork {
  readonly loop: EventLoop;
  /** The bridge. */
  readonly interface: string;
  /** What holds now, by MAC address; asked at every message, and never kept. */
  readonly reservations: () => ReadonlyMap<string, Reservation>;
  readonly onEvent: (event: DhcpServerEvent) => void;
  readonly now?: () => MonotonicTime;
}

export type DhcpServerEvent =
  | {
      readonly kind: "bound" | "released" | "declined";
      readonly macAddress: string;
      readonly address: string;
    }
  /** A reservation cannot be given; its card gets nothing. Told once, until it is another one. */
  | { readonly kind: "reservation-refused"; readonly macAddress: string; readonly reason: string }
  /** The interface is gone: the server hears nothing any more, and has to be started anew. */
  | { readonly kind: "lost"; readonly reason: string };

/** Messages since the server began. */
export interface DhcpCounters {
  received: number;
  malformed: number;
  /** Whose frame came from another card than the message speaks of. */
  disguised: number;
  /** By why they were not answered. */
  readonly ignored: Record<Ignored, number>;
  offers: number;
  acknowledgements: number;
  refusals: number;
  unsent: number;
}

/** The server cannot start. */
export class DhcpRefused extends Error {
  override readonly name = "DhcpRefused";
}

/**
 * The kernel drops all but UDP to port 67 that is no fragment, in bytes from the IP header on:
 * BPF_LDX is of the header's own length.
 */
export const requestsAlone: readonly FilterInstruction[] = [
  // The protocol, byte 9.
  [0x30, 0, 0, 9],
  [0x15, 0, 6, 17],
  // Flags and offset, bytes 6 and 7: a part of a packet.
  [0x28, 0, 0, 6],
  [0x45, 4, 0, 0x3fff],
  [0xb1, 0, 0, 0],
  [0x48, 0, 0, 2],
  [0x15, 0, 1, SERVER_PORT],
  [0x06, 0, 0, 0xffff],
  [0x06, 0, 0, 0],
];
const nothing: readonly FilterInstruction[] = [[0x06, 0, 0, 0]];

export class DhcpServer implements Disposable {
  readonly counters: DhcpCounters = {
    received: 0,
    malformed: 0,
    disguised: 0,
    ignored: {
      "no reservation": 0,
      "over the rate": 0,
      "for another server": 0,
      "the address is declined": 0,
      "another address than its own": 0,
    },
    offers: 0,
    acknowledgements: 0,
    refusals: 0,
    unsent: 0,
  };
  readonly #options: DhcpServerOptions;
  readonly #network: DhcpNetwork;
  readonly #packets: PacketSocket;
  readonly #port: UdpSocket;
  readonly #index: number;
  readonly #watch: Watch;
  readonly #now: () => MonotonicTime;
  readonly #clients = new Map<string, ClientState>();
  readonly #refused = new Map<string, Reservation>();

  private constructor(options: DhcpServerOptions, sockets: Sockets) {
    this.#options = options;
    this.#network = networkOf(options);
    this.#packets = sockets.packets;
    this.#port = sockets.port;
    this.#index = sockets.index;
    this.#now = options.now ?? monotonicNow;
    this.#watch = options.loop.watch(this.#packets.descriptor, "readable", () => this.#read());
  }

  /**
   * Answers from now on.
   * @throws DhcpRefused without such an interface, without CAP_NET_RAW, where another server has
   *   the port, and for a network that is none
   */
  static start(options: DhcpServerOptions): DhcpServer {
    const wrong = checkNetwork(networkOf(options));
    if (wrong !== undefined) {
      throw new DhcpRefused(
        `Cannot serve DHCP on ${options.interface}: expected ${wrong.expected} as ${wrong.key}, ` +
          `received ${wrong.received}. Name the bridge's own address and prefix.`,
      );
    }
    return new DhcpServer(options, openSockets(options));
  }

  /** What is known of a card, for people: "unseen" also after this server began anew. */
  phaseOf(macAddress: string): ClientState["phase"] {
    return this.#clients.get(macAddress)?.phase ?? "unseen";
  }

  #read(): void {
    for (let count = 0; count < MESSAGES_A_TURN; count += 1) {
      const packet = this.#packets.receive();
      if (typeof packet === "number") {
        if (packet !== -Errno.EAGAIN) this.#lose(errnoName(-packet));
        return;
      }
      this.#take(packet);
    }
  }

  /** ENETDOWN is told once, when the interface goes down or away; the socket says no more then. */
  #lose(reason: string): void {
    const { interface: name, onEvent } = this.#options;
    // It is down: what comes when it is up again is heard again.
    if (reason === "ENETDOWN" && interfaceIndex(name) === this.#index) return;
    this.#watch[Symbol.dispose]();
    onEvent({ kind: "lost", reason: `${name}: ${reason}` });
  }

  #take(packet: PacketReceived): void {
    if (packet.kind !== "host" && packet.kind !== "broadcast") return;
    this.counters.received += 1;
    const message = packet.truncated ? undefined : readRequest(packet);
    const event = message === undefined ? undefined : eventOf(message);
    if (message === undefined || event?.ok !== true) {
      this.counters.malformed += 1;
      return;
    }
    const { hardwareAddress } = message;
    // A card that is not its own would let one machine release or decline another's address.
    if (formatMacAddress(packet.hardwareAddress) !== hardwareAddress) {
      this.counters.disguised += 1;
      return;
    }
    const reservation = this.#reservationOf(hardwareAddress);
    const now = this.#now();
    const before = this.#clients.get(hardwareAddress) ?? unseen(now);
    const { serverAddress } = this.#network;
    const outcome = step(before, event.value, { now, serverAddress, reservation });
    if (outcome.ignored !== undefined) this.counters.ignored[outcome.ignored] += 1;
    if (reservation === undefined) {
      // So there are never more than reservations, whoever calls.
      this.#clients.delete(hardwareAddress);
      return;
    }
    this.#clients.set(hardwareAddress, outcome.state);
    for (const effect of outcome.effects) this.#perform(effect, message, reservation);
  }

  #reservationOf(macAddress: string): Reservation | undefined {
    const reservation = this.#options.reservations().get(macAddress);
    if (reservation === undefined) {
      this.#refused.delete(macAddress);
      return undefined;
    }
    const wrong = checkReservation(reservation, this.#network);
    if (wrong === undefined) return reservation;
    if (this.#refused.get(macAddress) !== reservation) {
      this.#refused.set(macAddress, reservation);
      const { key, expected, received, mend } = wrong;
      const reason = `Expected ${expected} as ${key}, received ${received}: ${mend}`;
      this.#options.onEvent({ kind: "reservation-refused", macAddress, reason });
    }
    return undefined;
  }

  #perform(effect: DhcpEffect, request: DhcpMessage, reservation: Reservation): void {
    if (effect.kind === "tell") {
      const { address, macAddress } = reservation;
      this.#options.onEvent({ kind: effect.what, macAddress, address });
      return;
    }
    const reply = replyTo(request, effect, { network: this.#network, reservation });
    const from = { address: this.#network.serverAddress, port: SERVER_PORT };
    const packet = encodeDatagram({ from, to: reply.to, payload: reply.payload });
    const card = parseMacAddress(request.hardwareAddress);
    // Full queues: the client asks again, as for whatever is lost on a wire.
    if (card === undefined || this.#packets.send(packet, card) < 0) {
      this.counters.unsent += 1;
      return;
    }
    if (effect.kind === "offer") this.counters.offers += 1;
    else if (effect.kind === "refuse") this.counters.refusals += 1;
    else this.counters.acknowledgements += 1;
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#packets[Symbol.dispose]();
    this.#port[Symbol.dispose]();
  }
}

function networkOf({ serverAddress, prefixLength, domain }: DhcpNetwork): DhcpNetwork {
  return { serverAddress, prefixLength, ...(domain !== undefined && { domain }) };
}

/** @returns undefined for what is no message of DHCP */
export function readRequest(packet: PacketReceived): DhcpMessage | undefined {
  const datagram = parseDatagram(packet.bytes, packet);
  if (!datagram.ok) return undefined;
  const message = parseMessage(datagram.value.payload);
  return message.ok ? message.value : undefined;
}

interface Sockets {
  readonly packets: PacketSocket;
  /** Holds port 67 on the bridge and hears nothing: see openSockets. */
  readonly port: UdpSocket;
  /** The interface's number: another one of the same name has another. */
  readonly index: number;
}

/**
 * Two sockets. The packet socket does all the work: it knows which card a message came from, it
 * answers one that has no address yet without asking for its neighbour, and no route or firewall
 * decides where an answer goes. The kernel would say "port unreachable" to a renewal that is sent
 * to our address, when nobody had the port; and a second server on this bridge finds it taken.
 */
function openSockets(options: DhcpServerOptions): Sockets {
  const { interface: name } = options;
  using owned = new DisposableStack();
  try {
    const index = interfaceIndex(name);
    if (index === undefined) {
      throw new DhcpRefused(
        `Cannot serve DHCP on ${name}: expected an interface of that name, found none. ` +
          "Make the bridge first.",
      );
    }
    const port = owned.use(new UdpSocket({ family: "ipv4", longest: 1, device: name }));
    attachFilter(port.descriptor, nothing);
    const bound = port.bind({ address: new Uint8Array(4), port: SERVER_PORT });
    if (bound === -Errno.EADDRINUSE) {
      throw new DhcpRefused(
        `Cannot serve DHCP on ${name}: another program has UDP port ${SERVER_PORT}. ` +
          "Stop that DHCP server, or have it leave this interface alone.",
      );
    }
    if (bound < 0) throw new SystemCallError("bind", -bound, `port ${SERVER_PORT}`);
    const packets = owned.use(
      PacketSocket.open({
        interface: index,
        protocol: ETH_P_IP,
        longest: LONGEST_PACKET,
        filter: requestsAlone,
      }),
    );
    owned.move();
    return { packets, port, index };
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    throw new DhcpRefused(
      `Cannot serve DHCP on ${name}. It needs root, or CAP_NET_RAW and CAP_NET_BIND_SERVICE.`,
      { cause: error },
    );
  }
}
