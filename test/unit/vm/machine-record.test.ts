/** A machine's record on the disk, and what is read of one that is not understood. */
import { expect, test } from "bun:test";
import * as v from "valibot";
import { legibleParts, machineRecordSchema, newRecord } from "../../../src/vm/machine-record.ts";
import { DEFAULT_NETWORK } from "../../../src/vm/protocol-network.ts";

const card = (address: string) => ({
  ...{ network: DEFAULT_NETWORK, tap: "tap-a", mac: "52:54:00:00:00:01", address },
});
const record = newRecord({
  spec: { name: "web", imagePath: "/image", hash: `sha256-${"A".repeat(43)}=` },
  allocation: { user: 2_100_000_007, cards: [card("10.100.0.2"), card("10.101.0.9")] },
  ...{ choice: null, image: null, boot: "boot" },
});
const text = JSON.stringify(record, null, 2);

test("a new record is one, and an operator's until somebody declares it", () => {
  expect(v.parse(machineRecordSchema, JSON.parse(text))).toEqual(record);
  expect(record).toMatchObject({ owner: "operator", declared_power: null });
});

const legible = { addresses: ["10.100.0.2", "10.101.0.9"], users: [2_100_000_007] };

test.each([
  ["of another version", text.replace('"format": 1', '"format": 2'), legible],
  ["on one line", JSON.stringify(record), legible],
  ["cut off behind it", text.slice(0, text.indexOf('"choice"')), legible],
  [
    "cut off between two cards",
    text.slice(0, text.indexOf("10.101")),
    { addresses: ["10.100.0.2"], users: [2_100_000_007] },
  ],
  ["empty", "", { addresses: [], users: [] }],
  [
    "of an address that is none",
    '{"address": "here", "user": "root"}',
    { addresses: [], users: [] },
  ],
])("addresses and user can be read in one %s", (_what, damaged, expected) => {
  expect(legibleParts(damaged)).toEqual(expected);
});
