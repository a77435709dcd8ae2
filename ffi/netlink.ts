import { libc } from "./c-library.ts";
import {
  AF_NETLINK,
  MSG_DONTWAIT,
  MSG_TRUNC,
  NETLINK_ADD_MEMBERSHIP,
  NETLINK_CAP_ACK,
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  SO_RCVBUFFORCE,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_NETLINK,
  SOL_SOCKET,
} from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import {
  decodeMessages,
  decodeVerdict,
  encodeMessages,
  MalformedNetlink,
  type NetlinkMessage,
  type NetlinkRequest,
  PayloadWriter,
} from "./netlink-message.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check, Errno, errnoMessage, errnoName } from "./system-call-error.ts";

/**
 * Sockets of netlink(7). The kernel works on a request inside of send(2), so that its answer is
 * there when that returns: nothing here waits. Which namespace is meant is that of the process
 * when the socket is made.
 */

/** A dump that somebody's change interrupted is made again, so often at most. */
export const MOST_DUMP_TRIES = 20;
/** The longest datagram that is taken; the kernel makes dumps of up to 32 KiB. */
export const LONGEST_DATAGRAM = 256 * 1024;
/** Requests that travel in one datagram, so that their acknowledgements fit into the socket. */
export const MOST_REQUESTS_A_DATAGRAM = 256;
/** Bytes of one batch of nftables: 1,023 machines take about a third of it. */
export const LONGEST_BATCH = 64 * 1024 * 1024;

const protocols = { route: NETLINK_ROUTE, netfilter: NETLINK_NETFILTER } as const;

/** The kernel refused a request. Its own words stand in the message, and alone in `text`. */
export class NetlinkError extends Error {
  override readonly name = "NetlinkError";
  readonly errno: number;
  /** The name of the error number: "EEXIST". */
  readonly code: string;
  readonly text: string | undefined;
  /** Which of several requests it was, from 0. */
  readonly index: number;

  constructor(options: { errno: number; text?: string | undefined; index?: number }) {
    const { errno, text, index = 0 } = options;
    const words = text === undefined ? "" : `: ${text}`;
    super(`netlink: ${errnoMessage(errno)} (${errnoName(errno)})${words}`);
    this.errno = errno;
    this.code = errnoName(errno);
    this.text = text;
    this.index = index;
  }
}

const receiveMemory = new NativeMemory(LONGEST_DATAGRAM);
const senderAddress = new NativeMemory(layouts.sockaddr_nl.size);
const senderLength = new NativeMemory(4);

export class NetlinkSocket implements Disposable {
  readonly #socket: OwnedDescriptor;
  #sequence = 1;

  /** @throws SystemCallError where the kernel has no such protocol */
  constructor(protocol: keyof typeof protocols) {
    const type = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK;
    const number = libc.socket(AF_NETLINK, type, protocols[protocol]);
    this.#socket = new OwnedDescriptor(check("socket", number, `netlink ${protocol}`));
    this.#option(SOL_NETLINK, NETLINK_EXT_ACK, 1);
    this.#option(SOL_NETLINK, NETLINK_CAP_ACK, 1);
    // Linux 4.20; without it a dump tells more than was asked for, which readers take as well.
    this.#option(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
    // Without CAP_NET_ADMIN they are refused, and then so is what needs them.
    this.#option(SOL_SOCKET, SO_SNDBUFFORCE, LONGEST_BATCH);
    this.#option(SOL_SOCKET, SO_RCVBUFFORCE, 8 * 1024 * 1024);
  }

  #option(level: number, name: number, value: number): void {
    const memory = new NativeMemory(4);
    memory.view.setInt32(0, value, true);
    attempt(() => libc.setsockopt(this.#socket.number, level, name, memory.address, 4));
  }

  #send(requests: readonly NetlinkRequest[]): number {
    const first = this.#sequence;
    this.#sequence = (first + requests.length) % 0x8000_0000;
    const bytes = encodeMessages(requests, first);
    const memory = new NativeMemory(bytes.length);
    memory.bytes.set(bytes);
    const sent = attempt(() => libc.send(this.#socket.number, memory.address, bytes.length, 0));
    if (sent < 0) throw new NetlinkError({ errno: -sent, text: `send of ${bytes.length} bytes` });
    return first;
  }

  /** The messages of one datagram of the kernel's; undefined when no more is there. */
  #receive(): NetlinkMessage[] | undefined {
    for (;;) {
      senderLength.view.setUint32(0, senderAddress.size, true);
      const length = attempt(() =>
        libc.recvfrom(
          this.#socket.number,
          receiveMemory.address,
          receiveMemory.size,
          MSG_DONTWAIT | MSG_TRUNC,
          senderAddress.address,
          senderLength.address,
        ),
      );
      if (length === -Errno.EAGAIN) return undefined;
      if (length < 0) throw new NetlinkError({ errno: -length, text: "receiving an answer" });
      if (length > LONGEST_DATAGRAM) {
        throw new MalformedNetlink(
          `Expected an answer of at most ${LONGEST_DATAGRAM} bytes, received ${length}`,
        );
      }
      // Other processes may write to this socket; only port 0 is the kernel.
      if (senderAddress.view.getUint32(layouts.sockaddr_nl.nl_pid, true) !== 0) continue;
      return decodeMessages(receiveMemory.bytes.slice(0, length));
    }
  }

  /** All messages that are there, from a sequence on; older answers are nobody's any more. */
  *#answers(first: number, count: number): Generator<NetlinkMessage> {
    for (let messages = this.#receive(); messages !== undefined; messages = this.#receive()) {
      for (const message of messages) {
        if (message.sequence >= first && message.sequence < first + count) yield message;
      }
    }
  }

