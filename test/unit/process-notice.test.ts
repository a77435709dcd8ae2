/** What a process says of itself, and what it parks. */
import { describe, expect, test } from "bun:test";
import { isParkedName, NAMELESS, readNotice } from "../../src/process/notice.ts";
import { keptNames, readParked } from "../../src/process/protocol-kept.ts";

const nothing = { isReady: false, isBeat: false, parking: undefined };
const stored = (name: string, isPolled = true) => ({ kind: "store" as const, name, isPolled });
const removed = { kind: "remove", name: "a" } as const;

describe("a notice", () => {
  test.each([
    ["", nothing],
    ["READY=1", { ...nothing, isReady: true }],
    ["READY=1\nWATCHDOG=1\nSTATUS=well", { ...nothing, isReady: true, isBeat: true }],
    ["READY=10\nXREADY=1\nFDSTORE=0\nFDNAME=a", nothing],
    ["FDSTORE=1", { ...nothing, parking: stored(NAMELESS) }],
    ["FDSTORE=1\nFDNAME=web", { ...nothing, parking: stored("web") }],
    ["FDNAME=web\nFDPOLL=0\nFDSTORE=1\n", { ...nothing, parking: stored("web", false) }],
    ["FDSTORE=1\nFDNAME=a:b", { ...nothing, parking: stored(NAMELESS) }],
    ["FDSTORE=1\nFDNAME=", { ...nothing, parking: stored(NAMELESS) }],
    ["FDSTORE=1\nFDNAME=a\nFDNAME=b", { ...nothing, parking: stored("b") }],
    ["FDSTOREREMOVE=1\nFDNAME=a", { ...nothing, parking: removed }],
    ["FDSTOREREMOVE=1\nFDSTORE=1\nFDNAME=a", { ...nothing, parking: removed }],
    ["FDSTOREREMOVE=1", nothing],
  ])("%j", (text, notice) => {
    expect(readNotice(text)).toEqual(notice as never);
  });

  test.each([
    ["a", true],
    ["a b", true],
    ["web-1.sock", true],
    ["x".repeat(255), true],
    ["x".repeat(256), false],
    ["", false],
    [" a", false],
    ["a:b", false],
    ["a\tb", false],
    ["ä", false],
  ])("%j can be the name of what is parked: %p", (name, can) => {
    expect(isParkedName(name)).toBe(can);
  });
});

describe("the name under which it is kept", () => {
  test.each([
    { slot: 1, isPolled: true, name: "web" },
    { slot: 4_711, isPolled: false, name: "a/b c" },
  ])("says all of it: %j", (parked) => {
    expect(readParked("it", keptNames.parked("it", parked))).toEqual(parked);
    expect(readParked("i", keptNames.parked("it", parked))).toBeUndefined();
    expect(readParked("it", keptNames.parked("it.x", parked))).toBeUndefined();
  });

  test.each([
    "descriptor/it",
    "descriptor/it/0/held/a",
    "descriptor/it/1/else/a",
    "descriptor/it/1/held/",
    "descriptor/it/1/held/a:b",
    "notices/it",
  ])("is none: %j", (kept) => {
    expect(readParked("it", kept)).toBeUndefined();
  });
});
