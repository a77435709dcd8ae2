import { Errno, SystemCallError } from "../../ffi/system-call-error.ts";
import { type SocketAddress, UdpSocket } from "../../ffi/udp-socket.ts";
import { monotonicNow } from "../event-loop/clock.ts";
import type { EventLoop, Watch } from "../event-loop/event-loop.ts";
import { RateLimiter } from "../http/rate-limiter.ts";
import { addressBytes, formatAddress } from "../network/dhcp/address.ts";
import type { MonotonicTime } from "../units/units.ts";
import type { BootFile } from "./boot-files.ts";
import {
  agree,
  begin,
  type Ending,
  step,
  type Terms,
  type TransferEffect,
  type TransferEvent,
  type TransferState,
} from "./lifecycle-transfer.ts";
import {
  LARGEST_BLOCK,
  LONGEST_REQUEST,
  MESSAGES_A_TURN,
  MOST_TRANSFERS,
  MOST_TRANSFERS_A_PEER,
  REMEMBERED_PEERS,
  REQUEST_RATE,
} from "./limits.ts";
import {
  type ErrorName,
  encodeData,
  encodeError,
  encodeOptions,
  parseTftp,
  type ReadRequest,
  readAskedOptions,
} from "./protocol-tftp.ts";

/** TFTP on one interface: reading alone, and only of files that it was given by name. */

export const TFTP_PORT = 69;

export interface TftpServerOptions {
  readonly loop: EventLoop;
  readonly interface: string;
  /** The interface's own. */
  readonly serverAddress: string;
  readonly files: ReadonlyMap<string, BootFile>;
  readonly onEvent: (event: TftpEvent) => void;
}

export type TftpEvent =
  | {
      readonly kind: "ended";
      readonly peer: string;
      readonly file: string;
      readonly ending: Ending;
      /** What the client said, where it ended the transfer. */
      readonly text: string | undefined;
      readonly milliseconds: number;
    }
  | { readonly kind: "refused"; readonly peer: string; readonly reason: string };

/** Since the server began. */
export interface TftpCounters {
  requests: number;
  malformed: number;
  refused: number;
  /** Requests of an address over its rate, and over the bounds: they are not answered. */
  overLimit: number;
  /** Packets of somebody else on a transfer's port. */
  strangers: number;
  blocks: number;
  repeats: number;
  /** What the kernel did not take: it is repeated as what is lost on a wire. */
  unsent: number;
  readonly endings: Record<Ending, number>;
}

interface Transfer {
  readonly key: string;
  readonly peer: SocketAddress;
  readonly peerText: string;
  readonly file: BootFile;
  readonly socket: UdpSocket;
  readonly watch: Watch;
  readonly began: MonotonicTime;
  /** The last text of an ERROR. */
  text: string | undefined;
  state: TransferState;
  wake: Disposable | undefined;
  wakeAt: MonotonicTime;
}

export class TftpServer implements Disposable {
  readonly counters: TftpCounters = {
    requests: 0,
    malformed: 0,
    refused: 0,
    overLimit: 0,
    strangers: 0,
    blocks: 0,
    repeats: 0,
    unsent: 0,
    endings: {
      done: 0,
      "ended by the client": 0,
      "no answer": 0,
      "took too long": 0,
      unreadable: 0,
      nonsense: 0,
      replaced: 0,
    },
  };
  readonly #options: TftpServerOptions;
  readonly #socket: UdpSocket;
  readonly #watch: Watch;
  readonly #transfers = new Map<string, Transfer>();
  readonly #rate = new RateLimiter(REQUEST_RATE, REMEMBERED_PEERS);
  readonly #block = new Uint8Array(LARGEST_BLOCK);

  private constructor(options: TftpServerOptions, socket: UdpSocket) {
    this.#options = options;
    this.#socket = socket;
    this.#watch = options.loop.watch(socket.descriptor, "readable", () => this.#read());
  }

