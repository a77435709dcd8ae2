import { existsSync, readFileSync } from "node:fs";
import { NetlinkError, NetlinkSocket } from "../../ffi/netlink.ts";
import type { NetlinkRequest } from "../../ffi/netlink-message.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { Errno, SystemCallError } from "../../ffi/system-call-error.ts";
import { openTap, setTapOwner, setTapPersistent } from "../../ffi/tun.ts";
import { readOwnership } from "./desired.ts";
import { MOST_LINKS_REMOVED_AT_A_TIME, removeLinks } from "./link-removal.ts";
import {
  type AllowedAddress,
  allowAddresses,
  type Chain,
  decodeAllowed,
  decodeChain,
  decodeRule,
  decodeSet,
  decodeTable,
  dumpAllowed,
  dumpChains,
  dumpRules,
  dumpSets,
  dumpTables,
  encodeRuleChange,
  type RuleChange,
  type Table,
  type TableName,
} from "./nftables.ts";
import type { NetworkSettings, ObservedNetwork } from "./observation.ts";
import type { NetworkOperation } from "./plan.ts";
import {
  addAddress,
  changeLink,
  changeVlan,
  decodeAddress,
  decodeLink,
  decodePortVlans,
  decodeRoute,
  dumpAddresses,
  dumpLinks,
  dumpPortVlans,
  dumpRoutes,
  getLink,
  type LinkCounters,
  makeBridge,
  removeAddress,
} from "./rtnetlink.ts";
import { tableNameOf } from "./rules.ts";
import { parseMacAddress } from "./subnet.ts";

/**
 * The seam to the kernel: what is there, what is to be done, what was counted. Every call is of
 * this process's network namespace, and waits for nothing but the kernel.
 */

/** TAPs that are made at a time: each has a descriptor until it is persistent. */
export const MOST_TAPS_AT_A_TIME = 128;
/** Other operations of one kind that travel together. */
const MOST_OPERATIONS_AT_A_TIME = 256;

/** @throws NetlinkError, SystemCallError where the kernel has no netlink or refuses to tell */
export function observeNetwork(): ObservedNetwork {
  using route = new NetlinkSocket("route");
  using netfilter = new NetlinkSocket("netfilter");
  const links = route.dump(dumpLinks()).map(decodeLink);
  const hasVlans = links.some(({ vlanFiltering }) => vlanFiltering === true);
  const portVlans = hasVlans ? route.dump(dumpPortVlans()).map(decodePortVlans) : undefined;
  const tableNames = netfilter.dump(dumpTables()).map(decodeTable);
  const chains = netfilter.dump(dumpChains()).map(decodeChain);
  return {
    links,
    addresses: route.dump(dumpAddresses()).map(decodeAddress),
    routes: route.dump(dumpRoutes()).flatMap((message) => decodeRoute(message) ?? []),
    vlans: portVlans && new Map(portVlans.map(({ index, vlans }) => [index, vlans])),
    tableNames,
    chains,
    tables: tableNames.flatMap(({ family, name, comment }) => {
      const isOurs = readOwnership(comment) !== undefined;
      if (!isOurs || (family !== "inet" && family !== "netdev")) return [];
      return [readTable(netfilter, { family, name }, comment ?? "", chains)];
    }),
    settings: readSettings(),
  };
}

function readTable(
  netfilter: NetlinkSocket,
  table: TableName,
  comment: string,
  all: ObservedNetwork["chains"],
): Table {
  const rules = Map.groupBy(netfilter.dump(dumpRules(table)).map(decodeRule), (one) => one.chain);
  const sets = netfilter.dump(dumpSets(table)).flatMap((message) => decodeSet(message) ?? []);
  const chains = all
    .filter(({ family, table: name }) => family === table.family && name === table.name)
    .map(({ name, base }): Chain => {
      return {
        name,
        // One that only others lead to is none of ours: no comparison finds it equal.
        type: base?.type === "nat" ? "nat" : "filter",
        hook: base?.hook ?? "ingress",
        priority: base?.priority ?? Number.NaN,
        policy: base?.policy ?? "accept",
        device: base?.devices[0],
        rules: rules.get(name)?.map(({ rule }) => rule) ?? [],
      };
    });
  return { ...table, comment, sets, chains };
}

