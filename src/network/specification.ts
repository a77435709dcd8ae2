import * as v from "valibot";
import { firstFinding } from "../messaging/describe-issues.ts";
import {
  broadcastAddress,
  firstAddress,
  formatIpv4,
  LONGEST_PREFIX,
  parseIpv4,
  parseSubnet,
  SHORTEST_PREFIX,
  subnetHas,
} from "./subnet.ts";

/** What a network of virtual machines is to be, as its worker asks for it. */

/** Bytes of an interface's name: IFNAMSIZ less its zero byte. */
export const LONGEST_LINK_NAME = 15;
/** BR_MAX_PORTS less port 0, net/bridge/br_private.h. */
export const MOST_CARDS_A_NETWORK = 1023;
/** Port forwards of one network. */
export const MOST_PORT_FORWARDS = 4096;
/** Of IEEE 802.1Q: 0 is none, and 4095 is reserved. */
export const FIRST_VLAN = 1;
export const LAST_VLAN = 4094;
/** What IPv6 needs (RFC 8200), and what a TAP takes: <linux/if_ether.h>, less its header. */
export const SMALLEST_MTU = 1280;
export const LARGEST_MTU = 65_521;
export const DEFAULT_BRIDGE = "br-procurator";
export const DEFAULT_SUBNET = "10.100.0.0/16";

export interface PortForward {
  readonly protocol: "tcp" | "udp";
  /** On all addresses of the host but the loopback's. */
  readonly hostPort: number;
  /** A machine's, in the network's subnet. */
  readonly address: string;
  readonly port: number;
}

export interface NetworkSpecification {
  readonly bridge: string;
  /** "10.100.0.0/16" */
  readonly subnet: string;
  /** The host's own address on the bridge. */
  readonly gateway: string;
  /** Outgoing packets carry the host's address; nothing comes in but answers and forwards. */
  readonly nat: boolean;
  /** Machines reach the outside and not each other. */
  readonly isolation: boolean;
  readonly ipv6: "drop" | "route";
  /** Bytes of the largest packet, of bridge and cards; undefined leaves them as the kernel does. */
  readonly mtu: number | undefined;
  /** Of the gateway, with DHCP and names: 1 to 4094; undefined for the bridge's own. */
  readonly vlan: number | undefined;
  readonly portForwards: readonly PortForward[];
}

/** A machine's card. What may be wrong with it is refused by planNetwork, for this card alone. */
export interface NetworkCard {
  /** The machine's name, as it stands in the link's alias. */
  readonly machine: string;
  readonly tap: string;
  /** "52:54:00:12:34:56", lower case. */
  readonly macAddress: string;
  readonly address: string;
  /** Beside IPv4, where the network routes IPv6. */
  readonly ipv6Address: string | undefined;
  /** The user that the machine's VMM runs as. */
  readonly ownerUser: number;
  /** 1 to 4094; undefined for the bridge's own. */
  readonly vlan: number | undefined;
  /** Frames with any other source are dropped. */
  readonly pin: boolean;
  /** The name of a set: only what is in it is reached outside of the network. */
  readonly allowList: string | undefined;
}

export interface DesiredNetwork {
  readonly specification: NetworkSpecification;
  readonly cards: readonly NetworkCard[];
}

/** All that one worker wants on this host. */
export interface DesiredNetworks {
  /** Whose they are: other workers' links and tables are never touched. */
  readonly owner: string;
  readonly networks: readonly DesiredNetwork[];
  /** Machines whose cards stay as they are, although nobody can say what they should be. */
  readonly leftAlone?: readonly string[];
}

/** What was not understood, for a person. */
export interface SpecificationRefusal {
  readonly key: string;
  readonly expected: string;
  readonly received: string;
  readonly mend: string;
}

/** dev_valid_name() of net/core/dev.c takes more; nft(8) and the shell take this. */
export const linkNamePattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/;

const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const ipv4 = v.pipe(
  v.string(),
  v.check((text) => parseIpv4(text) !== undefined, "an IPv4 address"),
);

const schema = v.strictObject({
  bridge: v.optional(
    v.pipe(v.string(), v.regex(linkNamePattern, "an interface name of 1 to 15 letters")),
    DEFAULT_BRIDGE,
  ),
  subnet: v.optional(v.string(), DEFAULT_SUBNET),
  gateway: v.optional(ipv4),
  nat: v.optional(v.boolean(), true),
  isolation: v.optional(v.boolean(), false),
  ipv6: v.optional(v.picklist(["drop", "route"]), "drop"),
  mtu: v.optional(
    v.pipe(v.number(), v.integer(), v.minValue(SMALLEST_MTU), v.maxValue(LARGEST_MTU)),
  ),
  vlan: v.optional(v.pipe(v.number(), v.integer(), v.minValue(FIRST_VLAN), v.maxValue(LAST_VLAN))),
  portForwards: v.optional(
    v.pipe(
      v.array(
        v.strictObject({
          protocol: v.picklist(["tcp", "udp"]),
          hostPort: port,
          address: ipv4,
          port,
        }),
      ),
      v.maxLength(MOST_PORT_FORWARDS),
    ),
    [],
  ),
});

/** @param input as a configuration gives it; an empty object is the default network */
export function readNetworkSpecification(
  input: unknown,
): { readonly specification: NetworkSpecification } | { readonly refusal: SpecificationRefusal } {
  const parsed = v.safeParse(schema, input);
  if (!parsed.success) {
    const key = v.getDotPath(parsed.issues[0]) ?? "network";
    const mend = "write it as src/network/README.md shows, or leave it out for its default";
    return { refusal: { key, ...firstFinding(parsed.issues), mend } };
  }
  const { mtu, vlan, gateway, ...rest } = parsed.output;
  const subnet = parseSubnet(rest.subnet);
  if (subnet === undefined || subnet.prefix < SHORTEST_PREFIX || subnet.prefix > LONGEST_PREFIX) {
    const refusal = {
      key: "subnet",
      expected: `ADDRESS/PREFIX, of ${SHORTEST_PREFIX} to ${LONGEST_PREFIX} bits, the rest zero`,
      received: rest.subnet,
      mend: `such as "${DEFAULT_SUBNET}"`,
    };
    return { refusal };
  }
  const host = gateway === undefined ? firstAddress(subnet) : (parseIpv4(gateway) ?? 0);
  const isHost =
    subnetHas(subnet, host) && host !== subnet.network && host !== broadcastAddress(subnet);
  if (!isHost) {
    const refusal = {
      key: "gateway",
      expected: `a host's address in ${rest.subnet}`,
      received: formatIpv4(host),
      mend: "leave it out: the subnet's first address is taken",
    };
    return { refusal };
  }
  return { specification: { ...rest, mtu, vlan, gateway: formatIpv4(host) } };
}
