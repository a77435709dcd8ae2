import type { EventLoop } from "../../event-loop/event-loop.ts";
import { pinOfDer } from "../../http/pinned-connection.ts";
import { ByteSocket, byteSocketHandlers, type SocketData } from "../../messaging/byte-socket.ts";
import { formatDuration } from "../../units/units.ts";
import {
  fromTakerSchema,
  joinAddress,
  MIGRATION_PROTOCOL,
  type MigrationChannel,
  type MigrationHello,
  type MigrationTicket,
  migrationLimits,
  readLine,
} from "../protocol-migration.ts";
import { LineChannel } from "./line-channel.ts";

/** The other host cannot be reached, is another one, or refuses; the message has the mend. */
export class MigrationRefused extends Error {
  override readonly name = "MigrationRefused";
}

/** TLS 1.3 in Bun's number for it; its types know the words of node:tls alone. */
const tls13 = { minVersion: 0x0304 } as object;

/**
 * Opens a channel to the host that a ticket is of: its certificate is compared with the pin before
 * anything is said, and then it says whether it knows the secret.
 * @throws MigrationRefused; the signal's reason
 */
export async function dialMigration(
  loop: EventLoop,
  ticket: MigrationTicket,
  channel: MigrationChannel,
  signal: AbortSignal,
): Promise<ByteSocket> {
  signal.throwIfAborted();
  const where = joinAddress(ticket.host, ticket.port);
  const over = Promise.withResolvers<never>();
  over.promise.catch(() => undefined);
  const limit = migrationLimits.connectTime;
  using _late = loop.wakeAfter(limit, () => {
    const said = `No answer at ${where} within ${formatDuration(limit)}`;
    over.reject(new MigrationRefused(`${said}: look at its address, and at the firewalls`));
  });
  const callOff = () => over.reject(signal.reason);
  signal.addEventListener("abort", callOff);
  const opening = openPinned(ticket, where);
  let opened: ByteSocket | undefined;
  try {
    opened = await Promise.race([opening, over.promise]);
    const channelOpened = greet(opened, ticket, channel, where);
    return await Promise.race([channelOpened, over.promise]);
  } catch (error) {
    const reason = "it was given up";
    opened?.terminate(reason);
    void opening.then((late) => late.terminate(reason)).catch(() => undefined);
    throw error;
  } finally {
    signal.removeEventListener("abort", callOff);
  }
}

async function openPinned(ticket: MigrationTicket, where: string): Promise<ByteSocket> {
  const { host, port, pin } = ticket;
  const opened = Promise.withResolvers<ByteSocket>();
  const unreachable = (reason: string) =>
    new MigrationRefused(
      `Cannot reach ${where}: ${reason}. The ticket may be used or out of date ` +
        `(${ticket.expires}): make another one, by hostler vm receive`,
    );
  const onHandshake = (socket: Bun.Socket<SocketData>, isDone: boolean, error: Error | null) => {
    if (!isDone) {
      opened.reject(unreachable(error?.message ?? "it speaks no TLS 1.3"));
      return;
    }
    const { raw } = socket.getPeerCertificate() as { readonly raw?: Uint8Array };
    const received = raw === undefined ? "none" : pinOfDer(raw);
    if (received !== pin) {
      const refusal = `Refused ${where}: expected a certificate with the pin ${pin}`;
      opened.reject(new MigrationRefused(`${refusal}, received one with ${received}`));
      socket.terminate();
      return;
    }
    opened.resolve(new ByteSocket(socket));
  };
  try {
    await Bun.connect<SocketData>({
      hostname: host,
      port,
      data: { peer: undefined },
      // The pin is compared above: no authority has signed it.
      tls: { rejectUnauthorized: false, ...tls13 },
      socket: {
        ...byteSocketHandlers,
        handshake: onHandshake,
        close: (socket) => {
          opened.reject(unreachable("it closed the connection"));
          byteSocketHandlers.close(socket);
        },
        connectError: (_socket, error) => opened.reject(unreachable(error.message)),
      },
    });
  } catch (error) {
    opened.reject(unreachable(error instanceof Error ? error.message : String(error)));
  }
  return await opened.promise;
}

/** Says who asks for what, and hears whether that is welcome. */
async function greet(
  socket: ByteSocket,
  ticket: MigrationTicket,
  channel: MigrationChannel,
  where: string,
): Promise<ByteSocket> {
  const answered = Promise.withResolvers<void>();
  const refuse = (reason: string) =>
    answered.reject(new MigrationRefused(`${where} refused: ${reason}`));
  const lines = new LineChannel(socket, migrationLimits, {
    onLine: (line) => {
      const read = readLine(fromTakerSchema, line);
      if (read.kind === "refused") refuse(read.reason);
      else if (read.value.kind === "welcome") answered.resolve();
      else if (read.value.kind === "refused") refuse(read.value.message);
      else refuse(`expected a welcome, received ${read.value.kind}`);
      // What follows is for whoever asked.
      lines.release();
    },
    onViolation: refuse,
  });
  void socket.closed.then((reason) => refuse(`it closed the connection: ${reason}`));
  const { migration, secret } = ticket;
  const hello: MigrationHello = {
    ...{ hostler_migration: MIGRATION_PROTOCOL, migration, secret, channel },
  };
  lines.send(hello);
  await answered.promise;
  return socket;
}
