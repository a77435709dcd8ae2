/** Netlink as bytes: what goes to the kernel, what comes from it, and what is refused. */
import { describe, expect, test } from "bun:test";
import { MOST_DUMP_TRIES, untilWhole } from "../../ffi/netlink.ts";
import {
  decodeMessages,
  decodeVerdict,
  eachAttribute,
  encodeMessages,
  MalformedNetlink,
  type NetlinkMessage,
  type NetlinkRequest,
  PayloadWriter,
  readAttributes,
  unsignedOf,
} from "../../ffi/netlink-message.ts";
import { readDesired } from "../../src/network/desired.ts";
import type { Expression } from "../../src/network/nft-expressions.ts";
import {
  allowAddresses,
  type Chain,
  decodeAllowed,
  decodeChain,
  decodeRule,
  decodeSet,
  decodeTable,
  encodeRuleChange,
  MOST_ALLOWED_ADDRESSES,
  type Table,
} from "../../src/network/nftables.ts";
import {
  addAddress,
  changeLink,
  changeVlan,
  decodeAddress,
  decodeLink,
  decodePortVlans,
  decodeRoute,
  getLink,
  makeBridge,
  removeLink,
} from "../../src/network/rtnetlink.ts";
import { tablesOf } from "../../src/network/rules.ts";
import { parseIpv4 } from "../../src/network/subnet.ts";
import { cardOf, desiredOf } from "../support/network-world.ts";

/** Bytes in hexadecimal digits, with any blanks between. */
const hex = (text: string) => Uint8Array.fromHex(text.replace(/\s/g, ""));
const ascii = (text: string) => new TextEncoder().encode(text).toHex();
const bytesOf = (request: NetlinkRequest) => encodeMessages([request], 1).toHex();
const wire = (text: string) => hex(text).toHex();
/** A request as the kernel would tell it: what makes a thing is laid out like what tells it. */
const answerOf = ({ type, payload }: NetlinkRequest): NetlinkMessage => {
  return { type, flags: 0, sequence: 1, payload };
};
const address = (text: string) => parseIpv4(text) ?? Number.NaN;

