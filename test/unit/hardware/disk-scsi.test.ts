/** SCSI's pages, whole, odd and broken. */
import { describe, expect, test } from "bun:test";
import {
  decodeDefectCount,
  decodeInquiry,
  decodeLogPage,
  decodePageList,
  decodeSense,
  decodeSerialPage,
  failingOf,
  type ScsiAnswers,
  scsiHealth,
} from "../../../src/hardware/disk/scsi-data.ts";
import { ataReturn, inquiryBytes, logPage } from "../../support/vetting/disk-answers.ts";

function answers(given: Partial<ScsiAnswers> = {}): ScsiAnswers {
  const identity = decodeInquiry(inquiryBytes("SEAGATE", "ST4000NM0034"));
  if (identity === undefined) throw new Error("no identity");
  return {
    identity,
    serial: "Z4F0",
    write: undefined,
    read: undefined,
    verify: undefined,
    temperature: undefined,
    selfTests: undefined,
    solidState: undefined,
    pendingDefects: undefined,
    exceptions: undefined,
    grownDefects: null,
    ...given,
  };
}

const page = (number: number, parameters: Readonly<Record<number, readonly number[]>>) =>
  decodeLogPage(logPage(number, parameters), number);

describe("health", () => {
  test("of a healthy disk", () => {
    const health = scsiHealth(
      answers({
        exceptions: page(0x2f, { 0: [0, 0, 33] }),
        read: page(3, { 6: [0, 0, 0, 0] }),
        write: page(2, { 6: [0, 0, 0, 2] }),
        solidState: page(0x11, { 1: [0, 0, 0, 12] }),
        grownDefects: 5,
      }),
    );
    expect(health).toMatchObject({
      protocol: "scsi",
      model: "SEAGATE ST4000NM0034",
      firmware: "E005",
      healthy: true,
      temperature_c: 33,
      media_errors: 2,
      used_percent: 12,
      reallocated_sectors: 5,
      pending_sectors: null,
    });
  });

  test.each([
    [0x5d, false],
    [0x0b, false],
    [0x00, true],
    [0x29, true],
  ])("additional sense %d", (code, healthy) => {
    expect(scsiHealth(answers({ exceptions: page(0x2f, { 0: [code, 1, 0xff] }) }))).toMatchObject({
      healthy,
      temperature_c: null,
    });
  });

  test("a disk that tells nothing is not well", () => {
    expect(scsiHealth(answers())).toMatchObject({
      healthy: null,
      media_errors: null,
      self_test: null,
      temperature_c: null,
    });
  });

  test.each([
    [0x20, "short", "passed"],
    [0x47, "extended", "failed"],
    [0x4f, "extended", "running"],
    [0x41, "extended", "aborted"],
  ] as const)("self-test %d is %s, %s", (status, kind, result) => {
    const entry = [status, 0, 0x10, 0x00, ...new Array<number>(12).fill(0)];
    expect(scsiHealth(answers({ selfTests: page(0x10, { 1: entry }) })).self_test).toMatchObject({
      kind,
      result,
      power_on_hours: 4_096,
    });
  });

  test("an entry that was never written is none", () => {
    const entry = new Array<number>(16).fill(0);
    expect(scsiHealth(answers({ selfTests: page(0x10, { 1: entry }) })).self_test).toBeNull();
  });
});

describe("log pages", () => {
  test("another page than was asked for is none", () => {
    expect(decodeLogPage(logPage(3, { 6: [1] }), 5)).toBeUndefined();
  });

  test("a parameter that says it is longer than its page ends the list", () => {
    const bytes = logPage(3, { 1: [1], 6: [0, 0, 0, 9] });
    bytes[3 + 4 + 1 + 4] = 200;
    expect([...(decodeLogPage(bytes, 3) ?? [])].map(([code]) => code)).toEqual([1]);
  });

  test("a page that says it is longer than what came is read as far as it came", () => {
    const bytes = logPage(3, { 1: [1], 6: [0, 0, 0, 9] });
    bytes[2] = 0xff;
    expect(decodeLogPage(bytes, 3)?.size).toBe(2);
  });
});

test("vital product data", () => {
  expect(decodeSerialPage(new Uint8Array([0, 0x80, 0, 4, 0x41, 0x42, 0x20, 0x20]))).toBe("AB");
  expect(decodeSerialPage(new Uint8Array([0, 0x83, 0, 4, 0x41]))).toBeNull();
  expect(decodePageList(new Uint8Array([0, 0, 0, 3, 0, 0x80, 0x89]))).toEqual([0, 0x80, 0x89]);
});

test("grown defects are counted by the size that their format has", () => {
  expect(decodeDefectCount(new Uint8Array([0, 8, 0, 0, 0, 0, 0, 12]))).toBe(3);
  expect(decodeDefectCount(new Uint8Array([0, 0x0d, 0, 0, 0, 0, 0, 16]))).toBe(2);
  expect(decodeDefectCount(new Uint8Array([0, 0x0e, 0, 0, 0, 0, 0, 16]))).toBeNull();
  expect(decodeDefectCount(new Uint8Array([0, 0]))).toBeNull();
});

describe("what SMART RETURN STATUS left", () => {
  test("with descriptors", () => {
    expect(failingOf(decodeSense(ataReturn(0x4f, 0xc2)))).toBe(false);
    expect(failingOf(decodeSense(ataReturn(0xf4, 0x2c)))).toBe(true);
    // A bridge that fills nothing in.
    expect(failingOf(decodeSense(ataReturn(0, 0)))).toBeNull();
  });

  test("in fixed sense data", () => {
    const fixed = new Uint8Array(18);
    fixed.set([0x70, 0, 1]);
    fixed[10] = 0xf4;
    fixed[11] = 0x2c;
    fixed[13] = 0x1d;
    expect(failingOf(decodeSense(fixed))).toBe(true);
    // Another condition: those bytes are something else then.
    fixed[12] = 0x20;
    expect(failingOf(decodeSense(fixed))).toBeNull();
  });

  test("no sense data at all", () => {
    expect(decodeSense(new Uint8Array(0))).toBeUndefined();
    expect(failingOf(undefined)).toBeNull();
  });
});
