/** SMBIOS tables as bytes, for hosts that are well, odd, or lying. */

export interface SmbiosPart {
  readonly type: number;
  readonly handle?: number;
  /** Length of the formatted area, its 4 bytes of header with it. */
  readonly length: number;
  /** Offset → value of one byte; `word`, `double` and `quad` for wider ones. */
  readonly fields?: readonly (readonly [offset: number, bytes: readonly number[]])[];
  readonly strings?: readonly string[];
}

export const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff];
export const double = (value: number): number[] => [
  ...word(value & 0xffff),
  ...word((value >>> 16) & 0xffff),
];
export const quad = (value: number): number[] => [
  ...double(value % 2 ** 32),
  ...double(Math.floor(value / 2 ** 32)),
];

export function smbiosTable(parts: readonly SmbiosPart[]): Uint8Array {
  const end: SmbiosPart = { type: 127, handle: 0xfeff, length: 4 };
  return new Uint8Array([...parts, end].flatMap((part, index) => structure(part, index)));
}

function structure(part: SmbiosPart, index: number): number[] {
  const formatted = new Array<number>(part.length).fill(0);
  formatted.splice(0, 4, part.type, part.length, ...word(part.handle ?? 0x100 + index));
  for (const [offset, bytes] of part.fields ?? []) formatted.splice(offset, bytes.length, ...bytes);
  const strings = (part.strings ?? []).flatMap((text) => [...new TextEncoder().encode(text), 0]);
  return [...formatted, ...(strings.length === 0 ? [0, 0] : [...strings, 0])];
}

/** The entry point of version 3, with a right sum. */
export function smbiosEntryPoint(major = 3, minor = 4): Uint8Array {
  const bytes = new Uint8Array(24);
  bytes.set(new TextEncoder().encode("_SM3_"));
  bytes[6] = 24;
  bytes[7] = major;
  bytes[8] = minor;
  bytes[5] = 256 - (bytes.reduce((sum, byte) => (sum + byte) & 0xff, 0) || 256);
  return bytes;
}

export interface SmbiosHost {
  readonly uuid?: readonly number[];
  readonly manufacturer?: string;
  readonly product?: string;
  readonly serial?: string;
  readonly boardSerial?: string;
  readonly firmwareVersion?: string;
  readonly sockets?: readonly SmbiosSocket[];
  readonly memory?: readonly SmbiosModule[];
  readonly supplies?: readonly SmbiosSupply[];
  /** Designation, and where: "Slot 3", "0000:41:00.0". */
  readonly slots?: readonly { readonly name: string; readonly pci: string }[];
  readonly ipmi?: boolean;
}
export interface SmbiosSocket {
  readonly socket: string;
  readonly cores: number;
  readonly threads: number;
  readonly populated?: boolean;
  /** 1: enabled; 3: disabled by the firmware. */
  readonly status?: number;
}
export interface SmbiosModule {
  readonly locator: string;
  readonly bank?: string;
  /** 0: an empty slot. */
  readonly mebibytes: number;
  readonly serial?: string;
  readonly speed?: number;
  readonly part?: string;
}
export interface SmbiosSupply {
  readonly location: string;
  readonly serial?: string;
  readonly watts?: number;
  readonly present?: boolean;
}

const defaultUuid = [
  0x78, 0x56, 0x34, 0x12, 0x34, 0x12, 0x78, 0x56, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78,
];

