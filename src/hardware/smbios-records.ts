import type { SmbiosStructure, SmbiosTable, SmbiosVersion } from "./smbios.ts";

/** What the structures of DSP0134 mean, those that an inventory is made of. Pure. */

export const structuresOf = (table: SmbiosTable, type: number): readonly SmbiosStructure[] =>
  table.structures.filter((structure) => structure.type === type);

const KIBI = 1_024;
const MEBI = 1_024 ** 2;

/** Type 0. */
export interface FirmwareRecord {
  readonly vendor: string | null;
  readonly version: string | null;
  readonly date: string | null;
}
export const readFirmware = (of: SmbiosStructure): FirmwareRecord => ({
  vendor: of.string(0x04),
  version: of.string(0x05),
  date: of.string(0x08),
});

/** Type 1. */
export const readSystem = (of: SmbiosStructure, version: SmbiosVersion | undefined) => ({
  manufacturer: of.string(0x04),
  product: of.string(0x05),
  serial: of.string(0x07),
  uuid: readUuid(of.bytes(0x08, 16), version),
  sku: of.string(0x19),
});

/** The one that a maker of firmware delivers, and a maker of boards should have changed. */
const deliveredUuid = "03000200-0400-0500-0006-000700080009";

/** Of 2.6 and later the first three groups are little-endian: DSP0134, 7.2.1. */
export function readUuid(
  bytes: Uint8Array | undefined,
  version: SmbiosVersion | undefined,
): string | null {
  if (bytes === undefined) return null;
  const same = bytes.every((byte) => byte === bytes[0]);
  if (same && (bytes[0] === 0 || bytes[0] === 0xff)) return null;
  const isOld = version !== undefined && version.major * 256 + version.minor < 0x0206;
  const order = isOld
    ? [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    : [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  const digits = order.map((at) => (bytes[at] ?? 0).toString(16).padStart(2, "0")).join("");
  const uuid = digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  return uuid === deliveredUuid ? null : uuid;
}

/** Type 2; where there are several, the motherboard (0x0a), else the first. */
export function readBoard(table: SmbiosTable) {
  const boards = structuresOf(table, 2);
  const board = boards.find((one) => one.byte(0x0d) === 0x0a) ?? boards[0];
  return {
    manufacturer: board?.string(0x04) ?? null,
    product: board?.string(0x05) ?? null,
    version: board?.string(0x06) ?? null,
    serial: board?.string(0x07) ?? null,
  };
}

const chassisTypes: Readonly<Record<number, string>> = {
  3: "Desktop",
  4: "Low Profile Desktop",
  5: "Pizza Box",
  6: "Mini Tower",
  7: "Tower",
  8: "Portable",
  9: "Laptop",
  10: "Notebook",
  11: "Hand Held",
  13: "All in One",
  14: "Sub Notebook",
  16: "Lunch Box",
  17: "Main Server Chassis",
  18: "Expansion Chassis",
  19: "SubChassis",
  22: "RAID Chassis",
  23: "Rack Mount Chassis",
  24: "Sealed-case PC",
  25: "Multi-system",
  28: "Blade",
  29: "Blade Enclosing",
  30: "Tablet",
  31: "Convertible",
  32: "Detachable",
  33: "IoT Gateway",
  34: "Embedded PC",
  35: "Mini PC",
  36: "Stick PC",
};

/** Type 3. */
export const readChassis = (of: SmbiosStructure | undefined) => ({
  type: chassisTypes[(of?.byte(0x05) ?? 0) & 0x7f] ?? null,
  serial: of?.string(0x07) ?? null,
  asset_tag: of?.string(0x08) ?? null,
});

/** Type 4, of a socket in which a processor is. */
export interface SocketRecord {
  readonly socket: string | null;
  readonly vendor: string | null;
  readonly model: string | null;
  readonly cores: number | null;
  readonly threads: number | null;
  readonly mostMhz: number | null;
  /** One of those below; null: it is in use. */
  readonly disabled: string | null;
}

const CENTRAL_PROCESSOR = 3;
export const DISABLED_BY_SETUP = "disabled in the firmware's setup";
export const DISABLED_BY_SELF_TEST = "disabled by the firmware after an error of its self-test";
const disabledStates: Readonly<Record<number, string>> = {
  2: DISABLED_BY_SETUP,
  3: DISABLED_BY_SELF_TEST,
};

export function readSockets(table: SmbiosTable): SocketRecord[] {
  return structuresOf(table, 4)
    .filter((of) => of.byte(0x05) === CENTRAL_PROCESSOR && ((of.byte(0x18) ?? 0) & 0x40) !== 0)
    .map((of) => ({
      socket: of.string(0x04),
      vendor: of.string(0x07),
      model: of.string(0x10),
      cores: countOf(of, 0x23, 0x2a),
      threads: countOf(of, 0x25, 0x2e),
      mostMhz: of.word(0x14) || null,
      disabled: disabledStates[(of.byte(0x18) ?? 0) & 0x07] ?? null,
    }));
}

/** Of 3.0 and later a count of 255 stands in a field of its own. */
function countOf(of: SmbiosStructure, offset: number, wide: number): number | null {
  const count = of.byte(offset);
  return (count === 0xff ? (of.word(wide) ?? count) : count) || null;
}

/** Type 16. */
export interface MemoryArrayRecord {
  readonly handle: number;
  readonly isSystemMemory: boolean;
  readonly errorCorrection: string | null;
  readonly mostBytes: number | null;
  readonly slots: number | null;
}

const SYSTEM_MEMORY = 3;
const corrections: Readonly<Record<number, string>> = {
  3: "none",
  4: "parity",
  5: "single-bit",
  6: "multi-bit",
  7: "CRC",
};

export function readMemoryArrays(table: SmbiosTable): MemoryArrayRecord[] {
  return structuresOf(table, 16).map((of) => {
    const kibibytes = of.double(0x07);
    const extended = kibibytes === 0x8000_0000 ? of.quad(0x0f) : undefined;
    const isTold = kibibytes !== undefined && kibibytes !== 0 && kibibytes !== 0x8000_0000;
    return {
      handle: of.handle,
      isSystemMemory: of.byte(0x05) === SYSTEM_MEMORY,
      errorCorrection: corrections[of.byte(0x06) ?? 0] ?? null,
      mostBytes: extended ?? (isTold ? kibibytes * KIBI : null),
      slots: of.word(0x0d) ?? null,
    };
  });
}

/** Type 17. */
export interface MemoryDeviceRecord {
  readonly array: number;
  readonly locator: string | null;
  readonly bank: string | null;
  /** 0: the slot is empty; null: the firmware does not know. */
  readonly size: number | null;
  readonly type: string | null;
  readonly speed: number | null;
  readonly configuredSpeed: number | null;
  readonly manufacturer: string | null;
  readonly serial: string | null;
  readonly part: string | null;
}

const memoryTypes: Readonly<Record<number, string>> = {
  3: "DRAM",
  7: "RAM",
  15: "SDRAM",
  18: "DDR",
  19: "DDR2",
  20: "DDR2 FB-DIMM",
  24: "DDR3",
  26: "DDR4",
  27: "LPDDR",
  28: "LPDDR2",
  29: "LPDDR3",
  30: "LPDDR4",
  31: "Logical non-volatile device",
  32: "HBM",
  33: "HBM2",
  34: "DDR5",
  35: "LPDDR5",
  36: "HBM3",
};

export function readMemoryDevices(table: SmbiosTable): MemoryDeviceRecord[] {
  return structuresOf(table, 17).map((of) => ({
    array: of.word(0x04) ?? 0xffff,
    locator: of.string(0x10),
    bank: of.string(0x11),
    size: memorySize(of),
    type: memoryTypes[of.byte(0x12) ?? 0] ?? null,
    speed: memorySpeed(of, 0x15, 0x54),
    configuredSpeed: memorySpeed(of, 0x20, 0x58),
    manufacturer: of.string(0x17),
    serial: of.string(0x18),
    part: of.string(0x1a),
  }));
}

/** In MiB, or KiB where the highest bit is set; 0x7fff and more MiB stand in a field of 32 bits. */
function memorySize(of: SmbiosStructure): number | null {
  const size = of.word(0x0c);
  if (size === undefined || size === 0xffff) return null;
  if (size === 0x7fff) {
    const extended = of.double(0x1c);
    // The highest bit is reserved, and was seen set.
    return extended === undefined ? null : (extended & 0x7fff_ffff) * MEBI;
  }
  return (size & 0x8000) === 0 ? size * MEBI : (size & 0x7fff) * KIBI;
}

function memorySpeed(of: SmbiosStructure, offset: number, wide: number): number | null {
  const speed = of.word(offset);
  if (speed === undefined || speed === 0) return null;
  return speed === 0xffff ? (of.double(wide) ?? 0) & 0x7fff_ffff || null : speed;
}

/** Types 9 and 41: what is printed beside a slot, and where on the bus it is: "0000:41:00.0". */
export function readSlots(table: SmbiosTable): { readonly name: string; readonly pci: string }[] {
  const slots = structuresOf(table, 9).map((of) => ({
    name: of.string(0x04),
    pci: busAddress(of.word(0x0d), of.byte(0x0f), of.byte(0x10)),
  }));
  const onBoard = structuresOf(table, 41).map((of) => ({
    name: of.string(0x04),
    pci: busAddress(of.word(0x07), of.byte(0x09), of.byte(0x0a)),
  }));
  return [...slots, ...onBoard].flatMap(({ name, pci }) =>
    name === null || pci === null ? [] : [{ name, pci }],
  );
}

/** All ones: it is on no bus. */
function busAddress(
  segment: number | undefined,
  bus: number | undefined,
  place: number | undefined,
): string | null {
  if (segment === undefined || bus === undefined || place === undefined) return null;
  if (segment === 0xffff || (bus === 0xff && place === 0xff)) return null;
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  return `${hex(segment, 4)}:${hex(bus, 2)}:${hex(place >> 3, 2)}.${place & 7}`;
}

/** Type 38: the revision of IPMI that a controller speaks, "2.0". */
export function readIpmiVersion(table: SmbiosTable): string | null {
  const revision = structuresOf(table, 38)[0]?.byte(0x05);
  return revision === undefined ? null : `${revision >> 4}.${revision & 0x0f}`;
}

/** Type 39. */
export interface PowerSupplyRecord {
  readonly location: string | null;
  readonly name: string | null;
  readonly manufacturer: string | null;
  readonly serial: string | null;
  readonly model: string | null;
  readonly mostWatts: number | null;
  readonly present: boolean | null;
}

export function readPowerSupplies(table: SmbiosTable): PowerSupplyRecord[] {
  return structuresOf(table, 39).map((of) => {
    const watts = of.word(0x0c);
    const characteristics = of.word(0x0e);
    return {
      location: of.string(0x05),
      name: of.string(0x06),
      manufacturer: of.string(0x07),
      serial: of.string(0x08),
      model: of.string(0x0a),
      mostWatts: watts === undefined || watts === 0x8000 || watts === 0 ? null : watts,
      present: characteristics === undefined ? null : (characteristics & 0x02) !== 0,
    };
  });
}
