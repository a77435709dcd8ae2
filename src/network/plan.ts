import { bridgeMacAddress } from "./addresses.ts";
import {
  type Card,
  cardAlias,
  type Network,
  type NetworkRefusal,
  readDesired,
  readOwnership,
} from "./desired.ts";
import type { Chain, RuleChange, Table } from "./nftables.ts";
import type { ObservedNetwork } from "./observation.ts";
import type { Link } from "./rtnetlink.ts";
import { ANSWERS, cardOfRule, tableNameOf, tablesOf } from "./rules.ts";
import { type DesiredNetworks, MOST_CARDS_A_NETWORK } from "./specification.ts";
import { broadcastAddress, formatIpv4, type Ipv4 } from "./subnet.ts";

/**
 * From what is wanted and what is there to what is to be done, in this order: what is too much
 * goes, bridges and TAPs are made and stay down, the rules change at once, and only then cards
 * come up. So no packet passes before the rules for it. Pure.
 */

export type NetworkOperation =
  | { readonly kind: "remove-link"; readonly name: string; readonly index: number }
  | {
      readonly kind: "make-bridge";
      readonly name: string;
      readonly macAddress: string;
      readonly alias: string;
      readonly mtu: number | undefined;
    }
  | {
      readonly kind: "change-bridge";
      readonly name: string;
      readonly alias?: string;
      readonly macAddress?: string;
      readonly mtu?: number;
    }
  | { readonly kind: "filter-vlans"; readonly bridge: string; readonly on: boolean }
  | {
      readonly kind: "change-bridge-vlan";
      readonly bridge: string;
      readonly join: number;
      readonly leave: readonly number[];
    }
  | ({ readonly kind: "add-address" | "remove-address"; readonly bridge: string } & BridgeAddress)
  | {
      readonly kind: "make-tap";
      readonly name: string;
      readonly bridge: string;
      readonly alias: string;
      readonly ownerUser: number;
      readonly mtu: number | undefined;
    }
  | {
      readonly kind: "change-tap";
      readonly name: string;
      readonly ownerUser?: number;
      readonly bridge?: string;
      readonly mtu?: number;
    }
  | {
      readonly kind: "change-vlan";
      readonly tap: string;
      readonly bridge: string;
      readonly join: number;
      readonly leave: readonly number[];
    }
  | { readonly kind: "change-rules"; readonly changes: readonly RuleChange[] }
  | { readonly kind: "open-port"; readonly tap: string; readonly isolated: boolean }
  | { readonly kind: "bring-up"; readonly bridge: string };

export interface BridgeAddress {
  readonly address: Ipv4;
  readonly prefix: number;
  readonly broadcast: Ipv4;
}

export interface NetworkPlan {
  /** In the order in which they are to be done; none when all is as it is wanted. */
  readonly operations: readonly NetworkOperation[];
  readonly refusals: readonly NetworkRefusal[];
}

/** The VLAN of ports that nobody gave one: default_pvid of net/bridge/br_vlan.c. */
const defaultVlan = 1;

export function planNetwork(desired: DesiredNetworks, observed: ObservedNetwork): NetworkPlan {
  const reading = readDesired(desired);
  const links = new Map(observed.links.map((link) => [link.name, link]));
  const refusals = [...reading.refusals];
  const untouched = new Set([...reading.untouched, ...bridgesLeftAlone(desired, observed)]);
  const networks: Network[] = [];
  for (const network of reading.networks) {
    const refusal = refuseForeign(desired.owner, network, observed, links);
    if (refusal !== undefined) {
      refusals.push(refusal);
      untouched.add(network.bridge);
      continue;
    }
    const { cards, refused } = sortCards(desired.owner, network, observed, links);
    refusals.push(...refused);
    networks.push({ ...network, cards });
  }
  const removals = planRemovals(desired, { networks, untouched, observed });
  const removed = new Set(removals.map(({ name }) => name));
  const kept = new Map([...links].filter(([name]) => !removed.has(name)));
  const parts = networks.map((network) => planNetworkLinks(desired.owner, network, observed, kept));
  const planned = new Set(networks.flatMap(({ cards }) => cards.map(({ tap }) => tap)));
  const keptTaps = new Set([...kept.keys()].filter((name) => !planned.has(name)));
  const changes = planRules(desired.owner, { networks, untouched, observed, kept, keptTaps });
  const operations: NetworkOperation[] = [
    ...removals,
    ...parts.flatMap(({ before }) => before),
    ...(changes.length > 0 ? [{ kind: "change-rules", changes } as const] : []),
    ...parts.flatMap(({ after }) => after),
  ];
  return { operations, refusals };
}

