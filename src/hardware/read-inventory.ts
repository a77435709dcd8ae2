import { readDisks } from "./block-devices.ts";
import { readBmc, readFirmware } from "./firmware.ts";
import { readGraphicsCards } from "./graphics-cards.ts";
import type { HostTree } from "./host-tree.ts";
import type { HardwareIdentity, Inventory } from "./inventory.ts";
import { readMemory } from "./memory.ts";
import { type DriverWords, readNetworkCards } from "./network-cards.ts";
import { readPciDevices } from "./pci-devices.ts";
import { readPowerSupplies } from "./power-supplies.ts";
import { onlineThreads, readProcessors } from "./processors.ts";
import { withoutSecrets } from "./secrets.ts";
import { meaningful, parseSmbios, type SmbiosTable } from "./smbios.ts";
import {
  readBoard,
  readChassis,
  readFirmware as readFirmwareRecord,
  readSlots,
  readSockets,
  readSystem,
  structuresOf,
} from "./smbios-records.ts";
import { Unseen } from "./unseen.ts";

export interface InventorySources {
  /** What only a card's driver tells; undefined: files alone are read. */
  readonly askDriver?: (interfaceName: string) => DriverWords;
}

/** All that a host is made of. Nothing of it is opened but files of the kernel. */
export function readInventory(tree: HostTree, sources: InventorySources = {}): Inventory {
  const unseen = new Unseen();
  const { table, refusal } = readSmbios(tree);
  if (refusal !== undefined) unseen.add("smbios", refusal);
  for (const [index, fault] of table.faults.entries())
    unseen.add(`smbios.fault ${index + 1}`, fault);
  const firmware = structuresOf(table, 0)[0];
  const pci = readPciDevices(tree, readSlots(table), unseen);
  return {
    system: readSystemIdentity(tree, table),
    board: boardOf(tree, table),
    chassis: readChassis(structuresOf(table, 3)[0]),
    firmware: readFirmware(
      tree,
      firmware === undefined ? undefined : readFirmwareRecord(firmware),
      unseen,
    ),
    kernel: readKernel(tree),
    processors: readProcessors(tree, readSockets(table), unseen),
    threads_online: onlineThreads(tree).length,
    numa_nodes: tree.names("sys/devices/system/node").filter((name) => /^node\d+$/.test(name))
      .length,
    memory: readMemory(tree, table, refusal, unseen),
    disks: readDisks(tree, unseen),
    network: readNetworkCards(tree, sources.askDriver, unseen),
    graphics: readGraphicsCards(tree, pci, unseen),
    pci,
    power_supplies: readPowerSupplies(tree, table, unseen),
    bmc: readBmc(tree, table, unseen),
    unseen: unseen.list(),
  };
}

/** What a host is known by, in one look: SMBIOS alone, and no disk. */
export function readIdentity(tree: HostTree): HardwareIdentity {
  const { table } = readSmbios(tree);
  const { uuid, serial } = readSystemIdentity(tree, table);
  return { uuid, system_serial: serial, board_serial: boardOf(tree, table).serial };
}

export function readSmbios(tree: HostTree): {
  readonly table: SmbiosTable;
  readonly refusal?: string;
} {
  const folder = "sys/firmware/dmi/tables";
  const bytes = tree.bytes(`${folder}/DMI`);
  if (bytes.value === null) {
    const table = { version: undefined, structures: [], faults: [] };
    return { table, refusal: `no SMBIOS table: /${folder}/DMI: ${bytes.reason}` };
  }
  const entry = tree.bytes(`${folder}/smbios_entry_point`, 64).value;
  return { table: parseSmbios(bytes.value, entry ?? undefined) };
}

/** Where there is no table, what the kernel read of one: /sys/class/dmi/id. */
function readSystemIdentity(tree: HostTree, table: SmbiosTable): Inventory["system"] {
  const system = structuresOf(table, 1)[0];
  if (system !== undefined) return readSystem(system, table.version);
  return {
    manufacturer: kernelWord(tree, "sys_vendor"),
    product: kernelWord(tree, "product_name"),
    serial: kernelWord(tree, "product_serial"),
    uuid: kernelWord(tree, "product_uuid"),
    sku: kernelWord(tree, "product_sku"),
  };
}

function boardOf(tree: HostTree, table: SmbiosTable): Inventory["board"] {
  if (structuresOf(table, 2).length > 0) return readBoard(table);
  return {
    manufacturer: kernelWord(tree, "board_vendor"),
    product: kernelWord(tree, "board_name"),
    version: kernelWord(tree, "board_version"),
    serial: kernelWord(tree, "board_serial"),
  };
}

function kernelWord(tree: HostTree, name: string): string | null {
  const text = tree.word(`sys/class/dmi/id/${name}`).value;
  return text === null ? null : meaningful(text);
}

function readKernel(tree: HostTree): Inventory["kernel"] {
  const line = tree.text("proc/cmdline").value;
  return {
    release: tree.word("proc/sys/kernel/osrelease").value ?? "unknown",
    architecture:
      tree.word("proc/sys/kernel/arch").value ?? architectures[process.arch] ?? "unknown",
    command_line: line === null ? null : withoutSecrets(line),
  };
}

/** As uname(2) calls them. */
const architectures: Readonly<Record<string, string>> = { x64: "x86_64", arm64: "aarch64" };
