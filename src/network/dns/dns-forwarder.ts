import { interfaceIndex } from "../../../ffi/packet-socket.ts";
import { Errno, SystemCallError } from "../../../ffi/system-call-error.ts";
import { UdpSocket } from "../../../ffi/udp-socket.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import { addressBytes, formatAddress } from "../dhcp/address.ts";
import { type Allowed, Forwarding, type ForwardingCounters, type Transport } from "./forwarding.ts";
import { LONGEST_QUERY, LONGEST_UDP_ANSWER, MESSAGES_A_TURN, USUAL_UDP_ANSWER } from "./limits.ts";
import { encodeAnswer, encodeHeader, idOf, parseQuery, type Query } from "./message.ts";
import { type DnsPolicy, judge } from "./policy.ts";
import { StreamServer } from "./stream-server.ts";
import { ResolverFile, type Upstream } from "./upstream.ts";

/** DNS on one bridge: own names, and what a machine may ask of others. */

export interface DnsForwarderOptions {
  readonly loop: EventLoop;
  /** The bridge. */
  readonly interface: string;
  /** Its address, where we listen. */
  readonly serverAddress: string;
  readonly prefixLength: number;
  /** Under which the machines have their names: "vm.internal". */
  readonly domain?: string;
  /** What the machine of this address may ask; undefined for one that is nobody's. */
  readonly policyOf: (vmAddress: string) => DnsPolicy | undefined;
  /** Addresses by host name, as far as this machine may know them. */
  readonly namesFor: (vmAddress: string) => ReadonlyMap<string, string>;
  /** Whom to ask; those of /etc/resolv.conf unless said otherwise. */
  readonly upstreams?: () => readonly Upstream[];
  /** Awaited before the answer is sent, for machines with a list; refusing it is SERVFAIL. */
  readonly onAllowed: (allowed: Allowed) => Promise<void>;
  /** Chance for ids: 0 to 65,535. */
  readonly random16?: () => number;
}

/** Messages since the forwarder began. */
export interface DnsCounters extends ForwardingCounters {
  received: number;
  malformed: number;
  /** From an address that is no machine's: not answered. */
  unknown: number;
  answeredHere: number;
  unsent: number;
}

/** The forwarder cannot start. */
export class DnsRefused extends Error {
  override readonly name = "DnsRefused";
}

export const DNS_PORT = 53;

function drawId(): number {
  return crypto.getRandomValues(new Uint16Array(1))[0] as number;
}

export class DnsForwarder implements Disposable {
  readonly counters: DnsCounters = {
    received: 0,
    malformed: 0,
    unknown: 0,
    answeredHere: 0,
    unsent: 0,
    forwarded: 0,
    mismatched: 0,
    unanswered: 0,
    withheld: 0,
    overLimit: 0,
    notAllowed: 0,
  };
  readonly #options: DnsForwarderOptions;
  readonly #socket: UdpSocket;
  readonly #watch: Watch;
  readonly #streams: StreamServer;
  readonly #forwarding: Forwarding;
  readonly #end = new AbortController();

