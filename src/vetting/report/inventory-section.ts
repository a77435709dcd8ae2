import type { Inventory } from "../../hardware/inventory.ts";
import { formatBytes } from "../../units/bytes.ts";
import { html, type Markup } from "./escape.ts";
import { facts, table } from "./tables.ts";

/** What the host is made of, for people. Pure. */

export function inventorySection(inventory: Inventory): Markup {
  const { system, board, firmware, kernel, memory, bmc } = inventory;
  return html`<section>
<h2>Inventory</h2>
${facts([
  ["system", words(system.manufacturer, system.product)],
  ["serial", system.serial],
  ["UUID", system.uuid],
  ["board", words(board.manufacturer, board.product, board.serial)],
  ["firmware", words(firmware.boot, firmware.vendor, firmware.version, firmware.date)],
  ["secure boot", flagText(firmware.secure_boot)],
  ["TPM", firmware.tpm],
  ["BMC", bmc === null ? null : words(bmc.manufacturer, bmc.firmware)],
  ["kernel", words(kernel.release, kernel.architecture)],
  ["memory", memory.installed_bytes === null ? null : formatBytes(memory.installed_bytes)],
  ["error correction", memory.error_correction],
])}${processorTable(inventory)}${memoryTable(inventory)}${diskTable(inventory)}${networkTable(
  inventory,
)}${graphicsTable(inventory)}${powerTable(inventory)}${pciTable(inventory)}${unseenTable(inventory)}
</section>`;
}

const words = (...told: readonly (string | null)[]) =>
  told.filter((word) => word !== null).join(" ");
const yesOrNo = (flag: boolean) => (flag ? "yes" : "no");
const flagText = (flag: boolean | null) => (flag === null ? null : yesOrNo(flag));
const size = (bytes: number | null) => (bytes === null ? "" : formatBytes(bytes));

function titled(title: string, content: Markup | undefined): Markup | undefined {
  return content === undefined
    ? undefined
    : html`<h3>${title}</h3>
${content}`;
}

function processorTable({ processors }: Inventory): Markup | undefined {
  return titled(
    "Processors",
    table(processors, [
      { title: "socket", cell: ({ socket }) => socket },
      { title: "model", cell: ({ vendor, model }) => words(vendor, model) },
      { title: "cores", isNumber: true, cell: ({ cores }) => cores ?? "" },
      { title: "threads", isNumber: true, cell: ({ threads }) => threads ?? "" },
      { title: "microcode", cell: ({ microcode }) => microcode ?? "" },
    ]),
  );
}

function memoryTable({ memory }: Inventory): Markup | undefined {
  return titled(
    "Memory",
    table(memory.slots, [
      { title: "slot", cell: ({ locator }) => locator },
      {
        title: "size",
        isNumber: true,
        cell: ({ size_bytes }) => (size_bytes === 0 ? "empty" : size(size_bytes)),
      },
      { title: "type", cell: ({ type }) => type ?? "" },
      { title: "MT/s", isNumber: true, cell: (one) => one.configured_mts ?? one.speed_mts ?? "" },
      { title: "part", cell: ({ manufacturer, part }) => words(manufacturer, part) },
      { title: "serial", cell: ({ serial }) => serial ?? "" },
    ]),
  );
}

function diskTable({ disks }: Inventory): Markup | undefined {
  return titled(
    "Disks",
    table(disks, [
      { title: "serial", cell: ({ serial, name }) => serial ?? `${name}, which tells none` },
      { title: "model", cell: ({ model }) => model ?? "" },
      { title: "firmware", cell: ({ firmware }) => firmware ?? "" },
      { title: "size", isNumber: true, cell: ({ size_bytes }) => size(size_bytes) },
      { title: "by", cell: ({ transport }) => transport },
      { title: "PCI", cell: ({ pci }) => pci ?? "" },
    ]),
  );
}

function networkTable({ network }: Inventory): Markup | undefined {
  return titled(
    "Network",
    table(network, [
      { title: "name", cell: ({ name }) => name },
      { title: "MAC", cell: ({ mac }) => mac },
      { title: "driver", cell: ({ driver, firmware }) => words(driver, firmware) },
      { title: "Mbit/s", isNumber: true, cell: ({ speed_mbps }) => speed_mbps ?? "" },
      { title: "carrier", cell: ({ carrier }) => flagText(carrier) ?? "" },
    ]),
  );
}

function graphicsTable({ graphics }: Inventory): Markup | undefined {
  return titled(
    "Graphics",
    table(graphics, [
      { title: "PCI", cell: ({ pci }) => pci },
      { title: "model", cell: ({ model, vendor, device }) => model ?? `${vendor}:${device}` },
      { title: "memory", isNumber: true, cell: ({ memory_bytes }) => size(memory_bytes) },
      { title: "link", cell: ({ link }) => linkText(link) },
      { title: "serial", cell: ({ serial }) => serial ?? "" },
    ]),
  );
}

function powerTable({ power_supplies }: Inventory): Markup | undefined {
  return titled(
    "Power supplies",
    table(power_supplies, [
      { title: "place", cell: ({ locator }) => locator },
      { title: "model", cell: ({ manufacturer, model }) => words(manufacturer, model) },
      { title: "watts", isNumber: true, cell: ({ most_watts }) => most_watts ?? "" },
      { title: "there", cell: ({ present }) => flagText(present) ?? "" },
      { title: "serial", cell: ({ serial }) => serial ?? "" },
    ]),
  );
}

function pciTable({ pci }: Inventory): Markup | undefined {
  return titled(
    "PCI",
    table(pci, [
      { title: "address", cell: ({ address }) => address },
      { title: "id", cell: ({ vendor, device }) => `${vendor}:${device}` },
      { title: "class", cell: (one) => one.class },
      { title: "driver", cell: ({ driver }) => driver ?? "" },
      { title: "link", cell: ({ link }) => linkText(link) },
      { title: "slot", cell: ({ slot }) => slot ?? "" },
    ]),
  );
}

function linkText({ width, width_most, speed, speed_most }: Inventory["pci"][number]["link"]) {
  if (width === null && speed === null) return "";
  const most = width_most === null ? "" : ` of x${width_most} at ${speed_most ?? "?"}`;
  return `x${width ?? "?"} at ${speed ?? "?"} GT/s${most}`;
}

function unseenTable({ unseen }: Inventory): Markup | undefined {
  return titled(
    "Not seen",
    table(unseen, [
      { title: "what", cell: ({ property }) => property },
      { title: "why", cell: ({ reason }) => reason },
    ]),
  );
}
