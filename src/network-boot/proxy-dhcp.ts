import { ETH_P_IP } from "../../ffi/constants.ts";
import { interfaceIndex, PacketSocket } from "../../ffi/packet-socket.ts";
import { Errno, errnoName, SystemCallError } from "../../ffi/system-call-error.ts";
import { type UdpReceived, UdpSocket } from "../../ffi/udp-socket.ts";
import { monotonicNow } from "../event-loop/clock.ts";
import type { EventLoop, Watch } from "../event-loop/event-loop.ts";
import { RateLimiter } from "../http/rate-limiter.ts";
import { addressBytes } from "../network/dhcp/address.ts";
import { encodeDatagram } from "../network/dhcp/datagram.ts";
import { readRequest, requestsAlone } from "../network/dhcp/dhcp-server.ts";
import { CLIENT_PORT, SERVER_PORT } from "../network/dhcp/exchange.ts";
import { type DhcpMessage, parseMessage } from "../network/dhcp/message.ts";
import { formatMacAddress, parseMacAddress } from "../network/subnet.ts";
import { type Offering, type PortOfBoot, react, type Unanswered } from "./lifecycle-choice.ts";
import { LONGEST_MESSAGE, MESSAGES_A_TURN, OFFER_RATE, OFFERED_CARDS } from "./limits.ts";
import { encodeBootAnswer, parseBootClient } from "./protocol-pxe.ts";

/**
 * Tells firmware what to load, beside the DHCP server that gives it an address: PXE 2.1, 2.2.
 * Port 67 is not taken: the packet socket hears what comes to it, so that a DHCP server may be on
 * this host too.
 */

export const BOOT_SERVER_PORT = 4_011;

export interface ProxyDhcpOptions {
  readonly loop: EventLoop;
  readonly interface: string;
  readonly offering: Offering;
  readonly onEvent: (event: ProxyDhcpEvent) => void;
}

export type ProxyDhcpEvent =
  | { readonly kind: "offered"; readonly macAddress: string; readonly bootFile: string }
  | { readonly kind: "refused"; readonly macAddress: string; readonly reason: string }
  /** The interface is gone: nothing is heard any more. */
  | { readonly kind: "lost"; readonly reason: string };

/** Messages since it began. */
export interface ProxyDhcpCounters {
  received: number;
  malformed: number;
  /** Whose frame came from another card than the message speaks of. */
  disguised: number;
  overRate: number;
  offers: number;
  acknowledgements: number;
  unsent: number;
  readonly unanswered: Record<Unanswered, number>;
}

export class ProxyDhcp implements Disposable {
  readonly counters: ProxyDhcpCounters = {
    received: 0,
    malformed: 0,
    disguised: 0,
    overRate: 0,
    offers: 0,
    acknowledgements: 0,
    unsent: 0,
    unanswered: {
      "not of firmware that boots": 0,
      "not for this port": 0,
      "of a relay": 0,
      refused: 0,
    },
  };
  readonly #options: ProxyDhcpOptions;
  readonly #index: number;
  readonly #packets: PacketSocket;
  readonly #port: UdpSocket;
  readonly #watches: readonly Watch[];
  readonly #rate = new RateLimiter(OFFER_RATE, OFFERED_CARDS);

  private constructor(options: ProxyDhcpOptions, sockets: Sockets) {
    this.#options = options;
    this.#index = sockets.index;
    this.#packets = sockets.packets;
    this.#port = sockets.port;
    const { loop } = options;
    this.#watches = [
      loop.watch(sockets.packets.descriptor, "readable", () => this.#readPackets()),
      loop.watch(sockets.port.descriptor, "readable", () => this.#readPort()),
    ];
  }

  /** @throws SystemCallError ENODEV without such an interface, EPERM, EADDRINUSE of port 4011 */
  static start(options: ProxyDhcpOptions): ProxyDhcp {
    return new ProxyDhcp(options, openSockets(options));
  }

  #readPackets(): void {
    for (let count = 0; count < MESSAGES_A_TURN; count += 1) {
      const packet = this.#packets.receive();
      if (typeof packet === "number") {
        if (packet !== -Errno.EAGAIN) this.#lose(errnoName(-packet));
        return;
      }
      if (packet.kind !== "host" && packet.kind !== "broadcast") continue;
      this.counters.received += 1;
      const message = packet.truncated ? undefined : readRequest(packet);
      if (message === undefined) {
        this.counters.malformed += 1;
        continue;
      }
      // Else one machine could have us answer another one's card.
      if (formatMacAddress(packet.hardwareAddress) !== message.hardwareAddress) {
        this.counters.disguised += 1;
        continue;
      }
      this.#take(message, 67, (payload) => this.#sendToCard(message, payload));
    }
  }