/** Networks that nobody asked for, where machines have cards that are to be left alone. */
function bridgesLeftAlone(desired: DesiredNetworks, { links }: ObservedNetwork): string[] {
  const leftAlone = new Set(desired.leftAlone);
  const wanted = new Set(desired.networks.map(({ specification }) => specification.bridge));
  return links.flatMap(({ alias }) => {
    const ownership = readOwnership(alias);
    const isKept = ownership?.owner === desired.owner && leftAlone.has(ownership.machine ?? "");
    return isKept && !wanted.has(ownership.bridge) ? [ownership.bridge] : [];
  });
}

type Links = ReadonlyMap<string, Link>;

/** Whether a bridge is ours, or one that we began to make: it has our address and no name. */
function isOurBridge(owner: string, network: Network, link: Link): boolean {
  if (link.alias === network.comment) return true;
  const isBegun = link.alias === undefined && link.kind === "bridge" && !link.isUp;
  return isBegun && link.macAddress === bridgeMacAddress(owner, network.bridge);
}

function refuseForeign(
  owner: string,
  network: Network,
  observed: ObservedNetwork,
  links: Links,
): NetworkRefusal | undefined {
  const { bridge } = network;
  const link = links.get(bridge);
  const whose = (alias: string | undefined) => {
    const ownership = readOwnership(alias);
    return ownership === undefined ? "not hostler's" : `the worker ${ownership.owner}'s`;
  };
  const mend =
    "name another bridge in network_bridge, or remove that one if nobody needs it; " +
    "it was left as it is";
  if (link !== undefined && !isOurBridge(owner, network, link)) {
    const reason = `there is a link ${bridge}, and it is ${whose(link.alias)}`;
    return { bridge, machine: undefined, reason, mend };
  }
  const table = observed.tableNames.find(({ family, name, comment }) => {
    const isOfThatName = name === tableNameOf(bridge) && ["inet", "netdev"].includes(family);
    return isOfThatName && comment !== network.comment;
  });
  if (table === undefined) return undefined;
  const { family, name, comment } = table;
  const reason = `there is a table ${family} ${name}, and it is ${whose(comment)}`;
  return { bridge, machine: undefined, reason, mend };
}

/** Cards whose TAP's name another link has, and those for which the bridge has no port left. */
function sortCards(owner: string, network: Network, observed: ObservedNetwork, links: Links) {
  const bridgeIndex = links.get(network.bridge)?.index;
  const foreign = observed.links.filter(({ master, alias }) => {
    return master !== undefined && master === bridgeIndex && readOwnership(alias) === undefined;
  }).length;
  const cards: Card[] = [];
  const refused: NetworkRefusal[] = [];
  for (const card of network.cards) {
    const refuse = (reason: string, mend: string) => {
      refused.push({ bridge: network.bridge, machine: card.machine, reason, mend });
    };
    const link = links.get(card.tap);
    const ownership = readOwnership(link?.alias);
    if (link !== undefined && (ownership?.owner !== owner || ownership.kind !== "card")) {
      const whose = ownership === undefined ? "not hostler's" : `the worker ${ownership.owner}'s`;
      refuse(
        `there is a link ${card.tap}, and it is ${whose}`,
        "give the card another TAP name, or remove that link if nobody needs it",
      );
    } else if (cards.length + foreign >= MOST_CARDS_A_NETWORK) {
      const reason = `the bridge has ${MOST_CARDS_A_NETWORK} ports, ${foreign} of them not ours`;
      refuse(reason, "put further machines into another network");
    } else {
      cards.push(card);
    }
  }
  return { cards, refused };
}

