import { describe, expect, test } from "bun:test";
import {
  getDeviceId,
  IpmiRefused,
  ipmiLimits,
  parseIdentity,
  parseSensorRecord,
  readSensorRecords,
} from "../../../src/hardware/ipmi.ts";
import { parseIpmitool, readPowerSensors } from "../../../src/hardware/power-sensors.ts";
import { type FakeSensor, fakeBmc, sensorRecord } from "../../support/hardware/fake-bmc.ts";
import { discreteSensor, thresholdSensor } from "../../support/hardware/ipmitool-words.ts";

const supply = (number: number, states: number | null, rest: Partial<FakeSensor> = {}) => ({
  name: `PS${number} Status`,
  number,
  states,
  ...rest,
});
const read = (bmc: ReturnType<typeof fakeBmc>) => readPowerSensors(bmc, getDeviceId(bmc));

describe("a service processor", () => {
  test("says what it is", () => {
    expect(getDeviceId(fakeBmc({ sensors: [] }))).toEqual({
      firmware: "2.60",
      ipmi: "2.0",
      manufacturer: 0x2a2,
      product: 256,
      hasRepository: true,
    });
  });

  test("that is silent, or refuses, or answers with nothing, is told as such", () => {
    const of = (instead: () => ReturnType<ReturnType<typeof fakeBmc>["ask"]>) => () =>
      getDeviceId(fakeBmc({ sensors: [], instead }));
    expect(of(() => ({ kind: "silent" }))).toThrow(new IpmiRefused("Get Device ID", null).message);
    const bytes = (...all: number[]) => ({ kind: "answer" as const, bytes: new Uint8Array(all) });
    expect(of(() => bytes())).toThrow("does not answer");
    expect(of(() => bytes(0xc3))).toThrow("completion code 0xc3 (timeout)");
    expect(of(() => bytes(0x7e))).toThrow("completion code 0x7e");
  });

  test.each([true, false])("with a repository (%j) tells its power supplies", (hasRepository) => {
    const sensors = [
      supply(1, 0b1),
      supply(2, 0b1011),
      { name: "Fan 1", number: 9, type: 0x04, reading: 1, states: 0 },
      { name: "PS Redundancy", number: 10, type: 0x09, reading: 0x0b, entity: 19, states: 0b10 },
    ];
    expect(read(fakeBmc({ sensors, hasRepository }))).toEqual({
      sensors: [
        { name: "PS1 Status", entity: "10.1", states: ["present"] },
        { name: "PS2 Status", entity: "10.2", states: ["present", "failure", "input-lost"] },
        { name: "PS Redundancy", entity: "19.10", states: ["redundancy-lost"] },
      ],
      unread: [],
    });
  });

  test.each(["full", "compact", "event-only"] as const)("by %s records", (kind) => {
    const bmc = fakeBmc({ sensors: [supply(1, 1, { kind })] });
    expect(read(bmc).sensors).toEqual([
      { name: "PS1 Status", entity: "10.1", states: ["present"] },
    ]);
  });

  test("whose record is shared has a sensor for each that shares it", () => {
    const bmc = fakeBmc({
      sensors: [{ name: "PS", number: 4, instance: 1, shared: 3, states: 1 }],
    });
    expect(read(bmc).sensors.map(({ name, entity }) => [name, entity])).toEqual([
      ["PS1", "10.1"],
      ["PS2", "10.2"],
      ["PS3", "10.3"],
    ]);
  });

  test("a supply without the bit of presence is absent; nothing is said of one not scanned", () => {
    const found = read(fakeBmc({ sensors: [supply(1, 0), supply(2, null)] }));
    expect(found.sensors).toEqual([{ name: "PS1 Status", entity: "10.1", states: ["absent"] }]);
    expect(found.unread).toEqual([
      { name: "PS2 Status", reason: "PS2 Status: the controller does not scan it" },
    ]);
  });

  test("a sensor of a satellite controller is named as not read", () => {
    const found = read(fakeBmc({ sensors: [supply(1, 1, { owner: 0x2c })] }));
    expect(found.unread[0]?.reason).toBe("another controller has it: 0x2c");
  });

  test.each([16, 15, 7, 5])("that returns %d bytes at once is asked for less", (mostBytes) => {
    const bmc = fakeBmc({ sensors: [supply(1, 1, { kind: "full" })], mostBytes });
    expect(read(bmc).sensors).toHaveLength(1);
  });

  test("that returns no bytes at all is given up", () => {
    const bmc = fakeBmc({ sensors: [supply(1, 1)], mostBytes: 0 });
    expect(read(bmc).unread[0]?.reason).toContain("cannot return so many bytes");
  });

  test("whose repository changes meanwhile is read anew, and not for ever", () => {
    const some = fakeBmc({ sensors: [supply(1, 1)], cancelled: ipmiLimits.reservations - 1 });
    expect(read(some).sensors).toHaveLength(1);
    const always = fakeBmc({ sensors: [supply(1, 1)], cancelled: Number.POSITIVE_INFINITY });
    expect(read(always).unread[0]?.reason).toContain("reservation cancelled");
  });

  test("whose records lead in a circle, or have no end, is left", () => {
    const circle = fakeBmc({ sensors: [supply(1, 1), supply(2, 1)], nextOf: () => 0 });
    const walked = readSensorRecords(circle, getDeviceId(circle));
    expect(walked.broken).toBe("record 0x00 follows itself");
    expect(walked.records).toHaveLength(1);
    const endless = fakeBmc({
      sensors: Array.from({ length: ipmiLimits.records + 2 }, (_, at) => supply(at & 0xff, 1)),
    });
    const found = readSensorRecords(endless, getDeviceId(endless));
    expect(found.broken).toBe(`there are more than ${ipmiLimits.records} records`);
  });

  test("a record that is cut anywhere throws nothing", () => {
    const record = sensorRecord(supply(1, 1, { kind: "full" }), 0);
    for (let length = 0; length <= record.length; length += 1) {
      const found = parseSensorRecord(record.subarray(0, length));
      expect(found.length).toBeLessThanOrEqual(1);
    }
    expect(parseSensorRecord(new Uint8Array([0, 0, 0x51, 0xc0, 2, 1, 2]))).toEqual([]);
  });

  test("names come in four codings", () => {
    expect(parseIdentity(new Uint8Array([0xc3, 80, 83, 49]), 0)).toBe("PS1");
    expect(parseIdentity(new Uint8Array([0x83, 0x29, 0xdc, 0xa6]), 0)).toBe("IPMI");
    expect(parseIdentity(new Uint8Array([0x42, 0x12, 0xb3]), 0)).toBe("12-3");
    expect(parseIdentity(new Uint8Array([0x02, 0x41, 0x42]), 0)).toBe("AB");
    expect(parseIdentity(new Uint8Array([0xdf, 65]), 0)).toBe("A");
    expect(parseIdentity(new Uint8Array([]), 3)).toBe("");
  });
});

