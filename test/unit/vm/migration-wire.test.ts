/** What two workers say to each other: every line is checked, and none is too long. */
import { describe, expect, test } from "bun:test";
import {
  fromGiverSchema,
  imageEntrySchema,
  type MigrationOffer,
  type MigrationTicket,
  migrationHelloSchema,
  migrationLimits,
  readLine,
  readTicket,
  refuseImagePath,
  refuseOffer,
  refuseTicketHost,
  type TakerFacts,
} from "../../../src/vm/protocol-migration.ts";

const ticket: MigrationTicket = {
  hostler_migration_ticket: 1,
  ...{ name: "web", migration: "0".repeat(32), host: "192.0.2.7", port: 4001 },
  ...{ pin: "a".repeat(64), secret: "s".repeat(43), expires: "2026-11-29T01:00:00Z" },
};
const hash = `sha256-${"A".repeat(43)}=`;
const offer: MigrationOffer = {
  kind: "offer",
  hostler: "1.0.0",
  spec: { name: "web", imagePath: "/image", hash },
  cards: [{ network: "default", tap: "ht-1", mac: "52:54:00:00:00:01", address: "10.100.0.2" }],
  choice: {
    ...{ hypervisor: "qemu", accelerator: "tcg" },
    ...{ machine_type: "pc-q35-7.2", processor_model: "Nehalem-v1" },
  },
  vmm_version: "7.2.22",
  same_build_only: null,
  wanted: "running",
  memory: 64,
  image: { bytes: 100 },
  disks: [{ id: "root", format: "qcow2", bytes: 50 }],
};
const facts: TakerFacts = {
  name: "web",
  refusal: undefined,
  program: { hypervisor: "qemu", version: "7.2.22" },
  hasImage: true,
  freeDisk: 50,
  freeMemory: 64,
};

describe("a ticket", () => {
  const text = JSON.stringify(ticket);

  test.each(["0.0.0.0", "::", "0:0::0", "::ffff:0.0.0.0"])("is not made of %s", (host) => {
    expect(refuseTicketHost(host)).toContain(`this one, received ${host}, which is none of them`);
  });

  test.each(["192.0.2.7", "2001:db8::7", "127.0.0.1", "::1"])("may be of %s", (host) => {
    expect(refuseTicketHost(host)).toBeUndefined();
  });

  test("is read as it was printed", () => {
    expect(readTicket(`${text}\n`)).toEqual({ kind: "ok", value: ticket });
  });

  test("is refused by the names of its keys, and its secret is in no refusal", () => {
    for (const [key, value] of Object.entries({
      ...{ secret: "short", pin: "B".repeat(64), port: 0, host: "example.org", migration: "1" },
      ...{ hostler_migration_ticket: 2, name: "WEB", more: 1 },
    })) {
      const read = readTicket(JSON.stringify({ ...ticket, [key]: value }));
      expect(read.kind).toBe("refused");
      const reason = read.kind === "refused" ? read.reason : "";
      expect(reason).toContain(key);
      expect(reason).toContain("hostler vm receive");
      expect(reason).not.toContain(ticket.secret);
    }
    expect(readTicket("no ticket").kind).toBe("refused");
    expect(readTicket("").kind).toBe("refused");
  });

  test("has a limit", () => {
    const read = readTicket(text.padEnd(migrationLimits.ticketBytes + 1));
    expect(read).toMatchObject({ reason: expect.stringContaining("at most 4096 bytes") });
  });
});

describe("a line", () => {
  test("is what the other side may say, or refused with the place", () => {
    expect(readLine(fromGiverSchema, JSON.stringify(offer))).toEqual({ kind: "ok", value: offer });
    expect(readLine(fromGiverSchema, '{"kind":"alive"}').kind).toBe("ok");
    for (const line of ["", "{", "[]", "null", '{"kind":"taken"}', '{"kind":"alive","more":1}']) {
      expect([line, readLine(fromGiverSchema, line).kind]).toEqual([line, "refused"]);
    }
    const wrong = readLine(fromGiverSchema, JSON.stringify({ ...offer, memory: -1 }));
    expect(wrong).toMatchObject({ reason: expect.stringContaining("memory") });
  });

  test("says no more of anything than there may be", () => {
    const [disk] = offer.disks;
    const disks = Array.from({ length: migrationLimits.disks + 1 }, () => disk);
    expect(readLine(fromGiverSchema, JSON.stringify({ ...offer, disks })).kind).toBe("refused");
    const reason = "x".repeat(migrationLimits.textLength + 1);
    const line = JSON.stringify({ kind: "withdraw", reason });
    expect(readLine(fromGiverSchema, line).kind).toBe("refused");
  });

  test("of a hello names the protocol: another one is refused", () => {
    const hello = {
      ...{ hostler_migration: 1, migration: ticket.migration, secret: ticket.secret },
      channel: { kind: "disk", disk: "root" },
    };
    expect(readLine(migrationHelloSchema, JSON.stringify(hello)).kind).toBe("ok");
    const other = JSON.stringify({ ...hello, hostler_migration: 2 });
    expect(readLine(migrationHelloSchema, other)).toMatchObject({
      reason: expect.stringContaining("hostler_migration"),
    });
    const disk = JSON.stringify({ ...hello, channel: { kind: "disk", disk: "../root" } });
    expect(readLine(migrationHelloSchema, disk).kind).toBe("refused");
  });
});

describe("an image's entry", () => {
  test("is below its folder", () => {
    for (const path of ["", "a", "a/b.c", "…/ü"]) expect(refuseImagePath(path)).toBeUndefined();
    for (const path of ["/a", "a/", "..", "a/../b", ".", "a//b", "a\0b"]) {
      expect([path, refuseImagePath(path)]).toEqual([path, expect.stringContaining("below")]);
    }
    const long = "x".repeat(migrationLimits.imagePathBytes + 1);
    expect(refuseImagePath(long)).toContain("at most 4096 bytes");
    expect(readLine(imageEntrySchema, '{"kind":"device","path":"a"}').kind).toBe("refused");
  });
});

describe("a host takes what it can run", () => {
  test("and nothing else: with the exact reason", () => {
    expect(refuseOffer(offer, facts)).toBeUndefined();
    const refusals: readonly [Partial<MigrationOffer>, Partial<TakerFacts>, string][] = [
      [{}, { name: "mail" }, "expected the machine mail, which the ticket is for, received web"],
      [{}, { refusal: "There is a machine web already" }, "There is a machine web already"],
      [{}, { program: { refused: "no QEMU" } }, "no hypervisor here can run it: no QEMU"],
      [{ vmm_version: "7.2.21", same_build_only: "it is a microvm" }, {}, "expected qemu 7.2.21"],
      [{ choice: { ...offer.choice, machine_type: "pc-q35-10.0" } }, {}, "pc-q35-10.0, received"],
      [{ choice: { ...offer.choice, machine_type: "pc-q35-7.3" } }, {}, "pc-q35-7.3, received"],
      [{ disks: [{ id: "root", format: "raw", bytes: 51 }] }, {}, "expected 51 bytes of room"],
      [{}, { hasImage: false }, "expected 150 bytes of room"],
      [{ memory: 65 }, {}, "expected 65 bytes of free memory, received 64"],
    ];
    for (const [offered, has, reason] of refusals) {
      expect(refuseOffer({ ...offer, ...offered }, { ...facts, ...has })).toContain(reason);
    }
  });

  test("and a newer program where the state is bound to none", () => {
    const newer = { hypervisor: "qemu", version: "10.0.2" };
    expect(refuseOffer(offer, { ...facts, program: newer })).toBeUndefined();
  });
});
