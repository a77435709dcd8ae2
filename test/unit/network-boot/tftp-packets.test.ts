/** TFTP as bytes: what is read, and what is refused. */
import { describe, expect, test } from "bun:test";
import {
  LONGEST_ERROR_TEXT,
  LONGEST_REQUEST,
  MOST_TFTP_OPTIONS,
} from "../../../src/network-boot/limits.ts";
import {
  encodeData,
  encodeError,
  encodeOptions,
  operations,
  parseTftp,
} from "../../../src/network-boot/protocol-tftp.ts";
import { SeededChance } from "../../support/chance.ts";
import { acknowledgeBytes, errorBytes, requestBytes } from "../../support/tftp-packets.ts";

function read(bytes: Uint8Array): unknown {
  const parsed = parseTftp(bytes);
  if (!parsed.ok) {
    const { key, expected, received } = parsed.refusal;
    return `${key}: expected ${expected}, received ${received}`;
  }
  const { value } = parsed;
  return value.kind === "read" || value.kind === "write"
    ? { ...value, options: Object.fromEntries(value.options) }
    : value;
}

const text = (words: string) => new TextEncoder().encode(words.replaceAll("|", "\0"));
const request = (words: string) => Uint8Array.from([0, 1, ...text(words)]);

describe("requests", () => {
  test("as clients write them", () => {
    const options = { tsize: 0, blksize: 1432 };
    expect(read(requestBytes("undionly.kpxe", options))).toEqual({
      kind: "read",
      file: "undionly.kpxe",
      mode: "octet",
      options: { tsize: "0", blksize: "1432" },
    });
    expect(read(request("a|OCTET|BLKSIZE|512|blksize|9|"))).toMatchObject({
      mode: "octet",
      options: { blksize: "512" },
    });
    expect(read(requestBytes("a", {}, { operation: operations.write }))).toMatchObject({
      kind: "write",
    });
    // A ROM that fills its packet up.
    expect(read(request("a|octet|||||||"))).toMatchObject({ file: "a", options: {} });
  });

  test.each([
    ["", "packet: expected 2 bytes or more, received 0"],
    ["00", "packet: expected 2 bytes or more, received 1"],
    ["0007", "opcode: expected 1 to 6, received 7"],
    ["0000", "opcode: expected 1 to 6, received 0"],
    ["000400", "ACK: expected 4 bytes, received 3"],
    ["000300", "DATA: expected 4 bytes or more, received 3"],
    ["000500", "ERROR: expected 4 bytes or more, received 3"],
    ["0001", "request: expected a file and a mode, received 0"],
  ])("%s", (hex, expected) => {
    expect(read(Uint8Array.fromHex(hex))).toBe(expected);
  });

  test.each([
    ["a|", "a file and a mode, received 1"],
    ["|octet|", "a file and a mode, received 2"],
    ["a|octet", "a zero byte as the last one, received none"],
    ["a|octet|blksize|", "a value for each option, received 1"],
    ["a\n|octet|", "printable characters, received bytes 610a"],
    ["é|octet|", "printable characters, received bytes c3a9"],
  ])("%j", (words, expected) => {
    expect(read(request(words))).toBe(`request: expected ${expected}`);
  });

  test("longer, and with more options, than any client has", () => {
    expect(read(requestBytes("a".repeat(LONGEST_REQUEST)))).toMatch(/at most 512 bytes/);
    const options = Object.fromEntries(
      Array.from({ length: MOST_TFTP_OPTIONS + 1 }, (_, at) => [`o${at}`, "1"]),
    );
    expect(read(requestBytes("a", options))).toMatch(/at most 16 options, received more/);
  });
});

describe("what comes in a transfer", () => {
  test("ACK, ERROR, and what no reader sends", () => {
    expect(read(acknowledgeBytes(65_535))).toEqual({ kind: "acknowledge", block: 65_535 });
    expect(read(errorBytes(8, "User aborted"))).toEqual({
      kind: "error",
      code: 8,
      text: "User aborted",
    });
    expect(read(encodeData(7, new Uint8Array(3)))).toEqual({ kind: "data", block: 7, length: 3 });
    expect(read(encodeOptions(new Map()))).toEqual({ kind: "acknowledgeOptions" });
  });

  test("nothing of an ERROR's text breaks a log", () => {
    const forged = `\u001b[2Jdone\nforged line${"x".repeat(1_000)}`;
    const expected = `?[2Jdone?forged line${"x".repeat(LONGEST_ERROR_TEXT)}`;
    expect(read(errorBytes(0, forged))).toEqual({
      kind: "error",
      code: 0,
      text: expected.slice(0, LONGEST_ERROR_TEXT),
    });
  });
});

test("what is written", () => {
  expect(encodeData(65_537, Uint8Array.of(1, 2)).toHex()).toBe("000300010102");
  expect(encodeError("notFound", "No").toHex()).toBe("00050001 4e6f 00".replaceAll(" ", ""));
  const options = new Map([
    ["tsize", 12],
    ["blksize", 1_432],
  ]);
  expect(new TextDecoder().decode(encodeOptions(options))).toBe(
    "\0\u0006tsize\0".concat("12\0blksize\0", "1432\0"),
  );
});

test("no bytes at all can make it throw", () => {
  const chance = new SeededChance(7_440);
  const whole = requestBytes("undionly.kpxe", { blksize: 1432, windowsize: 4 });
  for (let round = 0; round < 20_000; round += 1) {
    const bytes = chance.happens(0.5)
      ? Uint8Array.from({ length: chance.below(40) }, () => chance.below(256))
      : whole.slice(0, chance.below(whole.length + 1));
    if (bytes.length > 0) bytes[chance.below(bytes.length)] = chance.below(256);
    const parsed = parseTftp(bytes);
    if (!parsed.ok) expect(parsed.refusal.expected).not.toBe("");
  }
});