describe("requests, byte by byte", () => {
  test("a bridge", () => {
    const macAddress = hex("02 11 22 33 44 55");
    expect(bytesOf(makeBridge({ name: "br0", macAddress }))).toBe(
      wire(`
        44000000 1000 0106 01000000 00000000
        00000000 00000000 00000000 00000000
        0800 0300 ${ascii("br0")} 00
        0a00 0100 021122334455 0000
        1000 1280 0b00 0100 ${ascii("bridge")} 00 00
      `),
    );
  });

  test("a TAP gets its name, its bridge and its size", () => {
    const change = changeLink({ link: "tap0", alias: "hostler vm w", master: 7, mtu: 1400 });
    expect(bytesOf(change)).toBe(
      wire(`
        4c000000 1000 0100 01000000 00000000
        00000000 00000000 00000000 00000000
        0900 0300 ${ascii("tap0")} 00 000000
        0800 0400 78050000
        0800 0a00 07000000
        1000 1400 ${ascii("hostler vm w")}
      `),
    );
  });

  test("a port is isolated, learns, and comes up", () => {
    const port = { isolated: true, learning: false };
    expect(bytesOf(changeLink({ link: 9, isUp: true, port }))).toBe(
      wire(`
        44000000 1000 0100 01000000 00000000
        00000000 09000000 01000000 01000000
        2400 1280
          0b00 0400 ${ascii("bridge")} 00 00
          1400 0580 0500 0800 00 000000 0500 2100 01 000000
      `),
    );
  });

  test("a link goes down, goes, and is asked for", () => {
    const header = "00000000 09000000";
    expect(bytesOf(changeLink({ link: 9, isUp: false }))).toBe(
      wire(`20000000 1000 0100 01000000 00000000 ${header} 00000000 01000000`),
    );
    expect(bytesOf(removeLink(9))).toBe(
      wire(`20000000 1100 0100 01000000 00000000 ${header} 00000000 00000000`),
    );
    expect(bytesOf(getLink("br0"))).toBe(
      wire(`
        28000000 1200 0100 01000000 00000000 00000000 00000000 00000000 00000000
        0800 0300 ${ascii("br0")} 00
      `),
    );
  });

  test("a bridge tells VLANs apart, and a port is in one", () => {
    expect(bytesOf(changeLink({ link: 7, vlanFiltering: true }))).toBe(
      wire(`
        3c000000 1000 0100 01000000 00000000
        00000000 07000000 00000000 00000000
        1c00 1280 0b00 0100 ${ascii("bridge")} 00 00
          0c00 0280 0500 0700 01 000000
      `),
    );
    expect(bytesOf(changeVlan({ index: 9, vlan: 20, is: "member", of: "port" }))).toBe(
      wire(`
        2c000000 1300 0100 01000000 00000000
        07000000 09000000 00000000 00000000
        0c00 1a80 0800 0200 0600 1400
      `),
    );
    expect(bytesOf(changeVlan({ index: 9, vlan: 1, is: "none", of: "port" }))).toBe(
      wire(`
        2c000000 1100 0100 01000000 00000000
        07000000 09000000 00000000 00000000
        0c00 1a80 0800 0200 0000 0100
      `),
    );
    expect(bytesOf(changeVlan({ index: 7, vlan: 20, is: "member", of: "bridge" }))).toBe(
      wire(`
        34000000 1300 0100 01000000 00000000
        07000000 07000000 00000000 00000000
        1400 1a80 0600 0000 0200 0000 0800 0200 0600 1400
      `),
    );
  });

  test("an address", () => {
    const gateway = { index: 7, address: address("10.100.0.1"), prefix: 16 };
    expect(bytesOf(addAddress(gateway, address("10.100.255.255")))).toBe(
      wire(`
        30000000 1400 0106 01000000 00000000
        02100000 07000000
        0800 0200 0a640001 0800 0100 0a640001 0800 0400 0a64ffff
      `),
    );
  });

  test("a rule: masquerade, as `nft --debug=netlink` names its parts", () => {
    const [masquerade] = ruleRequests("postrouting");
    const first = "0800 0100 00000001";
    const source = "0800 0300 0000000c 0800 0400 00000004";
    const mask = "0c00 0480 0800 0100 ffff0000 0c00 0580 0800 0100 00000000";
    const bridge = `1400 0100 ${ascii("br-procurator")} 000000`;
    expect(masquerade?.payload.toHex()).toBe(
      wire(`
        01000000
        1d00 0100 ${ascii("hostler-vm-br-procurator")} 00 000000
        1000 0200 ${ascii("postrouting")} 00
        6801 0480
          ${element("meta", `${first} 0800 0200 0000000f`)}
          ${element("cmp", `${first} 0800 0200 00000000 0c00 0380 0500 0100 02 000000`)}
          ${element("payload", `${first} 0800 0200 00000001 ${source}`)}
          ${element("bitwise", `${first} 0800 0200 00000001 0800 0300 00000004 ${mask}`)}
          ${element("cmp", `${first} 0800 0200 00000000 0c00 0380 0800 0100 0a640000`)}
          ${element("meta", `${first} 0800 0200 00000007`)}
          ${element("cmp", `${first} 0800 0200 00000001 1800 0380 ${bridge}`)}
          ${element("masq", "")}
        1100 0700 00 0b ${ascii("masquerade")} 00 000000
      `),
    );
  });
});

/** One element of a rule's list. */
function element(name: string, data: string): string {
  const length = (size: number) => [size & 0xff, size >> 8].map(byteHex).join("");
  const nameBytes = `${ascii(name)}00`;
  const padding = "00".repeat((4 - ((nameBytes.length / 2) % 4)) % 4);
  const body = wire(data);
  const nameLength = 4 + nameBytes.length / 2;
  const dataLength = 4 + body.length / 2;
  const whole = 4 + nameLength + padding.length / 2 + dataLength;
  const head = `${length(whole)} 0180 ${length(nameLength)} 0100 ${nameBytes} ${padding}`;
  return `${head} ${length(dataLength)} 0280 ${body}`;
}

const byteHex = (byte: number) => byte.toString(16).padStart(2, "0");

/** The tables of a network that has some of everything. */
function everything(): Table[] {
  const cards = [
    cardOf(2),
    cardOf(3, { pin: false }),
    cardOf(4, { ipv6Address: "2001:db8::4" }),
    cardOf(5, { allowList: "allow-5" }),
  ];
  const portForwards = [
    { protocol: "tcp", hostPort: 8080, address: "10.100.0.2", port: 80 },
    { protocol: "udp", hostPort: 53, address: "10.100.0.3", port: 53 },
  ] as const;
  return (["drop", "route"] as const).flatMap((ipv6) =>
    [true, false].flatMap((isolation) => {
      const { networks } = readDesired(desiredOf(cards, { ipv6, isolation, portForwards }));
      return networks.flatMap(tablesOf);
    }),
  );
}