  private constructor(options: DnsForwarderOptions, socket: UdpSocket) {
    const { loop, serverAddress, random16 = drawId, onAllowed } = options;
    this.#options = options;
    this.#socket = socket;
    const resolver = new ResolverFile();
    const upstreams = options.upstreams ?? (() => resolver.current());
    this.#forwarding = new Forwarding({
      loop,
      // Asking ourselves would have no end.
      upstreams: () => upstreams().filter(({ address }) => address !== serverAddress),
      onAllowed,
      counters: this.counters,
      random16,
      signal: this.#end.signal,
    });
    this.#streams = StreamServer.listen({
      loop,
      address: serverAddress,
      port: DNS_PORT,
      interface: options.interface,
      isKnown: (address) => this.#isKnown(address),
      answer: (bytes, address) => this.#answer(bytes, address, "tcp"),
    });
    this.#watch = loop.watch(socket.descriptor, "readable", () => this.#read());
  }

  /**
   * Answers from now on, over UDP and TCP.
   * @throws DnsRefused without such an interface or address, without CAP_NET_RAW, where another
   *   program has the port
   */
  static start(options: DnsForwarderOptions): DnsForwarder {
    const { interface: name, serverAddress } = options;
    using owned = new DisposableStack();
    try {
      const socket = owned.use(openSocket(name, serverAddress));
      const forwarder = new DnsForwarder(options, socket);
      owned.move();
      return forwarder;
    } catch (error) {
      if (error instanceof DnsRefused) throw error;
      throw new DnsRefused(
        `Cannot serve DNS at ${serverAddress} on ${name}. It needs root, or CAP_NET_RAW and ` +
          "CAP_NET_BIND_SERVICE, and nobody else at port 53 of that address.",
        { cause: error },
      );
    }
  }

  #isKnown(vmAddress: string): boolean {
    const isMachine = this.#options.policyOf(vmAddress) !== undefined;
    if (!isMachine) this.counters.unknown += 1;
    return isMachine;
  }

  #read(): void {
    for (let count = 0; count < MESSAGES_A_TURN; count += 1) {
      const received = this.#socket.receive();
      // An error of an answer that nobody took is told here: what comes next is not its matter.
      if (received === -Errno.EAGAIN) return;
      if (typeof received === "number") continue;
      const { from } = received;
      const bytes = received.bytes.slice();
      this.#serve(bytes, from).catch(() => {
        this.counters.unsent += 1;
      });
    }
  }

  async #serve(bytes: Uint8Array, from: { address: Uint8Array; port: number }): Promise<void> {
    const answer = await this.#answer(bytes, formatAddress(from.address), "udp");
    if (answer === undefined || this.#end.signal.aborted) return;
    if (this.#socket.send(answer, from) < 0) this.counters.unsent += 1;
  }

  /** @returns undefined where nothing is said */
  async #answer(
    bytes: Uint8Array,
    vmAddress: string,
    transport: Transport,
  ): Promise<Uint8Array | undefined> {
    const { counters } = this;
    counters.received += 1;
    const policy = this.#options.policyOf(vmAddress);
    if (policy === undefined) {
      counters.unknown += 1;
      return undefined;
    }
    const query = parseQuery(bytes);
    if (!query.ok) {
      counters.malformed += 1;
      const id = idOf(bytes);
      const isOperation = query.refusal.key === "opcode";
      if (id === undefined) return undefined;
      return encodeHeader(id, isOperation ? "notImplemented" : "formatError");
    }
    const answer = await this.#decide(query.value, policy, { vmAddress, transport });
    return transport === "tcp" ? answer : fitting(answer, query.value);
  }

  async #decide(
    query: Query,
    policy: DnsPolicy,
    asker: { readonly vmAddress: string; readonly transport: Transport },
  ): Promise<Uint8Array> {
    const { domain = "vm.internal", serverAddress, prefixLength } = this.#options;
    const names = this.#options.namesFor(asker.vmAddress);
    const verdict = judge(query.question, policy, { domain, serverAddress, prefixLength, names });
    if (verdict.kind === "answer") {
      this.counters.answeredHere += 1;
      return encodeAnswer(query, verdict.answer);
    }
    return await this.#forwarding.forward(query, { ...asker, tell: verdict.tell });
  }

  [Symbol.dispose](): void {
    this.#end.abort();
    this.#watch[Symbol.dispose]();
    this.#streams[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }
}

/** What does not fit into the asker's datagram is asked for over TCP. */
function fitting(answer: Uint8Array, query: Query): Uint8Array {
  const most = Math.min(query.udpSize ?? USUAL_UDP_ANSWER, LONGEST_UDP_ANSWER);
  if (answer.length <= most) return answer;
  return encodeAnswer(query, { code: "noError", truncated: true });
}

/** Tied to the bridge: no route decides where an answer leaves. */
function openSocket(name: string, serverAddress: string): UdpSocket {
  if (interfaceIndex(name) === undefined) {
    throw new DnsRefused(
      `Cannot serve DNS on ${name}: expected an interface of that name, found none. ` +
        "Make the bridge first.",
    );
  }
  const socket = new UdpSocket({ family: "ipv4", longest: LONGEST_QUERY + 1, device: name });
  const bound = socket.bind({ address: addressBytes(serverAddress), port: DNS_PORT });
  if (bound >= 0) return socket;
  socket[Symbol.dispose]();
  if (bound === -Errno.EADDRINUSE) {
    throw new DnsRefused(
      `Cannot serve DNS at ${serverAddress}: another program has UDP port ${DNS_PORT} there. ` +
        "Have that name server leave this address alone.",
    );
  }
  throw new SystemCallError("bind", -bound, `${serverAddress}:${DNS_PORT}`);
}
