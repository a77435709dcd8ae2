import { readFileSync, statSync } from "node:fs";
import { isIPv6 } from "node:net";
import { Errno, errnoName } from "../../../ffi/system-call-error.ts";
import { UdpSocket } from "../../../ffi/udp-socket.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { MonotonicTime } from "../../units/units.ts";
import { parseAddress } from "../dhcp/address.ts";
import {
  ANSWER_TIME,
  LONGEST_TCP_ANSWER,
  LONGEST_UDP_ANSWER,
  LOOK_AGAIN_AFTER,
  MOST_MISMATCHES,
  MOST_UPSTREAMS,
} from "./limits.ts";
import { isAnswerTo, type Question, withId } from "./message.ts";

/** Name servers that are asked, and one question to one of them. */

export interface Upstream {
  /** IPv4 or IPv6, as text. */
  readonly address: string;
  readonly port: number;
}

const DNS_PORT = 53;

/**
 * The name servers of a resolv.conf(5): the first three. One that needs a zone ("fe80::1%eth0") is
 * left out, and so is what is no address.
 */
export function parseResolverFile(text: string): Upstream[] {
  const found: Upstream[] = [];
  for (const line of text.split("\n")) {
    const address = /^nameserver[ \t]+(\S+)/.exec(line)?.[1];
    if (address === undefined || found.length >= MOST_UPSTREAMS) continue;
    const isIpv6 = isIPv6(address) && !address.includes("%");
    if (isIpv6 || parseAddress(address) !== undefined) found.push({ address, port: DNS_PORT });
  }
  return found;
}

/** The name servers of a file, read once, and again when it is another one or has changed. */
export class ResolverFile {
  readonly #path: string;
  readonly #now: () => MonotonicTime;
  #upstreams: readonly Upstream[] = [];
  #seen = "";
  #lookAgainAt: MonotonicTime = Number.NEGATIVE_INFINITY;

  constructor(path = "/etc/resolv.conf", now: () => MonotonicTime = monotonicNow) {
    this.#path = path;
    this.#now = now;
  }

