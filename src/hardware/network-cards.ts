import type { HostTree } from "./host-tree.ts";
import { type Inventory, inventoryLimits } from "./inventory.ts";
import { pciOf } from "./pci-address.ts";
import { Unseen } from "./unseen.ts";

type NetworkCard = Inventory["network"][number];

export const NETWORK_FOLDER = "sys/class/net";

/** What only a driver tells, and no file: the seam is `askDriver`. */
export interface DriverWords {
  readonly firmware: string | null;
  readonly permanentMac: string | null;
  /** In bytes. */
  readonly mostMtu: number | null;
}

const ETHERNET = 1;

/** Names of interfaces that are hardware: no bridge, no VLAN, no function lent to a guest. */
export function physicalCards(tree: HostTree): string[] {
  return tree.names(NETWORK_FOLDER).filter((name) => {
    const at = `${NETWORK_FOLDER}/${name}`;
    const place = tree.place(at) ?? "";
    if (place.includes("devices/virtual/") || !tree.has(`${at}/device`)) return false;
    return !tree.has(`${at}/device/physfn`);
  });
}

/** What the cards are known by. The parameters are those of `readNetworkCards`. */
export function readCardAddresses(
  tree: HostTree,
  ask: ((name: string) => DriverWords) | undefined,
): string[] {
  return readNetworkCards(tree, ask, new Unseen()).map(({ mac }) => mac);
}

/** @param ask undefined: nothing but the files is asked, as of a test's folder */
export function readNetworkCards(
  tree: HostTree,
  ask: ((name: string) => DriverWords) | undefined,
  unseen: Unseen,
): NetworkCard[] {
  const cards: NetworkCard[] = [];
  for (const name of physicalCards(tree)) {
    const at = `${NETWORK_FOLDER}/${name}`;
    const type = tree.number(`${at}/type`).value;
    const words = ask?.(name);
    const mac = words?.permanentMac ?? tree.text(`${at}/address`).value?.toLowerCase() ?? "";
    if (type !== ETHERNET || !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac)) {
      unseen.add(`network[${name}]`, `it is no Ethernet card: type ${type}, address "${mac}"`);
      continue;
    }
    if (cards.length === inventoryLimits.networkCards) {
      unseen.add("network", `there are more than ${inventoryLimits.networkCards}`);
      break;
    }
    cards.push(readCard(tree, { name, mac, words }, unseen));
  }
  return cards;
}

interface Found {
  readonly name: string;
  readonly mac: string;
  readonly words: DriverWords | undefined;
}

function readCard(tree: HostTree, { name, mac, words }: Found, unseen: Unseen): NetworkCard {
  const at = `${NETWORK_FOLDER}/${name}`;
  const of = (property: string) => `network[${mac}].${property}`;
  // A card that is down refuses to tell: EINVAL.
  const carrier = unseen.take(of("carrier"), tree.number(`${at}/carrier`));
  const speed = parseLinkSpeed(tree.text(`${at}/speed`).value);
  if (speed === null) {
    unseen.add(of("speed_mbps"), carrier === 1 ? "the driver does not tell" : "no carrier");
  }
  if (words?.mostMtu === null)
    unseen.add(of("most_mtu"), "its driver sets no limit, or the kernel tells none");
  const duplex = tree.text(`${at}/duplex`).value;
  const node = tree.number(`${at}/device/numa_node`).value;
  return {
    name,
    mac,
    driver: tree.target(`${at}/device/driver`),
    firmware: words?.firmware ?? null,
    pci: pciOf(tree.place(`${at}/device`) ?? ""),
    carrier: carrier === null ? null : carrier === 1,
    speed_mbps: speed,
    duplex: duplex === "full" || duplex === "half" ? duplex : null,
    most_mtu: words?.mostMtu ?? null,
    numa_node: node === null || node < 0 ? null : node,
  };
}

/** -1, or that as 32 bits without a sign, is "unknown". */
export function parseLinkSpeed(text: string | null): number | null {
  if (text === null || !/^\d{1,9}$/.test(text)) return null;
  return Number(text) || null;
}
