import type { HostTree } from "./host-tree.ts";
import { type Inventory, inventoryLimits } from "./inventory.ts";
import type { SmbiosTable } from "./smbios.ts";
import { readPowerSupplies as readRecords } from "./smbios-records.ts";
import type { Unseen } from "./unseen.ts";

type PowerSupply = Inventory["power_supplies"][number];

/** What SMBIOS names (type 39), else what the kernel has in /sys/class/power_supply. */
export function readPowerSupplies(
  tree: HostTree,
  table: SmbiosTable,
  unseen: Unseen,
): PowerSupply[] {
  const records = readRecords(table);
  if (records.length === 0) {
    const found = readAdapters(tree);
    if (found.length === 0) unseen.add("power_supplies", "SMBIOS has none (type 39), nor has /sys");
    return found;
  }
  if (records.length > inventoryLimits.powerSupplies) {
    unseen.add("power_supplies", `there are more than ${inventoryLimits.powerSupplies}`);
  }
  const supplies = records.slice(0, inventoryLimits.powerSupplies).map((record, index) => ({
    locator: record.location ?? record.name ?? `power supply ${index + 1}`,
    manufacturer: record.manufacturer,
    model: record.model ?? record.name,
    serial: record.serial,
    most_watts: record.mostWatts,
    present: record.present,
    source: "smbios" as const,
  }));
  return uniquely(supplies, (supply) => supply.locator).map(([locator, supply]) => ({
    ...supply,
    locator,
  }));
}

function readAdapters(tree: HostTree): PowerSupply[] {
  const folder = "sys/class/power_supply";
  return tree
    .names(folder)
    .filter((name) => tree.text(`${folder}/${name}/type`).value === "Mains")
    .slice(0, inventoryLimits.powerSupplies)
    .map((name) => {
      const online = tree.number(`${folder}/${name}/online`).value;
      return {
        locator: name,
        manufacturer: tree.word(`${folder}/${name}/manufacturer`).value,
        model: tree.word(`${folder}/${name}/model_name`).value,
        serial: tree.word(`${folder}/${name}/serial_number`).value,
        most_watts: null,
        present: online === null ? null : online === 1,
        source: "sysfs" as const,
      };
    });
}

/** Each with a name of its own: where one comes again, its number among them stands behind it. */
export function uniquely<Value>(
  values: readonly Value[],
  nameOf: (value: Value) => string,
): [string, Value][] {
  const seen = new Map<string, number>();
  const taken = new Set(values.map(nameOf));
  return values.map((value) => {
    const name = nameOf(value);
    let times = (seen.get(name) ?? 0) + 1;
    while (times > 1 && taken.has(`${name} #${times}`)) times += 1;
    seen.set(name, times);
    return [times === 1 ? name : `${name} #${times}`, value];
  });
}
