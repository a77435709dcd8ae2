import { describe, expect, test } from "bun:test";
import {
  meaningful,
  parseEntryPoint,
  parseSmbios,
  type SmbiosStructure,
  smbiosLimits,
} from "../../../src/hardware/smbios.ts";
import {
  readBoard,
  readIpmiVersion,
  readMemoryArrays,
  readMemoryDevices,
  readPowerSupplies,
  readSlots,
  readSockets,
  readUuid,
} from "../../../src/hardware/smbios-records.ts";
import {
  double,
  modulePart,
  type SmbiosPart,
  smbiosEntryPoint,
  smbiosParts,
  smbiosTable,
  word,
} from "../../support/hardware/smbios-table.ts";

const parse = (parts: readonly SmbiosPart[]) => parseSmbios(smbiosTable(parts), smbiosEntryPoint());
const memoryOf = (part: SmbiosPart) => readMemoryDevices(parse([part]))[0];
const module = (fields: SmbiosPart["fields"], length = 0x5c): SmbiosPart => ({
  type: 17,
  length,
  fields: fields ?? [],
});

describe("an SMBIOS table", () => {
  test("is read to its end, and what follows the end is not", () => {
    const bytes = smbiosTable(smbiosParts({}));
    const more = new Uint8Array([...bytes, ...smbiosTable([{ type: 1, length: 27 }])]);
    const table = parseSmbios(more, smbiosEntryPoint());
    expect(table.structures.map(({ type }) => type)).toEqual([0, 1, 2, 3, 16]);
    expect(table.version).toEqual({ major: 3, minor: 4 });
    expect(table.faults).toEqual([]);
  });

  test("a structure that is inactive is none", () => {
    expect(parse([{ type: 126, length: 20 }]).structures).toEqual([]);
  });

  test.each([
    ["a length below its header", [1, 3, 0, 0, 0, 0], /says that it has 3 bytes/],
    ["a length of nothing: a loop", [1, 0, 0, 0, 0, 0], /says that it has 0 bytes/],
    ["a length beyond the end", [1, 200, 0, 0, 0, 0], /leads beyond the end/],
    ["strings without an end", [1, 4, 0, 0, 65, 66], /have no end/],
    ["one string without the last zero", [1, 4, 0, 0, 65, 0], /have no end/],
  ])("with %s is told, and keeps what came before", (_, bytes, fault) => {
    const good = [...smbiosTable([{ type: 0, handle: 7, length: 26, strings: ["x"] }])];
    const table = parseSmbios(new Uint8Array([...good.slice(0, -6), ...bytes]), undefined);
    expect(table.structures.map(({ type }) => type).slice(0, 1)).toEqual([0]);
    expect(table.faults[0]).toMatch(fault);
    expect(table.version).toBeUndefined();
  });

  test("cut at any byte throws nothing, and gives no more structures than there are", () => {
    const bytes = smbiosTable(smbiosParts({ memory: [{ locator: "A1", mebibytes: 1_024 }] }));
    for (let length = 0; length < bytes.length; length += 1) {
      const table = parseSmbios(bytes.subarray(0, length), undefined);
      expect(table.structures.length).toBeLessThanOrEqual(6);
      readMemoryDevices(table);
      readSockets(table);
      readPowerSupplies(table);
    }
  });

  test("a handle that comes twice is told", () => {
    const twice = [1, 2].map(() => ({ type: 17, handle: 9, length: 0x5c }));
    expect(parse(twice).faults).toEqual(["handle 9 is there twice"]);
  });

  test("of more structures than the limit the rest is left out, and told", () => {
    const many = Array.from({ length: smbiosLimits.structures + 5 }, () => ({
      type: 200,
      length: 4,
    }));
    const table = parse(many.map((part, index) => ({ ...part, handle: index })));
    expect(table.structures).toHaveLength(smbiosLimits.structures);
    expect(table.faults).toEqual([`there are more than ${smbiosLimits.structures} structures`]);
  });

  test("of many faults the first ones are kept", () => {
    const same = Array.from({ length: 100 }, () => ({ type: 200, handle: 1, length: 4 }));
    expect(parse(same).faults).toHaveLength(smbiosLimits.faults);
  });
});