  /** ENETDOWN is told once, when the interface goes down or away. */
  #lose(reason: string): void {
    const { interface: name, onEvent } = this.#options;
    if (reason === "ENETDOWN" && interfaceIndex(name) === this.#index) return;
    for (const watch of this.#watches) watch[Symbol.dispose]();
    onEvent({ kind: "lost", reason: `${name}: ${reason}` });
  }

  #readPort(): void {
    for (let count = 0; count < MESSAGES_A_TURN; count += 1) {
      const received = this.#port.receive();
      if (received === -Errno.EAGAIN) return;
      if (typeof received === "number") continue;
      this.counters.received += 1;
      const parsed = received.truncated ? undefined : parseMessage(received.bytes);
      if (parsed?.ok !== true) {
        this.counters.malformed += 1;
        continue;
      }
      const { from } = received satisfies UdpReceived;
      this.#take(parsed.value, BOOT_SERVER_PORT, (payload) => this.#port.send(payload, from));
    }
  }

  #take(message: DhcpMessage, port: PortOfBoot, send: (payload: Uint8Array) => number): void {
    const client = parseBootClient(message);
    if (!client.ok) {
      this.counters.malformed += 1;
      return;
    }
    const { offering, onEvent } = this.#options;
    const reaction = react(message, client.value, { port, offering });
    const { hardwareAddress: macAddress } = message;
    if (reaction.kind === "ignore") {
      this.counters.unanswered[reaction.why] += 1;
      return;
    }
    if (this.#rate.take(macAddress, monotonicNow()) > 0) {
      this.counters.overRate += 1;
      return;
    }
    if (reaction.kind === "refuse") {
      this.counters.unanswered.refused += 1;
      onEvent({ kind: "refused", macAddress, reason: reaction.reason });
      return;
    }
    if (client.value === undefined) return;
    const { type, choice } = reaction;
    const { bootFile } = choice;
    const { serverAddress } = offering;
    const payload = encodeBootAnswer(message, client.value, { type, serverAddress, bootFile });
    if (send(payload) < 0) {
      this.counters.unsent += 1;
      return;
    }
    if (type === "offer") this.counters.offers += 1;
    else this.counters.acknowledgements += 1;
    onEvent({ kind: "offered", macAddress, bootFile });
  }

  /** To everybody by its address, and to the client's card alone by its frame. */
  #sendToCard({ hardwareAddress }: DhcpMessage, payload: Uint8Array): number {
    const card = parseMacAddress(hardwareAddress);
    if (card === undefined) return -Errno.EINVAL;
    const { serverAddress } = this.#options.offering;
    const packet = encodeDatagram({
      from: { address: serverAddress, port: SERVER_PORT },
      to: { address: "255.255.255.255", port: CLIENT_PORT },
      payload,
    });
    return this.#packets.send(packet, card);
  }

  [Symbol.dispose](): void {
    for (const watch of this.#watches) watch[Symbol.dispose]();
    this.#packets[Symbol.dispose]();
    this.#port[Symbol.dispose]();
  }
}

interface Sockets {
  readonly packets: PacketSocket;
  readonly port: UdpSocket;
  readonly index: number;
}

function openSockets({ interface: name, offering }: ProxyDhcpOptions): Sockets {
  using owned = new DisposableStack();
  const index = interfaceIndex(name);
  if (index === undefined) throw new SystemCallError("SIOCGIFINDEX", Errno.ENODEV, name);
  const port = owned.use(new UdpSocket({ family: "ipv4", longest: LONGEST_MESSAGE, device: name }));
  const address = addressBytes(offering.serverAddress);
  const bound = port.bind({ address, port: BOOT_SERVER_PORT });
  if (bound < 0) throw new SystemCallError("bind", -bound, `port ${BOOT_SERVER_PORT}`);
  const packets = owned.use(
    PacketSocket.open({
      interface: index,
      protocol: ETH_P_IP,
      longest: LONGEST_MESSAGE,
      filter: requestsAlone,
    }),
  );
  owned.move();
  return { packets, port, index };
}
