import { readFileSync } from "node:fs";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { AgingSet } from "./aging-set.ts";
import { HalfOpenConnections } from "./half-open.ts";
import type { HttpLimits } from "./limits.ts";
import { rateKeyOf } from "./rate-limiter.ts";

export type FrontLimits = Pick<
  HttpLimits,
  | "connections"
  | "connectionsPerAddress"
  | "unproven"
  | "unprovenPerAddress"
  | "unprovenTime"
  | "reservedDescriptors"
  | "idleTime"
>;

/** A connection, and both ends of its way to the listener behind. */
const DESCRIPTORS_EACH = 3;

/** One direction: what a socket has yet to take, and whose reading waits for that. */
interface Side {
  readonly socket: Bun.Socket<undefined>;
  unsent: Uint8Array | undefined;
  /** It ends when it has taken what is unsent. */
  isEnding: boolean;
}

interface Connection {
  readonly address: string;
  /** "192.0.2.1:40112". */
  readonly from: string;
  readonly client: Side;
  /** silent: not a byte came; joined: what comes is passed on to the listener behind. */
  state:
    | { phase: "silent" }
    | { phase: "joining"; first: Uint8Array }
    | { phase: "joined"; inner: Side; innerPort: number }
    | { phase: "ended" };
}

/**
 * Stands before the TLS listener, and decides who may hold a connection. Measured on Bun 1.4.5:
 * Bun.serve has no limit of connections and no way to tell one apart before its first request; at
 * the end of the descriptors it turns in circles at 100 % of a processor and serves nobody; and a
 * listener that was stopped never ends what is half open. Here every connection is counted when
 * the kernel hands it over. Where there is no room, one of those goes that have not asked anything
 * yet: the oldest of whoever has the most of them.
 *
 * It passes bytes alone, and knows nothing of TLS: it cannot read what it carries.
 */
export class Front implements Disposable {
  readonly #limits: FrontLimits;
  readonly #innerPort: () => number;
  readonly #listener: Bun.TCPSocketListener<undefined>;
  readonly #connections = new Map<Bun.Socket<undefined>, Connection>();
  readonly #unproven: AgingSet<Connection>;
  /** Those whose client has something to take; Bun.serve waits for such a one without end. */
  readonly #stalled: AgingSet<Connection>;
  readonly #halfOpen = new HalfOpenConnections<Connection>();
  readonly #byAddress = new Map<string, Set<Connection>>();
  readonly #byInnerPort = new Map<number, Connection>();
  #drained: PromiseWithResolvers<void> | undefined;
  #ended = 0;

