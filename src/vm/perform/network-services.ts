import type { EventLoop } from "../../event-loop/event-loop.ts";
import { DhcpServer } from "../../network/dhcp/dhcp-server.ts";
import type { Reservation } from "../../network/dhcp/reservation.ts";
import { DnsForwarder } from "../../network/dns/dns-forwarder.ts";
import { type DnsPolicy, policyOf } from "../../network/dns/policy.ts";
import { allowOnNetwork } from "../../network/kernel-network.ts";
import { parseIpv4, parseSubnet } from "../../network/subnet.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { Card } from "../cards.ts";
import type { NetworkConfiguration } from "../worker-networks.ts";

/** How long a machine keeps an address before it asks again: seconds. */
const LEASE_SECONDS = 3_600;
/** The shortest time that an allowed address stays allowed: who asked connects after the answer. */
const LEAST_ALLOWED: Milliseconds = 60_000;
/** Names of the machines, for each other. */
const DOMAIN = "vm.internal";

/** A card of this network, as far as it is served. */
export interface ServedCard {
  readonly machine: string;
  readonly card: Card;
  /** It has the default route and the name servers. */
  readonly isFirst: boolean;
  /** Domains that it may reach alone; undefined: everything. */
  readonly domains: readonly string[] | undefined;
}

/** Who has a card here; asked anew with every question. */
export interface NetworkDirectory {
  cards(): readonly ServedCard[];
  /** Addresses of machines by their names, as far as the machine of this card may know them. */
  namesFor(served: ServedCard): ReadonlyMap<string, string>;
}

/** The name of the set of what a card with a list of domains may reach. */
export const allowListOf = ({ domains, card }: ServedCard): string | undefined =>
  domains === undefined ? undefined : card.tap;

/** DHCP and names on one bridge, as long as a machine has a card there. */
export class NetworkServices implements Disposable {
  readonly #loop: EventLoop;
  readonly #network: NetworkConfiguration;
  readonly #directory: NetworkDirectory;
  readonly #onTrouble: (message: string) => void;
  #dhcp: DhcpServer | undefined;
  #dns: DnsForwarder | undefined;

  constructor(
    loop: EventLoop,
    network: NetworkConfiguration,
    options: {
      readonly directory: NetworkDirectory;
      readonly onTrouble: (message: string) => void;
    },
  ) {
    this.#loop = loop;
    this.#network = network;
    this.#directory = options.directory;
    this.#onTrouble = options.onTrouble;
  }

  /** As soon as there is a bridge; again where it was lost. @throws Error */
  serve(): void {
    const { gateway, bridge, subnet } = this.#network.specification;
    const prefixLength = parseSubnet(subnet)?.prefix ?? 0;
    const place = {
      ...{ loop: this.#loop, interface: bridge, serverAddress: gateway, prefixLength },
    };
    this.#dhcp ??= DhcpServer.start({
      ...place,
      domain: DOMAIN,
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
    const { upstreamDns } = this.#network;
    this.#dns ??= DnsForwarder.start({
      ...place,
      domain: DOMAIN,
      policyOf: (address) => this.#policyOf(address),
      namesFor: (address) => {
        const asker = this.#servedAt(address);
        return asker === undefined ? new Map() : this.#directory.namesFor(asker);
      },
      ...(upstreamDns.length > 0 && {
        upstreams: () => upstreamDns.map((address) => ({ address, port: 53 })),
      }),
      onAllowed: async ({ vmAddress, addresses, timeToLive }) => {
        const served = this.#servedAt(vmAddress);
        const allowList = served === undefined ? undefined : allowListOf(served);
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
    const { gateway, mtu } = this.#network.specification;
    return new Map(
      this.#directory.cards().map(({ machine, card, isFirst }) => {
        const reservation: Reservation = {
          macAddress: card.mac,
          address: card.address,
          hostname: machine,
          leaseSeconds: LEASE_SECONDS,
          // Two default routes would be one too many.
          gateway: isFirst ? gateway : undefined,
          dns: isFirst ? [gateway] : [],
          mtu,
        };
        return [card.mac, reservation] as const;
      }),
    );
  }

  #servedAt(address: string): ServedCard | undefined {
    return this.#directory.cards().find(({ card }) => card.address === address);
  }

  #policyOf(address: string): DnsPolicy | undefined {
    const served = this.#servedAt(address);
    if (served === undefined) return undefined;
    if (served.domains === undefined) return { kind: "everything" };
    const read = policyOf(served.domains);
    // What is not understood allows nothing.
    return read.ok ? read.policy : { kind: "list", domains: [] };
  }

  /** Links and rules stay: the machines need them. */
  [Symbol.dispose](): void {
    this.#dhcp?.[Symbol.dispose]();
    this.#dhcp = undefined;
    this.#dns?.[Symbol.dispose]();
    this.#dns = undefined;
  }
}