function ruleRequests(chainName: string): NetlinkRequest[] {
  const [table] = everything();
  const chain = table?.chains.find(({ name }) => name === chainName);
  if (table === undefined || chain === undefined) throw new Error(`no chain ${chainName}`);
  return encodeRuleChange({ kind: "replace-rules", table, chain }).slice(1);
}

describe("there and back", () => {
  test("every table, chain and rule that we make reads as what it was", () => {
    for (const table of everything()) {
      const [tableRequest, ...others] = encodeRuleChange({ kind: "make-table", table });
      if (tableRequest === undefined) throw new Error("no table");
      const { family, name, comment } = table;
      expect(decodeTable(answerOf(tableRequest))).toEqual({ family, name, comment });
      const sets = others.splice(0, table.sets.length).map(answerOf).map(decodeSet);
      expect(sets).toEqual([...table.sets]);
      for (const chain of table.chains) {
        const [chainRequest, ...rules] = others.splice(0, 1 + chain.rules.length).map(answerOf);
        if (chainRequest === undefined) throw new Error("no chain");
        expect(decodeChain(chainRequest)).toEqual(summaryOf(table, chain));
        expect(rules.map((one) => decodeRule(one).rule)).toEqual([...chain.rules]);
      }
      expect(others).toEqual([]);
    }
  });

  test("a negative priority is one", () => {
    const chain = everything()[1]?.chains[0];
    expect(chain?.priority).toBe(-500);
  });

  test("an allow list: added, removed and added, each address once, and read with its time", () => {
    const table = { family: "inet", name: "t" } as const;
    const allowed = { address: address("192.0.2.7"), timeout: 60_000 };
    const [first, second, third, ...more] = allowAddresses({ table, set: "allow" }, [
      { ...allowed, timeout: 1 },
      allowed,
    ]);
    if (first === undefined || second === undefined || third === undefined) throw new Error("few");
    expect(more).toEqual([]);
    expect([first, second, third].map(({ type }) => type & 0xff)).toEqual([12, 14, 12]);
    expect(decodeAllowed(answerOf(first))).toEqual([allowed]);
    expect(third).toEqual(first);
  });

  test("an expression of others is foreign, as is one of ours in another form", () => {
    const rule = (name: string, data: string): NetlinkMessage => {
      const list = element(name, data);
      const payload = hex(`
        01000000 0600 0100 7400 0000 0600 0200 6300 0000
        ${byteHex(4 + wire(list).length / 2)}00 0480 ${list}
      `);
      return { type: 0x0a06, flags: 0, sequence: 1, payload };
    };
    const expressionsOf = (message: NetlinkMessage) => decodeRule(message).rule.expressions;
    const foreign = (name: string): Expression[] => [{ kind: "foreign", name }];
    expect(expressionsOf(rule("quota", ""))).toEqual(foreign("quota"));
    // A verdict of jump, and a comparison of "less than" in another register.
    expect(expressionsOf(rule("immediate", "0800 0100 00000000"))).toEqual(foreign("immediate"));
    const less = "0800 0100 00000002 0800 0200 00000002 0c00 0380 0500 0100 02 000000";
    expect(expressionsOf(rule("cmp", less))).toEqual(foreign("cmp"));
  });
});

function summaryOf(table: Table, { name, type, hook, priority, policy, device }: Chain) {
  const devices = device === undefined ? [] : [device];
  const base = { type, hook, priority, policy, devices };
  return { family: table.family, table: table.name, name, base };
}

