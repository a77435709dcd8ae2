/** What machines can send, and what is dropped: each with an IP stack of its own behind its TAP. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { macAddressOf } from "../../src/network/addresses.ts";
import type { NetworkSpecification } from "../../src/network/specification.ts";
import { parseIpv4, parseMacAddress } from "../../src/network/subnet.ts";
import { askFrom, connect, Machine, Namespace } from "../support/network-machines.ts";
import { cardOf, desiredOf } from "../support/network-world.ts";
import { file, program, root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

const bridge = "br-procurator";
const table = `hostler-vm-${bridge}`;
const needs = [
  root,
  program("ip", "iproute2"),
  program("nft", "nftables"),
  file("/dev/net/tun", "none: a module of the kernel"),
];

skipUnless("machines on a network", needs, () => {
  const owned = new AsyncDisposableStack();
  let host: Namespace;
  let outside: Namespace;
  let machine: Machine;
  let other: Machine;
  const cards = [2, 3].map((number) => {
    const macAddress = macAddressOf({ worker: "w1", machine: `vm-${number}`, card: "0" });
    return cardOf(number, { macAddress });
  });
  const [card, otherCard] = cards;
  if (card === undefined || otherCard === undefined) throw new Error("no cards");
  const portForwards = [
    { protocol: "tcp", hostPort: 8080, address: card.address, port: 80 },
  ] as const;

  const change = async (changes: Partial<NetworkSpecification>, allowList?: string) => {
    const wanted = [{ ...card, allowList }, otherCard];
    const applied = await host.apply(desiredOf(wanted, { portForwards, ...changes }));
    expect(applied).toMatchObject({ refusals: [], refused: [], again: [] });
    return applied;
  };

  const droppedBy = async (family: string, comment: string): Promise<number> => {
    return (await host.counted(family, table)).get(comment) ?? -1;
  };

  /** What is tried goes on until its drop is counted, which is more than before. */
  const expectDrop = async (family: string, comment: string, attempt: () => AsyncDisposable) => {
    const before = await droppedBy(family, comment);
    expect(before).toBeGreaterThanOrEqual(0);
    await using _attempt = attempt();
    await waitFor(`a drop by "${comment}"`, async () => {
      return (await droppedBy(family, comment)) > before;
    });
  };

  beforeAll(async () => {
    const folder = owned.use(temporaryFolder());
    host = owned.use(await Namespace.make());
    outside = owned.use(await Namespace.make());
    await host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward");
    await connect(host, outside, {
      link: "uplink",
      address: "192.0.2.1/24",
      otherAddress: "192.0.2.2/24",
    });
    await change({});
    machine = owned.use(await Machine.start(host, card, folder));
    other = owned.use(await Machine.start(host, otherCard, folder));
    const servers: [Namespace, string, string, number][] = [
      [outside, "tcp", "192.0.2.2", 7000],
      [other.namespace, "tcp", otherCard.address, 7000],
      [machine.namespace, "tcp", card.address, 80],
      [host, "udp", "10.100.0.1", 53],
      [host, "udp", "10.100.0.1", 5353],
    ];
    for (const [namespace, ...words] of servers) {
      const server = owned.use(namespace.start("serve", ...words.map(String)));
      await server.said(/ready/);
    }
  });
  afterAll(async () => await owned.disposeAsync());

  test("a machine reaches the outside, with the host's address", async () => {
    expect(await machine.ask("tcp", "192.0.2.2", 7000)).toBe("192.0.2.1");
  });

  test("a machine reaches another one, with its own address", async () => {
    expect(await machine.ask("tcp", otherCard.address, 7000)).toBe(card.address);
  });

  test("of the host it reaches DNS, and nothing else", async () => {
    expect(await machine.ask("udp", "10.100.0.1", 53)).toBe(card.address);
    const ask = () => machine.namespace.start("ask", "udp", "10.100.0.1", "5353");
    await expectDrop("inet", "all else", ask);
  });

  test("the host itself reaches a machine, as its health checks do", async () => {
    expect(await askFrom(host, "tcp", card.address, 80)).toBe("10.100.0.1");
  });

  test("a port of the host leads to a machine; to the outside no other does", async () => {
    expect(await askFrom(outside, "tcp", "192.0.2.1", 8080)).toBe("192.0.2.2");
    expect(await askFrom(host, "tcp", "192.0.2.1", 8080)).toBe("192.0.2.1");
    await outside.run("ip", "route", "add", "10.100.0.0/16", "via", "192.0.2.1");
    const ask = () => outside.start("ask", "tcp", otherCard.address, "7000");
    await expectDrop("inet", "not from outside", ask);
    await outside.run("ip", "route", "del", "10.100.0.0/16");
  });

  test("what a machine forges is dropped at its TAP, and an honest frame passes", async () => {
    for (const [comment, frame] of forgeries(card, otherCard)) {
      const name = `${card.tap}: ${comment}`;
      const before = await droppedBy("netdev", name);
      await machine.send([frame]);
      await waitFor(`a drop by "${name}"`, async () => {
        return (await droppedBy("netdev", name)) > before;
      });
    }
    const honest = arp(card, card.address, "10.100.9.9");
    await machine.send([honest]);
    await waitFor("the honest frame", () => other.frames.includes(honest));
    const forged = forgeries(card, otherCard).map(([, frame]) => frame);
    expect(other.frames.filter((frame) => forged.includes(frame))).toEqual([]);
  });

  test("isolated, machines do not reach each other, by the bridge or by the host", async () => {
    const { operations } = await change({ isolation: true });
    expect(operations).toEqual([
      "change-rules, 1 of them",
      `open-port ${card.tap}`,
      `open-port ${otherCard.tap}`,
    ]);
    const honest = arp(card, card.address, "10.100.8.8");
    await machine.send([honest]);
    const { address = "" } = (await host.links()).get(bridge) ?? {};
    const neighbor = [otherCard.address, "lladdr", address, "dev", "eth0", "nud", "permanent"];
    await machine.namespace.run("ip", "neighbor", "replace", ...neighbor);
    const ask = () => machine.namespace.start("ask", "tcp", otherCard.address, "7000");
    await expectDrop("inet", "machines are isolated", ask);
    expect(other.frames).not.toContain(honest);
    await machine.namespace.run("ip", "neighbor", "del", otherCard.address, "dev", "eth0");
    expect(await machine.ask("tcp", "192.0.2.2", 7000)).toBe("192.0.2.1");
    await change({});
    expect(await machine.ask("tcp", otherCard.address, 7000)).toBe(card.address);
  });

  test("with an allow list a machine reaches what is in it, and no more", async () => {
    await change({}, "allow-2");
    const ask = () => machine.namespace.start("ask", "tcp", "192.0.2.2", "7000");
    await expectDrop("inet", `not allowed to ${card.tap}`, ask);
    await host.stage("allow", "allow-2", "192.0.2.2", "192.0.2.3");
    const allowed = await host.stage<{ address: string; timeout: number }[]>("allowed", "allow-2");
    expect(allowed.map(({ address }) => address).toSorted()).toEqual(["192.0.2.2", "192.0.2.3"]);
    expect(await machine.ask("tcp", "192.0.2.2", 7000)).toBe("192.0.2.1");
    // Renewed, on a kernel of any age.
    await host.stage("allow", "allow-2", "192.0.2.2");
    const { again } = await change({}, "allow-2");
    expect(again).toEqual([]);
    expect(await host.stage("allowed", "allow-2")).toHaveLength(2);
    expect(await machine.ask("tcp", otherCard.address, 7000)).toBe(card.address);
    await change({});
  });

  test("the host counts what a machine sent", async () => {
    type Counters = Record<string, { receivedBytes: number; sentBytes: number }>;
    const before = (await host.stage<Counters>("counters"))[card.tap];
    await machine.ask("tcp", "192.0.2.2", 7000);
    const after = (await host.stage<Counters>("counters"))[card.tap];
    expect(after?.receivedBytes).toBeGreaterThan(before?.receivedBytes ?? Number.NaN);
    expect(after?.sentBytes).toBeGreaterThan(before?.sentBytes ?? Number.NaN);
  });
});

