/**
 * Holden v0.2 on the wire, by bytes that were written out here from its header file's structures:
 * an int has four bytes, everything is little-endian, nothing is aligned beyond four.
 */
import { describe, expect, test } from "bun:test";
import {
  decodeAnswer,
  encodeError,
  encodePing,
  encodePong,
  encodeStart,
  encodeStarted,
  HoldenReader,
  type HoldenRequest,
} from "../../src/process/holden-protocol.ts";
import {
  goldenError,
  goldenHeader,
  goldenPing,
  goldenPong,
  goldenStart,
  goldenStarted,
} from "../support/holden-frames.ts";

function read(...pieces: readonly Uint8Array[]): HoldenRequest[] {
  const reader = new HoldenReader();
  const found: HoldenRequest[] = [];
  for (const piece of pieces) {
    reader.push(piece);
    for (let next = reader.next(); next !== undefined; next = reader.next()) found.push(next);
  }
  return found;
}

describe("what we write", () => {
  test("START: 8 bytes of header, name[256], args[32][256], arg_count", () => {
    const bytes = encodeStart(["/bin/sleep", "5", "é"]);
    expect(bytes).toEqual(goldenStart(["/bin/sleep", "5", "é"]));
    expect(bytes).toHaveLength(8 + 8452);
    expect(Array.from(bytes.subarray(0, 8))).toEqual([1, 0, 0, 0, 0x04, 0x21, 0, 0]);
    expect(bytes[8 + 8448]).toBe(2);
    expect(bytes[8 + 256]).toBe("5".charCodeAt(0));
  });

  test("STARTED, ERROR, PING and PONG", () => {
    expect(encodeStarted(0x01020304)).toEqual(goldenStarted(0x01020304));
    expect(Array.from(encodeStarted(258))).toEqual([
      2, 0, 0, 0, 8, 0, 0, 0, 2, 1, 0, 0, 2, 1, 0, 0,
    ]);
    expect(encodeError("Unknown message type: 5")).toEqual(goldenError("Unknown message type: 5"));
    expect(encodeError("x".repeat(600))).toEqual(goldenError("x".repeat(511)));
    expect(encodePing()).toEqual(goldenPing());
    expect(encodePong()).toEqual(goldenPong());
  });

  test("START holds 32 arguments of 255 bytes, and no more", () => {
    const longest = ["x".repeat(255), ...Array(32).fill("y".repeat(255))];
    expect(encodeStart(longest)).toEqual(goldenStart(longest));
    expect(() => encodeStart([...longest, "z"])).toThrow("at most 32 arguments, received 33");
    expect(() => encodeStart(["x".repeat(256)])).toThrow("below 256 bytes");
    expect(() => encodeStart(["/bin/true", "é".repeat(128)])).toThrow("below 256 bytes");
    expect(() => encodeStart([])).toThrow("a program");
  });
});

describe("what we read", () => {
  const start = goldenStart(["/bin/echo", "", "a b", "é"]);

  test("START in one piece, in single bytes, and several at once", () => {
    const wanted: HoldenRequest = { kind: "start", argv: ["/bin/echo", "", "a b", "é"] };
    expect(read(start)).toEqual([wanted]);
    expect(read(...Array.from(start, (byte) => new Uint8Array([byte])))).toEqual([wanted]);
    const three = new Uint8Array(Buffer.concat([start, goldenPing(), start]));
    expect(read(three)).toEqual([wanted, { kind: "ping" }, wanted]);
    expect(read(three.subarray(0, 9_000), three.subarray(9_000))).toHaveLength(3);
  });

  test("what stands behind a zero byte is no part of a text", () => {
    const bytes = start.slice();
    bytes.set(new TextEncoder().encode("junk"), 8 + 100);
    expect(read(bytes)).toEqual([{ kind: "start", argv: ["/bin/echo", "", "a b", "é"] }]);
  });

  test("the messages of v0.1, and those that there are not, are unknown ones", () => {
    const lengths = [
      [4, 4],
      [5, 16_900],
      [6, 16_900],
      [7, 4],
      [9, 24],
      [10, 4],
      [99, 0],
    ] as const;
    for (const [type, length] of lengths) {
      const bytes = new Uint8Array(8 + length);
      bytes.set(goldenHeader(type, length));
      expect(read(bytes)).toEqual([{ kind: "unknown", type }]);
    }
    expect(read(goldenHeader(0xffff_ffff, 0))).toEqual([{ kind: "unknown", type: -1 }]);
  });

  const refusals: readonly [string, () => Uint8Array, string][] = [
    ["a length beyond any message", () => goldenHeader(1, 16_901), "at most 16900, received 16901"],
    ["a length beyond memory", () => goldenHeader(11, 0xffff_ffff), "received 4294967295"],
    ["a START of another length", () => withBody(1, 8_448), "8452 bytes, received 8448"],
    ["a negative number of arguments", () => withCount(-1), "0 to 32 arguments, received -1"],
    ["too many arguments", () => withCount(33), "0 to 32 arguments, received 33"],
    ["a name without an end", () => filled(8, 256), "ends with a zero byte in argument 0"],
    ["an argument without an end", () => filled(8 + 256, 256), "zero byte in argument 1"],
    ["no program", () => goldenStart([""]), "Expected a program"],
  ];

  function withBody(type: number, length: number): Uint8Array {
    const bytes = new Uint8Array(8 + length);
    bytes.set(goldenHeader(type, length));
    return bytes;
  }

  function withCount(count: number): Uint8Array {
    const bytes = start.slice();
    new DataView(bytes.buffer).setInt32(8 + 8448, count, true);
    return bytes;
  }

  function filled(offset: number, length: number): Uint8Array {
    const bytes = start.slice();
    bytes.fill(0x78, offset, offset + length);
    return bytes;
  }

  for (const [name, make, message] of refusals) {
    test(`refuses ${name}`, () => {
      const [found] = read(make());
      expect(found).toMatchObject({ kind: "refused", message: expect.stringContaining(message) });
    });
  }

  test("after a length that is refused nothing more is taken", () => {
    expect(read(goldenHeader(1, 16_901), start, goldenPing())).toHaveLength(1);
  });
});

test("an agent's answers", () => {
  const body = (bytes: Uint8Array) => ({
    type: new DataView(bytes.buffer).getUint32(0, true),
    body: bytes.slice(8),
  });
  expect(decodeAnswer(body(goldenStarted(77)))).toEqual({ kind: "started", processId: 77 });
  expect(decodeAnswer(body(goldenError("no")))).toEqual({ kind: "error", message: "no" });
  const odd = decodeAnswer({ type: 2, body: new Uint8Array(4) });
  expect(odd).toMatchObject({ kind: "error" });
});
