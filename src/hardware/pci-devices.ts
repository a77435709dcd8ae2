import type { HostTree } from "./host-tree.ts";
import { type Inventory, inventoryLimits, type PciLink } from "./inventory.ts";
import { pciOf } from "./pci-address.ts";
import type { Unseen } from "./unseen.ts";

type PciDevice = Inventory["pci"][number];

export const PCI_FOLDER = "sys/bus/pci/devices";

/** @param slots what is printed beside the slots: `readSlots` of SMBIOS */
export function readPciDevices(
  tree: HostTree,
  slots: readonly { readonly name: string; readonly pci: string }[],
  unseen: Unseen,
): PciDevice[] {
  const addresses = tree.names(PCI_FOLDER).filter((name) => pciOf(name) === name);
  if (addresses.length === 0) unseen.add("pci", `there is nothing in /${PCI_FOLDER}`);
  if (addresses.length > inventoryLimits.pciDevices) {
    unseen.add("pci", `there are more than ${inventoryLimits.pciDevices}`);
  }
  return addresses.slice(0, inventoryLimits.pciDevices).map((address) => {
    const at = `${PCI_FOLDER}/${address}`;
    return {
      address,
      class: hexadecimal(tree, `${at}/class`, 6) ?? "000000",
      vendor: hexadecimal(tree, `${at}/vendor`, 4) ?? "ffff",
      device: hexadecimal(tree, `${at}/device`, 4) ?? "ffff",
      subsystem_vendor: hexadecimal(tree, `${at}/subsystem_vendor`, 4),
      subsystem_device: hexadecimal(tree, `${at}/subsystem_device`, 4),
      driver: tree.target(`${at}/driver`),
      link: readLink(tree, at),
      slot: slotOf(tree, address, slots),
    };
  });
}

/** The slot that names the device, any function of it, or the port that it stands behind. */
function slotOf(
  tree: HostTree,
  address: string,
  slots: readonly { readonly name: string; readonly pci: string }[],
): string | null {
  if (slots.length === 0) return null;
  const device = (of: string) => of.replace(/\.\d$/, "");
  const own = slots.find((slot) => device(slot.pci) === device(address));
  if (own !== undefined) return own.name;
  const above = (tree.place(`${PCI_FOLDER}/${address}`) ?? "").split("/").at(-2) ?? "";
  return slots.find((slot) => slot.pci === above)?.name ?? null;
}

/** Where a port does not tell (`Unknown`, x0, x255), that is null. */
export function readLink(tree: HostTree, at: string): PciLink {
  return {
    width: parseWidth(tree.text(`${at}/current_link_width`).value),
    width_most: parseWidth(tree.text(`${at}/max_link_width`).value),
    speed: parseSpeed(tree.text(`${at}/current_link_speed`).value),
    speed_most: parseSpeed(tree.text(`${at}/max_link_speed`).value),
  };
}

export function parseWidth(text: string | null): number | null {
  const width = /^\d{1,3}$/.test(text ?? "") ? Number(text) : 0;
  return width === 0 || width === 255 ? null : width;
}

/** "8.0 GT/s PCIe", and of older kernels "8 GT/s". */
export function parseSpeed(text: string | null): number | null {
  const match = /^(\d+(?:\.\d+)?) GT\/s/.exec(text ?? "");
  return match === null ? null : Number(match[1]);
}

function hexadecimal(tree: HostTree, path: string, digits: number): string | null {
  const text = tree.text(path).value ?? "";
  const match = /^0x([0-9a-f]{1,8})$/i.exec(text);
  return match === null ? null : (match[1] ?? "").toLowerCase().padStart(digits, "0");
}