  /**
   * Requests that change something, each independent of the others: one that is refused stops
   * none of those after it.
   * @returns for each what the kernel refused, or undefined
   */
  change(requests: readonly NetlinkRequest[]): (NetlinkError | undefined)[] {
    const outcomes: (NetlinkError | undefined)[] = [];
    for (let start = 0; start < requests.length; start += MOST_REQUESTS_A_DATAGRAM) {
      const part = requests.slice(start, start + MOST_REQUESTS_A_DATAGRAM);
      outcomes.push(...this.#changePart(part));
    }
    return outcomes;
  }

  #changePart(requests: readonly NetlinkRequest[]): (NetlinkError | undefined)[] {
    const acknowledged = requests.map((request) => ({
      ...request,
      flags: request.flags | NLM_F_ACK,
    }));
    const first = this.#send(acknowledged);
    const outcomes: (NetlinkError | undefined | "unanswered")[] = requests.map(() => "unanswered");
    for (const message of this.#answers(first, requests.length)) {
      if (message.type !== NLMSG_ERROR) continue;
      const index = message.sequence - first;
      const { errno, text } = decodeVerdict(message, false);
      outcomes[index] = errno === 0 ? undefined : new NetlinkError({ errno, text, index });
    }
    return outcomes.map((outcome, index) => {
      if (outcome !== "unanswered") return outcome;
      return new NetlinkError({ errno: Errno.EPROTO, text: "the kernel did not answer", index });
    });
  }

  /** One answer: the messages before its acknowledgement. @throws NetlinkError */
  get(request: NetlinkRequest): NetlinkMessage[] {
    const first = this.#send([{ ...request, flags: request.flags | NLM_F_ACK }]);
    const found: NetlinkMessage[] = [];
    for (const message of this.#answers(first, 1)) {
      if (message.type !== NLMSG_ERROR) {
        found.push(message);
        continue;
      }
      const { errno, text } = decodeVerdict(message, false);
      if (errno !== 0) throw new NetlinkError({ errno, text });
      return found;
    }
    throw new NetlinkError({ errno: Errno.EPROTO, text: "the kernel's answer has no end" });
  }

  /**
   * All of a table, as it was at one moment: interrupted by a change (NLM_F_DUMP_INTR), it is
   * asked for again.
   * @throws NetlinkError, with EINTR after MOST_DUMP_TRIES
   */
  dump(request: NetlinkRequest): NetlinkMessage[] {
    return untilWhole(() => this.#dumpOnce(request));
  }

  #dumpOnce(request: NetlinkRequest): NetlinkMessage[] | "interrupted" {
    const first = this.#send([{ ...request, flags: request.flags | NLM_F_DUMP }]);
    const found: NetlinkMessage[] = [];
    let isInterrupted = false;
    for (const message of this.#answers(first, 1)) {
      isInterrupted ||= (message.flags & NLM_F_DUMP_INTR) !== 0;
      const isDone = message.type === NLMSG_DONE;
      if (!isDone && message.type !== NLMSG_ERROR) {
        found.push(message);
        continue;
      }
      const { errno, text } = decodeVerdict(message, isDone);
      if (errno !== 0) throw new NetlinkError({ errno, text });
      return isInterrupted ? "interrupted" : found;
    }
    throw new NetlinkError({ errno: Errno.EPROTO, text: "the kernel's dump has no end" });
  }