  /** @param options.innerPort the listener behind, on 127.0.0.1; asked for each connection */
  constructor(options: {
    readonly hostname: string;
    readonly port: number;
    readonly limits: FrontLimits;
    readonly innerPort: () => number;
    readonly loop: EventLoop;
  }) {
    this.#limits = withinDescriptors(options.limits, descriptorLimit());
    const onExpired = (connection: Connection) => void this.#evict(connection);
    this.#unproven = new AgingSet(options.loop, this.#limits.unprovenTime, onExpired);
    this.#stalled = new AgingSet(options.loop, this.#limits.idleTime, onExpired);
    this.#innerPort = options.innerPort;
    this.#listener = Bun.listen<undefined>({
      hostname: options.hostname,
      port: options.port,
      socket: {
        open: (socket) => this.#onOpen(socket),
        data: (socket, bytes) => this.#onClientData(socket, bytes),
        drain: (socket) => this.#onClientDrain(socket),
        close: (socket) => this.#onClientClose(socket),
        error: () => {},
      },
    });
  }

  get port(): number {
    return this.#listener.port;
  }

  get open(): number {
    return this.#connections.size;
  }

  /** Connections that were ended to make room, or because nothing was asked in time. */
  get ended(): number {
    return this.#ended;
  }

  /**
   * A request came whole from this port of the listener behind: the connection is no half-open
   * one any more.
   * @returns where it comes from; undefined for who reached the listener behind by itself
   */
  prove(innerPort: number): Pick<Connection, "address" | "from"> | undefined {
    const connection = this.#byInnerPort.get(innerPort);
    if (connection === undefined) return undefined;
    this.#unproven.delete(connection);
    this.#halfOpen.delete(rateKeyOf(connection.address), connection);
    return connection;
  }

  #onOpen(socket: Bun.Socket<undefined>): void {
    // On an address of both kinds, IPv4 is shown as "::ffff:192.0.2.1".
    const remoteAddress = socket.remoteAddress.replace(/^::ffff:(?=[\d.]+$)/i, "");
    const address = rateKeyOf(remoteAddress);
    const host = remoteAddress.includes(":") ? `[${remoteAddress}]` : remoteAddress;
    const connection: Connection = {
      address: remoteAddress,
      from: `${host}:${socket.remotePort}`,
      client: { socket, unsent: undefined, isEnding: false },
      state: { phase: "silent" },
    };
    if (!this.#makeRoom(address)) {
      this.#ended += 1;
      socket.terminate();
      return;
    }
    socket.setNoDelay(true);
    const own = this.#byAddress.get(address) ?? new Set();
    this.#byAddress.set(address, own.add(connection));
    this.#connections.set(socket, connection);
    this.#unproven.add(connection);
    this.#halfOpen.add(address, connection);
  }

  /** @returns whether one more may come from this address */
  #makeRoom(address: string): boolean {
    const limits = this.#limits;
    const own = this.#byAddress.get(address)?.size ?? 0;
    const isOwnFull =
      own >= limits.connectionsPerAddress ||
      this.#halfOpen.countOf(address) >= limits.unprovenPerAddress;
    if (isOwnFull && !this.#evict(this.#halfOpen.oldestOf(address))) return false;
    const isFull =
      this.#connections.size >= limits.connections || this.#unproven.size >= limits.unproven;
    return !isFull || this.#evict(this.#halfOpen.oldestOfMost());
  }

  #evict(connection: Connection | undefined): boolean {
    if (connection === undefined) return false;
    this.#ended += 1;
    this.#end(connection);
    return true;
  }

  #onClientData(socket: Bun.Socket<undefined>, bytes: Uint8Array): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    const { state } = connection;
    if (state.phase === "joined") {
      pass(state.inner, bytes, connection.client.socket);
    } else if (state.phase === "silent") {
      connection.state = { phase: "joining", first: bytes };
      socket.pause();
      void this.#join(connection);
    } else if (state.phase === "joining") {
      state.first = Buffer.concat([state.first, bytes]);
    }
  }

  async #join(connection: Connection): Promise<void> {
    try {
      await Bun.connect<undefined>({
        hostname: "127.0.0.1",
        port: this.#innerPort(),
        socket: {
          open: (inner) => this.#onInnerOpen(connection, inner),
          data: (inner, bytes) => {
            pass(connection.client, bytes, inner);
            const isStalled = connection.client.unsent !== undefined;
            if (isStalled && !this.#stalled.has(connection)) this.#stalled.add(connection);
          },
          drain: () => {
            const { state, client } = connection;
            if (state.phase === "joined") flush(state.inner, client.socket);
          },
          close: () => this.#onInnerClose(connection),
          error: () => {},
          connectError: () => {},
        },
      });
    } catch {
      // The listener behind is being stopped.
      this.#end(connection);
    }
  }

  #onInnerOpen(connection: Connection, socket: Bun.Socket<undefined>): void {
    const { state, client } = connection;
    if (state.phase !== "joining") {
      socket.terminate();
      return;
    }
    socket.setNoDelay(true);
    const inner: Side = { socket, unsent: undefined, isEnding: false };
    const innerPort = socket.localPort;
    this.#byInnerPort.set(innerPort, connection);
    connection.state = { phase: "joined", inner, innerPort };
    pass(inner, state.first, client.socket);
    if (inner.unsent === undefined) client.socket.resume();
  }

  #onClientDrain(socket: Bun.Socket<undefined>): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    const { state, client } = connection;
    flush(client, state.phase === "joined" ? state.inner.socket : undefined);
    if (client.unsent === undefined) this.#stalled.delete(connection);
    else this.#stalled.add(connection);
  }

  #onClientClose(socket: Bun.Socket<undefined>): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    if (connection.state.phase === "joined") finish(connection.state.inner);
    this.#forget(connection);
  }

  #onInnerClose(connection: Connection): void {
    if (connection.state.phase !== "joined") return;
    this.#byInnerPort.delete(connection.state.innerPort);
    connection.state = { phase: "ended" };
    finish(connection.client);
    if (!this.#connections.has(connection.client.socket)) return;
    // What it has yet to take may stay so for ever: it counts as half open from here on.
    this.#unproven.add(connection);
    this.#halfOpen.add(rateKeyOf(connection.address), connection);
  }

  #end(connection: Connection): void {
    const { state, client } = connection;
    if (state.phase === "joined") state.inner.socket.terminate();
    this.#forget(connection);
    client.socket.terminate();
  }

  #forget(connection: Connection): void {
    const { state, client } = connection;
    if (state.phase === "joined") this.#byInnerPort.delete(state.innerPort);
    connection.state = { phase: "ended" };
    this.#connections.delete(client.socket);
    this.#unproven.delete(connection);
    this.#stalled.delete(connection);
    const key = rateKeyOf(connection.address);
    this.#halfOpen.delete(key, connection);
    const own = this.#byAddress.get(key);
    own?.delete(connection);
    if (own?.size === 0) this.#byAddress.delete(key);
    if (this.#connections.size === 0) this.#drained?.resolve();
  }

  /** Takes nobody new; what is open goes on. */
  stopListening(): void {
    this.#listener.stop();
  }

  /** Resolves when every connection has ended, and what was sent on it has been taken. */
  drained(): Promise<void> {
    for (const connection of [...this.#unproven]) this.#end(connection);
    if (this.#connections.size === 0) return Promise.resolve();
    this.#drained ??= Promise.withResolvers<void>();
    return this.#drained.promise;
  }

  [Symbol.dispose](): void {
    this.#listener.stop();
    for (const connection of [...this.#connections.values()]) this.#end(connection);
    this.#unproven[Symbol.dispose]();
    this.#stalled[Symbol.dispose]();
  }
}

/** Where the limit of open files allows fewer connections, it decides. */
export function withinDescriptors(limits: FrontLimits, descriptors: number): FrontLimits {
  const room = Math.max(
    1,
    Math.floor((descriptors - limits.reservedDescriptors) / DESCRIPTORS_EACH),
  );
  const connections = Math.min(limits.connections, room);
  // Half of the room is theirs at most, so that who is known stays.
  const unproven = Math.min(limits.unproven, Math.max(1, Math.floor(connections / 2)));
  return { ...limits, connections, unproven };
}

/** The soft limit of open files; Bun raises its own to the hard one. proc_pid_limits(5). */
function descriptorLimit(): number {
  const line = /^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"));
  return line === null ? 1_024 : Number(line[1]);
}

/** Hands bytes on; whoever sends more than is taken waits, so that nothing is heaped up here. */
function pass(to: Side, bytes: Uint8Array, from: Bun.Socket<undefined>): void {
  if (to.unsent !== undefined) {
    to.unsent = Buffer.concat([to.unsent, bytes]);
    return;
  }
  const sent = Math.max(0, to.socket.write(bytes));
  if (sent >= bytes.length) return;
  to.unsent = new Uint8Array(bytes.subarray(sent));
  from.pause();
}

function flush(side: Side, from: Bun.Socket<undefined> | undefined): void {
  if (side.unsent !== undefined) {
    const sent = Math.max(0, side.socket.write(side.unsent));
    if (sent < side.unsent.length) {
      side.unsent = side.unsent.subarray(sent);
      return;
    }
    side.unsent = undefined;
    from?.resume();
  }
  if (side.isEnding) side.socket.end();
}

function finish(side: Side): void {
  side.isEnding = true;
  if (side.unsent === undefined) side.socket.end();
}