  /** @throws SystemCallError EADDRINUSE, EACCES; ENODEV without such an interface */
  static start(options: TftpServerOptions): TftpServer {
    const socket = openUdp(options, { port: TFTP_PORT, longest: LONGEST_REQUEST + 1 });
    try {
      return new TftpServer(options, socket);
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  /** Those that are under way. */
  get transfers(): number {
    return this.#transfers.size;
  }

  #read(): void {
    for (let count = 0; count < MESSAGES_A_TURN; count += 1) {
      const received = this.#socket.receive();
      if (received === -Errno.EAGAIN) return;
      // The error of an answer that nobody took.
      if (typeof received === "number") continue;
      this.counters.requests += 1;
      const parsed = parseTftp(received.bytes);
      if (!parsed.ok || received.truncated) this.counters.malformed += 1;
      else this.#take(parsed.value, received.from);
    }
  }

  #take(packet: ReadRequest | { readonly kind: string }, peer: SocketAddress): void {
    const address = formatAddress(peer.address);
    // Who forges addresses is not told that he is over a limit either.
    if (this.#rate.take(address, monotonicNow()) > 0) {
      this.counters.overLimit += 1;
      return;
    }
    if (!("file" in packet)) {
      this.counters.malformed += 1;
      return;
    }
    const refusal = this.#refusalOf(packet);
    if (refusal !== undefined) {
      this.counters.refused += 1;
      this.#sendFrom(this.#socket, encodeError(refusal.error, refusal.text), peer);
      const reason = `${refusal.text}: ${JSON.stringify(packet.file)}`;
      this.#options.onEvent({ kind: "refused", peer: address, reason });
      return;
    }
    this.#begin(packet, peer);
  }