describe("a structure", () => {
  const structure = (part: SmbiosPart) => parse([part]).structures[0] as SmbiosStructure;

  test("whose string is not there has none", () => {
    const part = { type: 1, length: 8, fields: [[4, [9, 0, 1]]] as const, strings: ["one"] };
    expect(structure(part).string(4)).toBeNull();
    expect(structure(part).string(5)).toBeNull();
    expect(structure(part).string(6)).toBe("one");
  });

  test("too short for a field has none", () => {
    const short = structure({ type: 1, length: 8 });
    expect([short.byte(8), short.word(7), short.double(5), short.quad(4)]).toEqual(
      Array.from({ length: 4 }, () => undefined),
    );
    expect(short.bytes(4, 5)).toBeUndefined();
  });

  test("what is no ASCII is white space", () => {
    const part = {
      type: 1,
      length: 5,
      fields: [[4, [1]]] as const,
      strings: ["A\u0007\u001b[2JB"],
    };
    expect(structure(part).string(4)).toBe("A [2JB");
  });
});

describe("the entry point", () => {
  test("of version 2 is read, and one with a wrong sum is none", () => {
    const bytes = new Uint8Array(31);
    bytes.set(new TextEncoder().encode("_SM_"));
    bytes.set([31, 2, 8], 5);
    bytes[4] = 256 - bytes.reduce((sum, byte) => (sum + byte) & 0xff, 0);
    expect(parseEntryPoint(bytes)).toEqual({ major: 2, minor: 8 });
    bytes[7] = 9;
    expect(parseEntryPoint(bytes)).toBeUndefined();
  });

  test("that is too short, or says so, is none", () => {
    expect(parseEntryPoint(new Uint8Array())).toBeUndefined();
    const long = smbiosEntryPoint();
    long[6] = 200;
    expect(parseEntryPoint(long)).toBeUndefined();
  });
});

describe("what makers leave in", () => {
  test.each([
    "",
    "To Be Filled By O.E.M.",
    "Default string",
    "NOT SPECIFIED",
    "00000000",
    "FFFF",
    "........",
    "  None ",
  ])("%j says nothing", (text) => expect(meaningful(text)).toBeNull());

  test.each(["S64ANX0R", "000000012", "CPU0", "DIMM_A1", "x86"])("%j does", (text) =>
    expect(meaningful(text)).toBe(text),
  );

  test("a UUID of zeros or ones, and the one that is delivered, are none", () => {
    const delivered = [0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9];
    const asBytes = [0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9];
    expect(delivered).toEqual(asBytes);
    expect(readUuid(new Uint8Array(16), { major: 3, minor: 0 })).toBeNull();
    expect(readUuid(new Uint8Array(16).fill(255), undefined)).toBeNull();
    expect(readUuid(new Uint8Array(delivered), { major: 3, minor: 0 })).toBeNull();
  });

  test("before 2.6 a UUID stands as it is written", () => {
    const bytes = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    expect(readUuid(bytes, { major: 2, minor: 5 })).toBe("01020304-0506-0708-090a-0b0c0d0e0f10");
    expect(readUuid(bytes, { major: 2, minor: 6 })).toBe("04030201-0605-0807-090a-0b0c0d0e0f10");
  });
});

