import type { EventLoop } from "../../event-loop/event-loop.ts";
import { AddressPool, macAddressOf, tapNameOf } from "../../network/addresses.ts";
import { DhcpServer } from "../../network/dhcp/dhcp-server.ts";
import type { Reservation } from "../../network/dhcp/reservation.ts";
import { DnsForwarder } from "../../network/dns/dns-forwarder.ts";
import { type DnsPolicy, policyOf } from "../../network/dns/policy.ts";
import {
  allowOnNetwork,
  applyNetwork,
  observeNetwork,
  readLinkCounters,
} from "../../network/kernel-network.ts";
import { describeOperation, planNetwork } from "../../network/plan.ts";
import type { LinkCounters } from "../../network/rtnetlink.ts";
import type { NetworkCard, NetworkSpecification } from "../../network/specification.ts";
import { firstAddress, formatIpv4, parseIpv4, type Subnet } from "../../network/subnet.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { Allocation, MachineRecord } from "../machine-record.ts";
import type { WorkerConfiguration } from "../worker-configuration.ts";
import type { MachineNetwork } from "./machine-tools.ts";

/** How long a machine keeps an address before it asks again: seconds. */
const LEASE_SECONDS = 3_600;
/** The shortest time that an allowed address stays allowed: who asked connects after the answer. */
const LEAST_ALLOWED: Milliseconds = 60_000;
/** Names of the machines, for each other. */
const DOMAIN = "vm.internal";

export type CardChoice =
  | { readonly kind: "card"; readonly card: Allocation["card"] }
  | { readonly kind: "refused"; readonly message: string };

/** One bridge for all machines of a worker: its links and rules, addresses, DHCP and names. */
export class WorkerNetwork implements MachineNetwork, Disposable {
  readonly #loop: EventLoop;
  readonly #onTrouble: (message: string) => void;
  readonly #leftAlone: readonly string[];
  readonly #owner: string;
  readonly #specification: NetworkSpecification;
  readonly #subnet: Subnet;
  readonly #upstreams: readonly string[];
  readonly #pool: AddressPool;
  readonly #records = new Map<string, MachineRecord>();
  /** TAPs of all machines, whether they were made yet or not. */
  readonly #taps = new Map<string, string>();
  #dhcp: DhcpServer | undefined;
  #dns: DnsForwarder | undefined;

  constructor(
    loop: EventLoop,
    configuration: WorkerConfiguration,
    options: {
      /** Machines of which nobody knows what they have: nothing of theirs is removed. */
      readonly leftAlone: readonly string[];
      readonly onTrouble: (message: string) => void;
    },
  ) {
    this.#loop = loop;
    this.#onTrouble = options.onTrouble;
    this.#leftAlone = options.leftAlone;
    this.#owner = configuration.networkBridge;
    const { base, prefixLength } = configuration.subnet;
    this.#subnet = { network: parseIpv4(base) ?? 0, prefix: prefixLength };
    const gateway = firstAddress(this.#subnet);
    this.#specification = {
      bridge: configuration.networkBridge,
      subnet: `${base}/${prefixLength}`,
      gateway: formatIpv4(gateway),
      nat: configuration.nat,
      isolation: configuration.isolate,
      ipv6: "drop",
      mtu: undefined,
      portForwards: [],
    };
    this.#upstreams = configuration.upstreamDns;
    this.#pool = new AddressPool(this.#subnet, [gateway]);
  }

  get bridge(): string {
    return this.#specification.bridge;
  }

  get subnet(): string {
    return this.#specification.subnet;
  }

  get freeAddresses(): number {
    return this.#pool.size - this.#pool.taken;
  }

  /** Takes up what machines have, and makes the network what it should be. */
  start(records: readonly MachineRecord[]): void {
    for (const record of records) this.#keep(record);
    // Without a machine nothing of a network is made, nor anybody else's touched.
    if (records.length === 0) return;
    try {
      this.#apply();
      this.#serve();
    } catch (error) {
      this.#onTrouble(`the network is not as it should be: ${messageOf(error)}`);
    }
  }

