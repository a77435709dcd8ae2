/** A kernel for networks in memory: it does what a plan says, and tells what is there then. */
import type { Chain, Table } from "../../src/network/nftables.ts";
import type { ObservedNetwork } from "../../src/network/observation.ts";
import type { NetworkOperation } from "../../src/network/plan.ts";
import type { Link, LinkAddress } from "../../src/network/rtnetlink.ts";
import type {
  DesiredNetworks,
  NetworkCard,
  NetworkSpecification,
} from "../../src/network/specification.ts";

export const defaultSpecification: NetworkSpecification = {
  bridge: "br-procurator",
  subnet: "10.100.0.0/16",
  gateway: "10.100.0.1",
  nat: true,
  isolation: false,
  ipv6: "drop",
  mtu: undefined,
  vlan: undefined,
  portForwards: [],
};

/** A card of the machine `vm-NUMBER`, which nothing else has. */
export function cardOf(number: number, changes: Partial<NetworkCard> = {}): NetworkCard {
  const low = number & 0xff;
  const high = number >> 8;
  const hex = (byte: number) => byte.toString(16).padStart(2, "0");
  return {
    machine: `vm-${number}`,
    tap: `tap-${number}`,
    macAddress: `52:54:00:00:${hex(high)}:${hex(low)}`,
    address: `10.100.${high}.${low}`,
    ipv6Address: undefined,
    ownerUser: 1000 + number,
    vlan: undefined,
    pin: true,
    allowList: undefined,
    ...changes,
  };
}

/** One network of the worker `w1`. */
export function desiredOf(
  cards: readonly NetworkCard[],
  changes: Partial<NetworkSpecification> = {},
): DesiredNetworks {
  const specification = { ...defaultSpecification, ...changes };
  return { owner: "w1", networks: [{ specification, cards }] };
}

/** A link that nobody of ours made. */
export function linkOf(changes: Partial<Link> & Pick<Link, "name" | "index">): Link {
  return {
    kind: undefined,
    isUp: true,
    mtu: 1500,
    macAddress: undefined,
    alias: undefined,
    master: undefined,
    tap: undefined,
    port: undefined,
    vlanFiltering: undefined,
    group: 0,
    counters: undefined,
    ...changes,
  };
}

const portOf = (isolated: boolean) => ({
  isolated,
  learning: true,
  unicastFlood: true,
  multicastFlood: true,
  guard: false,
  rootBlock: false,
  hairpin: false,
});

export class NetworkWorld {
  links: Link[] = [linkOf({ name: "lo", index: 1 })];
  addresses: LinkAddress[] = [];
  tables: Table[] = [];
  readonly vlans = new Map<number, readonly number[]>();
  #nextIndex = 2;

  addLink(changes: Partial<Link> & { readonly name: string }): Link {
    const link = linkOf({ index: this.#nextIndex, ...changes });
    this.#nextIndex += 1;
    this.links.push(link);
    return link;
  }

  forgetAddresses(): void {
    this.addresses = [];
  }

  forgetTables(): void {
    this.tables = [];
  }

  observe(): ObservedNetwork {
    return {
      links: this.links,
      addresses: this.addresses,
      routes: [],
      vlans: this.vlans,
      tableNames: this.tables,
      tables: this.tables.filter(({ comment }) => comment.startsWith("hostler vm ")),
      chains: [],
      settings: {
        forwarding: true,
        ipv6Forwarding: false,
        bridgeCallsRules: false,
        hasTunDevice: true,
        hasLegacyFilter: false,
      },
    };
  }

  /** @throws Error where the kernel would refuse */
  apply(operations: readonly NetworkOperation[]): void {
    for (const operation of operations) this.#apply(operation);
  }

  #link(name: string): Link {
    const link = this.links.find((one) => one.name === name);
    if (link === undefined) throw new Error(`ENODEV ${name}`);
    return link;
  }

  #change(name: string, changes: Partial<Link>): void {
    const link = this.#link(name);
    this.links = this.links.map((one) => (one === link ? { ...one, ...changes } : one));
  }