describe("memory's size", () => {
  test.each([
    ["an empty slot", 0, undefined, 0],
    ["unknown", 0xffff, undefined, null],
    ["in MiB", 16_384, undefined, 16 * 1024 ** 3],
    ["in KiB", 0x8000 | 512, undefined, 512 * 1024],
    ["of 32 GiB and more", 0x7fff, 65_536, 64 * 1024 ** 3],
    ["of 32 GiB and more, the reserved bit set", 0x7fff, 0x8000_0000 + 131_072, 128 * 1024 ** 3],
  ])("%s", (_, size, extended, expected) => {
    const wide = extended === undefined ? [] : [[0x1c, double(extended)] as const];
    expect(memoryOf(module([[0x0c, word(size)], ...wide]))?.size).toBe(expected);
  });

  test("that is extended, where the structure has no such field, is not known", () => {
    expect(memoryOf(module([[0x0c, word(0x7fff)]], 0x1b))?.size).toBeNull();
  });

  test("a speed over 65,535 stands in a field of its own", () => {
    const fields = [
      [0x15, word(0xffff)],
      [0x54, double(72_000)],
    ] as const;
    expect(memoryOf(module(fields))?.speed).toBe(72_000);
    expect(memoryOf(module([[0x15, word(0)]]))?.speed).toBeNull();
  });

  test("a part is told as it stands", () => {
    expect(memoryOf(modulePart({ locator: "A1", mebibytes: 32_768, serial: "X1" }, 7))).toEqual({
      array: 7,
      locator: "A1",
      bank: null,
      size: 32 * 1024 ** 3,
      type: "DDR5",
      speed: 4_800,
      configuredSpeed: 4_800,
      manufacturer: "Fixture Memory",
      serial: "X1",
      part: "FM-64G",
    });
  });
});

describe("records", () => {
  test("a memory array of more than 2 TiB has its size in 64 bits", () => {
    const array = readMemoryArrays(parse(smbiosParts({})))[0];
    expect(array?.mostBytes).toBe(4 * 1024 ** 4);
    expect(array?.errorCorrection).toBe("multi-bit");
  });

  test("sockets without a processor are none, and 255 cores and more are counted", () => {
    const sockets = [
      { socket: "CPU1", cores: 288, threads: 576 },
      { socket: "CPU2", cores: 0, threads: 0, populated: false },
      { socket: "CPU3", cores: 8, threads: 16, status: 3 },
    ];
    const found = readSockets(parse(smbiosParts({ sockets })));
    expect(found.map(({ socket, cores, threads }) => [socket, cores, threads])).toEqual([
      ["CPU1", 288, 576],
      ["CPU3", 8, 16],
    ]);
    expect(found.map(({ disabled }) => disabled !== null)).toEqual([false, true]);
  });

  test("slots on no bus are left out", () => {
    const slots = [
      { name: "Slot 1", pci: "0000:41:1f.7" },
      { name: "Slot 2", pci: "ffff:ff:1f.7" },
      { name: "Slot 3", pci: "0000:ff:1f.7" },
    ];
    expect(readSlots(parse(smbiosParts({ slots })))).toEqual([
      { name: "Slot 1", pci: "0000:41:1f.7" },
    ]);
  });

  test("a power supply that is absent, and one of unknown power", () => {
    const supplies = [
      { location: "PSU 1", watts: 800 },
      { location: "PSU 2", present: false },
    ];
    const found = readPowerSupplies(parse(smbiosParts({ supplies })));
    expect(found.map(({ mostWatts, present }) => [mostWatts, present])).toEqual([
      [800, true],
      [null, false],
    ]);
  });

  test("the motherboard is taken, and not a riser before it", () => {
    const board = (serial: string, kind: number): SmbiosPart => ({
      type: 2,
      length: 15,
      fields: [
        [7, [1]],
        [0x0d, [kind]],
      ],
      strings: [serial],
    });
    expect(readBoard(parse([board("RISER", 3), board("MAIN", 0x0a)])).serial).toBe("MAIN");
    expect(readIpmiVersion(parse(smbiosParts({ ipmi: true })))).toBe("2.0");
    expect(readIpmiVersion(parse([]))).toBeNull();
  });
});