  /** An address, a MAC address and a TAP's name for a new machine. */
  allocate(name: string): CardChoice {
    const identity = { worker: this.#owner, machine: name, card: "0" };
    const found = this.#pool.allocate(name);
    if ("refusal" in found) {
      const { reason, mend } = found.refusal;
      return { kind: "refused", message: `${reason}. ${mend}` };
    }
    const taken = new Set(this.#taps.values());
    const tap = tapNameOf(identity, (one) => taken.has(one));
    if (tap === undefined) {
      this.#pool.release(found.address);
      return { kind: "refused", message: `No name is left for the TAP of ${name}` };
    }
    this.#taps.set(name, tap);
    const mac = macAddressOf(identity);
    return { kind: "card", card: { tap, mac, address: formatIpv4(found.address) } };
  }

  /**
   * What a machine had before is its own again.
   * @returns why it cannot be: the address is another's, or no longer of this network
   */
  reserve(name: string, card: NonNullable<Allocation["card"]>): string | undefined {
    const [owner] =
      [...this.#taps].find(([other, tap]) => tap === card.tap && other !== name) ?? [];
    if (owner !== undefined) return `the TAP ${card.tap} is that of ${owner}`;
    const address = parseIpv4(card.address);
    if (address === undefined) return `${card.address} is no address`;
    const kept = this.#pool.reserve(address, name);
    if ("refusal" in kept) return kept.refusal.reason;
    this.#taps.set(name, card.tap);
    return undefined;
  }

  /** Gives back what was reserved for a machine that did not come to be. */
  unreserve(name: string, card: NonNullable<Allocation["card"]>): void {
    this.#taps.delete(name);
    const address = parseIpv4(card.address);
    if (address !== undefined) this.#pool.release(address);
  }

  connect(record: MachineRecord): void {
    this.#keep(record);
    this.#apply(record.allocation.card?.tap);
    this.#serve();
  }

  disconnect(name: string): void {
    const record = this.#records.get(name);
    this.#records.delete(name);
    this.#taps.delete(name);
    const address = parseIpv4(record?.allocation.card?.address ?? "");
    if (address !== undefined) this.#pool.release(address);
    if (record === undefined) return;
    // The bridge goes with its last machine, and nobody is there to be served.
    if (this.#records.size === 0) this.#endServing();
    this.#apply();
  }

  /** What went through the TAPs, by their names. */
  counters(): ReadonlyMap<string, LinkCounters> {
    return readLinkCounters(new Set(this.#taps.values()));
  }

  #keep(record: MachineRecord): void {
    const { name } = record.spec;
    this.#records.set(name, record);
    const { card } = record.allocation;
    if (card === null) return;
    this.#taps.set(name, card.tap);
    const address = parseIpv4(card.address);
    if (address === undefined) return;
    const kept = this.#pool.reserve(address, name);
    if ("refusal" in kept) this.#onTrouble(`${name}: its address: ${kept.refusal.reason}`);
  }

  /** @throws Error when something of this TAP, or of the bridge, could not be made */
  #apply(tap?: string): void {
    const cards = [...this.#records.values()].flatMap((record) => cardOf(record));
    const isEmpty = cards.length === 0 && this.#leftAlone.length === 0;
    const networks = isEmpty ? [] : [{ specification: this.#specification, cards }];
    const { operations, refusals } = planNetwork(
      { owner: this.#owner, networks, leftAlone: this.#leftAlone },
      observeNetwork(),
    );
    const problems = [
      ...refusals.map(({ machine, bridge, reason, mend }) => ({
        subject: machine === undefined ? bridge : this.#taps.get(machine),
        text: `${machine ?? bridge}: ${reason}. ${mend}`,
      })),
      ...applyNetwork(operations).map(({ operation, reason }) => ({
        subject: "name" in operation ? operation.name : this.bridge,
        text: `${describeOperation(operation)}: ${reason}`,
      })),
    ];
    const own = problems.filter(({ subject }) => subject === tap || subject === this.bridge);
    for (const { text } of problems.filter((one) => !own.includes(one))) this.#onTrouble(text);
    const [first] = own;
    if (first !== undefined) throw new Error(first.text);
  }

  /** DHCP and names, as soon as there is a bridge; again where it was lost. */
  #serve(): void {
    const { gateway, bridge } = this.#specification;
    const place = { loop: this.#loop, interface: bridge, serverAddress: gateway };
    const prefixLength = this.#subnet.prefix;
    this.#dhcp ??= DhcpServer.start({
      ...place,
      prefixLength,
      reservations: () => this.#reservations(),
      onEvent: (event) => {
        if (event.kind === "lost") {
          this.#dhcp?.[Symbol.dispose]();
          this.#dhcp = undefined;
          this.#onTrouble(`DHCP on ${bridge}: ${event.reason}`);
        } else if (event.kind === "reservation-refused" || event.kind === "declined") {
          const why = "reason" in event ? event.reason : `${event.address} is somebody else's`;
          this.#onTrouble(`DHCP on ${bridge}: ${event.macAddress}: ${why}`);
        }
      },
    });
    this.#dns ??= DnsForwarder.start({
      ...place,
      prefixLength,
      domain: DOMAIN,
      policyOf: (address) => this.#policyOf(address),
      namesFor: (address) => this.#namesFor(address),
      ...(this.#upstreams.length > 0 && {
        upstreams: () => this.#upstreams.map((address) => ({ address, port: 53 })),
      }),
      onAllowed: async ({ vmAddress, addresses, timeToLive }) => {
        const record = this.#recordAt(vmAddress);
        const allowList = record === undefined ? undefined : allowListOf(record);
        if (allowList === undefined) return;
        const timeout = Math.max(LEAST_ALLOWED, timeToLive * 1_000);
        const allowed = addresses.flatMap((text) => {
          const address = parseIpv4(text);
          return address === undefined ? [] : [{ address, timeout }];
        });
        allowOnNetwork({ bridge, allowList }, allowed);
      },
    });
  }

  #reservations(): ReadonlyMap<string, Reservation> {
    const { gateway } = this.#specification;
    return new Map(
      [...this.#records.values()].flatMap(({ spec, allocation: { card } }) => {
        if (card === null) return [];
        const reservation: Reservation = {
          macAddress: card.mac,
          address: card.address,
          hostname: spec.name,
          leaseSeconds: LEASE_SECONDS,
          gateway,
          dns: [gateway],
          mtu: undefined,
        };
        return [[card.mac, reservation]];
      }),
    );
  }

  #recordAt(address: string): MachineRecord | undefined {
    return [...this.#records.values()].find(
      (record) => record.allocation.card?.address === address,
    );
  }

