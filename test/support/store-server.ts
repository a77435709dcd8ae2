/** A server of a store that does nothing else: what tests of the wire speak to. */
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import type { Store } from "../../src/store/store.ts";
import { limits, storePath } from "../../src/store/wire/protocol.ts";
import {
  StoreConnection,
  type StoreConnectionOptions,
} from "../../src/store/wire/store-connection.ts";

export interface StoreServerOptions {
  readonly loop: EventLoop;
  readonly store: Store;
  /** The path of a Unix socket. */
  readonly unix: string;
  readonly incarnation?: string;
  readonly permits?: StoreConnectionOptions["permits"];
  /** The session of whoever comes with these headers; undefined lets nobody in. */
  readonly session?: (headers: Headers) => AbortSignal | undefined;
}

export interface StoreServer extends AsyncDisposable {
  readonly address: string;
  readonly connections: ReadonlySet<StoreConnection>;
  /** Whatever the store threw that no store throws. */
  readonly failures: readonly unknown[];
}

interface Data {
  readonly signal: AbortSignal;
  connection: StoreConnection | undefined;
}

export const unixAddress = (path: string) => `ws+unix://${path}:${storePath}`;

export function serveStore(options: StoreServerOptions): StoreServer {
  const connections = new Set<StoreConnection>();
  const failures: unknown[] = [];
  const server = Bun.serve<Data>({
    unix: options.unix,
    fetch(request, self) {
      const { session } = options;
      const signal =
        session === undefined ? new AbortController().signal : session(request.headers);
      if (signal === undefined) return new Response("Who is that?", { status: 401 });
      if (new URL(request.url).pathname !== storePath) return new Response("", { status: 404 });
      const data: Data = { signal, connection: undefined };
      return self.upgrade(request, { data }) ? undefined : new Response("", { status: 400 });
    },
    websocket: {
      maxPayloadLength: limits.messageBytes,
      backpressureLimit: limits.queuedBytes * 2,
      idleTimeout: 0,
      sendPings: false,
      open(socket) {
        const connection: StoreConnection = new StoreConnection({
          store: options.store,
          loop: options.loop,
          socket: {
            send: (text) => {
              socket.send(text);
            },
            bufferedAmount: () => socket.getBufferedAmount(),
            close: (code, reason) => socket.close(code, reason),
          },
          incarnation: options.incarnation ?? "first",
          permits: options.permits ?? (() => true),
          signal: socket.data.signal,
          onFailure: (failure) => failures.push(failure),
          onEnd: () => connections.delete(connection),
        });
        if (!connection.isOpen) return;
        connections.add(connection);
        socket.data.connection = connection;
      },
      message: (socket, message) => socket.data.connection?.receive(message),
      drain: (socket) => socket.data.connection?.drained(),
      close: (socket) => socket.data.connection?.closed(),
    },
  });
  return {
    address: unixAddress(options.unix),
    connections,
    failures,
    [Symbol.asyncDispose]: async () => {
      for (const connection of [...connections]) connection[Symbol.dispose]();
      await server.stop(true);
    },
  };
}
