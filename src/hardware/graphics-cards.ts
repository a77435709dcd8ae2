import { isAccelerator, isGraphics } from "./accelerators.ts";
import type { HostTree } from "./host-tree.ts";
import { type Inventory, inventoryLimits } from "./inventory.ts";
import { pciOf, shortDomain } from "./pci-address.ts";
import { PCI_FOLDER } from "./pci-devices.ts";
import type { Unseen } from "./unseen.ts";

type GraphicsCard = Inventory["graphics"][number];
type PciDevice = Inventory["pci"][number];

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

/** Lines of "Name: value". */
export function parseColons(text: string): ReadonlyMap<string, string> {
  const pairs = text.split("\n").flatMap((line): [string, string][] => {
    const match = /^\s*([^:]+?)\s*:\s*(.*?)\s*$/.exec(line);
    return match?.[1] === undefined || match[2] === undefined ? [] : [[match[1], match[2]]];
  });
  return new Map(pairs);
}