describe("answers", () => {
  test("a TAP that is a port, as Linux 6.18 tells it", () => {
    const payload = hex(`
      00000100 09000000 03100000 00000000
      0900 0300 ${ascii("tap0")} 00 000000
      0800 0400 dc050000
      0800 0a00 07000000
      0a00 0100 fe1122334455 0000
      1100 1400 ${ascii("hostler vm w")} 00 000000
      5c00 1280
        0800 0100 ${ascii("tun")} 00
        3000 0280
          0500 0300 02 000000 0500 0600 01 000000 0500 0500 01 000000
          0500 0400 00 000000 0800 0100 e8030000
          0400 0c00
        0b00 0400 ${ascii("bridge")} 00 00
        1400 0580 0500 2100 01 000000 0500 0800 01 000000
    `);
    const link = decodeLink({ type: 16, flags: 0, sequence: 1, payload });
    expect(link).toMatchObject({
      index: 9,
      name: "tap0",
      kind: "tun",
      isUp: true,
      mtu: 1500,
      macAddress: "fe:11:22:33:44:55",
      alias: "hostler vm w",
      master: 7,
      tap: { isTap: true, owner: 1000, isPersistent: true, hasVirtioHeader: true },
      port: { isolated: true, learning: true, hairpin: false },
      counters: undefined,
    });
  });

  test("counters, beyond 32 bits", () => {
    const counters = [1n, 2n, 3n, 5_000_000_000n, 0n, 0n, 6n, 7n];
    const values = new BigUint64Array(25);
    values.set(counters);
    const payload = new PayloadWriter()
      .header(16, (view) => view.setInt32(4, 3, true))
      .text(3, "eth0")
      .bytes(23, new Uint8Array(values.buffer))
      .finish();
    expect(decodeLink({ type: 16, flags: 0, sequence: 1, payload }).counters).toEqual({
      receivedPackets: 1,
      sentPackets: 2,
      receivedBytes: 3,
      sentBytes: 5_000_000_000,
      receivedDropped: 6,
      sentDropped: 7,
    });
  });

  test("VLANs of a port, that of its untagged frames first", () => {
    const payload = hex(`
      07000100 09000000 00000000 00000000
      1400 1a80 0800 0200 0000 0500 0800 0200 0600 1400
    `);
    const answer = { type: 16, flags: 0, sequence: 1, payload };
    expect(decodePortVlans(answer)).toEqual({ index: 9, vlans: [20, 5] });
  });

  test("routes: those to others, with their table; local ones are none", () => {
    const route = (type: string) => ({
      type: 24,
      flags: 0,
      sequence: 1,
      payload: hex(`
        02180000 fe0200${type} 00000000
        0800 0f00 fe000000 0800 0100 0a090800 0800 0400 03000000
      `),
    });
    expect(decodeRoute(route("01"))).toEqual({
      destination: { network: address("10.9.8.0"), prefix: 24 },
      index: 3,
      gateway: undefined,
      table: 254,
    });
    expect(decodeRoute(route("02"))).toBeUndefined();
  });

  test("a refusal with the kernel's words, with and without the request in it", () => {
    const words = `${ascii("Bad thing")}00`;
    const attribute = `0e00 0100 ${words} 0000`;
    const error = (flags: number, body: string): NetlinkMessage => {
      return { type: 2, flags, sequence: 1, payload: hex(body) };
    };
    const request = "18000000 1000 0500 01000000 00000000";
    const capped = error(0x300, `efffffff ${request} ${attribute}`);
    expect(decodeVerdict(capped, false)).toEqual({ errno: 17, text: "Bad thing" });
    const whole = error(0x200, `efffffff ${request} 0000000000000000 ${attribute}`);
    expect(decodeVerdict(whole, false)).toEqual({ errno: 17, text: "Bad thing" });
    expect(decodeVerdict(error(0x100, `00000000 ${request}`), false).errno).toBe(0);
    const done = error(0x202, `eaffffff ${attribute}`);
    expect(decodeVerdict(done, true)).toEqual({ errno: 22, text: "Bad thing" });
  });
});