interface Wanted {
  readonly networks: readonly Network[];
  readonly untouched: ReadonlySet<string>;
  readonly observed: ObservedNetwork;
}

/** Links of ours that nobody wants, and TAPs that became another machine's: cards first. */
function planRemovals(desired: DesiredNetworks, { networks, untouched, observed }: Wanted) {
  const cards = new Map(
    networks.flatMap((network) =>
      network.cards.map((card) => {
        return [card.tap, cardAlias(desired.owner, network.bridge, card.machine)] as const;
      }),
    ),
  );
  // A card that was refused, of whatever reason, keeps what it has.
  const kept = new Set(desired.networks.flatMap((network) => network.cards.map(({ tap }) => tap)));
  const bridges = new Set(desired.networks.map(({ specification }) => specification.bridge));
  const leftAlone = new Set(desired.leftAlone);
  const removals = { cards: [] as Removal[], bridges: [] as Removal[] };
  for (const { name, index, alias, tap, kind } of observed.links) {
    const ownership = readOwnership(alias);
    if (ownership?.owner !== desired.owner || untouched.has(ownership.bridge)) continue;
    if (ownership.kind === "network") {
      if (!bridges.has(name)) removals.bridges.push({ kind: "remove-link", name, index });
      continue;
    }
    if (leftAlone.has(ownership.machine ?? "")) continue;
    const wanted = cards.get(name);
    const isWhole = kind === "tun" && tap?.isTap === true && tap.hasVirtioHeader;
    const isRight = wanted === undefined ? kept.has(name) : wanted === alias && isWhole;
    if (!isRight) removals.cards.push({ kind: "remove-link", name, index });
  }
  return [...removals.cards, ...removals.bridges];
}

type Removal = Extract<NetworkOperation, { kind: "remove-link" }>;

interface LinkPart {
  readonly before: readonly NetworkOperation[];
  readonly after: readonly NetworkOperation[];
}

function planNetworkLinks(
  owner: string,
  network: Network,
  observed: ObservedNetwork,
  links: Links,
): LinkPart {
  const { bridge, mtu, comment: alias } = network;
  const link = links.get(bridge);
  const macAddress = bridgeMacAddress(owner, bridge);
  const before: NetworkOperation[] = [];
  if (link === undefined)
    before.push({ kind: "make-bridge", name: bridge, macAddress, alias, mtu });
  else before.push(...planBridgeChange(network, link, macAddress));
  const filtersVlans =
    network.vlan !== undefined || network.cards.some(({ vlan }) => vlan !== undefined);
  if (filtersVlans !== (link?.vlanFiltering ?? false)) {
    before.push({ kind: "filter-vlans", bridge, on: filtersVlans });
  }
  if (filtersVlans) {
    // Its own place in the VLAN: there the host's address is, and whoever serves at it.
    const change = changeOfVlan(network.vlan, link, observed);
    if (change !== undefined) before.push({ kind: "change-bridge-vlan", bridge, ...change });
  }
  before.push(...planAddresses(network, observed, link));
  const after: NetworkOperation[] = [];
  for (const card of network.cards) {
    const part = planCard(owner, network, card, { observed, links, filtersVlans });
    before.push(...part.before);
    after.push(...part.after);
  }
  if (link?.isUp !== true) after.push({ kind: "bring-up", bridge });
  return { before, after };
}

function planBridgeChange(network: Network, link: Link, macAddress: string): NetworkOperation[] {
  const change = {
    ...(link.alias !== network.comment && { alias: network.comment }),
    ...(link.macAddress !== macAddress && { macAddress }),
    ...(network.mtu !== undefined && link.mtu !== network.mtu && { mtu: network.mtu }),
  };
  if (Object.keys(change).length === 0) return [];
  return [{ kind: "change-bridge", name: link.name, ...change }];
}