  #add(link: Partial<Link> & { readonly name: string }): Link {
    if (this.links.some(({ name }) => name === link.name)) throw new Error(`EEXIST ${link.name}`);
    return this.addLink({ isUp: false, ...link });
  }

  #apply(operation: NetworkOperation): void {
    switch (operation.kind) {
      case "remove-link":
        this.#link(operation.name);
        this.links = this.links.filter(({ index }) => index !== operation.index);
        this.addresses = this.addresses.filter(({ index }) => index !== operation.index);
        return;
      case "make-bridge": {
        const { name, macAddress, alias, mtu = 1500 } = operation;
        this.#add({ name, macAddress, alias, mtu, kind: "bridge", vlanFiltering: false });
        return;
      }
      case "change-bridge": {
        const { kind: _kind, name, ...changes } = operation;
        this.#change(name, changes);
        return;
      }
      case "filter-vlans":
        this.#change(operation.bridge, { vlanFiltering: operation.on });
        return;
      case "change-bridge-vlan":
        this.vlans.set(this.#link(operation.bridge).index, [operation.join]);
        return;
      case "add-address":
      case "remove-address":
        this.#applyAddress(operation);
        return;
      case "make-tap":
      case "change-tap":
      case "change-vlan":
      case "open-port":
        this.#applyCard(operation);
        return;
      case "change-rules":
        for (const change of operation.changes) this.#applyRules(change);
        return;
      case "bring-up":
        this.#change(operation.bridge, { isUp: true });
    }
  }

  #applyAddress(operation: Extract<NetworkOperation, { bridge: string; address: number }>): void {
    const { bridge, address, prefix } = operation;
    const { index } = this.#link(bridge);
    this.addresses = this.addresses.filter((one) => one.index !== index || one.address !== address);
    if (operation.kind === "add-address") this.addresses.push({ index, address, prefix });
  }

  #applyCard(
    operation: Extract<
      NetworkOperation,
      { kind: "make-tap" | "change-tap" | "change-vlan" | "open-port" }
    >,
  ): void {
    switch (operation.kind) {
      case "make-tap": {
        const { name, bridge, alias, ownerUser, mtu = 1500 } = operation;
        const tap = { isTap: true, owner: ownerUser, group: undefined, isPersistent: true };
        const master = this.#link(bridge).index;
        const port = portOf(false);
        const shape = { kind: "tun", tap: { ...tap, hasVirtioHeader: true }, master, port };
        const { index } = this.#add({ name, alias, mtu, ...shape });
        this.vlans.set(index, [1]);
        return;
      }
      case "change-tap": {
        const { name, bridge, ownerUser, mtu } = operation;
        const { tap } = this.#link(name);
        this.#change(name, {
          ...(mtu !== undefined && { mtu }),
          ...(bridge !== undefined && { master: this.#link(bridge).index }),
          ...(ownerUser !== undefined && { tap: tap && { ...tap, owner: ownerUser } }),
        });
        return;
      }
      case "change-vlan":
        this.vlans.set(this.#link(operation.tap).index, [operation.join]);
        return;
      case "open-port":
        this.#change(operation.tap, { isUp: true, port: portOf(operation.isolated) });
    }
  }

  #applyRules(
    change: Extract<NetworkOperation, { kind: "change-rules" }>["changes"][number],
  ): void {
    const { family, name } = change.table;
    const isIt = (table: Table) => table.family === family && table.name === name;
    if (change.kind === "make-table") {
      if (this.tables.some(isIt)) throw new Error(`EEXIST ${family} ${name}`);
      this.tables.push(change.table);
      return;
    }
    if (!this.tables.some(isIt)) throw new Error(`ENOENT ${family} ${name}`);
    if (change.kind === "remove-table") {
      this.tables = this.tables.filter((table) => !isIt(table));
      return;
    }
    this.tables = this.tables.map((table) => (isIt(table) ? changed(table, change) : table));
  }
}

type TableChange = Exclude<
  Extract<NetworkOperation, { kind: "change-rules" }>["changes"][number],
  { kind: "make-table" | "remove-table" }
>;

function changed(table: Table, change: TableChange): Table {
  const without = (name: string): Chain[] => {
    if (!table.chains.some((chain) => chain.name === name)) throw new Error(`ENOENT ${name}`);
    return table.chains.filter((chain) => chain.name !== name);
  };
  switch (change.kind) {
    case "make-set":
      return { ...table, sets: [...table.sets, change.set] };
    case "remove-set":
      return { ...table, sets: table.sets.filter((set) => set !== change.set) };
    case "make-chain":
      return { ...table, chains: [...table.chains, change.chain] };
    case "replace-rules":
      return { ...table, chains: [...without(change.chain.name), change.chain] };
    case "remove-chain":
      return { ...table, chains: without(change.chain) };
  }
}