  #policyOf(address: string): DnsPolicy | undefined {
    const record = this.#recordAt(address);
    if (record === undefined) return undefined;
    const { networkAllowedDomains } = record.spec;
    if (networkAllowedDomains === undefined) return { kind: "everything" };
    const read = policyOf(networkAllowedDomains);
    // What is not understood allows nothing.
    return read.ok ? read.policy : { kind: "list", domains: [] };
  }

  /** Machines that are kept from each other do not hear of each other either. */
  #namesFor(address: string): ReadonlyMap<string, string> {
    const { isolation } = this.#specification;
    const seen = [...this.#records.values()].flatMap(({ spec, allocation: { card } }) => {
      const isHidden = isolation && card?.address !== address;
      return card === null || isHidden ? [] : [[spec.name, card.address] as const];
    });
    return new Map(seen);
  }

  /** Links and rules stay: the machines need them. */
  [Symbol.dispose](): void {
    this.#endServing();
  }

  #endServing(): void {
    this.#dhcp?.[Symbol.dispose]();
    this.#dhcp = undefined;
    this.#dns?.[Symbol.dispose]();
    this.#dns = undefined;
  }
}

/** nft's name of the addresses that a machine with a list of domains may reach. */
function allowListOf({ spec, allocation }: MachineRecord): string | undefined {
  const { card } = allocation;
  return spec.networkAllowedDomains === undefined || card === null ? undefined : card.tap;
}

function cardOf(record: MachineRecord): NetworkCard[] {
  const { card, user } = record.allocation;
  if (card === null) return [];
  return [
    {
      machine: record.spec.name,
      tap: card.tap,
      macAddress: card.mac,
      address: card.address,
      ipv6Address: undefined,
      ownerUser: user,
      vlan: undefined,
      pin: true,
      allowList: allowListOf(record),
    },
  ];
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
