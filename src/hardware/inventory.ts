import * as v from "valibot";

/**
 * What a host is made of, as its firmware, kernel and controllers tell it: one value, which a spec
 * is held against and an orchestrator keeps. Pure. `null` is "this host does not tell"; why it does
 * not stands in `unseen`, so that nothing that could not be looked at is taken for looked at.
 */

/** Going over one of these is a refusal, and `unseen` says that something was left out. */
export const inventoryLimits = {
  /** Characters of a name, a serial, a version. */
  text: 256,
  processors: 64,
  slots: 512,
  disks: 1_024,
  networkCards: 256,
  graphicsCards: 64,
  pciDevices: 4_096,
  powerSupplies: 32,
  unseen: 256,
  /** Bytes of an inventory as JSON. */
  bytes: 4 * 1024 ** 2,
} as const;

const text = v.pipe(v.string(), v.maxLength(inventoryLimits.text));
const told = v.nullable(text);
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const some = v.nullable(count);
const flag = v.nullable(v.boolean());
const list = <Item extends v.GenericSchema>(item: Item, most: number) =>
  v.pipe(v.array(item), v.maxLength(most));

/** Of a PCI device, "0000:03:00.0". */
export const pciAddressSchema = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/, "a PCI address such as 0000:03:00.0"),
);
export const macSchema = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/, "a MAC address such as 52:54:00:12:34:56"),
);

/** `width` in lanes; `speed` in GT/s. null where the port does not tell (a root complex). */
const linkSchema = v.strictObject({
  width: some,
  width_most: some,
  speed: v.nullable(v.number()),
  speed_most: v.nullable(v.number()),
});
export type PciLink = v.InferOutput<typeof linkSchema>;

const processorSchema = v.strictObject({
  /** SMBIOS's name of the socket; else "0", "1": the kernel's package. */
  socket: text,
  vendor: told,
  model: told,
  cores: some,
  threads: some,
  microcode: told,
  most_mhz: some,
});

const slotSchema = v.strictObject({
  /** Unique in the list: where SMBIOS gives two the same one, the bank stands before it. */
  locator: text,
  bank: told,
  /** 0: empty. null: SMBIOS says "unknown". */
  size_bytes: some,
  type: told,
  /** Megatransfers a second: what the module can, and what it runs at. */
  speed_mts: some,
  configured_mts: some,
  manufacturer: told,
  serial: told,
  part: told,
});

export const transports = ["nvme", "sata", "sas", "scsi", "usb", "virtio", "mmc", "other"] as const;

/** A disk as a whole; partitions, loop and device-mapper devices are none. */
export const diskSchema = v.strictObject({
  /** "sda": of this boot alone. The serial is what names a disk. */
  name: text,
  serial: told,
  wwn: told,
  model: told,
  firmware: told,
  size_bytes: count,
  logical_block: count,
  physical_block: count,
  rotational: flag,
  transport: v.picklist(transports),
  pci: v.nullable(pciAddressSchema),
  removable: v.boolean(),
  read_only: v.boolean(),
});
export type Disk = v.InferOutput<typeof diskSchema>;

const networkCardSchema = v.strictObject({
  name: text,
  mac: macSchema,
  driver: told,
  firmware: told,
  pci: v.nullable(pciAddressSchema),
  carrier: flag,
  speed_mbps: some,
  duplex: v.nullable(v.picklist(["full", "half"])),
  most_mtu: some,
  numa_node: some,
});

const graphicsCardSchema = v.strictObject({
  pci: pciAddressSchema,
  /** Four hexadecimal digits each. */
  vendor: text,
  device: text,
  model: told,
  serial: told,
  driver: told,
  firmware: told,
  memory_bytes: some,
  link: linkSchema,
});

const pciDeviceSchema = v.strictObject({
  address: pciAddressSchema,
  /** Six hexadecimal digits: class, subclass, interface. */
  class: text,
  vendor: text,
  device: text,
  subsystem_vendor: told,
  subsystem_device: told,
  driver: told,
  link: linkSchema,
  /** As it is printed beside the slot, or on the board: SMBIOS types 9 and 41. */
  slot: told,
});

const powerSupplySchema = v.strictObject({
  /** Unique in the list. */
  locator: text,
  manufacturer: told,
  model: told,
  serial: told,
  most_watts: some,
  present: flag,
  /** Which source told it: "smbios", "ipmi", "sysfs". */
  source: v.picklist(["smbios", "ipmi", "sysfs"]),
});

export const inventorySchema = v.strictObject({
  system: v.strictObject({
    manufacturer: told,
    product: told,
    serial: told,
    /** As SMBIOS 2.6 and later has it: the first three groups are little-endian. */
    uuid: told,
    sku: told,
  }),
  board: v.strictObject({ manufacturer: told, product: told, serial: told, version: told }),
  chassis: v.strictObject({ type: told, serial: told, asset_tag: told }),
  firmware: v.strictObject({
    vendor: told,
    version: told,
    date: told,
    boot: v.picklist(["uefi", "bios"]),
    secure_boot: flag,
    tpm: told,
  }),
  kernel: v.strictObject({
    release: text,
    architecture: text,
    command_line: v.nullable(v.string()),
  }),
  processors: list(processorSchema, inventoryLimits.processors),
  /** Logical processors that are online, and NUMA nodes. */
  threads_online: count,
  numa_nodes: count,
  memory: v.strictObject({
    /** What SMBIOS says is installed; null without it. */
    installed_bytes: some,
    /** What the kernel has. */
    usable_bytes: count,
    /** "none", "single-bit", "multi-bit": SMBIOS type 16. */
    error_correction: told,
    slots: list(slotSchema, inventoryLimits.slots),
  }),
  disks: list(diskSchema, inventoryLimits.disks),
  network: list(networkCardSchema, inventoryLimits.networkCards),
  graphics: list(graphicsCardSchema, inventoryLimits.graphicsCards),
  pci: list(pciDeviceSchema, inventoryLimits.pciDevices),
  power_supplies: list(powerSupplySchema, inventoryLimits.powerSupplies),
  bmc: v.nullable(v.strictObject({ firmware: told, manufacturer: told, ipmi: told })),
  /** What could not be looked at: "memory.slots: no SMBIOS table", "disks[sdb].serial: EIO". */
  unseen: list(v.strictObject({ property: text, reason: text }), inventoryLimits.unseen),
});
export type Inventory = v.InferOutput<typeof inventorySchema>;

/** What a host is known by, from one boot to the next. */
export const hardwareIdentitySchema = v.strictObject({
  uuid: told,
  system_serial: told,
  board_serial: told,
});
export type HardwareIdentity = v.InferOutput<typeof hardwareIdentitySchema>;

export function identityOf({ system, board }: Inventory): HardwareIdentity {
  return { uuid: system.uuid, system_serial: system.serial, board_serial: board.serial };
}
