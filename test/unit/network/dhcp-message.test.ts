/** DHCP as bytes: what is read, what is refused, and that nothing else can happen. */
import { describe, expect, test } from "bun:test";
import { encodeDatagram, parseDatagram } from "../../../src/network/dhcp/datagram.ts";
import {
  LONGEST_CLIENT_IDENTIFIER,
  LONGEST_PACKET,
  MOST_OPTIONS,
} from "../../../src/network/dhcp/limits.ts";
import { parseMessage } from "../../../src/network/dhcp/message.ts";
import { optionCodes } from "../../../src/network/dhcp/options.ts";
import { SeededChance } from "../../support/chance.ts";
import { clientBytes, clientMessage } from "../../support/dhcp-messages.ts";

const OPTIONS = 240;
const FILE = 108;
const SERVER_NAME = 44;

/** A discover whose options are these bytes alone. */
function withOptions(options: readonly number[], change?: (bytes: Uint8Array) => void): Uint8Array {
  const bytes = new Uint8Array(Math.max(OPTIONS + options.length, OPTIONS + 1));
  bytes.set(clientBytes("discover").subarray(0, OPTIONS));
  bytes.set(options, OPTIONS);
  change?.(bytes);
  return bytes;
}

function refusalOf(bytes: Uint8Array): string {
  const parsed = parseMessage(bytes);
  if (parsed.ok) return "none";
  const { key, expected, received } = parsed.refusal;
  return `${key}: expected ${expected}, received ${received}`;
}

describe("messages", () => {
  test("are the same after they were written and read", () => {
    for (const type of ["discover", "request", "decline", "release", "inform"] as const) {
      const said = { requested: "10.100.0.7", server: "10.100.0.1", broadcast: true };
      const message = clientMessage(type, said);
      const parsed = parseMessage(clientBytes(type, said));
      if (!parsed.ok) throw new Error(refusalOf(clientBytes(type, said)));
      const { options, ...rest } = parsed.value;
      expect({ ...message, options: undefined }).toEqual({ ...rest, options: undefined } as never);
      for (const [code, bytes] of message.options) expect(options.get(code)).toEqual(bytes);
    }
  });

  const cases: readonly (readonly [string, Uint8Array, string])[] = [
    ["nothing", new Uint8Array(0), "message: expected more than 240 bytes, received 0"],
    [
      "no options",
      withOptions([]).subarray(0, 240),
      "message: expected more than 240 bytes, received 240",
    ],
    [
      "too long",
      new Uint8Array(LONGEST_PACKET + 1),
      "message: expected at most 1500 bytes, received 1501",
    ],
    ["op", withOptions([53, 1, 1, 255], (b) => b.fill(3, 0, 1)), "op: expected 1 or 2, received 3"],
    [
      "another kind of card",
      withOptions([53, 1, 1, 255], (b) => b.fill(16, 2, 3)),
      "htype, hlen: expected 1, 6: Ethernet, received 1, 16",
    ],
    [
      "bad magic",
      withOptions([53, 1, 1, 255], (b) => b.fill(0, 236, 240)),
      "magic: expected 63825363, received 0",
    ],
    [
      "no end",
      withOptions([53, 1, 1]),
      "options: expected option 255 as the last one, received none",
    ],
    [
      "no length",
      withOptions([53, 1, 1, 50]),
      "option 50: expected a length, received the end of the field",
    ],
    [
      "truncated",
      withOptions([53, 1, 1, 50, 4, 10]),
      "option 50: expected 4 bytes as it announces, received 1 in options",
    ],
    ["BOOTP", withOptions([255]), "option 53: expected a message type, received none: BOOTP"],
    [
      "no such type",
      withOptions([53, 1, 9, 255]),
      "option 53: expected a message type from 1 to 8, received 9",
    ],
    [
      "twice",
      withOptions([53, 1, 1, 53, 1, 1, 255]),
      "option 53: expected 1 bytes, received 2 bytes",
    ],
    [
      "an address of 5 bytes",
      withOptions([53, 1, 1, 50, 5, 1, 2, 3, 4, 5, 255]),
      "option 50: expected 4 bytes, received 5 bytes",
    ],
    [
      "an empty identifier",
      withOptions([53, 1, 1, 61, 0, 255]),
      "option 61: expected 2 to 135 bytes, received 0 bytes",
    ],
    [
      "overload by nothing",
      withOptions([53, 1, 1, 52, 1, 0, 255]),
      "option 52: expected one byte from 1 to 3, received 1 bytes 00",
    ],
    [
      "overload of a file without an end",
      withOptions([53, 1, 1, 52, 1, 1, 255]),
      "file: expected option 255 as the last one, received none",
    ],
    [
      "more options than the limit",
      withOptions([53, 1, 1, ...Array.from({ length: MOST_OPTIONS }, () => [99, 0]).flat(), 255]),
      `options: expected at most ${MOST_OPTIONS} options, received more`,
    ],
    [
      "a longer identifier than the limit",
      withOptions([53, 1, 1, 61, LONGEST_CLIENT_IDENTIFIER + 1, ...new Array(136).fill(1), 255]),
      "option 61: expected 2 to 135 bytes, received 136 bytes",
    ],
  ];
  test.each(cases)("refused: %s", (_name, bytes, refusal) => {
    expect(refusalOf(bytes)).toBe(refusal);
  });

  test("options stand in the name and the file too, and are joined in their order", () => {
    const bytes = withOptions([53, 1, 1, 52, 1, 3, 12, 2, 97, 98, 255], (b) => {
      b.set([12, 1, 99, 255], FILE);
      b.set([12, 1, 100, 50, 4, 10, 100, 0, 7, 255], SERVER_NAME);
    });
    const parsed = parseMessage(bytes);
    if (!parsed.ok) throw new Error(refusalOf(bytes));
    const name = parsed.value.options.get(optionCodes.hostname);
    expect(new TextDecoder().decode(name)).toBe("abcd");
    expect(parsed.value.options.get(optionCodes.requestedAddress)).toEqual(
      Uint8Array.of(10, 100, 0, 7),
    );
  });

  test("whatever is changed in one, the answer is a value", () => {
    const seed = 20_261_128;
    const chance = new SeededChance(seed);
    const good = clientBytes("request", { requested: "10.100.0.7", server: "10.100.0.1" });
    for (let count = 0; count < 20_000; count += 1) {
      const bytes = good.slice(0, chance.happens(0.3) ? chance.below(good.length) : good.length);
      const changes = 1 + chance.below(8);
      const least = chance.happens(0.7) ? OPTIONS : 0;
      for (let left = changes; left > 0 && bytes.length > least; left -= 1) {
        bytes[least + chance.below(Math.min(40, bytes.length - least))] = chance.below(256);
      }
      const parsed = parseMessage(bytes);
      if (parsed.ok) expect(parsed.value.hardwareAddress).toMatch(/^[0-9a-f:]{17}$/);
      else expect(parsed.refusal.key).not.toBe("");
    }
  });
});

