/** The test guest as a file: what loaders look for. That it runs is shown by whoever boots it. */
import { expect, test } from "bun:test";
import { COUNTER_ADDRESS, makeTestGuest } from "../../../scripts/test-guest.ts";

test("the guest is an ELF file with one segment, which covers the counter, and a PVH note", () => {
  const file = makeTestGuest();
  const view = new DataView(file.buffer);
  const long = (at: number) => Number(view.getBigUint64(at, true));
  expect(view.getUint32(0)).toBe(0x7f45_4c46);
  expect(view.getUint16(18, true)).toBe(62);
  const entry = long(24);
  const [load, note] = [long(32), long(32) + 56];
  expect(view.getUint32(load, true)).toBe(1);
  const [at, address, sizeInFile, sizeInMemory] = [8, 24, 32, 40].map((offset) =>
    long(load + offset),
  );
  expect(entry).toBe(address ?? 0);
  expect((at ?? 0) + (sizeInFile ?? 0)).toBe(file.length);
  expect((address ?? 0) + (sizeInMemory ?? 0)).toBeGreaterThan(COUNTER_ADDRESS + 4);
  expect(view.getUint32(note, true)).toBe(4);
  const noteAt = long(note + 8);
  expect([0, 4, 8].map((offset) => view.getUint32(noteAt + offset, true))).toEqual([4, 4, 18]);
  expect(Buffer.from(file.subarray(noteAt + 12, noteAt + 16)).toString("latin1")).toBe("Xen\0");
  expect(view.getUint32(noteAt + 16, true)).toBe(entry);
});

test("a longer pause changes one number alone", () => {
  const [first, second] = [makeTestGuest(), makeTestGuest({ pause: 20_001 })];
  const differing = [...first].filter((byte, index) => byte !== second[index]);
  expect(differing).toHaveLength(1);
});
