/**
 * What a VMM does between a worker and the agent in a guest: bytes from one Unix socket to another.
 * The worker's end stays when the agent goes, and what it sends waits; the agent's end ends with
 * the worker's, as a virtio-serial port is told.
 */
import { createServer, type Server, type Socket } from "node:net";
import { temporaryFolder } from "./temporary-folder.ts";

export interface GuestChannel extends AsyncDisposable {
  /** What the worker connects to. */
  readonly hostPath: string;
  /** What the agent is given as its port. */
  readonly guestPath: string;
  /** Says to the worker what no agent said. */
  inject(bytes: string | Uint8Array): void;
  /** Ends the worker's connection, as the end of the worker would. */
  cutHost(): void;
  /** What came from the worker so far. */
  readonly heard: string;
}

export async function guestChannel(): Promise<GuestChannel> {
  const folder = temporaryFolder();
  const [hostPath, guestPath] = [folder.file("host"), folder.file("guest")];
  let host: Socket | undefined;
  let guest: Socket | undefined;
  let heard = "";
  const join = () => {
    if (host === undefined || guest === undefined) return;
    host.pipe(guest, { end: false });
    guest.pipe(host, { end: false });
  };
  const servers = [
    await listen(hostPath, (socket) => {
      // One that goes would be waited for, with what it did not take.
      guest?.unpipe();
      host = socket;
      socket.on("data", (bytes) => {
        heard += String(bytes);
      });
      socket.pause();
      socket.on("close", () => {
        // The next may have come before this one's end was told.
        if (host !== socket) return;
        host = undefined;
        guest?.destroy();
      });
      join();
    }),
    await listen(guestPath, (socket) => {
      host?.unpipe();
      guest = socket;
      socket.on("close", () => {
        if (guest !== socket) return;
        guest = undefined;
        host?.unpipe();
        host?.pause();
      });
      join();
    }),
  ];
  return {
    hostPath,
    guestPath,
    inject: (bytes) => host?.write(bytes),
    cutHost: () => host?.destroy(),
    get heard() {
      return heard;
    },
    [Symbol.asyncDispose]: async () => {
      host?.destroy();
      guest?.destroy();
      for (const server of servers) server.close();
      folder[Symbol.dispose]();
    },
  };
}

/** A guest that says what the test wants: it is at the other end of the worker's connection. */
export async function hostileGuest(
  onMessage: (text: string, say: (bytes: string | Uint8Array) => boolean) => void,
): Promise<AsyncDisposable & { readonly path: string; readonly closes: number }> {
  const folder = temporaryFolder();
  const path = folder.file("agent");
  const sockets = new Set<Socket>();
  let closes = 0;
  const server = await listen(path, (socket) => {
    sockets.add(socket);
    socket.on("data", (bytes) => onMessage(String(bytes), (said) => socket.write(said)));
    socket.on("close", () => {
      closes += 1;
    });
  });
  return {
    path,
    get closes() {
      return closes;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      folder[Symbol.dispose]();
    },
  };
}

function listen(path: string, onSocket: (socket: Socket) => void): Promise<Server> {
  const { promise, resolve, reject } = Promise.withResolvers<Server>();
  const server = createServer((socket) => {
    socket.on("error", () => {});
    onSocket(socket);
  });
  server.once("error", reject);
  server.listen(path, () => resolve(server));
  return promise;
}
