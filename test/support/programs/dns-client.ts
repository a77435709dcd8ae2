/** Sends messages to a name server, and says what comes back, each in hexadecimal. */
import { writeSync } from "node:fs";
import { FrameReader } from "../../../src/network/dns/upstream.ts";

export interface DnsClientOptions {
  readonly server: string;
  readonly transport: "udp" | "tcp";
  /** In hexadecimal; over TCP the bytes of the stream. */
  readonly messages: readonly string[];
  /** It ends after so many answers. */
  readonly answers: number;
  /** Over TCP: connections at the same time, each of which says all. */
  readonly connections?: number;
}

const options = JSON.parse(process.env["OPTIONS"] ?? "{}") as DnsClientOptions;
const { server, transport, messages, answers, connections = 1 } = options;
let left = answers;
const over = Promise.withResolvers<void>();
const say = (line: string) => writeSync(1, `${line}\n`);

function took(bytes: Uint8Array): void {
  say(`answer ${bytes.toHex()}`);
  left -= 1;
  if (left === 0) over.resolve();
}

/** A connection that was refused so soon that connecting fails by it is a closed one. */
async function connect(): Promise<Bun.Socket | undefined> {
  const reader = new FrameReader(65_535);
  try {
    return await Bun.connect({
      hostname: server,
      port: 53,
      socket: {
        data: (_socket, bytes) => {
          for (const message of reader.add(bytes) ?? []) took(message);
        },
        close: () => {
          say("closed");
        },
      },
    });
  } catch (error) {
    if ((error as { code?: string }).code !== "ECONNRESET") throw error;
    say("closed");
    return undefined;
  }
}

if (transport === "udp") {
  const socket = await Bun.udpSocket({ socket: { data: (_socket, bytes) => took(bytes) } });
  for (const message of messages) socket.send(Uint8Array.fromHex(message), 53, server);
  say("sent");
  await over.promise;
  socket.close();
} else {
  const opened = [];
  for (let number = 0; number < connections; number += 1) {
    const socket = await connect();
    if (socket === undefined) continue;
    for (const message of messages) socket.write(Uint8Array.fromHex(message));
    opened.push(socket);
  }
  say("sent");
  await over.promise;
  for (const socket of opened) socket.end();
}
