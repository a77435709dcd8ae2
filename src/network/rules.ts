import { allowListsOf, type Card, type Network } from "./desired.ts";
import {
  DESTINATION_TRANSLATED,
  ESTABLISHED_OR_RELATED,
  type Expression,
} from "./nft-expressions.ts";
import type { Chain, Rule, Table } from "./nftables.ts";
import type { PortForward } from "./specification.ts";
import { type Ipv4, ipv4Bytes, maskOf, parseIpv4, type Subnet } from "./subnet.ts";

/**
 * The rules of a network, as README.md has them in a table: what a machine may send, at its TAP's
 * ingress, and what goes through the host. Pure.
 */

/** Ethernet's types, protocols of IP, ports: the registries of IANA. */
const ethernetTypes = { ipv4: "0800", arp: "0806", ipv6: "86dd" } as const;
const protocols = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58 } as const;
const ports = { dns: 53, dhcpServer: 67, dhcpClient: 68, dhcpv6Server: 547 } as const;
/** Of ICMPv6: RFC 4861. */
const icmpv6Types = {
  routerAdvertisement: 134,
  neighborAdvertisement: 136,
  redirect: 137,
} as const;
/** NFPROTO_IPV4 and NFPROTO_IPV6, as a packet carries them. */
const networkProtocols = { ipv4: "02", ipv6: "0a" } as const;
/** RTN_LOCAL in the host's byte order: an address of this host's own. */
const localDestination = "02000000";

const hex = (number: number, bytes: number) => number.toString(16).padStart(bytes * 2, "0");
/** A 32-bit number as it stands in a register: little-endian on both architectures. */
const hostOrder = (number: number) =>
  [0, 8, 16, 24].map((shift) => hex((number >>> shift) & 0xff, 1)).join("");
const ipv4Hex = (address: Ipv4) => ipv4Bytes(address).toHex();

const compare = (value: string, is: "equal" | "different" = "equal"): Expression => ({
  kind: "compare",
  is,
  value,
});
const payload = (
  header: Extract<Expression, { kind: "payload" }>["header"],
  offset: number,
  length: number,
): Expression => ({ kind: "payload", header, offset, length });

const accept: Expression = { kind: "verdict", verdict: "accept" };
const drop: Expression = { kind: "verdict", verdict: "drop" };

const ethernetType = (type: string) => [payload("link", 12, 2), compare(type)];
const networkProtocol = (protocol: string): Expression[] => [
  { kind: "fact", fact: "network-protocol" },
  compare(protocol),
];
const transportProtocol = (protocol: number): Expression[] => [
  { kind: "fact", fact: "transport-protocol" },
  compare(hex(protocol, 1)),
];
const sourcePort = (port: number) => [payload("transport", 0, 2), compare(hex(port, 2))];
const destinationPort = (port: number) => [payload("transport", 2, 2), compare(hex(port, 2))];
const source = (address: Ipv4) => [payload("network", 12, 4), compare(ipv4Hex(address))];
const destination = (address: Ipv4) => [payload("network", 16, 4), compare(ipv4Hex(address))];
const inSubnet = (offset: number, { network, prefix }: Subnet): Expression[] => [
  payload("network", offset, 4),
  { kind: "mask", mask: hex(maskOf(prefix), 4) },
  compare(ipv4Hex(network)),
];
const link = (fact: "input" | "output", name: string, is?: "different"): Expression[] => [
  { kind: "fact", fact },
  compare(new TextEncoder().encode(name).toHex().padEnd(32, "0"), is),
];
const connection = (part: "state" | "status", bits: number): Expression[] => [
  { kind: "connection", part },
  { kind: "mask", mask: hostOrder(bits) },
  compare(hostOrder(0), "different"),
];

const rule = (comment: string, ...parts: readonly (Expression | Expression[])[]): Rule => ({
  comment,
  expressions: parts.flat(),
});

const counted: Expression[] = [{ kind: "counter" }, drop];
/** 169.254.0.0/16: never routed (RFC 3927), and where clouds keep the host's own secrets. */
const linkLocal: Subnet = { network: 0xa9fe0000, prefix: 16 };
/** fe80::/10 */
const ipv6LinkLocal: Expression[] = [
  { kind: "mask", mask: `ffc0${"00".repeat(14)}` },
  compare(`fe80${"00".repeat(14)}`),
];

/** What a machine sends is looked at where it enters the host: before bridge and routing. */
function cardChain(network: Network, card: Card): Chain {
  // With VLANs frames of others carry their numbers, and ours none: a tagged one is none of these
  // types, and is dropped with all else.
  const rules = card.pin ? pinnedRules(network, card) : unpinnedRules(network);
  return {
    name: card.tap,
    type: "filter",
    hook: "ingress",
    priority: -500,
    policy: card.pin ? "drop" : "accept",
    device: card.tap,
    rules,
  };
}

