/** Addresses, hardware addresses and names that are given out. */
import { describe, expect, test } from "bun:test";
import {
  AddressPool,
  bridgeMacAddress,
  macAddressOf,
  tapNameOf,
} from "../../src/network/addresses.ts";
import {
  broadcastAddress,
  formatIpv4,
  formatSubnet,
  ipv4Bytes,
  ipv4FromBytes,
  parseIpv4,
  parseIpv6,
  parseMacAddress,
  parseSubnet,
  type Subnet,
  subnetHas,
  subnetsOverlap,
} from "../../src/network/subnet.ts";

const subnet = (text: string): Subnet => {
  const read = parseSubnet(text);
  if (read === undefined) throw new Error(`no subnet: ${text}`);
  return read;
};
const address = (text: string) => parseIpv4(text) ?? Number.NaN;
const poolOf = (text: string) => {
  const of = subnet(text);
  return new AddressPool(of, [of.network + 1]);
};
/** Allocates, and expects an address. */
const take = (pool: AddressPool, holder: string) => {
  const answer = pool.allocate(holder);
  if ("refusal" in answer) throw new Error(answer.refusal.reason);
  return formatIpv4(answer.address);
};

describe("addresses in text", () => {
  test.each(["0.0.0.0", "10.100.0.1", "192.168.255.254", "255.255.255.255"])("%s", (text) => {
    expect(formatIpv4(address(text))).toBe(text);
    expect(ipv4FromBytes(ipv4Bytes(address(text)))).toBe(address(text));
  });

  test.each(["", "10.1.1", "10.1.1.1.1", "10.1.1.256", "10.01.1.1", "10.1.1.1 ", "0x0a.1.1.1"])(
    "%j is none",
    (text) => expect(parseIpv4(text)).toBeUndefined(),
  );

  test.each(["10.100.0.0/16", "0.0.0.0/0", "10.0.0.4/30", "128.0.0.0/1"])("%s", (text) => {
    expect(formatSubnet(subnet(text))).toBe(text);
  });

  test.each(["10.0.0.1/24", "10.0.0.0/33", "10.0.0.0", "10.0.0.0/24/1", "10.0.0.0/08", "a/8"])(
    "%j is no subnet",
    (text) => expect(parseSubnet(text)).toBeUndefined(),
  );

  test("what is in a subnet, its end, and what overlaps it", () => {
    const high = subnet("192.168.4.0/22");
    expect(formatIpv4(broadcastAddress(high))).toBe("192.168.7.255");
    expect(subnetHas(high, address("192.168.7.255"))).toBe(true);
    expect(subnetHas(high, address("192.168.8.0"))).toBe(false);
    expect(subnetsOverlap(high, subnet("192.168.6.0/24"))).toBe(true);
    expect(subnetsOverlap(subnet("192.168.6.0/24"), high)).toBe(true);
    expect(subnetsOverlap(high, subnet("192.168.8.0/22"))).toBe(false);
    expect(subnetsOverlap(high, subnet("0.0.0.0/0"))).toBe(true);
  });

  test.each([
    ["::", "00".repeat(16)],
    ["2001:db8::2", `20010db8${"00".repeat(11)}02`],
    ["fe80::1:2", `fe80${"00".repeat(10)}00010002`],
    ["1:2:3:4:5:6:7:8", "00010002000300040005000600070008"],
  ])("IPv6 %s", (text, hex) => expect(parseIpv6(text)?.toHex()).toBe(hex));

  test.each(["", ":", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "g::", "12345::"])(
    "%j is no IPv6 address",
    (text) => expect(parseIpv6(text)).toBeUndefined(),
  );

  test.each(["", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:5G", "52-54-00-12-34-56"])(
    "%j is no hardware address",
    (text) => expect(parseMacAddress(text)).toBeUndefined(),
  );
});

describe("a pool", () => {
  test("gives the lowest, none of its own, and goes beyond 255", () => {
    const pool = poolOf("10.100.0.0/16");
    const given = Array.from({ length: 600 }, (_, index) => take(pool, `vm-${index}`));
    expect(given[0]).toBe("10.100.0.2");
    expect(given[253]).toBe("10.100.0.255");
    expect(given[254]).toBe("10.100.1.0");
    expect(given.at(-1)).toBe("10.100.2.89");
    expect(new Set(given).size).toBe(600);
  });

  test.each([8, 12, 16, 20, 24, 28, 29, 30])("of /%d: its first, its size, its end", (prefix) => {
    const of = subnet(`${prefix === 8 ? "11.0.0.0" : "10.16.0.0"}/${prefix}`);
    const pool = new AddressPool(of, [of.network + 1]);
    expect(pool.size).toBe(2 ** (32 - prefix) - 3);
    expect(take(pool, "a")).toBe(formatIpv4(of.network + 2));
    const last = broadcastAddress(of) - 1;
    if (last > of.network + 2) expect(pool.reserve(last, "b")).toEqual({ address: last });
  });

  test("every address once, then a refusal that says what to do", () => {
    const pool = poolOf("10.0.0.0/28");
    const given = Array.from({ length: pool.size }, () => take(pool, "a"));
    expect(new Set(given).size).toBe(13);
    expect(pool.allocate("b")).toEqual({
      refusal: {
        kind: "exhausted",
        reason: "All 13 addresses of 10.0.0.0/28 are taken",
        mend: "delete machines, or give the network a larger subnet",
      },
    });
    pool.release(address("10.0.0.7"));
    expect(take(pool, "b")).toBe("10.0.0.7");
  });

  test("fresh ones first, and then the one that is free for longest", () => {
    const pool = poolOf("10.0.0.0/29");
    expect([take(pool, "a"), take(pool, "b"), take(pool, "c")]).toEqual([
      "10.0.0.2",
      "10.0.0.3",
      "10.0.0.4",
    ]);
    pool.release(address("10.0.0.3"));
    pool.release(address("10.0.0.2"));
    expect(take(pool, "d")).toBe("10.0.0.5");
    expect(take(pool, "e")).toBe("10.0.0.6");
    expect(take(pool, "f")).toBe("10.0.0.3");
    pool.release(address("10.0.0.3"));
    expect(take(pool, "g")).toBe("10.0.0.2");
    expect(pool.holderOf(address("10.0.0.2"))).toBe("g");
  });

  test("a reservation: of a free address, again by its holder, and refused otherwise", () => {
    const pool = poolOf("10.0.0.0/24");
    const wanted = address("10.0.0.2");
    expect(pool.reserve(wanted, "a")).toEqual({ address: wanted });
    expect(pool.reserve(wanted, "a")).toEqual({ address: wanted });
    expect(take(pool, "b")).toBe("10.0.0.3");
    const refusals = ["10.0.0.2", "10.0.0.1", "10.0.0.0", "10.0.0.255", "10.0.1.2"].map((text) => {
      const answer = pool.reserve(address(text), "c");
      return "refusal" in answer ? answer.refusal.kind : undefined;
    });
    expect(refusals).toEqual(["taken", "reserved", "reserved", "reserved", "outside"]);
  });

  test("is remembered, and takes what still fits when the subnet has changed", () => {
    const pool = poolOf("10.0.0.0/24");
    take(pool, "a");
    take(pool, "b");
    pool.reserve(address("10.0.0.200"), "c");
    pool.release(address("10.0.0.2"));
    const record = pool.record();
    expect(record).toEqual({
      taken: { "10.0.0.3": "b", "10.0.0.200": "c" },
      freed: ["10.0.0.2"],
    });
    const smaller = poolOf("10.0.0.0/25");
    const taken = new Map(Object.entries(record.taken).map(([text, who]) => [address(text), who]));
    smaller.restore({ taken, freed: record.freed.map(address) });
    expect(smaller.taken).toBe(1);
    expect(take(smaller, "d")).toBe("10.0.0.4");
  });

  test("giving back what nobody has does nothing", () => {
    const pool = poolOf("10.0.0.0/30");
    pool.release(address("10.0.0.2"));
    expect(pool.record()).toEqual({ taken: {}, freed: [] });
  });
});

describe("what is derived", () => {
  const identity = { worker: "w1", machine: "llm-agent-001", card: "0" };

  test("a hardware address is the same for ever, local, and one machine's", () => {
    const mac = macAddressOf(identity);
    expect(mac).toBe(macAddressOf({ ...identity }));
    const first = parseMacAddress(mac)?.[0] ?? 0;
    expect(first & 3).toBe(2);
    expect(bridgeMacAddress("w1", "br0")).not.toBe(bridgeMacAddress("w2", "br0"));
  });

  test("10,000 machines of 4 workers: no hardware address twice, none by other borders", () => {
    const addresses = new Set<string>();
    for (let index = 0; index < 10_000; index += 1) {
      const worker = `w${index % 4}`;
      addresses.add(macAddressOf({ worker, machine: `vm-${index}`, card: "0" }));
    }
    expect(addresses.size).toBe(10_000);
    const one = macAddressOf({ worker: "a", machine: "bc", card: "0" });
    expect(macAddressOf({ worker: "ab", machine: "c", card: "0" })).not.toBe(one);
  });

  test("names that begin alike have TAPs that do not collide", () => {
    const name = tapNameOf(identity, () => false);
    const other = tapNameOf({ ...identity, machine: "llm-agent-002" }, () => false);
    expect(name).toMatch(/^tap-[a-z2-7]{8}$/);
    expect(other).toMatch(/^tap-[a-z2-7]{8}$/);
    expect(other).not.toBe(name);
    expect(tapNameOf(identity, () => false)).toBe(name);
  });

  test("a collision takes the next suffix, within 15 letters; at the end there is none", () => {
    const taken = new Set<string>();
    const names: string[] = [];
    for (let name = tapNameOf(identity, (one) => taken.has(one)); name !== undefined; ) {
      taken.add(name);
      names.push(name);
      name = tapNameOf(identity, (one) => taken.has(one));
    }
    expect(names).toHaveLength(100);
    expect(names[1]).toBe(`${names[0]}.1`);
    expect(Math.max(...names.map(({ length }) => length))).toBe(15);
  });
});