  /**
   * All of the requests or none: one transaction of nftables.
   * @throws NetlinkError of the first that was refused, with its index
   */
  batch(requests: readonly NetlinkRequest[]): void {
    if (requests.length === 0) return;
    const last = requests.length - 1;
    // Only the last one is acknowledged; whatever is refused says so unasked.
    const flagged = requests.map((request, index) =>
      index === last ? { ...request, flags: request.flags | NLM_F_ACK } : request,
    );
    const frame = [batchEdge(NFNL_MSG_BATCH_BEGIN), ...flagged, batchEdge(NFNL_MSG_BATCH_END)];
    const first = this.#send(frame);
    let isAcknowledged = false;
    let refusal: NetlinkError | undefined;
    for (const message of this.#answers(first, frame.length)) {
      if (message.type !== NLMSG_ERROR) continue;
      const { errno, text } = decodeVerdict(message, false);
      const index = Math.max(0, message.sequence - first - 1);
      if (errno !== 0) refusal ??= new NetlinkError({ errno, text, index });
      else if (message.sequence === first + 1 + last) isAcknowledged = true;
    }
    if (refusal !== undefined) throw refusal;
    if (!isAcknowledged) {
      throw new NetlinkError({ errno: Errno.EPROTO, text: "the kernel did not answer", index: 0 });
    }
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

/**
 * What the kernel tells everybody who asks, of changes that anybody makes in this process's
 * network namespace: groups of netlink(7).
 */
export class NetlinkNotices implements Disposable {
  /** Readable when there is something to be taken. */
  readonly descriptor: OwnedDescriptor;

  /** @throws SystemCallError where the kernel has no such protocol or group, or refuses it */
  constructor(protocol: keyof typeof protocols, groups: readonly number[]) {
    const type = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK;
    const number = libc.socket(AF_NETLINK, type, protocols[protocol]);
    this.descriptor = new OwnedDescriptor(check("socket", number, `netlink ${protocol}`));
    try {
      this.#bind(protocol);
      for (const group of groups) this.#join(group);
    } catch (error) {
      this.descriptor.close();
      throw error;
    }
  }

  /** To any port: a socket that has none is in a group, and told nothing. */
  #bind(protocol: string): void {
    const address = new NativeMemory(layouts.sockaddr_nl.size);
    address.view.setUint16(layouts.sockaddr_nl.nl_family, AF_NETLINK, true);
    const bound = libc.bind(this.descriptor.number, address.address, address.size);
    check("bind", bound, `netlink ${protocol}`);
  }

  #join(group: number): void {
    const memory = new NativeMemory(4);
    memory.view.setUint32(0, group, true);
    const { number } = this.descriptor;
    const option = NETLINK_ADD_MEMBERSHIP;
    const joined = libc.setsockopt(number, SOL_NETLINK, option, memory.address, memory.size);
    check("setsockopt", joined, `NETLINK_ADD_MEMBERSHIP ${group}`);
  }

  /**
   * The types of all messages that are there; "lost" where there were more than there was room for
   * (ENOBUFS), or one that is none.
   */
  take(): ReadonlySet<number> | "lost" {
    const types = new Set<number>();
    let isLost = false;
    for (;;) {
      senderLength.view.setUint32(0, senderAddress.size, true);
      const length = attempt(() =>
        libc.recvfrom(
          this.descriptor.number,
          receiveMemory.address,
          receiveMemory.size,
          MSG_DONTWAIT,
          senderAddress.address,
          senderLength.address,
        ),
      );
      if (length === -Errno.EAGAIN) return isLost ? "lost" : types;
      isLost ||= length < 0;
      // Other processes may write to this socket; only port 0 is the kernel.
      const sender = senderAddress.view.getUint32(layouts.sockaddr_nl.nl_pid, true);
      if (length <= 0 || sender !== 0) continue;
      try {
        const messages = decodeMessages(receiveMemory.bytes.slice(0, length));
        for (const { type } of messages) types.add(type);
      } catch (error) {
        if (!(error instanceof MalformedNetlink)) throw error;
        isLost = true;
      }
    }
  }

  [Symbol.dispose](): void {
    this.descriptor.close();
  }
}

/**
 * Reads until no change of others came between.
 * @throws NetlinkError with EINTR after MOST_DUMP_TRIES
 */
export function untilWhole<Found>(read: () => Found | "interrupted"): Found {
  for (let tries = 0; tries < MOST_DUMP_TRIES; tries += 1) {
    const found = read();
    if (found !== "interrupted") return found;
  }
  const text = `changed by others during each of ${MOST_DUMP_TRIES} readings`;
  throw new NetlinkError({ errno: Errno.EINTR, text });
}

/** Where a batch begins and ends: include/uapi/linux/netfilter/nfnetlink.h. */
function batchEdge(type: number): NetlinkRequest {
  const payload = new PayloadWriter()
    .header(layouts.nfgenmsg.size, (view) => {
      view.setUint16(layouts.nfgenmsg.res_id, NFNL_SUBSYS_NFTABLES, false);
    })
    .finish();
  return { type, flags: 0, payload };
}