function planAddresses(
  { bridge, gateway, subnet }: Network,
  observed: ObservedNetwork,
  link: Link | undefined,
): NetworkOperation[] {
  const wanted = { address: gateway, prefix: subnet.prefix, broadcast: broadcastAddress(subnet) };
  const there = observed.addresses.filter(({ index }) => index === link?.index);
  const isWanted = (one: { address: Ipv4; prefix: number }) =>
    one.address === wanted.address && one.prefix === wanted.prefix;
  const operations: NetworkOperation[] = there
    .filter((one) => !isWanted(one))
    .map(({ address, prefix }) => {
      return { kind: "remove-address", bridge, address, prefix, broadcast: address };
    });
  if (!there.some(isWanted)) operations.push({ kind: "add-address", bridge, ...wanted });
  return operations;
}

interface CardSurroundings {
  readonly observed: ObservedNetwork;
  readonly links: Links;
  readonly filtersVlans: boolean;
}

function planCard(
  owner: string,
  network: Network,
  card: Card,
  { observed, links, filtersVlans }: CardSurroundings,
): LinkPart {
  const { bridge, mtu, isolation } = network;
  const { tap, ownerUser } = card;
  const link = links.get(tap);
  const before: NetworkOperation[] = [];
  if (link === undefined) {
    const alias = cardAlias(owner, bridge, card.machine);
    before.push({ kind: "make-tap", name: tap, bridge, alias, ownerUser, mtu });
  } else {
    const bridgeIndex = links.get(bridge)?.index;
    const isPort = bridgeIndex !== undefined && link.master === bridgeIndex;
    const change = {
      ...(link.tap?.owner !== ownerUser && { ownerUser }),
      ...(!isPort && { bridge }),
      ...(mtu !== undefined && link.mtu !== mtu && { mtu }),
    };
    if (Object.keys(change).length > 0) before.push({ kind: "change-tap", name: tap, ...change });
  }
  if (filtersVlans) {
    const change = changeOfVlan(card.vlan, link, observed);
    if (change !== undefined) before.push({ kind: "change-vlan", tap, bridge, ...change });
  }
  const isOpen = link?.isUp === true && link.port?.isolated === isolation;
  const after = isOpen ? [] : [{ kind: "open-port", tap, isolated: isolation } as const];
  return { before, after };
}

/** @returns undefined for a port, or a bridge's own, that is in the wanted VLAN alone */
function changeOfVlan(
  wanted: number | undefined,
  link: Link | undefined,
  observed: ObservedNetwork,
): { readonly join: number; readonly leave: readonly number[] } | undefined {
  const has = (link && observed.vlans?.get(link.index)) ?? [defaultVlan];
  const join = wanted ?? defaultVlan;
  const leave = has.filter((vlan) => vlan !== join);
  return has[0] === join && leave.length === 0 ? undefined : { join, leave };
}

interface WantedRules extends Wanted {
  readonly kept: Links;
  /** Links that stay and that no card of the plan is about: their rules stay as well. */
  readonly keptTaps: ReadonlySet<string>;
}

/** All changes of rules, which become one batch. */
function planRules(
  owner: string,
  { networks, untouched, observed, kept, keptTaps }: WantedRules,
): RuleChange[] {
  const wanted = networks.flatMap(tablesOf);
  const changes = wanted.flatMap((table) => {
    const there = observed.tables.find(({ family, name }) => {
      return family === table.family && name === table.name;
    });
    if (there === undefined) return [makeTable(table)];
    return changeTable(keepRefused(table, there, keptTaps), there, kept);
  });
  for (const { family, name, comment } of observed.tables) {
    const ownership = readOwnership(comment);
    const isOurs = ownership?.owner === owner && ownership.kind === "network";
    const isWanted = wanted.some((table) => table.family === family && table.name === name);
    if (!isOurs || isWanted || untouched.has(ownership.bridge)) continue;
    changes.push({ kind: "remove-table", table: { family, name } });
  }
  return changes;
}

/**
 * A card that was refused may have a machine that runs: it keeps its TAP, and with it the rules
 * that hold it. They were made by tablesOf, which names the TAP in them.
 */
