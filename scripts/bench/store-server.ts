/**
 * Serves an embedded store for the bench: FOLDER. It says at which port of 127.0.0.1. It has
 * neither TLS nor permissions, as the NATS server beside it.
 */
import { join } from "node:path";
import { monotonicNow } from "../../src/event-loop/clock.ts";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { EmbeddedStore } from "../../src/store/embedded-store.ts";
import { limits } from "../../src/store/wire/protocol.ts";
import { StoreConnection } from "../../src/store/wire/store-connection.ts";
import { repositoryRoot } from "../setup.ts";
import { benchBuckets } from "./store-buckets.ts";

const [folder = ""] = process.argv.slice(2);
const loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
const store = EmbeddedStore.open({
  folder,
  buckets: benchBuckets,
  clocks: { wall: Date.now, monotonic: monotonicNow },
});

const server = Bun.serve<{ connection: StoreConnection | undefined }>({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, self) {
    const data = { connection: undefined };
    return self.upgrade(request, { data }) ? undefined : new Response("", { status: 400 });
  },
  websocket: {
    maxPayloadLength: limits.messageBytes,
    backpressureLimit: 2 * limits.queuedBytes,
    idleTimeout: 0,
    sendPings: false,
    open(socket) {
      socket.data.connection = new StoreConnection({
        store,
        loop,
        socket: {
          send: (text) => {
            socket.send(text);
          },
          bufferedAmount: () => socket.getBufferedAmount(),
          close: (code, reason) => socket.close(code, reason),
        },
        incarnation: store.incarnation,
        permits: () => true,
        onFailure: (failure) => console.error(failure),
      });
    },
    message: (socket, message) => socket.data.connection?.receive(message),
    drain: (socket) => socket.data.connection?.drained(),
    close: (socket) => socket.data.connection?.closed(),
  },
});
console.log(`port ${server.port}`);