const isIpv4 = ethernetType(ethernetTypes.ipv4);
const isIpv6 = ethernetType(ethernetTypes.ipv6);
const isUdp = transportProtocol(protocols.udp);

/** What no machine may send, pinned or not. */
const forbidden: readonly Rule[] = [
  rule("link-local metadata", isIpv4, inSubnet(16, linkLocal), counted),
  rule("no DHCP server", isIpv4, isUdp, sourcePort(ports.dhcpServer), counted),
];

const icmpv6 = (type: number): Expression[] => [
  ...isIpv6,
  ...transportProtocol(protocols.icmpv6),
  payload("transport", 0, 1),
  compare(hex(type, 1)),
];

const forbiddenIpv6: readonly Rule[] = [
  rule("no router advertisement", icmpv6(icmpv6Types.routerAdvertisement), counted),
  rule("no redirect", icmpv6(icmpv6Types.redirect), counted),
  rule("no DHCPv6 server", isIpv6, isUdp, sourcePort(ports.dhcpv6Server), counted),
];

function unpinnedRules({ ipv6 }: Network): Rule[] {
  const rules = [...forbidden];
  if (ipv6 === "route") rules.push(...forbiddenIpv6);
  else rules.push(rule("no IPv6", isIpv6, counted));
  return rules;
}

function pinnedRules(network: Network, card: Card): Rule[] {
  const mac = card.macAddress.toHex();
  const any = 0;
  const everyone = 0xffff_ffff;
  const ipv4OverEthernet = [payload("network", 0, 6), compare("000108000604")];
  const arpSender = (address: Ipv4) => [
    ...ethernetType(ethernetTypes.arp),
    ...ipv4OverEthernet,
    payload("network", 8, 6),
    compare(mac),
    payload("network", 14, 4),
    compare(ipv4Hex(address)),
  ];
  const request = [payload("network", 6, 2), compare("0001")];
  const rules = [
    rule("source MAC", payload("link", 6, 6), compare(mac, "different"), counted),
    ...forbidden,
    rule("own IPv4", isIpv4, source(card.address), accept),
    rule(
      "DHCP client",
      isIpv4,
      source(any),
      destination(everyone),
      isUdp,
      sourcePort(ports.dhcpClient),
      destinationPort(ports.dhcpServer),
      accept,
    ),
    rule("own ARP", arpSender(card.address), accept),
    // RFC 5227: an address is probed for, by a sender that says none.
    rule("ARP probe", arpSender(any), request, accept),
  ];
  // An allow list is of IPv4 addresses: with one, IPv6 would be the way around it.
  if (network.ipv6 === "route" && card.allowList === undefined) {
    rules.push(...forbiddenIpv6, ...pinnedIpv6Rules(card));
  }
  return [...rules, rule("all else", counted)];
}

function pinnedIpv6Rules(card: Card): Rule[] {
  const target = payload("transport", 8, 16);
  const own = card.ipv6Address?.toHex();
  const isOther = own === undefined ? [] : [target, compare(own, "different")];
  const sender = payload("network", 8, 16);
  const [mask, isLinkLocal] = ipv6LinkLocal;
  if (mask === undefined || isLinkLocal?.kind !== "compare") throw new Error("Bug: no prefix");
  const rules = [
    rule(
      "others' neighbor advertisement",
      icmpv6(icmpv6Types.neighborAdvertisement),
      isOther,
      target,
      mask,
      compare(isLinkLocal.value, "different"),
      counted,
    ),
    rule("IPv6 link-local", isIpv6, sender, ipv6LinkLocal, accept),
    rule("IPv6 without an address", isIpv6, sender, compare("00".repeat(16)), accept),
  ];
  if (own !== undefined) rules.push(rule("own IPv6", isIpv6, sender, compare(own), accept));
  return rules;
}

/** What reaches the host itself. */
function inputChain(network: Network): Chain {
  const { bridge, gateway, ipv6 } = network;
  const isTcp = transportProtocol(protocols.tcp);
  const toGateway = [...networkProtocol(networkProtocols.ipv4), ...destination(gateway)];
  const rules = [
    rule("not from machines", link("input", bridge, "different"), accept),
    rule(ANSWERS, connection("state", ESTABLISHED_OR_RELATED), accept),
    rule(
      "DHCP",
      networkProtocol(networkProtocols.ipv4),
      isUdp,
      destinationPort(ports.dhcpServer),
      accept,
    ),
    rule("DNS", toGateway, isUdp, destinationPort(ports.dns), accept),
    rule("DNS over TCP", toGateway, isTcp, destinationPort(ports.dns), accept),
    rule("ICMP", networkProtocol(networkProtocols.ipv4), transportProtocol(protocols.icmp), accept),
  ];
  if (ipv6 === "route") {
    rules.push(rule("ICMPv6", transportProtocol(protocols.icmpv6), accept));
  }
  rules.push(rule("all else", counted));
  const base = { type: "filter", hook: "input", priority: 0, policy: "accept" } as const;
  return { name: "input", ...base, device: undefined, rules };
}