describe("packets", () => {
  const datagram = {
    from: { address: "10.100.0.1", port: 67 },
    to: { address: "255.255.255.255", port: 68 },
    payload: Uint8Array.of(1, 2, 3),
  };
  const read = (bytes: Uint8Array, checksumPending = false) => {
    const parsed = parseDatagram(bytes, { checksumPending });
    return parsed.ok ? parsed.value : parsed.refusal.key;
  };

  test("are the same after they were written and read, of every length", () => {
    for (let length = 0; length < 64; length += 1) {
      const payload = Uint8Array.from({ length }, (_, index) => (index * 37) & 255);
      expect(read(encodeDatagram({ ...datagram, payload }))).toEqual({ ...datagram, payload });
    }
  });

  test("what stands behind one in its frame is not read", () => {
    const padded = Uint8Array.from([...encodeDatagram(datagram), 9, 9, 9, 9]);
    expect(read(padded)).toEqual(datagram);
  });

  const cases: readonly (readonly [string, (bytes: Uint8Array) => void, string])[] = [
    ["version 6", (bytes) => bytes.fill(0x65, 0, 1), "ip"],
    ["a header of 16 bytes", (bytes) => bytes.fill(0x44, 0, 1), "ip"],
    ["longer than it is", (bytes) => bytes.fill(0x7f, 2, 3), "ip length"],
    ["a wrong header", (bytes) => bytes.fill(1, 8, 9), "ip checksum"],
    ["wrong bytes", (bytes) => bytes.fill(9, 30, 31), "udp checksum"],
  ];
  test.each(cases)("refused: %s", (_name, change, key) => {
    const bytes = encodeDatagram(datagram);
    change(bytes);
    expect(read(bytes)).toBe(key);
  });

  test("a checksum that no card has made is not looked at, and one of 0 is none", () => {
    const bytes = encodeDatagram(datagram);
    bytes.set([1, 2], 26);
    expect(read(bytes)).toBe("udp checksum");
    expect(read(bytes, true)).toEqual(datagram);
    bytes.set([0, 0], 26);
    expect(read(bytes)).toEqual(datagram);
  });

  test("whatever is changed in one, the answer is a value", () => {
    const chance = new SeededChance(7);
    const good = encodeDatagram(datagram);
    for (let count = 0; count < 20_000; count += 1) {
      const bytes = good.slice(0, 1 + chance.below(good.length));
      for (let left = 3; left > 0; left -= 1) {
        bytes[chance.below(bytes.length)] = chance.below(256);
      }
      const parsed = parseDatagram(bytes, { checksumPending: true });
      if (parsed.ok) expect(parsed.value.payload.length).toBeLessThanOrEqual(3);
    }
  });
});
