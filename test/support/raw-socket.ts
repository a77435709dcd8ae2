/** Sockets that say what a test wants, to servers of this host. */
import type { Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { withDeadline } from "./wait-for.ts";

export const MEBIBYTE: number = 1024 * 1024;

/** What comes until the connection ends. */
export function ended(socket: Socket): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let received = "";
  socket.on("data", (bytes) => {
    received += String(bytes);
  });
  socket.on("error", () => {});
  socket.once("close", () => resolve(received));
  return withDeadline("the end of the connection", promise);
}

/** A connection to a server of this host, whatever it shows. */
export async function openTls(port: number, version?: "TLSv1.2"): Promise<TLSSocket> {
  const socket = connectTls({
    ...{ host: "127.0.0.1", port, rejectUnauthorized: false },
    ...(version !== undefined && { maxVersion: version }),
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("secureConnect", resolve);
  socket.once("error", reject);
  socket.once("close", () => reject(new Error("closed before the handshake was over")));
  await promise;
  return socket;
}

/** Sends so much, or until the connection ends. @returns bytes that were sent, and the answer */
export async function pour(
  socket: TLSSocket,
  options: { readonly head: string; readonly bytes: number; readonly chunked: boolean },
): Promise<{ readonly sent: number; readonly answer: string }> {
  const { head, bytes, chunked } = options;
  let isOver = false;
  const answer = ended(socket).finally(() => {
    isOver = true;
  });
  socket.write(head);
  const piece = Buffer.alloc(MEBIBYTE);
  const framed = Buffer.concat([Buffer.from("100000\r\n"), piece, Buffer.from("\r\n")]);
  let sent = 0;
  while (sent < bytes && !isOver) {
    const wasTaken = socket.write(chunked ? framed : piece);
    sent += MEBIBYTE;
    if (wasTaken) continue;
    const drained = Promise.withResolvers<void>();
    socket.once("drain", drained.resolve);
    await Promise.race([drained.promise, answer]);
    socket.removeListener("drain", drained.resolve);
  }
  return { sent, answer: await answer };
}
