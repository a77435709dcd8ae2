/** One ticket, over TLS on the loopback: what is declined leaves it as it was. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { makeServerCertificate } from "../../../src/identity/certificate.ts";
import { newSecret, systemRandom } from "../../../src/identity/secrets.ts";
import type { ByteSocket } from "../../../src/messaging/byte-socket.ts";
import { LineChannel } from "../../../src/vm/perform/line-channel.ts";
import { dialMigration } from "../../../src/vm/perform/migration-dial.ts";
import { MigrationTaker, type TakerHost } from "../../../src/vm/perform/migration-taker.ts";
import {
  type MigrationChannel,
  type MigrationOffer,
  type MigrationTicket,
  migrationLimits,
} from "../../../src/vm/protocol-migration.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { rejectionOf, waitFor } from "../../support/wait-for.ts";

const migration = "1".repeat(32);
const never = new AbortController().signal;
const hash = `sha256-${"A".repeat(43)}=`;
const card = { network: "default", tap: "ht-1", mac: "52:54:00:00:00:01", address: "10.100.0.2" };
const offer: MigrationOffer = {
  kind: "offer",
  hostler: "1.0.0",
  spec: { name: "web", imagePath: "/image", hash },
  cards: [card],
  choice: {
    ...{ hypervisor: "qemu", accelerator: "tcg" },
    ...{ machine_type: "pc-q35-7.2", processor_model: "Nehalem-v1" },
  },
  vmm_version: "7.2.22",
  same_build_only: null,
  wanted: "running",
  memory: 64,
  image: { bytes: 100 },
  disks: [],
};

let loop: EventLoop;
let taker: MigrationTaker;
let ticket: MigrationTicket;
/** Why the worker cannot have it, or undefined. */
let inTheWay: string | undefined;
let created: MigrationOffer[];
let told: string[];
let isOver: boolean;

function host(): TakerHost {
  return {
    loop,
    reserve: (offered, networks) => {
      if (inTheWay !== undefined) return inTheWay;
      const [address = card.address] = networks.flatMap((one) => one.address ?? []);
      const kept = { ...offered, cards: [{ ...card, address }] };
      return { offer: kept, [Symbol.dispose]: () => {} };
    },
    facts: (_offer, name) => ({
      ...{ name, refusal: undefined, hasImage: true, freeDisk: 100, freeMemory: 64 },
      program: { hypervisor: "qemu", version: "7.2.22" },
    }),
    imageFolder: () => "/nowhere",
    dropImage: () => {},
    storeImage: () => Promise.reject(new Error("no image comes")),
    create: (offered) => {
      created.push(offered);
      return undefined;
    },
    standing: () => ({ kind: "arrived" }),
    tell: (_name, event) => told.push(event.kind),
    onTurn: () => ({ [Symbol.dispose]: () => {} }),
  };
}

beforeEach(async () => {
  loop = testEventLoop();
  [inTheWay, created, told, isOver] = [undefined, [], [], false];
  const certificate = await makeServerCertificate({ names: ["127.0.0.1"], random: systemRandom });
  const secret = newSecret(systemRandom);
  const own = { name: "web", migration, secret, host: "127.0.0.1" };
  const networks = [{ network: "default", address: "10.100.0.9" }];
  taker = new MigrationTaker(
    host(),
    { ...own, certificate, networks, port: 0, time: migrationLimits.ticketTime },
    () => {
      isOver = true;
    },
  );
  ticket = {
    hostler_migration_ticket: 1,
    ...{ ...own, port: taker.port, pin: certificate.pin, expires: "never" },
  };
});
afterEach(() => {
  taker.close();
  loop[Symbol.dispose]();
});

interface Talk {
  readonly lines: LineChannel;
  readonly heard: { readonly kind: string; readonly [key: string]: unknown }[];
}

async function talk(channel: MigrationChannel = { kind: "control" }): Promise<Talk> {
  const socket: ByteSocket = await dialMigration(loop, ticket, channel, never);
  const heard: Talk["heard"] = [];
  const lines = new LineChannel(socket, migrationLimits, {
    onLine: (line) => heard.push(JSON.parse(line) as Talk["heard"][number]),
    onViolation: () => {},
  });
  return { lines, heard };
}

const hears = (one: Talk, kind: string) =>
  waitFor(kind, () => one.heard.find((message) => message.kind === kind));

test("it is not used up by an offer that is declined: the next one is taken", async () => {
  inTheWay = "its addresses cannot be its own here";
  const first = await talk();
  first.lines.send(offer);
  expect(await hears(first, "refused")).toMatchObject({ message: inTheWay });
  expect([taker.isUsed, isOver]).toEqual([false, false]);
  inTheWay = undefined;
  const second = await talk();
  // What the first one still says is of an offer that is no more.
  first.lines.send({ kind: "withdraw", reason: "it is late" });
  second.lines.send(offer);
  await hears(second, "accepted");
  expect(created.map(({ cards }) => cards[0]?.address)).toEqual(["10.100.0.9"]);
  expect(taker.isUsed).toBeTrue();
  expect((await rejectionOf(talk())).message).toContain("the ticket was used");
});

test("who asks what became of one that was declined hears that it was not taken", async () => {
  inTheWay = "no room";
  const first = await talk();
  first.lines.send(offer);
  await hears(first, "refused");
  const asker = await talk({ kind: "verdict", verdict: "withdraw" });
  expect(await hears(asker, "not-taken")).toMatchObject({ reason: expect.any(String) });
  expect([taker.isUsed, isOver]).toEqual([false, false]);
});

test("what was handed over is not withdrawn any more", async () => {
  const control = await talk();
  control.lines.send(offer);
  control.lines.send(offer);
  await hears(control, "accepted");
  expect(created).toHaveLength(1);
  taker.confirm("arrived");
  control.lines.send({ kind: "hand-over", wanted: "running" });
  control.lines.send({ kind: "withdraw", reason: "it is late" });
  await waitFor("the worker to know", () => told.includes("handed-over"));
  taker.confirm("taken");
  await hears(control, "taken");
  expect(told).toEqual(["handed-over"]);
});
