import type { ChainSummary, Table } from "./nftables.ts";
import type { Link, LinkAddress, Route } from "./rtnetlink.ts";

/** The network of this host as it was seen: plain values, which plan and judgement read. */
export interface ObservedNetwork {
  readonly links: readonly Link[];
  readonly addresses: readonly LinkAddress[];
  readonly routes: readonly Route[];
  /** VLANs of bridges' ports by the link's index; undefined where the kernel has none. */
  readonly vlans: ReadonlyMap<number, readonly number[]> | undefined;
  /** Every table, with its comment. */
  readonly tableNames: readonly {
    readonly family: string;
    readonly name: string;
    readonly comment: string | undefined;
  }[];
  /** Those that a hostler made, whole. */
  readonly tables: readonly Table[];
  /** The chains of all tables. */
  readonly chains: readonly ChainSummary[];
  readonly settings: NetworkSettings;
}

/** Each undefined where its file in /proc/sys is not there. */
export interface NetworkSettings {
  /** net.ipv4.ip_forward */
  readonly forwarding: boolean | undefined;
  /** net.ipv6.conf.all.forwarding */
  readonly ipv6Forwarding: boolean | undefined;
  /** net.bridge.bridge-nf-call-iptables: what stays on a bridge passes the host's rules too. */
  readonly bridgeCallsRules: boolean | undefined;
  /** /dev/net/tun */
  readonly hasTunDevice: boolean;
  /** The old iptables have a filter table, whose policy nftables does not show. */
  readonly hasLegacyFilter: boolean;
}
