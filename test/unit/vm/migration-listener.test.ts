/** The listener of a ticket, by TLS on the loopback: who has no secret is heard for one line. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { makeServerCertificate } from "../../../src/identity/certificate.ts";
import { newSecret, systemRandom } from "../../../src/identity/secrets.ts";
import { ByteSocket, byteSocketHandlers, join } from "../../../src/messaging/byte-socket.ts";
import { dialMigration } from "../../../src/vm/perform/migration-dial.ts";
import { MigrationListener } from "../../../src/vm/perform/migration-listener.ts";
import {
  type MigrationChannel,
  type MigrationTicket,
  migrationLimits,
} from "../../../src/vm/protocol-migration.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { rejectionOf, waitFor } from "../../support/wait-for.ts";

const migration = "1".repeat(32);
const control: MigrationChannel = { kind: "control" };
const never = new AbortController().signal;

let loop: EventLoop;
let listener: MigrationListener;
let ticket: MigrationTicket;
let taken: { readonly channel: MigrationChannel; readonly socket: ByteSocket }[];
let refusal: string | undefined;

beforeEach(async () => {
  loop = testEventLoop();
  taken = [];
  refusal = undefined;
  const certificate = await makeServerCertificate({ names: ["127.0.0.1"], random: systemRandom });
  const secret = newSecret(systemRandom);
  listener = new MigrationListener(loop, {
    ...{ migration, secret, certificate, host: "127.0.0.1", port: 0 },
    onChannel: (channel) =>
      refusal ?? ((socket: ByteSocket) => void taken.push({ channel, socket })),
  });
  ticket = {
    hostler_migration_ticket: 1,
    ...{ name: "web", migration, host: "127.0.0.1", port: listener.port, secret },
    ...{ pin: certificate.pin, expires: "never" },
  };
});
afterEach(() => {
  listener.endAll("the test is over");
  loop[Symbol.dispose]();
});

/** Speaks TLS, and says what it likes. */
async function rude(version = 0x0304): Promise<ByteSocket> {
  const opened = Promise.withResolvers<ByteSocket>();
  await Bun.connect<{ peer: ByteSocket | undefined }>({
    hostname: "127.0.0.1",
    port: listener.port,
    data: { peer: undefined },
    tls: { rejectUnauthorized: false, ...({ maxVersion: version } as object) },
    socket: {
      ...byteSocketHandlers,
      handshake: (socket, isDone, error) => {
        if (isDone) opened.resolve(new ByteSocket(socket));
        else opened.reject(error ?? new Error("no TLS"));
      },
    },
  });
  return await opened.promise;
}

test("who has the ticket comes in, and its bytes come whole, both ways", async () => {
  const near = await dialMigration(loop, ticket, { kind: "memory" }, never);
  const far = await waitFor("the channel", () => taken[0]);
  expect(far.channel).toEqual({ kind: "memory" });
  const sent = new Uint8Array(3_000_000).map((_byte, index) => index % 251);
  for (const [from, to] of [
    [near, far.socket],
    [far.socket, near],
  ] as const) {
    const pieces: Uint8Array[] = [];
    let size = 0;
    to.listen((bytes) => {
      pieces.push(Uint8Array.from(bytes));
      size += bytes.length;
    });
    from.write(sent);
    await waitFor("all bytes", () => size === sent.length);
    expect(Buffer.concat(pieces).equals(Buffer.from(sent))).toBeTrue();
  }
});

test("a wrong secret, another migration, and what is refused by its taker hear why", async () => {
  const wrong = { ...ticket, secret: newSecret(systemRandom) };
  const other = { ...ticket, migration: "2".repeat(32) };
  for (const bad of [wrong, other]) {
    const error = await rejectionOf(dialMigration(loop, bad, control, never));
    expect(error.message).toContain("there is no such ticket");
    expect(error.message).not.toContain(bad.secret);
  }
  refusal = "the ticket was used";
  const error = await rejectionOf(dialMigration(loop, ticket, control, never));
  expect(error.message).toContain("the ticket was used");
  expect(taken).toEqual([]);
});

test("another certificate than the ticket's is refused before anything is said", async () => {
  const pin = "0".repeat(64);
  const error = await rejectionOf(dialMigration(loop, { ...ticket, pin }, control, never));
  expect(error.message).toContain(`expected a certificate with the pin ${pin}, received`);
  expect(taken).toEqual([]);
});

test("an older TLS is refused", async () => {
  expect((await rejectionOf(rude(0x0303))).message).not.toBe("");
});

test("who says more than a hello before it is known, or no hello, is let go", async () => {
  const long = await rude();
  long.listen(() => {});
  long.write(new Uint8Array(migrationLimits.helloBytes + 1).fill(65));
  await long.closed;
  const none = await rude();
  const heard: string[] = [];
  none.listen((bytes) => heard.push(new TextDecoder().decode(bytes)));
  none.write(Buffer.from("GET / HTTP/1.1\n"));
  await none.closed;
  expect(heard.join("")).toContain("expected a line of JSON");
  expect(taken).toEqual([]);
});

test("more who have said nothing than there may be are let go at once", async () => {
  const open: ByteSocket[] = [];
  for (let count = 0; count < migrationLimits.unprovenConnections; count += 1) {
    open.push(await rude());
  }
  const surplus = await rejectionOf(rude().then((socket) => socket.closed.then(fail)));
  expect(surplus.message).not.toBe("");
  expect(open.filter(({ end }) => end === undefined)).toHaveLength(open.length);
  for (const socket of open) socket.terminate("enough");
  await waitFor("room", async () => {
    const socket = await dialMigration(loop, ticket, control, never).catch(() => undefined);
    return socket !== undefined;
  });
});

const fail = (reason: string): never => {
  throw new Error(reason);
};

test("one that takes nothing has whoever sends wait, and loses nothing", async () => {
  const near = await dialMigration(loop, ticket, control, never);
  const far = await waitFor("the channel", () => taken[0]);
  const piece = new Uint8Array(1024 * 1024).fill(7);
  let written = 0;
  while (near.write(piece)) written += 1;
  written += 1;
  expect(near.unsentBytes).toBeGreaterThan(0);
  let size = 0;
  far.socket.listen((bytes) => {
    size += bytes.length;
  });
  await near.drained();
  near.finish();
  await waitFor("all of it", () => size === written * piece.length);
});

test("two that are joined end with each other, after the last byte", async () => {
  const one = await dialMigration(loop, ticket, { kind: "memory" }, never);
  const other = await dialMigration(loop, ticket, { kind: "image" }, never);
  await waitFor("both", () => taken.length === 2);
  const [first, second] = taken;
  if (first === undefined || second === undefined) throw new Error("Expected two");
  join(first.socket, second.socket);
  let size = 0;
  other.listen((bytes) => {
    size += bytes.length;
  });
  one.write(new Uint8Array(500_000));
  one.finish();
  await other.closed;
  expect(size).toBe(500_000);
});

test("a call that nobody answers any more is called off", async () => {
  listener.endAll("gone");
  const error = await rejectionOf(dialMigration(loop, ticket, control, never));
  expect(error.message).toContain("Cannot reach 127.0.0.1:");
  const off = new AbortController();
  off.abort(new Error("called off"));
  const called = await rejectionOf(dialMigration(loop, ticket, control, off.signal));
  expect(called.message).toBe("called off");
});
