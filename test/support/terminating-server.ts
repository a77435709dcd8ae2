/**
 * Somebody in the middle: ends TLS with a certificate of its own, writes down what it is told, and
 * speaks with whoever is meant in its place.
 */
import type { Socket } from "node:net";
import { connect, createServer } from "node:tls";
import { makeCertificate } from "./certificate.ts";

export interface TerminatingServer extends AsyncDisposable {
  readonly port: number;
  /** The hash of its certificate. */
  readonly pin: string;
  /** All that it was told in the clear, by all who trusted it so far. */
  readonly heard: string;
  /** Connections that came to it. */
  readonly connections: number;
}

/** @param target the port of whoever is meant, on 127.0.0.1 */
export async function startTerminatingServer(target: () => number): Promise<TerminatingServer> {
  const { certificate, key, pin } = makeCertificate("127.0.0.1");
  const sockets = new Set<Socket>();
  const told = { heard: "", connections: 0 };
  const own = (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => sockets.delete(socket));
  };
  const server = createServer({ cert: certificate, key }, (client) => {
    own(client);
    const meant = connect({ host: "127.0.0.1", port: target(), rejectUnauthorized: false });
    own(meant);
    client.on("data", (bytes) => {
      told.heard += String(bytes);
      meant.write(bytes);
    });
    meant.on("data", (bytes) => client.write(bytes));
    client.once("close", () => meant.destroy());
    meant.once("close", () => client.destroy());
  });
  // Whoever looks at a certificate and goes may be gone before TLS has ended.
  server.on("connection", () => {
    told.connections += 1;
  });
  const listening = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", () => listening.resolve());
  await listening.promise;
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    pin,
    get heard() {
      return told.heard;
    },
    get connections() {
      return told.connections;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      await closed.promise;
    },
  };
}
