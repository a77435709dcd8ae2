/** A proxy that forwards bytes, until the test cuts the link: nobody is told, as with a cable. */
import { connect, createServer, type Server, type Socket } from "node:net";

export interface CuttingProxy extends AsyncDisposable {
  /** From now on nothing is forwarded, and whoever connects hears nothing. */
  cut(): void;
  /** What waited is forwarded. */
  mend(): void;
  /** Ends every connection at once, and takes new ones. */
  drop(): void;
  /** Connections that were taken, ever. */
  readonly accepted: number;
  /** Connections that neither side has closed. */
  readonly open: number;
}

/** A path of a Unix socket, or a port of 127.0.0.1. */
export type ProxyPlace = string | number;

const placeOf = (place: ProxyPlace) =>
  typeof place === "string" ? { path: place } : { host: "127.0.0.1", port: place };

/** @param options.listen a path, or 0 for a port that is free @returns with it the place */
export async function startCuttingProxy(options: {
  readonly listen: ProxyPlace;
  readonly target: () => ProxyPlace;
}): Promise<CuttingProxy & { readonly place: ProxyPlace }> {
  const sockets = new Set<Socket>();
  const clients = new Set<Socket>();
  let accepted = 0;
  let waiting: (() => void)[] | undefined;
  const orderly = (act: () => void) => {
    if (waiting === undefined) act();
    else waiting.push(act);
  };
  const join = (from: Socket, to: Socket) => {
    sockets.add(from);
    from.on("data", (bytes) => orderly(() => to.write(bytes)));
    from.on("error", () => {});
    from.on("close", () => {
      sockets.delete(from);
      orderly(() => to.destroy());
    });
  };
  const server = createServer((client) => {
    accepted += 1;
    client.on("error", () => {});
    client.on("close", () => clients.delete(client));
    clients.add(client);
    sockets.add(client);
    orderly(() => {
      const target = connect(placeOf(options.target()));
      join(client, target);
      join(target, client);
    });
  });
  await listen(server, options.listen);
  const address = server.address();
  return {
    place: typeof address === "object" && address !== null ? address.port : options.listen,
    cut: () => {
      waiting ??= [];
    },
    mend: () => {
      const acts = waiting ?? [];
      waiting = undefined;
      for (const act of acts) act();
    },
    drop: () => {
      for (const socket of sockets) socket.destroy();
    },
    get accepted() {
      return accepted;
    },
    get open() {
      return clients.size;
    },
    [Symbol.asyncDispose]: async () => {
      waiting = [];
      for (const socket of sockets) socket.destroy();
      const { promise, resolve } = Promise.withResolvers<void>();
      server.close(() => resolve());
      await promise;
    },
  };
}

async function listen(server: Server, place: ProxyPlace): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(placeOf(place), () => resolve());
  await promise;
}