describe("malformed answers are refused", () => {
  const message = (type: number, text: string): NetlinkMessage => {
    return { type, flags: 0, sequence: 1, payload: hex(text) };
  };
  const header = "00000000 09000000 00000000 00000000";
  test.each<[string, () => unknown]>([
    ["a datagram cut off", () => decodeMessages(hex("10000000 0200"))],
    [
      "a message longer than it came",
      () => decodeMessages(hex("14000000 0200 0000 01000000 00000000")),
    ],
    [
      "a message shorter than its header",
      () => decodeMessages(hex("0f000000 0200 0000 01000000 00000000")),
    ],
    ["an attribute longer than it came", () => readAttributes(hex("0900 0100 61626364"))],
    ["an attribute shorter than its header", () => readAttributes(hex("0300 0100 61626364"))],
    ["an acknowledgement cut off", () => decodeVerdict(message(2, "00000000"), false)],
    ["a number of no bytes", () => unsignedOf(new Uint8Array())],
    ["a number of 9 bytes", () => unsignedOf(new Uint8Array(9))],
    ["a link that is an address", () => decodeLink(message(20, header))],
    ["a link cut off", () => decodeLink(message(16, "00000000"))],
    ["a link without a name", () => decodeLink(message(16, header))],
    [
      "counters cut off",
      () => decodeLink(message(16, `${header} 0600 0300 6100 0000 0800 1700 00000000`)),
    ],
    [
      "an address of 3 bytes",
      () => decodeAddress(message(20, "02100000 07000000 0700 0200 0a640000")),
    ],
    ["an address that is none", () => decodeAddress(message(20, "02100000 07000000"))],
    [
      "a VLAN of 2 bytes",
      () => decodePortVlans(message(16, `${header} 0a00 1a80 0600 0200 0100 0000`)),
    ],
    ["a route cut off", () => decodeRoute(message(24, "02180000"))],
    ["a table that is a chain", () => decodeTable(message(0x0a03, "01000000"))],
    ["a table without a name", () => decodeTable(message(0x0a00, "01000000"))],
    ["a table cut off", () => decodeTable(message(0x0a00, "0100"))],
    ["a rule without a chain", () => decodeRule(message(0x0a06, "01000000"))],
    [
      "an expression without a name",
      () => decodeRule(message(0x0a06, "01000000 0600 0200 6300 0000 0800 0480 0400 0180")),
    ],
    [
      "an allowed address of 2 bytes",
      () =>
        decodeAllowed(
          message(0x0a0c, "01000000 1400 0380 1000 0180 0c00 0180 0600 0100 0102 0000"),
        ),
    ],
  ])("%s", (_name, decode) => {
    expect(decode).toThrow(MalformedNetlink);
  });

  test("any bytes at all: they are read, or refused as malformed, and nothing else", () => {
    let state = 12_345;
    const next = () => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return state >>> 16;
    };
    const decoders = [decodeLink, decodeAddress, decodeRoute, decodeTable, decodeChain, decodeRule];
    const types = [16, 20, 24, 0x0a00, 0x0a03, 0x0a06];
    const whole = everything().flatMap((table) =>
      encodeRuleChange({ kind: "make-table", table }).map(answerOf),
    );
    for (let round = 0; round < 4000; round += 1) {
      const index = next() % decoders.length;
      const sample = whole[next() % whole.length]?.payload ?? new Uint8Array();
      const payload = sample.slice(0, next() % (sample.length + 1));
      for (let change = next() % 4; change > 0 && payload.length > 0; change -= 1) {
        payload[next() % payload.length] = next() & 0xff;
      }
      try {
        decoders[index]?.({ type: types[index] ?? 0, flags: 0, sequence: 1, payload });
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedNetlink);
      }
    }
  });
});

describe("limits", () => {
  test("readings of what others change all the time", () => {
    let readings = 0;
    const read = (whole: number) => () => {
      readings += 1;
      return readings < whole ? "interrupted" : "all of it";
    };
    expect(untilWhole(read(MOST_DUMP_TRIES))).toBe("all of it");
    readings = 0;
    expect(() => untilWhole(read(MOST_DUMP_TRIES + 1))).toThrow(
      "netlink: Interrupted system call (EINTR): changed by others during each of 20 readings",
    );
    expect(readings).toBe(MOST_DUMP_TRIES);
  });

  test("addresses of one request", () => {
    const name = { table: { family: "inet", name: "t" }, set: "s" } as const;
    const addresses = (count: number) =>
      Array.from({ length: count }, (_, index) => ({ address: index, timeout: 1 }));
    expect(allowAddresses(name, addresses(MOST_ALLOWED_ADDRESSES))).toHaveLength(3);
    expect(() => allowAddresses(name, addresses(MOST_ALLOWED_ADDRESSES + 1))).toThrow(RangeError);
    expect(allowAddresses(name, [])).toEqual([]);
  });

  test("a comment", () => {
    const table = { family: "inet", name: "t", sets: [], chains: [] } as const;
    const make = (length: number) => () =>
      encodeRuleChange({ kind: "make-table", table: { ...table, comment: "c".repeat(length) } });
    expect(make(127)()).toHaveLength(1);
    expect(make(128)).toThrow("Expected a shorter comment");
  });

  test("a payload grows, and its attributes stay whole", () => {
    const writer = new PayloadWriter();
    writer.nested(1, (list) => {
      for (let index = 0; index < 1000; index += 1) list.unsigned32(2, index);
    });
    const numbers: number[] = [];
    const list = readAttributes(writer.finish()).get(1) ?? new Uint8Array();
    eachAttribute(list, (_type, value) => numbers.push(unsignedOf(value)));
    expect(numbers).toEqual(Array.from({ length: 1000 }, (_, index) => index));
  });
});
