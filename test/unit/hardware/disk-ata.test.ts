/** ATA's sectors, whole, odd and broken. */
import { describe, expect, test } from "bun:test";
import {
  ataHealth,
  decodeAtaIdentity,
  decodeAtaSelfTest,
  decodeAtaSmartData,
  decodeAtaStatistics,
  decodeAtaThresholds,
  failingAttributes,
  noStatistics,
} from "../../../src/hardware/disk/ata-data.ts";
import {
  type AtaRow,
  ataDataSector,
  ataIdentitySector,
  ataSelfTestSector,
  ataStatisticsPage,
  ataThresholdSector,
} from "../../support/vetting/disk-answers.ts";

const healthy: readonly AtaRow[] = [
  { id: 5, raw: [0, 0, 7], threshold: 10, prefail: true },
  { id: 9, raw: [0x10, 0x27] },
  { id: 194, raw: [31, 0, 20, 0, 45, 0] },
  { id: 197 },
  { id: 198 },
  { id: 199, raw: [2] },
];

function healthOf(rows: readonly AtaRow[], failing: boolean | null = false) {
  const identity = decodeAtaIdentity(ataIdentitySector());
  if (identity === undefined) throw new Error("no identity");
  return ataHealth({
    identity,
    failing,
    data: decodeAtaSmartData(ataDataSector(rows)),
    thresholds: decodeAtaThresholds(ataThresholdSector(rows)),
    selfTest: null,
    statistics: noStatistics,
  });
}

describe("attributes", () => {
  test("of a healthy disk", () => {
    expect(healthOf(healthy)).toMatchObject({
      protocol: "ata",
      serial: "WD-WCC4N",
      model: "WDC WD40",
      firmware: "82.00A82",
      healthy: true,
      reallocated_sectors: 0,
      pending_sectors: 0,
      uncorrectable_sectors: 0,
      link_errors: 2,
      temperature_c: 31,
      power_on_hours: 10_000,
      media_errors: null,
      failing_attributes: [],
    });
  });

  test("what a disk does not have is not told", () => {
    expect(healthOf([{ id: 9 }])).toMatchObject({
      pending_sectors: null,
      uncorrectable_sectors: null,
      reallocated_sectors: null,
      temperature_c: null,
    });
  });

  test("one below its maker's threshold fails, and one that is old is old", () => {
    const rows: readonly AtaRow[] = [
      { id: 5, value: 9, threshold: 10, prefail: true },
      { id: 9, value: 1, threshold: 1 },
      { id: 10, value: 0, threshold: 0 },
      { id: 12, value: 50, threshold: 254 },
    ];
    expect(healthOf(rows, true)).toMatchObject({
      healthy: false,
      failing_attributes: [
        { id: 5, name: "Reallocated_Sector_Ct", value: 9, threshold: 10, failure_expected: true },
        { id: 9, name: "Power_On_Hours", value: 1, threshold: 1, failure_expected: false },
      ],
    });
  });

  test("without thresholds nothing is past one", () => {
    const data = decodeAtaSmartData(ataDataSector([{ id: 5, value: 1 }]));
    expect(failingAttributes(data?.attributes ?? [], new Map())).toEqual([]);
  });

  test.each([
    ["SMART data", decodeAtaSmartData, ataDataSector(healthy)],
    ["thresholds", decodeAtaThresholds, ataThresholdSector(healthy)],
    ["the self-test log", decodeAtaSelfTest, ataSelfTestSector(0)],
  ] as const)("%s with a wrong checksum, or cut off, are none", (_name, decode, sector) => {
    const flipped = sector.slice();
    flipped[20] = (flipped[20] ?? 0) ^ 0x10;
    expect(decode(flipped)).toBeUndefined();
    expect(decode(sector.subarray(0, 500))).toBeUndefined();
  });

  test("how long self-tests take", () => {
    expect(decodeAtaSmartData(ataDataSector([], 0xf4))).toMatchObject({
      selfTestStatus: 0xf,
      selfTestLeft: 4,
      shortMinutes: 2,
      extendedMinutes: 600,
    });
  });
});

describe("identity", () => {
  test("abilities", () => {
    expect(decodeAtaIdentity(ataIdentitySector())).toMatchObject({
      hasSmart: true,
      smartEnabled: true,
      hasSelfTest: true,
      hasLogs: true,
    });
  });

  test("words that are not valid say nothing", () => {
    expect(decodeAtaIdentity(ataIdentitySector({ 83: 0xffff, 84: 0xffff, 87: 0 }))).toMatchObject({
      hasSmart: false,
      smartEnabled: false,
      hasSelfTest: false,
      hasLogs: false,
    });
  });

  test("an empty sector is no identity", () => {
    expect(decodeAtaIdentity(new Uint8Array(512))).toBeUndefined();
  });
});

describe("the self-test log", () => {
  test.each([
    [0, "passed", "completed without error"],
    [1, "aborted", "aborted by a command"],
    [2, "aborted", "interrupted"],
    [7, "failed", "failed: read"],
    [15, "running", "in progress"],
  ] as const)("status %d is %s: %s", (status, result, detail) => {
    expect(decodeAtaSelfTest(ataSelfTestSector(status, 0x82))).toEqual({
      kind: "extended",
      result,
      detail,
      power_on_hours: 4_321,
    });
  });

  test("an empty log has none, and one with a wrong index is none", () => {
    const sector = ataSelfTestSector(0);
    sector[511] = ((sector[511] ?? 0) + 2) & 0xff;
    sector[508] = 0;
    expect(decodeAtaSelfTest(sector)).toBeNull();
    sector[511] = ((sector[511] ?? 0) - 22) & 0xff;
    sector[508] = 22;
    expect(decodeAtaSelfTest(sector)).toBeUndefined();
  });
});

describe("device statistics", () => {
  test("values that are valid", () => {
    const pages = new Map([
      [3, ataStatisticsPage(3, { 32: { value: 8 }, 56: { value: 3 } })],
      [4, ataStatisticsPage(4, { 8: { value: 2 } })],
      [5, ataStatisticsPage(5, { 8: { value: 0xfb } })],
      [6, ataStatisticsPage(6, { 24: { value: 1_000_000 } })],
      [7, ataStatisticsPage(7, { 8: { value: 91 } })],
    ]);
    expect(decodeAtaStatistics(pages)).toEqual({
      power_on_hours: null,
      reallocated: 8,
      pending: 3,
      reported_uncorrectable: 2,
      temperature: -5,
      link_errors: 1_000_000,
      used_percent: 91,
    });
  });

  test("supported and not valid is not told, nor is a page under another's number", () => {
    const pages = new Map([
      [3, ataStatisticsPage(3, { 32: { value: 8, flags: 0x80 } })],
      [4, ataStatisticsPage(3, { 8: { value: 2 } })],
    ]);
    expect(decodeAtaStatistics(pages)).toEqual(noStatistics);
  });

  test("of two counts the worse one is told", () => {
    const identity = decodeAtaIdentity(ataIdentitySector());
    if (identity === undefined) throw new Error("no identity");
    const health = ataHealth({
      identity,
      failing: null,
      data: decodeAtaSmartData(ataDataSector([{ id: 197, raw: [9] }])),
      thresholds: undefined,
      selfTest: undefined,
      statistics: { ...noStatistics, pending: 3, reallocated: 4 },
    });
    expect(health).toMatchObject({ healthy: null, pending_sectors: 9, reallocated_sectors: 4 });
  });
});