function readSettings(): NetworkSettings {
  const setting = (path: string) => {
    try {
      return readFileSync(`/proc/sys/net/${path}`, "latin1").trim() !== "0";
    } catch {
      return undefined;
    }
  };
  const text = (path: string) => {
    try {
      return readFileSync(path, "latin1");
    } catch {
      return "";
    }
  };
  return {
    forwarding: setting("ipv4/ip_forward"),
    ipv6Forwarding: setting("ipv6/conf/all/forwarding"),
    bridgeCallsRules: setting("bridge/bridge-nf-call-iptables"),
    hasTunDevice: existsSync("/dev/net/tun"),
    hasLegacyFilter: /^filter$/m.test(text("/proc/self/net/ip_tables_names")),
  };
}

/** What was not done, and why; what follows from it was not tried. */
export interface OperationRefusal {
  readonly operation: NetworkOperation;
  /** The kernel's own words, or which other refusal it follows from. */
  readonly reason: string;
}

/**
 * Does what planNetwork planned, in its order. One card that is refused stops no other; rules are
 * all changed or none, and without them no card comes up.
 * @returns what was refused; empty when all was done
 */
export function applyNetwork(operations: readonly NetworkOperation[]): OperationRefusal[] {
  using application = new Application();
  for (const _slice of application.perform(operations));
  return application.refusals;
}

/**
 * The same in slices, of which each takes tens of milliseconds: others have their turn between.
 * @param turn resolves when it goes on; what it throws ends it there, and the next pass goes on
 */
export async function applyNetworkInTurns(
  operations: readonly NetworkOperation[],
  turn: () => Promise<void>,
): Promise<readonly OperationRefusal[]> {
  using application = new Application();
  for (const _slice of application.perform(operations)) await turn();
  return application.refusals;
}

const NO_VLANS =
  "this kernel has no VLANs on bridges (CONFIG_BRIDGE_VLAN_FILTERING): take vlan out of the " +
  "network, or run a kernel that has them";

type OfKind<Kind extends NetworkOperation["kind"]> = Extract<NetworkOperation, { kind: Kind }>;

class Application implements Disposable {
  readonly #route = new NetlinkSocket("route");
  readonly refusals: OperationRefusal[] = [];
  /** Links that something was refused for: they do not come up. */
  readonly #failed = new Set<string>();
  readonly #indexes = new Map<string, number>();

  /** Yields after each slice: operations of one kind, and not too many of them. */
  *perform(operations: readonly NetworkOperation[]): Generator<void> {
    for (let start = 0; start < operations.length; ) {
      const kind = operations[start]?.kind;
      const most = start + mostAtATime(kind);
      const next = operations.findIndex((one, index) => index > start && one.kind !== kind);
      const end = Math.min(most, next < 0 ? operations.length : next);
      this.#performKind(operations.slice(start, end));
      start = end;
      yield;
    }
  }

  /** Operations of one kind, which travel together. */
  #performKind(operations: readonly NetworkOperation[]): void {
    const open: OfKind<"make-tap">[] = [];
    const removals: OfKind<"remove-link">[] = [];
    const requests: Requested[] = [];
    for (const operation of operations) {
      const cause = subjectsOf(operation).find((name) => this.#failed.has(name));
      if (cause !== undefined) this.#refuse(operation, `${cause} was refused before`);
      else if (operation.kind === "make-tap") open.push(operation);
      else if (operation.kind === "remove-link") removals.push(operation);
      else if (operation.kind === "change-rules") this.#changeRules(operation);
      else requests.push(...this.#requestsOf(operation));
    }
    this.#change(requests);
    for (const operation of operations) {
      if (operation.kind === "filter-vlans") this.#confirmFiltering(operation);
    }
    if (removals.length > 0) this.#remove(removals);
    if (open.length > 0) this.#makeTaps(open);
  }

  /** Some kernels without VLANs take the setting, and forget it. */
  #confirmFiltering(operation: OfKind<"filter-vlans">): void {
    const { bridge, on } = operation;
    if (!on || this.#failed.has(vlansOf(bridge))) return;
    const [message] = this.#route.get(getLink(bridge));
    if (message !== undefined && decodeLink(message).vlanFiltering === true) return;
    this.#refuse(operation, NO_VLANS);
  }

  #remove(operations: readonly OfKind<"remove-link">[]): void {
    const outcomes = removeLinks(
      this.#route,
      operations.map(({ index }) => index),
    );
    for (const [at, operation] of operations.entries()) {
      const error = outcomes[at];
      if (error !== undefined) this.#refuse(operation, error.message);
    }
  }