function keepRefused(wanted: Table, there: Table, keptTaps: ReadonlySet<string>): Table {
  if (wanted.family === "netdev") {
    const chains = there.chains.filter(({ name, device }) => device === name && keptTaps.has(name));
    return { ...wanted, chains: [...wanted.chains, ...chains] };
  }
  const rules = there.chains
    .filter(({ name }) => name === "forward")
    .flatMap((chain) => chain.rules)
    .filter(({ comment }) => keptTaps.has(cardOfRule(comment) ?? ""));
  if (rules.length === 0) return wanted;
  const sets = rules.flatMap(({ expressions }) =>
    expressions.flatMap((expression) => (expression.kind === "in-set" ? [expression.set] : [])),
  );
  const chains = wanted.chains.map((chain) => {
    if (chain.name !== "forward") return chain;
    const before = chain.rules.findIndex(({ comment }) => comment === ANSWERS) + 1;
    return { ...chain, rules: chain.rules.toSpliced(before, 0, ...rules) };
  });
  return { ...wanted, chains, sets: [...new Set([...wanted.sets, ...sets])] };
}

const makeTable = (table: Table): RuleChange => ({ kind: "make-table", table });

function changeTable(wanted: Table, there: Table, kept: Links): RuleChange[] {
  const table = { family: wanted.family, name: wanted.name };
  const changes: RuleChange[] = [];
  for (const set of wanted.sets) {
    if (!there.sets.includes(set)) changes.push({ kind: "make-set", table, set });
  }
  const chainsThere = new Map(there.chains.map((chain) => [chain.name, chain]));
  for (const chain of wanted.chains) {
    const present = chainsThere.get(chain.name);
    chainsThere.delete(chain.name);
    changes.push(...changeChain(table, chain, present, kept));
  }
  for (const chain of chainsThere.keys()) changes.push({ kind: "remove-chain", table, chain });
  for (const set of there.sets) {
    if (!wanted.sets.includes(set)) changes.push({ kind: "remove-set", table, set });
  }
  return changes;
}

function changeChain(
  table: Pick<Table, "family" | "name">,
  wanted: Chain,
  there: Chain | undefined,
  kept: Links,
): RuleChange[] {
  if (there === undefined) return [{ kind: "make-chain", table, chain: wanted }];
  // A chain of a TAP that went may lead on to one that has its name, and may not: Linux 6.16.
  const isLoose = wanted.device !== undefined && !kept.has(wanted.device);
  const { rules: wantedRules, ...wantedBase } = wanted;
  const { rules, ...base } = there;
  if (isLoose || !Bun.deepEquals(base, wantedBase)) {
    const remove = { kind: "remove-chain", table, chain: wanted.name } as const;
    return [remove, { kind: "make-chain", table, chain: wanted }];
  }
  return Bun.deepEquals(rules, wantedRules)
    ? []
    : [{ kind: "replace-rules", table, chain: wanted }];
}

/** Tells an operation from each other one of a plan, as words for people need not. */
export function keyOfOperation(operation: NetworkOperation): string {
  if (operation.kind !== "change-rules") return describeOperation(operation);
  const changes = operation.changes.map((change) => {
    const { kind, table } = change;
    return `${kind} ${table.family} ${table.name} ${partOf(change)}`;
  });
  return [operation.kind, ...changes].join("; ");
}

function partOf(change: RuleChange): string {
  if ("set" in change) return change.set;
  if (!("chain" in change)) return "";
  return typeof change.chain === "string" ? change.chain : change.chain.name;
}

/** An operation in words, for a log. */
export function describeOperation(operation: NetworkOperation): string {
  switch (operation.kind) {
    case "remove-link":
    case "make-bridge":
    case "change-bridge":
    case "make-tap":
    case "change-tap":
      return `${operation.kind} ${operation.name}`;
    case "filter-vlans":
    case "change-bridge-vlan":
    case "bring-up":
      return `${operation.kind} ${operation.bridge}`;
    case "add-address":
    case "remove-address": {
      const { kind, bridge, address, prefix } = operation;
      return `${kind} ${formatIpv4(address)}/${prefix} of ${bridge}`;
    }
    case "change-vlan":
    case "open-port":
      return `${operation.kind} ${operation.tap}`;
    case "change-rules":
      return `change-rules, ${operation.changes.length} of them`;
  }
}