describe("ipmitool's words", () => {
  const none = discreteSensor("PS4 Status", "10.4", []).replace(": 0h", ": No Reading");
  const output = [
    discreteSensor("PS1 Status", "10.1", ["Presence detected"]),
    discreteSensor("PS2 Status      ", "10.2", [
      ...["Presence detected", "Failure detected", "Power Supply AC lost"],
    ]),
    discreteSensor("PS3 Status", "10.3", []),
    none,
    discreteSensor("PS5 Status", "10.5", ["Predictive failure"]),
    discreteSensor("PS6 Status", "10.6", ["Presence detected", "AC out-of-range, but present"]),
    discreteSensor("PS7 Status", "10.7", [
      ...["Presence detected", "Config Error: Vendor Mismatch", "Power Supply Inactive"],
    ]),
    thresholdSensor("PS8 Input", "10.8", "ok"),
    thresholdSensor("PS9 Input", "10.9", "Upper Non-Critical"),
    thresholdSensor("PS10 Input", "10.10", "Lower Critical"),
    thresholdSensor("PS11 Input", "10.11", "Upper Non-Recoverable"),
    thresholdSensor("PS12 Input", "10.12", "Not Available"),
    discreteSensor("PS Redundancy", "19.1", ["Redundancy Degraded from Fully Redundant"]),
    discreteSensor("PS Redundancy 2", "19.2", ["Fully Redundant"]),
    discreteSensor("PS Redundancy 3", "19.3", ["Non-Redundant: Insufficient Resources"]),
    "Sensor ID              : PS Event (0xd3)\n Entity ID             : 10.13 (Power Supply)\n",
    "Could not open device at /dev/ipmi0 or /dev/ipmi/0: No such file or directory\n",
  ].join("");

  test("are the same states", () => {
    const { sensors, unread } = parseIpmitool(output);
    expect(sensors.map(({ entity, states }) => [entity, ...states])).toEqual([
      ["10.1", "present"],
      ["10.2", "present", "failure", "input-lost"],
      ["10.3", "absent"],
      ["10.5", "absent", "predictive-failure"],
      ["10.6", "present", "input-out-of-range"],
      ["10.7", "present", "configuration-error", "inactive"],
      ["10.8"],
      ["10.9", "non-critical"],
      ["10.10", "critical"],
      ["10.11", "non-recoverable"],
      ["19.1", "redundancy-degraded"],
      ["19.2", "fully-redundant"],
      ["19.3", "not-redundant-insufficient"],
    ]);
    expect(unread).toEqual([
      { name: "PS4 Status", reason: "No Reading" },
      { name: "PS12 Input", reason: "Not Available" },
    ]);
  });

  test("that are none say nothing", () => {
    expect(parseIpmitool("")).toEqual({ sensors: [], unread: [] });
    expect(parseIpmitool("\u0000 : \n[Presence detected]\n Entity ID : 10.1\n")).toEqual({
      ...{ sensors: [], unread: [] },
    });
    const long = discreteSensor(" ".repeat(1_000_000), "10.1", ["Presence detected"]);
    expect(parseIpmitool(long)).toEqual({ sensors: [], unread: [] });
  });
});
