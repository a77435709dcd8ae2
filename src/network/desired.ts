import {
  type DesiredNetwork,
  type DesiredNetworks,
  FIRST_VLAN,
  LAST_VLAN,
  LONGEST_LINK_NAME,
  linkNamePattern,
  MOST_CARDS_A_NETWORK,
  type NetworkCard,
  type PortForward,
} from "./specification.ts";
import {
  broadcastAddress,
  type Ipv4,
  parseIpv4,
  parseIpv6,
  parseMacAddress,
  parseSubnet,
  type Subnet,
  subnetHas,
  subnetsOverlap,
} from "./subnet.ts";

/** What is wanted, with every address read: what cannot be is refused, and the rest goes on. */

export interface Card {
  readonly machine: string;
  readonly tap: string;
  readonly macAddress: Uint8Array;
  readonly address: Ipv4;
  readonly ipv6Address: Uint8Array | undefined;
  readonly ownerUser: number;
  readonly vlan: number | undefined;
  readonly pin: boolean;
  readonly allowList: string | undefined;
}

export interface Network {
  readonly bridge: string;
  readonly subnet: Subnet;
  readonly gateway: Ipv4;
  readonly nat: boolean;
  readonly isolation: boolean;
  readonly ipv6: "drop" | "route";
  readonly mtu: number | undefined;
  readonly vlan: number | undefined;
  readonly portForwards: readonly PortForward[];
  readonly cards: readonly Card[];
  /** By which tables and bridge are known as ours. */
  readonly comment: string;
}

/** What is not done, and what else goes on. */
export interface NetworkRefusal {
  readonly bridge: string;
  /** undefined where it is about the whole network. */
  readonly machine: string | undefined;
  readonly reason: string;
  /** What the reader can do. */
  readonly mend: string;
}

/** Letters of a worker's name in an alias and in comments, which have room for 127. */
export const LONGEST_OWNER = 63;
/** IFALIASZ less what stands before a machine's name. */
export const LONGEST_MACHINE = 128;

/** "hostler vm OWNER network BRIDGE", of a bridge and of tables. */
export const networkComment = (owner: string, bridge: string): string =>
  `hostler vm ${owner} network ${bridge}`;

/** "hostler vm OWNER card BRIDGE MACHINE", of a TAP. */
export const cardAlias = (owner: string, bridge: string, machine: string): string =>
  `hostler vm ${owner} card ${bridge} ${machine}`;

/** Whose a link or a table is, by its alias or comment. */
export interface Ownership {
  readonly owner: string;
  readonly kind: "network" | "card";
  readonly bridge: string;
  readonly machine: string | undefined;
}

/** @returns undefined for what no hostler made */
export function readOwnership(alias: string | undefined): Ownership | undefined {
  const match = /^hostler vm (\S+) (network|card) (\S+)(?: (.+))?$/.exec(alias ?? "");
  const [, owner, kind, bridge, machine] = match ?? [];
  if (owner === undefined || bridge === undefined) return undefined;
  return { owner, kind: kind === "card" ? "card" : "network", bridge, machine };
}

/** The allow lists of a network's cards, each once. */
export function allowListsOf(network: Network): string[] {
  const lists = network.cards.flatMap(({ allowList }) => allowList ?? []);
  return [...new Set(lists)].toSorted();
}

interface Reading {
  readonly networks: readonly Network[];
  readonly refusals: readonly NetworkRefusal[];
  /** Bridges that are wanted, and were refused: what is there of them stays as it is. */
  readonly untouched: ReadonlySet<string>;
}

