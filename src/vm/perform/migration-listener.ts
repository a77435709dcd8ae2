import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { ServerCertificate } from "../../identity/certificate.ts";
import { hashOf, isSameHash } from "../../identity/secrets.ts";
import { ByteSocket, byteSocketHandlers, type SocketData } from "../../messaging/byte-socket.ts";
import {
  type FromTaker,
  type MigrationChannel,
  migrationHelloSchema,
  migrationLimits,
  readLine,
} from "../protocol-migration.ts";
import { LineChannel } from "./line-channel.ts";

/** TLS 1.3 in Bun's number for it; its types know the words of node:tls alone. */
const tls13 = { minVersion: 0x0304 } as object;

interface Options {
  readonly migration: string;
  readonly secret: string;
  readonly certificate: ServerCertificate;
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  /** A channel of whoever knows the secret. @returns why it may not be, or who begins with it */
  readonly onChannel: (channel: MigrationChannel) => string | ((socket: ByteSocket) => void);
}

/** A listener for one ticket: nothing else is there before it, and nothing after it. */
export class MigrationListener implements Disposable {
  readonly #loop: EventLoop;
  readonly #options: Options;
  readonly #secretHash: string;
  readonly #server: Bun.TCPSocketListener<SocketData>;
  readonly #open = new Set<ByteSocket>();
  readonly #unproven = new Set<ByteSocket>();

  /** @throws Error (EADDRINUSE, EADDRNOTAVAIL …) */
  constructor(loop: EventLoop, options: Options) {
    this.#loop = loop;
    this.#options = options;
    this.#secretHash = hashOf(options.secret);
    const { certificate, key } = options.certificate;
    this.#server = Bun.listen<SocketData>({
      hostname: options.host,
      port: options.port,
      tls: { cert: certificate, key, ...tls13 },
      data: { peer: undefined },
      socket: {
        ...byteSocketHandlers,
        open: (socket) => this.#take(socket),
      },
    });
  }

  get port(): number {
    return this.#server.port;
  }

  #take(raw: Bun.Socket<SocketData>): void {
    const { connections, unprovenConnections, helloTime, helloBytes } = migrationLimits;
    const socket = new ByteSocket(raw);
    const isFull = this.#open.size >= connections || this.#unproven.size >= unprovenConnections;
    if (isFull) {
      socket.terminate("there are too many connections");
      return;
    }
    this.#open.add(socket);
    this.#unproven.add(socket);
    const late = this.#loop.wakeAfter(helloTime, () => socket.terminate("it said nothing in time"));
    void socket.closed.then(() => {
      late[Symbol.dispose]();
      this.#open.delete(socket);
      this.#unproven.delete(socket);
    });
    const limits = { ...migrationLimits, lineBytes: helloBytes };
    const lines = new LineChannel(socket, limits, {
      onLine: (line) => {
        lines.release();
        late[Symbol.dispose]();
        this.#unproven.delete(socket);
        this.#admit(socket, line);
      },
      onViolation: (reason) => socket.terminate(reason),
    });
  }

  #admit(socket: ByteSocket, line: string): void {
    const read = readLine(migrationHelloSchema, line);
    if (read.kind === "refused") {
      answer(socket, { kind: "refused", message: read.reason });
      socket.finish();
      return;
    }
    const { migration, secret, channel } = read.value;
    const isKnown = isSameHash(hashOf(secret), this.#secretHash);
    if (!isKnown || migration !== this.#options.migration) {
      answer(socket, { kind: "refused", message: "there is no such ticket" });
      socket.finish();
      return;
    }
    const taken = this.#options.onChannel(channel);
    if (typeof taken === "string") {
      answer(socket, { kind: "refused", message: taken });
      socket.finish();
      return;
    }
    answer(socket, { kind: "welcome" });
    taken(socket);
  }

  /** Nobody new comes in; who is in stays. */
  [Symbol.dispose](): void {
    this.#server.stop();
  }

  /** And who is in goes. */
  endAll(reason: string): void {
    this[Symbol.dispose]();
    for (const socket of [...this.#open]) socket.terminate(reason);
  }
}

function answer(socket: ByteSocket, message: FromTaker): void {
  socket.write(Buffer.from(`${JSON.stringify(message)}\n`));
}