  /** None while the file is not there, or cannot be read. */
  current(): readonly Upstream[] {
    const now = this.#now();
    if (now < this.#lookAgainAt) return this.#upstreams;
    this.#lookAgainAt = now + LOOK_AGAIN_AFTER;
    try {
      const { dev, ino, size, mtimeNs } = statSync(this.#path, { bigint: true });
      const seen = [dev, ino, size, mtimeNs].join(":");
      if (seen === this.#seen) return this.#upstreams;
      this.#upstreams = parseResolverFile(readFileSync(this.#path, "utf8"));
      this.#seen = seen;
    } catch {
      // Whoever asks is told that there is nobody to ask.
      this.#upstreams = [];
      this.#seen = "";
    }
    return this.#upstreams;
  }
}

/** One question on its way. */
export interface Asking {
  readonly loop: EventLoop;
  readonly upstream: Upstream;
  /** The whole query; its id is replaced. */
  readonly query: Uint8Array;
  readonly question: Question;
  /** Chance: 0 to 65,535, not to be guessed. */
  readonly id: number;
  /** Told of each message that came and was no answer to this. */
  readonly onMismatch: () => void;
  /** Ends it. */
  readonly signal: AbortSignal;
}

export type Asked =
  | { readonly kind: "answered"; readonly bytes: Uint8Array }
  | { readonly kind: "failed"; readonly reason: string };

/**
 * Asks over UDP from a socket of its own, whose port the kernel draws, and which hears nobody but
 * the upstream.
 */
export function askByUdp(asking: Asking): Promise<Asked> {
  const { loop, upstream, signal } = asking;
  const { promise, resolve } = Promise.withResolvers<Asked>();
  const owned = new DisposableStack();
  const end = (asked: Asked) => {
    owned.dispose();
    resolve(asked);
  };
  const fail = (reason: string) => end({ kind: "failed", reason });
  if (signal.aborted) return Promise.resolve({ kind: "failed", reason: "it is over" });
  try {
    const target = bytesOf(upstream);
    const family = target.address.length === 4 ? "ipv4" : "ipv6";
    const socket = owned.use(new UdpSocket({ family, longest: LONGEST_UDP_ANSWER }));
    const connected = socket.connect(target);
    if (connected < 0) throw new Error(errnoName(-connected));
    const sent = socket.send(withId(asking.query, asking.id));
    if (sent < 0) throw new Error(errnoName(-sent));
    let mismatches = 0;
    owned.use(
      loop.watch(socket.descriptor, "readable", () => {
        for (;;) {
          const received = socket.receive();
          if (received === -Errno.EAGAIN) return;
          if (typeof received === "number") return fail(errnoName(-received));
          // More than was asked for, and its end is lost.
          if (received.truncated) return fail("an answer that is too long");
          if (isAnswerTo(received.bytes, asking)) {
            return end({ kind: "answered", bytes: received.bytes.slice() });
          }
          asking.onMismatch();
          mismatches += 1;
          if (mismatches >= MOST_MISMATCHES) return fail("too many wrong answers");
        }
      }),
    );
    owned.use(loop.wakeAfter(ANSWER_TIME, () => fail("no answer in time")));
    onAbort(owned, signal, () => fail("it is over"));
  } catch (error) {
    fail(error instanceof Error ? error.message : String(error));
  }
  return promise;
}

function onAbort(owned: DisposableStack, signal: AbortSignal, call: () => void): void {
  signal.addEventListener("abort", call);
  owned.defer(() => signal.removeEventListener("abort", call));
}

/** Asks over TCP, by Bun's own sockets: what does not fit into a datagram. */
export function askByTcp(asking: Asking): Promise<Asked> {
  const { loop, upstream, signal } = asking;
  const { promise, resolve } = Promise.withResolvers<Asked>();
  const owned = new DisposableStack();
  let isOver = signal.aborted;
  const end = (asked: Asked) => {
    isOver = true;
    owned.dispose();
    resolve(asked);
  };
  const fail = (reason: string) => {
    if (!isOver) end({ kind: "failed", reason });
  };
  if (isOver) return Promise.resolve({ kind: "failed", reason: "it is over" });
  owned.use(loop.wakeAfter(ANSWER_TIME, () => fail("no answer in time")));
  onAbort(owned, signal, () => fail("it is over"));
  const reader = new FrameReader(LONGEST_TCP_ANSWER);
  Bun.connect({
    hostname: upstream.address,
    port: upstream.port,
    socket: {
      open: (socket) => {
        if (isOver) return void socket.terminate();
        owned.defer(() => socket.terminate());
        socket.write(framed(withId(asking.query, asking.id)));
      },
      data: (_socket, bytes) => {
        for (const message of reader.add(bytes) ?? []) {
          if (isOver) return;
          if (isAnswerTo(message, asking)) end({ kind: "answered", bytes: message });
          else {
            asking.onMismatch();
            fail("a wrong answer");
          }
        }
      },
      close: () => fail("the connection ended"),
      error: (_socket, error) => fail(error.message),
      connectError: (_socket, error) => fail(error.message),
    },
  }).catch((error: unknown) => fail(String(error)));
  return promise;
}

/** Messages of a stream, each behind its length in two bytes: RFC 1035, 4.2.2. */
export class FrameReader {
  readonly #longest: number;
  #rest = new Uint8Array(0);

  /** @param longest bytes of one message; a longer one is not waited for */
  constructor(longest: number) {
    this.#longest = longest;
  }

  /** @returns whole messages in their order; undefined once one is too long */
  add(bytes: Uint8Array): Uint8Array[] | undefined {
    const all = new Uint8Array(this.#rest.length + bytes.length);
    all.set(this.#rest);
    all.set(bytes, this.#rest.length);
    const messages: Uint8Array[] = [];
    let at = 0;
    while (at + 2 <= all.length) {
      const length = ((all[at] as number) << 8) | (all[at + 1] as number);
      if (length > this.#longest) return undefined;
      if (at + 2 + length > all.length) break;
      messages.push(all.slice(at + 2, at + 2 + length));
      at += 2 + length;
    }
    this.#rest = all.slice(at);
    return messages;
  }
}

export function framed(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(message.length + 2);
  new DataView(bytes.buffer).setUint16(0, message.length, false);
  bytes.set(message, 2);
  return bytes;
}

function bytesOf({ address, port }: Upstream): { address: Uint8Array; port: number } {
  const bytes = parseAddress(address) ?? ipv6Bytes(address);
  if (bytes === undefined) throw new Error(`${address} is no address`);
  return { address: bytes, port };
}

/** 16 bytes; undefined for what is no IPv6 address, and for one with a zone. */
export function ipv6Bytes(text: string): Uint8Array | undefined {
  if (!isIPv6(text) || text.includes("%")) return undefined;
  const last = /^(.*:)([\d.]+\.[\d.]+)$/.exec(text);
  const tail = last === null ? undefined : parseAddress(last[2] ?? "");
  const groups = (part: string) =>
    part === ""
      ? []
      : part.split(":").flatMap((group) => {
          const value = Number.parseInt(group, 16);
          return [value >>> 8, value & 255];
        });
  const plain = tail === undefined ? text : (last?.[1] ?? "").replace(/([^:]):$/, "$1");
  const [head = "", rest] = plain.split("::");
  const end = [...groups(rest ?? ""), ...(tail ?? [])];
  const start = groups(head);
  const zeros = new Array<number>(Math.max(0, 16 - start.length - end.length)).fill(0);
  return Uint8Array.from([...start, ...zeros, ...end]);
}