/** Reads all that is wanted. A card that is refused leaves the others as they are. */
export function readDesired(desired: DesiredNetworks): Reading {
  const networks: Network[] = [];
  const refusals: NetworkRefusal[] = [];
  const untouched = new Set<string>();
  const seen: Seen = { taps: new Set(), hostPorts: new Set() };
  for (const wanted of desired.networks) {
    const network = readNetwork(desired.owner, wanted, networks);
    if ("reason" in network) {
      refusals.push(network);
      untouched.add(wanted.specification.bridge);
      continue;
    }
    const { cards, refused } = readCards(network, wanted.cards, seen);
    const forwards = readForwards(network, seen);
    refusals.push(...refused, ...forwards.refused);
    networks.push({ ...network, cards, portForwards: forwards.accepted });
  }
  return { networks, refusals, untouched };
}

/** What is unique on the host, over all networks. */
interface Seen {
  readonly taps: Set<string>;
  readonly hostPorts: Set<string>;
}

function readNetwork(
  owner: string,
  { specification }: DesiredNetwork,
  others: readonly Network[],
): Network | NetworkRefusal {
  const { bridge, portForwards, nat, isolation, ipv6, mtu, vlan } = specification;
  const refuse = (reason: string, mend: string): NetworkRefusal => {
    return { bridge, machine: undefined, reason, mend };
  };
  if (!/^[A-Za-z0-9._-]+$/.test(owner) || owner.length > LONGEST_OWNER) {
    const reason = `the worker's name is ${JSON.stringify(owner)}`;
    return refuse(reason, `give it one of 1 to ${LONGEST_OWNER} letters, digits, ".", "_", "-"`);
  }
  if (!linkNamePattern.test(bridge)) {
    const reason = `${JSON.stringify(bridge)} cannot be a bridge's name`;
    return refuse(reason, `take 1 to ${LONGEST_LINK_NAME} letters, digits, ".", "_" or "-"`);
  }
  const subnet = parseSubnet(specification.subnet);
  const gateway = parseIpv4(specification.gateway);
  if (subnet === undefined || gateway === undefined || !isHostOf(subnet, gateway)) {
    const reason = `${specification.gateway} is no host's address in ${specification.subnet}`;
    return refuse(reason, "name a subnet such as 10.100.0.0/16, and a gateway in it, or none");
  }
  const same = others.find((other) => other.bridge === bridge);
  if (same !== undefined) {
    return refuse("another network has this bridge", "give each network a bridge of its own");
  }
  const overlapping = others.find((other) => subnetsOverlap(other.subnet, subnet));
  if (overlapping !== undefined) {
    const reason = `its subnet overlaps that of the network ${overlapping.bridge}`;
    return refuse(reason, "give each network a subnet of its own");
  }
  if (vlan !== undefined && !isVlan(vlan)) {
    return refuse(`VLAN ${vlan} is none`, vlanMend);
  }
  const settings = { bridge, subnet, gateway, nat, isolation, ipv6, mtu, vlan, portForwards };
  return { ...settings, cards: [], comment: networkComment(owner, bridge) };
}

const isVlan = (vlan: number) => vlan >= FIRST_VLAN && vlan <= LAST_VLAN;
const vlanMend = `take ${FIRST_VLAN} to ${LAST_VLAN}, or none`;

function isHostOf(subnet: Subnet, address: Ipv4): boolean {
  const isEdge = address === subnet.network || address === broadcastAddress(subnet);
  return subnetHas(subnet, address) && !isEdge;
}

function readCards(network: Network, wanted: readonly NetworkCard[], seen: Seen) {
  const cards: Card[] = [];
  const refused: NetworkRefusal[] = [];
  const addresses = new Map<Ipv4, string>([[network.gateway, "the gateway"]]);
  const macAddresses = new Map<string, string>();
  for (const card of wanted) {
    const { machine } = card;
    const refuse = (reason: string, mend: string) => {
      refused.push({ bridge: network.bridge, machine, reason, mend });
    };
    if (cards.length >= MOST_CARDS_A_NETWORK) {
      const reason = `the network has ${MOST_CARDS_A_NETWORK} cards, as many as a bridge takes`;
      refuse(reason, "put further machines into another network");
      continue;
    }
    const read = readCard(network, card);
    if ("reason" in read) {
      refuse(read.reason, read.mend);
      continue;
    }
    const holder =
      addresses.get(read.address) ??
      macAddresses.get(card.macAddress) ??
      (seen.taps.has(card.tap) ? "another card" : undefined);
    if (holder !== undefined) {
      const names = `${card.address}, ${card.macAddress} or ${card.tap}`;
      refuse(`${names} is that of ${holder} already`, "give each card its own");
      continue;
    }
    addresses.set(read.address, machine);
    macAddresses.set(card.macAddress, machine);
    seen.taps.add(card.tap);
    cards.push(read);
  }
  return { cards, refused };
}