type Card = ReturnType<typeof cardOf>;

const macOf = (card: Card) => parseMacAddress(card.macAddress)?.toHex() ?? "";
const ipv4Hex = (text: string) => (parseIpv4(text) ?? 0).toString(16).padStart(8, "0");
const everyone = "ffffffffffff";
const broadcast = "ffffffff";

/** A request for an address, 42 bytes, in the words of RFC 826. */
function arp(card: Card, sender: string, target: string): string {
  const mac = macOf(card);
  const body = `0001080006040001${mac}${ipv4Hex(sender)}000000000000${ipv4Hex(target)}`;
  return `${everyone}${mac}0806${body}`;
}

/** A UDP packet of 8 bytes of nothing; nobody checks its sums where it is dropped. */
function udp(
  mac: string,
  packet: { source: string; destination: string; sourcePort: number; destinationPort: number },
): string {
  const port = (number: number) => number.toString(16).padStart(4, "0");
  const source = ipv4Hex(packet.source);
  const destination = packet.destination === "all" ? broadcast : ipv4Hex(packet.destination);
  const head = `4500002400000000401100${"00"}${source}${destination}`;
  const ports = `${port(packet.sourcePort)}${port(packet.destinationPort)}`;
  return `${everyone}${mac}0800${withHeaderSum(head)}${ports}00100000${"00".repeat(8)}`;
}

/** IPv4's own sum: a header with a wrong one has no transport for nftables. */
function withHeaderSum(head: string): string {
  let sum = 0;
  for (let at = 0; at < head.length; at += 4) sum += Number.parseInt(head.slice(at, at + 4), 16);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return `${head.slice(0, 20)}${(~sum & 0xffff).toString(16).padStart(4, "0")}${head.slice(24)}`;
}

/** Frames of a machine, each with the rule that drops it. */
function forgeries(card: Card, other: Card): [string, string][] {
  const mac = macOf(card);
  const own = { source: card.address, destination: "all", sourcePort: 9, destinationPort: 9 };
  const untagged = udp(mac, own);
  const honestArp = arp(card, card.address, "10.100.0.1");
  return [
    ["source MAC", udp(macOf(other), own)],
    ["all else", udp(mac, { ...own, source: other.address })],
    ["all else", arp(card, other.address, "10.100.0.1")],
    ["all else", honestArp.replace(`0001${mac}`, `0001${macOf(other)}`)],
    ["no DHCP server", udp(mac, { ...own, sourcePort: 67, destinationPort: 68 })],
    ["link-local metadata", udp(mac, { ...own, destination: "169.254.169.254" })],
    // A tag of VLAN 5 in front of what is honest without it.
    ["all else", `${untagged.slice(0, 24)}81000005${untagged.slice(24)}`],
    // An IPv6 router's advertisement, from a link-local address to all nodes.
    [
      "all else",
      `333300000001${mac}86dd6000000000103afffe80${"00".repeat(13)}01ff02${"00".repeat(13)}01` +
        `8600000040000708${"00".repeat(8)}`,
    ],
  ];
}