/** The rule after which those of single cards come. */
export const ANSWERS = "answers";

/** The TAP that a rule of the forward chain is about; undefined for one about all. */
export function cardOfRule(comment: string): string | undefined {
  return /^(?:not )?allowed to (\S+)$/.exec(comment)?.[1];
}

/** What goes through the host, and with bridge-nf-call also what stays on the bridge. */
function forwardChain(network: Network): Chain {
  const { bridge, isolation, ipv6, nat } = network;
  const fromMachines = link("input", bridge);
  const toMachines = link("output", bridge);
  const isIpv4Packet = networkProtocol(networkProtocols.ipv4);
  const rules: Rule[] = [];
  if (ipv6 === "drop") {
    const isIpv6Packet = networkProtocol(networkProtocols.ipv6);
    rules.push(rule("no IPv6 from machines", isIpv6Packet, fromMachines, counted));
    rules.push(rule("no IPv6 to machines", isIpv6Packet, toMachines, counted));
  }
  rules.push(
    isolation
      ? rule("machines are isolated", fromMachines, toMachines, counted)
      : rule("among machines", fromMachines, toMachines, accept),
    rule(ANSWERS, connection("state", ESTABLISHED_OR_RELATED), accept),
  );
  for (const card of network.cards) {
    if (card.allowList === undefined) continue;
    const fromCard = [...fromMachines, ...isIpv4Packet, ...source(card.address)];
    const isAllowed: Expression[] = [
      payload("network", 16, 4),
      { kind: "in-set", set: card.allowList },
    ];
    rules.push(rule(`allowed to ${card.tap}`, fromCard, isAllowed, accept));
    rules.push(rule(`not allowed to ${card.tap}`, fromCard, counted));
  }
  if (nat) {
    const isForwarded = connection("status", DESTINATION_TRANSLATED);
    rules.push(rule("port forwards", toMachines, isForwarded, accept));
    rules.push(rule("not from outside", isIpv4Packet, toMachines, counted));
  }
  const base = { type: "filter", hook: "forward", priority: 0, policy: "accept" } as const;
  return { name: "forward", ...base, device: undefined, rules };
}

function translation(forward: PortForward): Expression[] {
  const address = parseIpv4(forward.address) ?? 0;
  return [
    { kind: "load", register: 1, value: ipv4Hex(address) },
    { kind: "load", register: 2, value: hex(forward.port, 2) },
    { kind: "destination-translation" },
  ];
}

/** Only of packets for the host itself: others with that port are on their way elsewhere. */
function forwardChains({ bridge, portForwards }: Network): Chain[] {
  if (portForwards.length === 0) return [];
  const isOurs: Expression[] = [{ kind: "destination-type" }, compare(localDestination)];
  const loopback: Subnet = { network: 0x7f000000, prefix: 8 };
  const [load, mask] = inSubnet(16, loopback);
  if (load === undefined || mask === undefined) throw new Error("Bug: no subnet");
  const notLoopback = [load, mask, compare(ipv4Hex(loopback.network), "different")];
  const rulesFor = (beginning: readonly Expression[]) =>
    portForwards.map((forward) =>
      rule(
        `${forward.protocol} ${forward.hostPort}`,
        networkProtocol(networkProtocols.ipv4),
        [...beginning],
        isOurs,
        transportProtocol(protocols[forward.protocol]),
        destinationPort(forward.hostPort),
        translation(forward),
      ),
    );
  const base = { type: "nat", priority: -100, policy: "accept", device: undefined } as const;
  const outside = rulesFor(link("input", bridge, "different"));
  const own = rulesFor(notLoopback);
  return [
    { name: "prerouting", hook: "prerouting", ...base, rules: outside },
    { name: "output", hook: "output", ...base, rules: own },
  ];
}

function masqueradeChain({ bridge, subnet }: Network): Chain {
  const rules = [
    rule(
      "masquerade",
      networkProtocol(networkProtocols.ipv4),
      inSubnet(12, subnet),
      link("output", bridge, "different"),
      { kind: "masquerade" },
    ),
  ];
  const base = { type: "nat", hook: "postrouting", priority: 100, policy: "accept" } as const;
  return { name: "postrouting", ...base, device: undefined, rules };
}

/** The tables of a network, by its bridge's name. */
export const tableNameOf = (bridge: string): string => `hostler-vm-${bridge}`;

/** Two tables: what enters by a TAP is netdev's matter, all else inet's. */
export function tablesOf(network: Network): Table[] {
  const name = tableNameOf(network.bridge);
  const { comment } = network;
  const chains = [inputChain(network), forwardChain(network), ...forwardChains(network)];
  if (network.nat) chains.push(masqueradeChain(network));
  const cards = network.cards.map((card) => cardChain(network, card));
  return [
    { family: "inet", name, comment, sets: allowListsOf(network), chains },
    { family: "netdev", name, comment, sets: [], chains: cards },
  ];
}
