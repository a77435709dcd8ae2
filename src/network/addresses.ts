import { createHash } from "node:crypto";
import { LONGEST_LINK_NAME } from "./specification.ts";
import {
  broadcastAddress,
  formatIpv4,
  formatMacAddress,
  formatSubnet,
  type Ipv4,
  type Subnet,
  subnetHas,
} from "./subnet.ts";

/**
 * Addresses and names that are given out: what is the same on every run is derived, what must be
 * unique is looked up. Nothing here touches the machine.
 */

/** Why no address was given. */
export interface AddressRefusal {
  readonly kind: "exhausted" | "outside" | "reserved" | "taken";
  readonly reason: string;
  readonly mend: string;
}

const anotherAddress = "name another address, or none";

/** What a pool has to remember beyond its process. */
export interface PoolRecord {
  /** Holders by address. */
  readonly taken: Readonly<Record<string, string>>;
  /** Addresses that were given back, the one that is free for longest first. */
  readonly freed: readonly string[];
}

/**
 * The addresses of a subnet. Those that nobody ever had come first, then the one that is free for
 * longest: an address that was given back may still stand in somebody's ARP table or name server.
 */
export class AddressPool {
  readonly #subnet: Subnet;
  readonly #reserved: ReadonlySet<Ipv4>;
  readonly #holders = new Map<Ipv4, string>();
  /** In the order in which they were given back. */
  readonly #freed = new Set<Ipv4>();
  /** Below it nobody's address is fresh. */
  #next: Ipv4;

  /** @param reserved addresses that no machine gets, the gateway's among them */
  constructor(subnet: Subnet, reserved: readonly Ipv4[]) {
    this.#subnet = subnet;
    const edges = [subnet.network, broadcastAddress(subnet)];
    this.#reserved = new Set([...edges, ...reserved.filter((one) => subnetHas(subnet, one))]);
    this.#next = subnet.network + 1;
  }

  /** Addresses that machines can have. */
  get size(): number {
    return 2 ** (32 - this.#subnet.prefix) - this.#reserved.size;
  }

  get taken(): number {
    return this.#holders.size;
  }

  /** Whose an address is. */
  holderOf(address: Ipv4): string | undefined {
    return this.#holders.get(address);
  }

  /** Gives an address to a holder, who may have several. */
  allocate(holder: string): { readonly address: Ipv4 } | { readonly refusal: AddressRefusal } {
    const address = this.#fresh() ?? this.#freed.values().next().value;
    if (address === undefined) {
      const subnet = formatSubnet(this.#subnet);
      const refusal: AddressRefusal = {
        kind: "exhausted",
        reason: `All ${this.size} addresses of ${subnet} are taken`,
        mend: "delete machines, or give the network a larger subnet",
      };
      return { refusal };
    }
    this.#take(address, holder);
    return { address };
  }

  /** A named address: from a configuration, or of a machine that was adopted. */
  reserve(
    address: Ipv4,
    holder: string,
  ): { readonly address: Ipv4 } | { readonly refusal: AddressRefusal } {
    const refusal = this.refusalOf(address);
    if (refusal !== undefined) return { refusal };
    const other = this.#holders.get(address);
    if (other !== undefined && other !== holder) {
      const reason = `${formatIpv4(address)} belongs to ${other}`;
      return { refusal: { kind: "taken", reason, mend: anotherAddress } };
    }
    this.#take(address, holder);
    return { address };
  }

  /** Why nobody can have an address; undefined where somebody can. */
  refusalOf(address: Ipv4): AddressRefusal | undefined {
    const text = formatIpv4(address);
    if (!subnetHas(this.#subnet, address)) {
      const reason = `${text} is not in ${formatSubnet(this.#subnet)}`;
      return { kind: "outside", reason, mend: anotherAddress };
    }
    if (!this.#reserved.has(address)) return undefined;
    return { kind: "reserved", reason: `${text} is the network's own`, mend: anotherAddress };
  }

  /** Gives an address back; of one that nobody has, nothing. */
  release(address: Ipv4): void {
    if (this.#holders.delete(address)) this.#freed.add(address);
  }

  record(): PoolRecord {
    const taken = [...this.#holders].map(([address, holder]) => [formatIpv4(address), holder]);
    return { taken: Object.fromEntries(taken), freed: [...this.#freed].map(formatIpv4) };
  }

  /** Of a pool before: addresses that fit no more, after a change of the subnet, are left out. */
  restore(record: { taken: ReadonlyMap<Ipv4, string>; freed: readonly Ipv4[] }): void {
    for (const [address, holder] of record.taken) this.reserve(address, holder);
    for (const address of record.freed) {
      const fits = subnetHas(this.#subnet, address) && !this.#reserved.has(address);
      if (fits && !this.#holders.has(address)) this.#freed.add(address);
    }
  }

  #take(address: Ipv4, holder: string): void {
    this.#freed.delete(address);
    this.#holders.set(address, holder);
  }

  #fresh(): Ipv4 | undefined {
    const end = broadcastAddress(this.#subnet);
    for (; this.#next < end; this.#next += 1) {
      const isKnown = this.#holders.has(this.#next) || this.#freed.has(this.#next);
      if (!isKnown && !this.#reserved.has(this.#next)) return this.#next;
    }
    return undefined;
  }
}

/** Whose card it is: the same words give the same address and name for ever. */
export interface CardIdentity {
  readonly worker: string;
  readonly machine: string;
  /** "0" for a machine's first card. */
  readonly card: string;
}

function digestOf(parts: readonly string[]): Buffer {
  // Each with its length, so that no two lists of words read the same.
  const text = parts.map((part) => `${Buffer.byteLength(part)}:${part}`).join("");
  return createHash("sha256").update(text).digest();
}

/** Unicast, and administered locally: the lowest two bits of the first byte are 10. */
function localMacAddress(digest: Uint8Array): string {
  const bytes = digest.slice(0, 6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return formatMacAddress(bytes);
}

/** A card's hardware address. */
export function macAddressOf({ worker, machine, card }: CardIdentity): string {
  return localMacAddress(digestOf(["card", worker, machine, card]));
}

/** A bridge's own: else it would be that of one of its ports, and change with them. */
export function bridgeMacAddress(owner: string, bridge: string): string {
  return localMacAddress(digestOf(["bridge", owner, bridge]));
}

/** "tap-" and 8 letters, and then ".1" to ".99". */
const MOST_TAP_NAME_TRIES = 100;
const alphabet = "abcdefghijklmnopqrstuvwxyz234567";

/**
 * A card's TAP: a hash of whose it is, and not the beginning of a name that another begins with
 * as well. Where that is taken, the next suffix.
 * @param isTaken by another card, or by any link of the host that is not this card's own
 * @returns undefined when all suffixes are taken
 */
export function tapNameOf(
  identity: CardIdentity,
  isTaken: (name: string) => boolean,
): string | undefined {
  const digest = digestOf(["tap", identity.worker, identity.machine, identity.card]);
  const letters = Array.from(digest.subarray(0, 8), (byte) => alphabet[byte & 31]).join("");
  for (let suffix = 0; suffix < MOST_TAP_NAME_TRIES; suffix += 1) {
    const name = suffix === 0 ? `tap-${letters}` : `tap-${letters}.${suffix}`;
    if (name.length <= LONGEST_LINK_NAME && !isTaken(name)) return name;
  }
  return undefined;
}
