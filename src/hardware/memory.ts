import type { HostTree } from "./host-tree.ts";
import { type Inventory, inventoryLimits } from "./inventory.ts";
import { uniquely } from "./power-supplies.ts";
import type { SmbiosTable } from "./smbios.ts";
import { type MemoryDeviceRecord, readMemoryArrays, readMemoryDevices } from "./smbios-records.ts";
import type { Unseen } from "./unseen.ts";

type Memory = Inventory["memory"];

/** @param refusal why there is no SMBIOS table; undefined: there is one */
export function readMemory(
  tree: HostTree,
  table: SmbiosTable,
  refusal: string | undefined,
  unseen: Unseen,
): Memory {
  const arrays = readMemoryArrays(table);
  // A flash chip, a cache, a graphics card's memory are memory devices as well.
  const others = new Set(arrays.filter((one) => !one.isSystemMemory).map(({ handle }) => handle));
  const devices = readMemoryDevices(table).filter(({ array }) => !others.has(array));
  if (devices.length === 0) {
    unseen.add("memory.slots", refusal ?? "the SMBIOS table has no memory device (type 17)");
  }
  if (devices.length > inventoryLimits.slots) {
    unseen.add("memory.slots", `there are more than ${inventoryLimits.slots}`);
  }
  const slots = nameSlots(devices).slice(0, inventoryLimits.slots);
  for (const { locator, size_bytes } of slots) {
    if (size_bytes === null) {
      unseen.add(`memory.slots[${locator}].size_bytes`, "SMBIOS says that it does not know");
    }
  }
  const isComplete = slots.length > 0 && slots.every((slot) => slot.size_bytes !== null);
  const installed = slots.reduce((sum, slot) => sum + (slot.size_bytes ?? 0), 0);
  const system = arrays.find((array) => array.isSystemMemory);
  return {
    installed_bytes: isComplete ? installed : null,
    usable_bytes: parseUsableMemory(tree.text("proc/meminfo").value ?? "") ?? 0,
    error_correction: system?.errorCorrection ?? null,
    slots,
  };
}

/** Where SMBIOS gives two the same locator, the bank stands before it. */
function nameSlots(devices: readonly MemoryDeviceRecord[]): Memory["slots"] {
  const locatorOf = (device: MemoryDeviceRecord, index: number) =>
    device.locator ?? `slot ${index}`;
  const counts = new Map<string, number>();
  for (const [index, device] of devices.entries()) {
    const locator = locatorOf(device, index);
    counts.set(locator, (counts.get(locator) ?? 0) + 1);
  }
  const named = devices.map((device, index) => {
    const locator = locatorOf(device, index);
    const isDouble = (counts.get(locator) ?? 0) > 1 && device.bank !== null;
    const name = isDouble ? `${device.bank} ${locator}` : locator;
    return { device, name: name.slice(0, inventoryLimits.text - 8) };
  });
  return uniquely(named, ({ name }) => name).map(([locator, { device }]) => ({
    locator,
    bank: device.bank,
    size_bytes: device.size,
    type: device.size === 0 ? null : device.type,
    speed_mts: device.speed,
    configured_mts: device.configuredSpeed,
    manufacturer: device.manufacturer,
    serial: device.serial,
    part: device.part,
  }));
}

/** Bytes of "MemTotal: 16309532 kB". */
export function parseUsableMemory(text: string): number | null {
  const match = /^MemTotal:\s+(\d{1,12}) kB$/m.exec(text);
  return match === null ? null : Number(match[1]) * 1_024;
}
