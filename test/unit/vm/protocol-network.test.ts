/** What a declaration says of networks: cards, ports of the host, and what differs. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { parseDeclaration } from "../../../src/vm/declaration.ts";
import { desiredSchema, type VmSpec, vmSpecSchema } from "../../../src/vm/protocol.ts";
import {
  cardRequestsOf,
  findShared,
  forwardsOf,
  networkLimits,
} from "../../../src/vm/protocol-network.ts";
import { findDrift } from "../../../src/vm/reconcile.ts";

const web: VmSpec = { name: "web", kernelPath: "/kernel" };

function refusalOf(changes: object): string | undefined {
  const parsed = v.safeParse(vmSpecSchema, { ...web, ...changes });
  return parsed.success ? undefined : parsed.issues.map(({ message }) => message).join("; ");
}

describe("cards and forwards", () => {
  test("are one in the default network, where nothing is said", () => {
    expect(cardRequestsOf(web)).toEqual([{ network: "default" }]);
    expect(cardRequestsOf({ networks: [] })).toEqual([]);
    expect(forwardsOf(web)).toEqual([]);
  });

  test("are by name, or with an address", () => {
    const networks = ["default", { network: "storage", address: "10.101.0.5" }];
    expect(refusalOf({ networks, forwards: ["tcp:8080:80", "udp:53:5353"] })).toBeUndefined();
    expect(cardRequestsOf({ networks })).toEqual([
      { network: "default" },
      { network: "storage", address: "10.101.0.5" },
    ]);
    expect(forwardsOf({ forwards: ["tcp:8080:80", "udp:53:5353"] })).toEqual([
      { protocol: "tcp", hostPort: 8080, port: 80 },
      { protocol: "udp", hostPort: 53, port: 5353 },
    ]);
  });

  test.each([
    [{ networks: ["Default"] }, "Expected a network's name"],
    [{ networks: ["default", { network: "default" }] }, "Expected each network once"],
    [{ networks: [{ network: "default", address: "10.100.0" }] }, "Expected an IPv4 address"],
    [{ networks: [7] }, "Expected a network's name, or {network"],
    [{ forwards: ["tcp:8080"] }, 'Expected "tcp:HOST-PORT:GUEST-PORT"'],
    [{ forwards: ["sctp:8080:80"] }, 'Expected "tcp:HOST-PORT:GUEST-PORT"'],
    [{ forwards: ["tcp:0:80"] }, "of ports from 1 to 65535"],
    [{ forwards: ["tcp:65536:80"] }, "of ports from 1 to 65535"],
    [{ forwards: ["tcp:8080:80", "tcp:8080:81"] }, "Expected each of the host's ports once"],
    [{ networks: [], forwards: ["tcp:8080:80"] }, "Expected a network for the forwards"],
  ])("are refused: %j", (changes, words) => {
    expect(refusalOf(changes)).toContain(words);
  });

  test("have limits", () => {
    const names = Array.from({ length: networkLimits.cards + 1 }, (_value, at) => `n${at}`);
    expect(refusalOf({ networks: names.slice(1) })).toBeUndefined();
    expect(refusalOf({ networks: names })).toBe("Expected at most 8 cards");
    const ports = Array.from(
      { length: networkLimits.forwards + 1 },
      (_value, at) => `tcp:${at + 1}:80`,
    );
    expect(refusalOf({ forwards: ports.slice(1) })).toBeUndefined();
    expect(refusalOf({ forwards: ports })).toBe("Expected at most 64 ports");
    const name = "n".repeat(networkLimits.nameLength);
    expect(refusalOf({ networks: [name] })).toBeUndefined();
    expect(refusalOf({ networks: [`${name}n`] })).toContain("1 to 31 characters");
  });
});

describe("a declaration", () => {
  test("with a port of the host for two machines is refused, in its place, with both", () => {
    const machine = (name: string, rest: string) =>
      `[[machine]]\nname = "${name}"\nkernelPath = "/k"\n${rest}\n`;
    const ports = machine("web", 'forwards = ["tcp:8080:80"]');
    expect(
      parseDeclaration("x.toml", ports + machine("db", 'forwards = ["udp:8080:80"]')).kind,
    ).toBe("ok");
    const text = ports + machine("db", 'forwards = ["tcp:8080:90"]');
    expect(parseDeclaration("x.toml", text)).toMatchObject({
      errors: [
        {
          ...{ line: 8, key_path: "machine[1].forwards" },
          received: "tcp port 8080 of db, which web has",
        },
      ],
    });
  });

  test("with an address for two machines of one network is refused", () => {
    const address = "10.101.0.5";
    const one = { name: "a", networks: [{ network: "storage", address }] };
    expect(findShared([one, { name: "b", networks: [{ network: "lab", address }] }])).toEqual([]);
    const shared = { key: "networks", what: "10.101.0.5 of storage", other: "a" };
    expect(findShared([one, { ...one, name: "b" }, { ...one, name: "c" }])).toEqual([
      { index: 1, ...shared },
      { index: 2, ...shared },
    ]);
  });

  test("says of a machine with forwards that it needs a card", () => {
    const machine = [{ ...web, networks: [], forwards: ["tcp:8080:80"] }];
    const parsed = v.safeParse(desiredSchema, { machine });
    expect(parsed.issues?.[0]?.message).toBe("Expected a network for the forwards to lead to");
  });
});

describe("drift", () => {
  test("is what means something else, and not what is written otherwise", () => {
    const same: [Partial<VmSpec>, Partial<VmSpec>][] = [
      [{}, { networks: ["default"], forwards: [] }],
      [{ networks: ["default"] }, { networks: [{ network: "default" }] }],
      [{ forwards: ["tcp:1:1", "tcp:2:2"] }, { forwards: ["tcp:2:2", "tcp:1:1"] }],
    ];
    for (const [one, other] of same) {
      expect(findDrift({ ...web, ...one }, { ...web, ...other })).toEqual([]);
    }
    expect(findDrift({ ...web, networks: ["a", "b"] }, { ...web, networks: ["b", "a"] })).toEqual([
      { key: "networks", desired: ["a", "b"], observed: ["b", "a"] },
    ]);
    const drift = findDrift({ ...web, forwards: ["tcp:1:1"] }, web);
    expect(drift).toMatchObject([{ key: "forwards", desired: ["tcp:1:1"] }]);
    // A list without domains lets nothing through: that is not the same as none.
    expect(findDrift({ ...web, networkAllowedDomains: [] }, web)).toHaveLength(1);
  });
});
