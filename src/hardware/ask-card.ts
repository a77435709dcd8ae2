import { askCardDriver } from "../../ffi/ethtool.ts";
import { NetlinkError, NetlinkSocket } from "../../ffi/netlink.ts";
import { decodeLinkHealth, getLink } from "../network/rtnetlink.ts";
import { inventoryLimits } from "./inventory.ts";
import type { DriverWords } from "./network-cards.ts";

/** What a card's driver says, and no file does: the seam of `readNetworkCards`. */
export function askCard(interfaceName: string): DriverWords {
  const { firmware, permanentAddress } = askCardDriver(interfaceName);
  // Drivers of virtual cards have "N/A", and some an address of zeros.
  const hasFirmware = firmware !== undefined && !/^(N\/A|none)$/i.test(firmware);
  const isAddress = permanentAddress?.some((byte) => byte !== 0) === true;
  return {
    firmware: hasFirmware ? firmware.slice(0, inventoryLimits.text) : null,
    permanentMac: isAddress
      ? [...permanentAddress].map((byte) => byte.toString(16).padStart(2, "0")).join(":")
      : null,
    mostMtu: mostMtuOf(interfaceName),
  };
}

/** No file of /sys has it. */
function mostMtuOf(interfaceName: string): number | null {
  using socket = new NetlinkSocket("route");
  try {
    const [link] = socket.get(getLink(interfaceName)).map(decodeLinkHealth);
    return link?.mostMtu ?? null;
  } catch (error) {
    // It has gone since the list of them was made.
    if (error instanceof NetlinkError) return null;
    throw error;
  }
}