  #refusalOf(request: ReadRequest): { error: ErrorName; text: string } | undefined {
    if (request.kind === "write") return { error: "accessViolation", text: "Nothing is written" };
    if (request.mode !== "octet") return { error: "undefined", text: "Mode octet alone" };
    const file = this.#fileOf(request);
    if (file === undefined) return { error: "notFound", text: "No such file" };
    if (!file.isUnchanged()) return { error: "undefined", text: "The file has changed" };
    return undefined;
  }

  #fileOf({ file }: ReadRequest): BootFile | undefined {
    // Some clients make a path of it.
    return this.#options.files.get(file.replace(/^\//, ""));
  }

  #begin(request: ReadRequest, peer: SocketAddress): void {
    const file = this.#fileOf(request);
    if (file === undefined) return;
    const peerText = formatAddress(peer.address);
    const key = `${peerText}:${peer.port}`;
    const before = this.#transfers.get(key);
    if (before !== undefined) this.#tell(before, { kind: "asked-again" });
    if (this.#transfers.has(key)) return;
    const own = [...this.#transfers.values()].filter((one) => one.peerText === peerText).length;
    if (this.#transfers.size >= MOST_TRANSFERS || own >= MOST_TRANSFERS_A_PEER) {
      this.counters.overLimit += 1;
      return;
    }
    const now = monotonicNow();
    this.#open(
      file,
      { key, peer, peerText },
      agree(readAskedOptions(request.options), file.size, now),
    );
  }

  #open(file: BootFile, who: Pick<Transfer, "key" | "peer" | "peerText">, terms: Terms): void {
    let socket: UdpSocket;
    try {
      socket = openUdp(this.#options, { port: 0, longest: LARGEST_BLOCK + 4 });
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      // No descriptor, or the interface has gone: the client asks again.
      this.counters.overLimit += 1;
      return;
    }
    const now = monotonicNow();
    const { state, effects } = begin(terms, now);
    const transfer: Transfer = {
      ...who,
      file,
      socket,
      watch: this.#options.loop.watch(socket.descriptor, "readable", () => this.#hear(transfer)),
      began: now,
      text: undefined,
      state,
      wake: undefined,
      wakeAt: 0,
    };
    this.#transfers.set(who.key, transfer);
    this.#perform(transfer, effects);
  }

  #hear(transfer: Transfer): void {
    for (let count = 0; count < MESSAGES_A_TURN; count += 1) {
      if (this.#transfers.get(transfer.key) !== transfer) return;
      const received = transfer.socket.receive();
      if (received === -Errno.EAGAIN) return;
      if (typeof received === "number") continue;
      const { from } = received;
      if (from.port !== transfer.peer.port || !isSame(from.address, transfer.peer.address)) {
        this.counters.strangers += 1;
        const { effects } = step(transfer.state, { kind: "stranger" }, monotonicNow());
        if (effects.some(({ kind }) => kind === "refuse-stranger")) {
          const words = encodeError("unknownTransfer", "No transfer of yours");
          this.#sendFrom(transfer.socket, words, from);
        }
        continue;
      }
      this.#tell(transfer, eventOf(received.bytes, received.truncated));
    }
  }

  #tell(transfer: Transfer, event: TransferEvent): void {
    if (event.kind === "error") transfer.text = event.text;
    const outcome = step(transfer.state, event, monotonicNow());
    transfer.state = outcome.state;
    if (event.kind === "time" && outcome.state.phase !== "ended") this.counters.repeats += 1;
    this.#perform(transfer, outcome.effects);
  }

  #perform(transfer: Transfer, effects: readonly TransferEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "send-options":
          this.#send(transfer, encodeOptions(effect.options));
          break;
        case "send-blocks":
          if (!this.#sendBlocks(transfer, effect.first, effect.last)) return;
          break;
        case "send-error":
          this.#send(transfer, encodeError(effect.error, effect.text));
          break;
        case "wake":
          this.#wakeAt(transfer, effect.at);
          break;
        case "end":
          this.#end(transfer, effect.ending);
          break;
        case "refuse-stranger":
          break;
      }
    }
  }

  /** @returns false when the file could not be read, and the transfer has ended by that */
  #sendBlocks(transfer: Transfer, first: number, last: number): boolean {
    if (transfer.state.phase === "ended") return true;
    const { blockBytes } = transfer.state.terms;
    for (let block = first; block <= last; block += 1) {
      const position = (block - 1) * blockBytes;
      const wanted = Math.max(0, Math.min(blockBytes, transfer.file.size - position));
      const data = this.#block.subarray(0, wanted);
      if (!readWhole(transfer.file, data, position)) {
        this.#tell(transfer, { kind: "unreadable" });
        return false;
      }
      this.counters.blocks += 1;
      this.#send(transfer, encodeData(block, data));
    }
    return true;
  }

  /** One timer for each transfer, which looks when it rings whether its time was put off. */
  #wakeAt(transfer: Transfer, at: MonotonicTime): void {
    transfer.wakeAt = at;
    if (transfer.wake !== undefined) return;
    transfer.wake = this.#options.loop.wakeAt(at, () => {
      transfer.wake = undefined;
      if (this.#transfers.get(transfer.key) !== transfer) return;
      if (monotonicNow() < transfer.wakeAt) this.#wakeAt(transfer, transfer.wakeAt);
      else this.#tell(transfer, { kind: "time" });
    });
  }

  #send(transfer: Transfer, bytes: Uint8Array): void {
    this.#sendFrom(transfer.socket, bytes, transfer.peer);
  }

  #sendFrom(socket: UdpSocket, bytes: Uint8Array, peer: SocketAddress): void {
    if (socket.send(bytes, peer) < 0) this.counters.unsent += 1;
  }

  #end(transfer: Transfer, ending: Ending): void {
    this.#close(transfer);
    this.counters.endings[ending] += 1;
    this.#options.onEvent({
      kind: "ended",
      peer: transfer.peerText,
      file: transfer.file.name,
      ending,
      text: transfer.text,
      milliseconds: monotonicNow() - transfer.began,
    });
  }

  #close(transfer: Transfer): void {
    this.#transfers.delete(transfer.key);
    transfer.wake?.[Symbol.dispose]();
    transfer.watch[Symbol.dispose]();
    transfer.socket[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    for (const transfer of [...this.#transfers.values()]) this.#close(transfer);
    this.#watch[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }
}

function eventOf(bytes: Uint8Array, truncated: boolean): TransferEvent {
  const parsed = parseTftp(bytes);
  if (!parsed.ok || truncated) return { kind: "nonsense" };
  const { value } = parsed;
  switch (value.kind) {
    case "acknowledge":
    case "error":
      return value;
    case "read":
    case "write":
    case "data":
    case "acknowledgeOptions":
      return { kind: "nonsense" };
  }
}

function readWhole(file: BootFile, into: Uint8Array, position: number): boolean {
  try {
    return file.read(into, position) === into.length;
  } catch {
    return false;
  }
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.every((byte, at) => byte === other[at]);
}

function openUdp(
  { interface: device, serverAddress }: Pick<TftpServerOptions, "interface" | "serverAddress">,
  { port, longest }: { readonly port: number; readonly longest: number },
): UdpSocket {
  const socket = new UdpSocket({ family: "ipv4", longest, device });
  const bound = socket.bind({ address: addressBytes(serverAddress), port });
  if (bound >= 0) return socket;
  socket[Symbol.dispose]();
  throw new SystemCallError("bind", -bound, `${serverAddress}:${port}`);
}