/** Types 0, 1, 2, 3, 4, 9, 16, 17, 38 and 39 of a host. */
export function smbiosParts(host: SmbiosHost): SmbiosPart[] {
  const array = 0x1000;
  return [
    {
      type: 0,
      length: 26,
      fields: [
        [4, [1, 2]],
        [8, [3]],
      ],
      strings: ["Fixture Firmware", host.firmwareVersion ?? "2.17.1", "06/15/2025"],
    },
    {
      type: 1,
      length: 27,
      fields: [
        [4, [1, 2, 0, 3]],
        [8, host.uuid ?? defaultUuid],
        [0x19, [4]],
      ],
      strings: [
        host.manufacturer ?? "Fixture Systems",
        host.product ?? "F-2000",
        host.serial ?? "SYS-0001",
        "SKU-2000",
      ],
    },
    {
      type: 2,
      length: 15,
      fields: [
        [4, [1, 2, 3, 4]],
        [0x0d, [0x0a]],
      ],
      strings: ["Fixture Systems", "F-2000-MB", "A02", host.boardSerial ?? "BRD-0001"],
    },
    {
      type: 3,
      length: 22,
      fields: [[4, [1, 0x17, 0, 2, 3]]],
      strings: ["Fixture Systems", "CHS-0001", "ASSET-42"],
    },
    ...(host.sockets ?? []).map(socketPart),
    ...(host.slots ?? []).map(slotPart),
    {
      type: 16,
      handle: array,
      length: 23,
      fields: [
        [4, [3, 3, 6]],
        [7, double(0x8000_0000)],
        [0x0d, word(host.memory?.length ?? 0)],
        [0x0f, quad(4 * 1024 ** 4)],
      ],
    },
    ...(host.memory ?? []).map((module) => modulePart(module, array)),
    ...(host.ipmi === true ? [{ type: 38, length: 18, fields: [[4, [1, 0x20]]] as const }] : []),
    ...(host.supplies ?? []).map(supplyPart),
  ];
}

function socketPart(socket: SmbiosSocket): SmbiosPart {
  const status = (socket.populated === false ? 0 : 0x40) | (socket.status ?? 1);
  return {
    type: 4,
    length: 48,
    fields: [
      [4, [1, 3, 0, 2]],
      [0x10, [3]],
      [0x14, word(3_800)],
      [0x18, [status]],
      [0x23, [socket.cores > 254 ? 255 : socket.cores]],
      [0x25, [socket.threads > 254 ? 255 : socket.threads]],
      [0x2a, word(socket.cores)],
      [0x2e, word(socket.threads)],
    ],
    strings: [socket.socket, "Fixture Silicon", "Fixture Processor 9000"],
  };
}

function slotPart({ name, pci }: { readonly name: string; readonly pci: string }): SmbiosPart {
  const [segment, bus, device, fun] = pci.split(/[:.]/).map((part) => Number.parseInt(part, 16));
  const place = ((device ?? 0) << 3) | (fun ?? 0);
  return {
    type: 9,
    length: 17,
    fields: [
      [4, [1]],
      [0x0d, word(segment ?? 0)],
      [0x0f, [bus ?? 0, place]],
    ],
    strings: [name],
  };
}

export function modulePart(module: SmbiosModule, array: number): SmbiosPart {
  const isLarge = module.mebibytes >= 0x7fff;
  const isEmpty = module.mebibytes === 0;
  return {
    type: 17,
    length: 0x5c,
    fields: [
      [4, word(array)],
      [0x0c, word(isLarge ? 0x7fff : module.mebibytes)],
      [0x10, [1, module.bank === undefined ? 0 : 2, isEmpty ? 2 : 0x22]],
      [0x15, word(isEmpty ? 0 : (module.speed ?? 4_800))],
      [0x17, isEmpty ? [0, 0, 0, 0] : [3, 4, 0, 5]],
      [0x1c, double(isLarge ? module.mebibytes : 0)],
      [0x20, word(isEmpty ? 0 : (module.speed ?? 4_800))],
    ],
    strings: [
      module.locator,
      module.bank ?? "unused",
      "Fixture Memory",
      module.serial ?? "unused",
      module.part ?? "FM-64G",
    ],
  };
}

function supplyPart(supply: SmbiosSupply): SmbiosPart {
  return {
    type: 39,
    length: 22,
    fields: [
      [4, [1, 1, 2, 3, 4, 0, 5]],
      [0x0c, word(supply.watts ?? 0x8000)],
      [0x0e, word(supply.present === false ? 0x01 : 0x03)],
    ],
    strings: [
      supply.location,
      "Hot-plug supply",
      "Fixture Power",
      supply.serial ?? "PSU-0001",
      "FP-1400",
    ],
  };
}
