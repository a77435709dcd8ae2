import type { HostTree } from "./host-tree.ts";
import { type Inventory, inventoryLimits } from "./inventory.ts";
import { PCI_FOLDER, pciOf } from "./pci-devices.ts";
import type { Unseen } from "./unseen.ts";

type GraphicsCard = Inventory["graphics"][number];
type PciDevice = Inventory["pci"][number];

/** Display controllers, and processing accelerators: PCI Code and ID Assignment, 1.11. */
export const isGraphics = (device: Pick<PciDevice, "class">): boolean =>
  device.class.startsWith("03") || device.class.startsWith("1200");

/** Vendors whose cards show a screen to a service processor or a guest, and compute nothing. */
const screensOnly: Readonly<Record<string, readonly string[] | "all">> = {
  /** ASPEED, Matrox, XGI, Silicon Motion; HiSilicon's iBMC. */
  "1a03": "all",
  "102b": "all",
  "18ca": "all",
  "126f": "all",
  "19e5": ["1711"],
  /** Bochs and QEMU, Cirrus, QXL, VMware, virtio, Hyper-V, VirtualBox. */
  "1234": "all",
  "1013": "all",
  "1b36": ["0100"],
  "15ad": "all",
  "1af4": ["1050"],
  "1414": "all",
  "80ee": "all",
};

/** A graphics card that a spec counts: not the one behind a service processor's screen. */
export function isAccelerator(card: Pick<GraphicsCard, "vendor" | "device">): boolean {
  const known = screensOnly[card.vendor];
  if (known === undefined) return true;
  return known !== "all" && !known.includes(card.device);
}

export function readGraphicsCards(
  tree: HostTree,
  devices: readonly PciDevice[],
  unseen: Unseen,
): GraphicsCard[] {
  const found = devices.filter(isGraphics);
  if (found.length > inventoryLimits.graphicsCards) {
    unseen.add("graphics", `there are more than ${inventoryLimits.graphicsCards}`);
  }
  return found.slice(0, inventoryLimits.graphicsCards).map((device) => {
    const told = wordsOf(tree, device);
    const of = (property: string) => `graphics[${device.address}].${property}`;
    if (isAccelerator(device)) {
      const without = `driver ${device.driver ?? "none"}: nothing in /sys or /proc tells it`;
      if (told.memory_bytes === null) unseen.add(of("memory_bytes"), without);
      if (told.serial === null) unseen.add(of("serial"), without);
      if (device.link.width === null) unseen.add(of("link.width"), "the port does not tell");
    }
    return {
      pci: device.address,
      vendor: device.vendor,
      device: device.device,
      driver: device.driver,
      link: device.link,
      ...told,
    };
  });
}

type Words = Pick<GraphicsCard, "model" | "serial" | "firmware" | "memory_bytes">;

function wordsOf(tree: HostTree, device: PciDevice): Words {
  const at = `${PCI_FOLDER}/${device.address}`;
  if (device.driver === "nvidia") return nvidiaWords(tree, device.address);
  // amdgpu's; others have none of these files.
  return {
    model: tree.word(`${at}/product_name`).value,
    serial: tree.word(`${at}/serial_number`).value ?? tree.word(`${at}/unique_id`).value,
    firmware: tree.word(`${at}/vbios_version`).value,
    memory_bytes: tree.number(`${at}/mem_info_vram_total`).value,
  };
}

/** /proc/driver/nvidia/gpus, whose names have a domain of four digits, or of eight. */
function nvidiaWords(tree: HostTree, address: string): Words {
  const folder = "proc/driver/nvidia/gpus";
  const name = tree.names(folder).find((one) => pciOf(shortDomain(one)) === address);
  const words = parseColons(tree.text(`${folder}/${name ?? address}/information`).value ?? "");
  const isTold = (text: string) => !/\?\?|^(N\/A|0+$)/.test(text);
  const take = (key: string) => {
    const text = words.get(key);
    return text !== undefined && isTold(text) ? text.slice(0, inventoryLimits.text) : null;
  };
  return {
    model: take("Model"),
    serial: take("GPU UUID"),
    firmware: take("Video BIOS"),
    memory_bytes: null,
  };
}

/** nvidia-smi writes "00000000:3B:00.0" for 0000:3b:00.0. */
export function shortDomain(address: string): string {
  return address.toLowerCase().replace(/^0000([0-9a-f]{4}:)/, "$1");
}

/** Lines of "Name: value". */
export function parseColons(text: string): ReadonlyMap<string, string> {
  const pairs = text.split("\n").flatMap((line): [string, string][] => {
    const match = /^\s*([^:]+?)\s*:\s*(.*?)\s*$/.exec(line);
    return match?.[1] === undefined || match[2] === undefined ? [] : [[match[1], match[2]]];
  });
  return new Map(pairs);
}
