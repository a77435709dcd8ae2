import { readOwnership } from "./desired.ts";
import type { ObservedNetwork } from "./observation.ts";
import type { NetworkSpecification } from "./specification.ts";
import { formatSubnet, parseSubnet, subnetsOverlap } from "./subnet.ts";

/** What on this host stands in the way of its machines' network, and how to change it. Pure. */

export interface NetworkFinding {
  /** broken: it cannot work. hindered: some of it does not. */
  readonly severity: "broken" | "hindered";
  /** A word for programs. */
  readonly name:
    | "no-tun"
    | "no-forwarding"
    | "no-ipv6-forwarding"
    | "forward-drop"
    | "firewalld"
    | "legacy-iptables"
    | "bridge-calls-rules"
    | "subnet-overlap"
    | "bridge-taken";
  readonly found: string;
  /** What to do, as a command where there is one. */
  readonly mend: string;
}

/** What of a network is judged. */
export type JudgedNetwork = Pick<NetworkSpecification, "bridge" | "subnet" | "ipv6"> & {
  /** The artifacts folder of another worker that has the bridge. */
  readonly otherUser?: string | undefined;
};

/** @param specifications of the networks that this host has, or is to have */
export function judgeNetwork(
  observed: ObservedNetwork,
  specifications: readonly JudgedNetwork[],
): NetworkFinding[] {
  return [
    ...judgeDevice(observed),
    ...judgeForwarding(observed, specifications),
    ...judgeForwardChains(observed, specifications),
    ...specifications.flatMap((one) => judgeSubnet(observed, one)),
    ...specifications.flatMap((one) => judgeBridge(observed, one)),
  ];
}

function judgeDevice({ settings }: ObservedNetwork): NetworkFinding[] {
  if (settings.hasTunDevice) return [];
  return [
    {
      severity: "broken",
      name: "no-tun",
      found: "there is no /dev/net/tun, so no machine can have a card",
      mend: "load the module with `modprobe tun`; in a container, pass the device in",
    },
  ];
}

function judgeForwarding(
  { settings }: ObservedNetwork,
  specifications: readonly JudgedNetwork[],
): NetworkFinding[] {
  const findings: NetworkFinding[] = [];
  if (settings.forwarding === false) {
    findings.push({
      severity: "broken",
      name: "no-forwarding",
      found: "net.ipv4.ip_forward is 0: machines reach this host and each other, and nobody else",
      mend: "set net.ipv4.ip_forward = 1 in /etc/sysctl.d, and run `sysctl --system`",
    });
  }
  const routesIpv6 = specifications.some(({ ipv6 }) => ipv6 === "route");
  if (routesIpv6 && settings.ipv6Forwarding === false) {
    findings.push({
      severity: "broken",
      name: "no-ipv6-forwarding",
      found: 'net.ipv6.conf.all.forwarding is 0, and a network has ipv6 = "route"',
      mend: "set net.ipv6.conf.all.forwarding = 1 in /etc/sysctl.d, and run `sysctl --system`",
    });
  }
  return findings;
}