type CardRefusal = { readonly reason: string; readonly mend: string };

function readCard(network: Network, card: NetworkCard): Card | CardRefusal {
  const address = parseIpv4(card.address);
  const macAddress = parseMacAddress(card.macAddress);
  const ipv6Address = card.ipv6Address === undefined ? undefined : parseIpv6(card.ipv6Address);
  if (address === undefined || !isHostOf(network.subnet, address)) {
    const reason = `${card.address} is no host's address in the network's subnet`;
    return { reason, mend: "take one from the network's pool" };
  }
  if (macAddress === undefined || ((macAddress[0] ?? 1) & 1) !== 0) {
    const reason = `${JSON.stringify(card.macAddress)} is no hardware address of one machine`;
    return { reason, mend: 'write it as "52:54:00:12:34:56", its first byte even' };
  }
  if (card.ipv6Address !== undefined && ipv6Address === undefined) {
    const reason = `${JSON.stringify(card.ipv6Address)} is no IPv6 address`;
    return { reason, mend: 'write it as "2001:db8::2"' };
  }
  if (!linkNamePattern.test(card.tap)) {
    const reason = `${JSON.stringify(card.tap)} cannot be a TAP's name`;
    return { reason, mend: `take 1 to ${LONGEST_LINK_NAME} letters, digits, ".", "_" or "-"` };
  }
  if (card.machine === "" || Buffer.byteLength(card.machine) > LONGEST_MACHINE) {
    const reason = `a machine's name has ${Buffer.byteLength(card.machine)} bytes`;
    return { reason, mend: `give it one of 1 to ${LONGEST_MACHINE}` };
  }
  if (card.vlan !== undefined && !isVlan(card.vlan)) {
    return { reason: `VLAN ${card.vlan} is none`, mend: vlanMend };
  }
  if (card.allowList !== undefined && !/^[A-Za-z][A-Za-z0-9_.-]{0,30}$/.test(card.allowList)) {
    const reason = `${JSON.stringify(card.allowList)} cannot be the name of an allow list`;
    return { reason, mend: 'take 1 to 31 letters, digits, ".", "_" or "-", a letter first' };
  }
  if (card.allowList !== undefined && !card.pin) {
    const reason = "it has an allow list, and may send from any address: that is the way around it";
    return { reason, mend: "pin the card, or give it no allow list" };
  }
  return { ...card, address, macAddress, ipv6Address };
}

function readForwards(network: Network, seen: Seen) {
  const accepted: PortForward[] = [];
  const refused: NetworkRefusal[] = [];
  for (const forward of network.portForwards) {
    const key = `${forward.protocol} port ${forward.hostPort}`;
    const refuse = (reason: string, mend: string) => {
      refused.push({ bridge: network.bridge, machine: undefined, reason, mend });
    };
    const address = parseIpv4(forward.address);
    if (address === undefined || !isHostOf(network.subnet, address)) {
      const reason = `${key} leads to ${forward.address}, outside of the network's subnet`;
      refuse(reason, "name a machine's address");
    } else if (seen.hostPorts.has(key)) {
      refuse(`${key} is forwarded twice`, "forward each of the host's ports once");
    } else {
      seen.hostPorts.add(key);
      accepted.push(forward);
    }
  }
  return { accepted, refused };
}