  #refuse(operation: NetworkOperation, reason: string): void {
    this.refusals.push({ operation, reason });
    for (const name of failedBy(operation)) this.#failed.add(name);
  }

  #change(requests: readonly Requested[]): void {
    const outcomes = this.#route.change(requests.map(({ request }) => request));
    outcomes.forEach((error, index) => {
      const operation = requests[index]?.operation;
      if (error === undefined || operation === undefined) return;
      const hasNone = operation.kind === "filter-vlans" && error.errno === Errno.EOPNOTSUPP;
      this.#refuse(operation, hasNone ? NO_VLANS : error.message);
    });
  }

  /** @returns none, and a refusal, where a link is not there */
  #requestsOf(operation: LinkOperation): Requested[] {
    try {
      return this.#encode(operation).map((request) => ({ operation, request }));
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      this.#refuse(operation, error.message);
      return [];
    }
  }

  #encode(operation: LinkOperation): NetlinkRequest[] {
    switch (operation.kind) {
      case "make-bridge":
        return this.#encodeBridge(operation);
      case "change-bridge": {
        const { kind: _kind, name, macAddress, ...change } = operation;
        const bytes = macAddress === undefined ? undefined : parseMacAddress(macAddress);
        return [changeLink({ link: name, ...change, ...(bytes && { macAddress: bytes }) })];
      }
      case "filter-vlans":
        return [changeLink({ link: operation.bridge, vlanFiltering: operation.on })];
      case "change-bridge-vlan": {
        const { bridge, join, leave } = operation;
        const index = this.#indexOf(bridge);
        return [
          changeVlan({ index, vlan: join, is: "member", of: "bridge" }),
          ...leave.map((vlan) => changeVlan({ index, vlan, is: "none", of: "bridge" })),
        ];
      }
      case "add-address": {
        const { bridge, address, prefix, broadcast } = operation;
        return [addAddress({ index: this.#indexOf(bridge), address, prefix }, broadcast)];
      }
      case "remove-address": {
        const { bridge, address, prefix } = operation;
        return [removeAddress({ index: this.#indexOf(bridge), address, prefix })];
      }
      case "change-tap":
        return this.#encodeTapChange(operation);
      case "change-vlan": {
        const index = this.#indexOf(operation.tap);
        return [
          changeVlan({ index, vlan: operation.join, is: "member", of: "port" }),
          ...operation.leave.map((vlan) => changeVlan({ index, vlan, is: "none", of: "port" })),
        ];
      }
      case "open-port": {
        const { tap, isolated } = operation;
        const port = { isolated, learning: true, hairpin: false };
        return [changeLink({ link: tap, port, isUp: true })];
      }
      case "bring-up":
        return [changeLink({ link: operation.bridge, isUp: true })];
    }
  }

  /** Only a bridge that was made by us just now gets our name. */
  #encodeBridge(operation: OfKind<"make-bridge">): NetlinkRequest[] {
    const { name, alias, mtu } = operation;
    const macAddress = parseMacAddress(operation.macAddress) ?? new Uint8Array(6);
    const [refusal] = this.#route.change([makeBridge({ name, macAddress })]);
    if (refusal !== undefined) throw refusal;
    return [changeLink({ link: name, alias, ...(mtu !== undefined && { mtu }) })];
  }

  #encodeTapChange(operation: OfKind<"change-tap">): NetlinkRequest[] {
    const { name, ownerUser, bridge, mtu } = operation;
    if (ownerUser !== undefined) {
      const tap = openTap({ name, as: "existing" });
      if (typeof tap === "number") {
        throw new NetlinkError({ errno: -tap, text: `${name} is in use; its owner stays` });
      }
      using attached = tap;
      setTapOwner(attached, ownerUser);
    }
    if (bridge === undefined && mtu === undefined) return [];
    const master = bridge === undefined ? undefined : this.#indexOf(bridge);
    const change = { ...(mtu !== undefined && { mtu }), ...(master !== undefined && { master }) };
    return [changeLink({ link: name, ...change })];
  }

  #indexOf(name: string): number {
    const known = this.#indexes.get(name);
    if (known !== undefined) return known;
    const [message] = this.#route.get(getLink(name));
    if (message === undefined) throw new Error(`Bug: the kernel confirmed ${name}, and gave none`);
    const { index } = decodeLink(message);
    this.#indexes.set(name, index);
    return index;
  }

  /**
   * A TAP lives as long as its descriptor until it is ours by its alias, and only then by itself:
   * killed between, we leave none that nobody knows.
   */
  #makeTaps(operations: readonly OfKind<"make-tap">[]): void {
    using taps = new DisposableStack();
    const made: { operation: OfKind<"make-tap">; tap: OwnedDescriptor }[] = [];
    const requests: Requested[] = [];
    for (const operation of operations) {
      try {
        const tap = taps.use(openOwnedTap(operation));
        made.push({ operation, tap });
        const { name, alias, mtu } = operation;
        const master = this.#indexOf(operation.bridge);
        const change = { link: name, alias, master, ...(mtu !== undefined && { mtu }) };
        requests.push({ operation, request: changeLink(change) });
      } catch (error) {
        if (!(error instanceof NetlinkError || error instanceof SystemCallError)) throw error;
        this.#refuse(operation, error.message);
      }
    }
    this.#change(requests);
    for (const { operation, tap } of made) {
      if (!this.#failed.has(operation.name)) setTapPersistent(tap, true);
    }
  }

  #changeRules(operation: OfKind<"change-rules">): void {
    using netfilter = new NetlinkSocket("netfilter");
    // A kernel before Linux 6.16 removed a TAP's chain with the TAP.
    const there = new Set(
      netfilter.dump(dumpChains()).map((message) => {
        const { family, table, name } = decodeChain(message);
        return `${family} ${table} ${name}`;
      }),
    );
    const isThere = (change: RuleChange) => {
      if (change.kind !== "remove-chain") return true;
      return there.has(`${change.table.family} ${change.table.name} ${change.chain}`);
    };
    const changes = operation.changes
      .filter(isThere)
      .flatMap((change) => withoutFailed(change, this.#failed));
    const requests = changes.flatMap((change) =>
      encodeRuleChange(change).map((request) => ({ change, request })),
    );
    try {
      netfilter.batch(requests.map(({ request }) => request));
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      const change = requests[error.index]?.change;
      const where = change && `${change.kind} in ${change.table.family} ${change.table.name}`;
      this.#refuse(operation, `${where ?? "the batch"}: ${error.message}`);
    }
  }

  [Symbol.dispose](): void {
    this.#route[Symbol.dispose]();
  }
}

function mostAtATime(kind: NetworkOperation["kind"] | undefined): number {
  if (kind === "remove-link") return MOST_LINKS_REMOVED_AT_A_TIME;
  return kind === "make-tap" ? MOST_TAPS_AT_A_TIME : MOST_OPERATIONS_AT_A_TIME;
}

/** @throws SystemCallError */
function openOwnedTap({ name, ownerUser }: OfKind<"make-tap">): OwnedDescriptor {
  const tap = openTap({ name, as: "new" });
  if (typeof tap === "number") throw new SystemCallError("TUNSETIFF", -tap, name);
  try {
    setTapOwner(tap, ownerUser);
  } catch (error) {
    tap.close();
    throw error;
  }
  return tap;
}

type LinkOperation = Exclude<
  NetworkOperation,
  { kind: "remove-link" | "make-tap" | "change-rules" }
>;

interface Requested {
  readonly operation: NetworkOperation;
  readonly request: NetlinkRequest;
}

/** What stands for the rules among the names of links; no link can have it. */
const rulesSubject = "the change of the rules";

/** The links that an operation needs whole. */
function subjectsOf(operation: NetworkOperation): string[] {
  switch (operation.kind) {
    case "remove-link":
    case "make-bridge":
    case "change-rules":
      return [];
    case "change-bridge":
      return [operation.name];
    case "filter-vlans":
    case "add-address":
    case "remove-address":
      return [operation.bridge];
    case "change-bridge-vlan":
      return [operation.bridge, vlansOf(operation.bridge)];
    case "bring-up":
      return [operation.bridge, rulesSubject];
    case "make-tap":
      return [operation.bridge];
    case "change-tap":
      return operation.bridge === undefined ? [] : [operation.bridge];
    case "change-vlan":
      return [operation.tap, operation.bridge, vlansOf(operation.bridge)];
    case "open-port":
      return [operation.tap, rulesSubject];
  }
}

const vlansOf = (bridge: string) => `the VLANs of ${bridge}`;

/** What does not come up when an operation was refused. */
function failedBy(operation: NetworkOperation): string[] {
  switch (operation.kind) {
    case "remove-link":
    case "change-bridge":
    case "remove-address":
    case "open-port":
    case "bring-up":
      return [];
    case "make-bridge":
    case "make-tap":
      return [operation.name];
    case "change-tap":
      // A card that only keeps its owner or its size goes on.
      return operation.bridge === undefined ? [] : [operation.name];
    case "filter-vlans":
      return [vlansOf(operation.bridge)];
    case "add-address":
      return [operation.bridge];
    case "change-bridge-vlan":
      return [vlansOf(operation.bridge)];
    case "change-vlan":
      return [operation.tap];
    case "change-rules":
      return [rulesSubject];
  }
}

/** A chain at a TAP that is not there would have the whole batch refused. */
function withoutFailed(change: RuleChange, failed: ReadonlySet<string>): RuleChange[] {
  const isLost = ({ device }: Chain) => device !== undefined && failed.has(device);
  switch (change.kind) {
    case "make-table": {
      const chains = change.table.chains.filter((chain) => !isLost(chain));
      return [{ kind: "make-table", table: { ...change.table, chains } }];
    }
    case "make-chain":
    case "replace-rules":
      return isLost(change.chain) ? [] : [change];
    default:
      return [change];
  }
}

/** What went through links, as the host counts it; of all links, or of those named. */
export function readLinkCounters(names?: ReadonlySet<string>): Map<string, LinkCounters> {
  using route = new NetlinkSocket("route");
  const counters = new Map<string, LinkCounters>();
  for (const message of route.dump(dumpLinks())) {
    const link = decodeLink(message);
    const isWanted = names === undefined || names.has(link.name);
    if (isWanted && link.counters !== undefined) counters.set(link.name, link.counters);
  }
  return counters;
}

/** Where a network's allow lists are. */
const allowListTable = (bridge: string): TableName => ({
  family: "inet",
  name: tableNameOf(bridge),
});

/**
 * Lets the machines of an allow list reach addresses, for a time from now on: what a name server
 * calls before it answers.
 * @throws NetlinkError with ENOENT when there is no such list; RangeError for too many addresses
 */
export function allowOnNetwork(
  list: { readonly bridge: string; readonly allowList: string },
  addresses: readonly AllowedAddress[],
): void {
  using netfilter = new NetlinkSocket("netfilter");
  const name = { table: allowListTable(list.bridge), set: list.allowList };
  netfilter.batch(allowAddresses(name, addresses));
}

/** The addresses of an allow list, each with the time that is left. @throws NetlinkError */
export function readAllowList(list: {
  readonly bridge: string;
  readonly allowList: string;
}): AllowedAddress[] {
  using netfilter = new NetlinkSocket("netfilter");
  const name = { table: allowListTable(list.bridge), set: list.allowList };
  return netfilter.dump(dumpAllowed(name)).flatMap(decodeAllowed);
}
