import type { NetworkSpecification } from "../network/specification.ts";
import {
  broadcastAddress,
  firstAddress,
  formatIpv4,
  parseIpv4,
  parseSubnet,
  type Subnet,
  subnetHas,
  subnetsOverlap,
} from "../network/subnet.ts";
import type { Mistake, Report } from "../toml/configuration-reader.ts";
import type { TomlTable } from "../toml/toml-tree.ts";
import { DEFAULT_NETWORK } from "./protocol-network.ts";
import type { WorkerConfiguration } from "./worker-configuration.ts";
import type { NetworkTable, Subnet as WrittenSubnet } from "./worker-configuration-schema.ts";

/** The networks of a worker's configuration: the seed's, and those of `[network.NAME]`. Pure. */

export interface NetworkConfiguration {
  readonly name: string;
  readonly specification: NetworkSpecification;
  /** What machines reach that declare no domains; undefined: everything. */
  readonly allowedDomains: readonly string[] | undefined;
  /** Where names are asked for; empty: where this host asks. */
  readonly upstreamDns: readonly string[];
}

const subnetText = ({ base, prefixLength }: WrittenSubnet) => `${base}/${prefixLength}`;

/** Zero for what the reader has refused already. */
const subnetOf = (written: WrittenSubnet): Subnet =>
  parseSubnet(subnetText(written)) ?? { network: 0, prefix: 32 };

/** The network of a machine that names none: network_bridge, vm_subnet_base and their like. */
export function defaultNetworkOf(configuration: WorkerConfiguration): NetworkConfiguration {
  const { networkBridge: bridge, subnet, nat, isolate: isolation } = configuration;
  return {
    name: DEFAULT_NETWORK,
    specification: {
      bridge,
      subnet: subnetText(subnet),
      gateway: formatIpv4(firstAddress(subnetOf(subnet))),
      ...{ nat, isolation, ipv6: "drop", mtu: undefined, vlan: undefined, portForwards: [] },
    },
    allowedDomains: undefined,
    upstreamDns: configuration.upstreamDns,
  };
}

/** All of them, the default one first. */
export const networksOf = (configuration: WorkerConfiguration): readonly NetworkConfiguration[] => [
  defaultNetworkOf(configuration),
  ...configuration.networks,
];

export function makeNetworks(
  tables: ReadonlyMap<string, NetworkTable> | undefined,
): NetworkConfiguration[] {
  return [...(tables ?? [])].flatMap(([name, table]) => {
    const { bridge, subnet } = table;
    // Without them it was refused.
    if (bridge === undefined || subnet === undefined) return [];
    const gateway = table.gateway ?? formatIpv4(firstAddress(subnetOf(subnet)));
    const specification: NetworkSpecification = {
      ...{ bridge, subnet: subnetText(subnet), gateway, portForwards: [] },
      ...{ nat: table.nat ?? true, isolation: table.isolate ?? false },
      ...{ ipv6: "drop", mtu: table.mtu, vlan: table.vlan },
    };
    const { allowed_domains: allowedDomains, upstream_dns: upstreamDns = [] } = table;
    return [{ name, specification, allowedDomains, upstreamDns }];
  });
}

/** What networks must be to each other, and what each must have. */
export function checkNetworks(
  root: TomlTable,
  networks: {
    readonly first: { readonly bridge: string; readonly subnet: WrittenSubnet };
    readonly tables: ReadonlyMap<string, NetworkTable> | undefined;
  },
  report: Report,
): void {
  const seen = [
    {
      name: DEFAULT_NETWORK,
      bridge: networks.first.bridge,
      subnet: subnetOf(networks.first.subnet),
    },
  ];
  for (const [name, table] of networks.tables ?? []) {
    const complain = (
      key: string | undefined,
      mistake: Pick<Mistake, "expected" | "received" | "mend">,
    ) => {
      const path = ["network", name, ...(key === undefined ? [] : [key])];
      report({ at: placeOf(root, path), path, ...mistake });
    };
    if (name === DEFAULT_NETWORK) {
      complain(undefined, {
        expected: "another name",
        received: JSON.stringify(name),
        mend: "network_bridge, vm_subnet_base, nat, isolate and upstream_dns say what it is.",
      });
      continue;
    }
    const { bridge, subnet, gateway } = table;
    const range = subnet && subnetOf(subnet);
    const sameBridge = seen.find((one) => one.bridge === bridge);
    if (sameBridge !== undefined) {
      const received = `${bridge}, which ${sameBridge.name} has`;
      complain("bridge", { expected: "a bridge of its own", received });
    }
    const overlap = range && seen.find((one) => subnetsOverlap(one.subnet, range));
    if (subnet !== undefined && overlap !== undefined) {
      const received = `${subnetText(subnet)}, which overlaps that of ${overlap.name}`;
      complain("subnet", { expected: "addresses of its own", received });
    }
    if (subnet !== undefined && range !== undefined && gateway !== undefined) {
      const isHost = isHostOf(range, gateway);
      const expected = `a host's address in ${subnetText(subnet)}`;
      const mend = "Leave it out: the first address is taken.";
      if (!isHost) complain("gateway", { expected, received: gateway, mend });
    }
    if (bridge !== undefined && range !== undefined) seen.push({ name, bridge, subnet: range });
  }
}

function isHostOf(subnet: Subnet, text: string): boolean {
  const address = parseIpv4(text);
  if (address === undefined || !subnetHas(subnet, address)) return false;
  return address !== subnet.network && address !== broadcastAddress(subnet);
}

/** Where a key stands, or the table that lacks it. */
function placeOf(root: TomlTable, path: readonly string[]): TomlTable["at"] {
  let table = root;
  let { at } = root;
  for (const key of path) {
    const entry = table.entries.get(key);
    if (entry === undefined) return at;
    at = entry.node.kind === "table" ? entry.keyAt : entry.node.at;
    if (entry.node.kind !== "table") return at;
    table = entry.node;
  }
  return at;
}