/** An accept of ours is no accept of others': one chain that drops is enough. */
function judgeForwardChains(
  observed: ObservedNetwork,
  specifications: readonly JudgedNetwork[],
): NetworkFinding[] {
  const { chains, settings } = observed;
  const bridges = specifications.map(({ bridge }) => bridge);
  const findings: NetworkFinding[] = [];
  const dropping = chains.filter(({ family, base }) => {
    return family !== "netdev" && base?.hook === "forward" && base.policy === "drop";
  });
  for (const { family, table, name } of dropping) {
    findings.push(forwardDrop({ family, table, name }, chains, bridges));
  }
  if (chains.some(({ table }) => table === "firewalld")) {
    const commands = bridges.map(
      (bridge) => `firewall-cmd --permanent --zone=trusted --add-interface=${bridge}`,
    );
    findings.push({
      severity: "hindered",
      name: "firewalld",
      found: "firewalld runs, and rejects what is forwarded from links that are in no zone",
      mend: `run \`${[...commands, "firewall-cmd --reload"].join(" && ")}\``,
    });
  }
  if (settings.hasLegacyFilter) {
    findings.push({
      severity: "hindered",
      name: "legacy-iptables",
      found: "the old iptables have rules here, which cannot be seen from nftables",
      mend: "look whether `iptables-legacy -S FORWARD` says DROP; if so, let the bridge through",
    });
  }
  // Alone it costs time; together with one that drops it parts machines of one bridge.
  const isHarmful = findings.length > 0;
  if (settings.bridgeCallsRules === true && isHarmful) {
    findings.push({
      severity: "hindered",
      name: "bridge-calls-rules",
      found:
        "net.bridge.bridge-nf-call-iptables is 1: those rules also drop what machines of one " +
        "bridge send to each other",
      mend: "set net.bridge.bridge-nf-call-iptables = 0, unless Docker or Kubernetes need it",
    });
  }
  return findings;
}

function forwardDrop(
  chain: { readonly family: string; readonly table: string; readonly name: string },
  chains: ObservedNetwork["chains"],
  bridges: readonly string[],
): NetworkFinding {
  const isDocker = chains.some(({ family, table, name }) => {
    return family === chain.family && table === chain.table && name === "DOCKER-USER";
  });
  const commands = bridges.flatMap((bridge) =>
    isDocker
      ? [
          `iptables -I DOCKER-USER -i ${bridge} -j ACCEPT`,
          `iptables -I DOCKER-USER -o ${bridge} -j ACCEPT`,
        ]
      : [
          `nft insert rule ${chain.family} ${chain.table} ${chain.name} iifname ${bridge} accept`,
          `nft insert rule ${chain.family} ${chain.table} ${chain.name} oifname ${bridge} accept`,
        ],
  );
  const whose = isDocker ? "Docker's chain" : "the chain";
  return {
    severity: "broken",
    name: "forward-drop",
    found: `${whose} ${chain.family} ${chain.table} ${chain.name} drops what is forwarded`,
    mend: `run \`${commands.join(" && ")}\`, and make it last as that firewall's manual says`,
  };
}

function judgeSubnet(
  { routes, links }: ObservedNetwork,
  { bridge, subnet: text }: JudgedNetwork,
): NetworkFinding[] {
  const subnet = parseSubnet(text);
  if (subnet === undefined) return [];
  const own = links.find(({ name }) => name === bridge)?.index;
  return routes.flatMap(({ destination, index }): NetworkFinding[] => {
    // The default route overlaps everything, and gives way to what is more exact.
    const isElsewhere = destination.prefix > 0 && (own === undefined || index !== own);
    if (!isElsewhere || !subnetsOverlap(destination, subnet)) return [];
    const through = links.find((link) => link.index === index)?.name ?? "several links";
    return [
      {
        severity: "broken",
        name: "subnet-overlap",
        found:
          `the subnet ${text} of ${bridge} overlaps the route to ${formatSubnet(destination)} ` +
          `by ${through}`,
        mend: `give ${bridge} another subnet: vm_subnet_base, or subnet in its own table`,
      },
    ];
  });
}

function judgeBridge({ links }: ObservedNetwork, { bridge, otherUser }: JudgedNetwork) {
  if (otherUser !== undefined) {
    const finding: NetworkFinding = {
      severity: "broken",
      name: "bridge-taken",
      found: `${bridge} is that of the worker with ${otherUser}`,
      mend: "name another bridge in network_bridge, with another subnet in vm_subnet_base",
    };
    return [finding];
  }
  const link = links.find(({ name }) => name === bridge);
  if (link === undefined || readOwnership(link.alias) !== undefined) return [];
  const finding: NetworkFinding = {
    severity: "broken",
    name: "bridge-taken",
    found: `there is a link ${bridge} that hostler did not make; it is left as it is`,
    mend: "name another bridge in network_bridge, or remove that one if nobody needs it",
  };
  return [finding];
}
