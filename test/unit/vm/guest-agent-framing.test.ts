/** Messages on a channel of bytes: every way to cut them, and whatever else may come between. */
import { describe, expect, test } from "bun:test";
import { type Framed, frameMessage, MessageReader } from "../../../src/vm/guest-agent/framing.ts";
import { SeededChance } from "../../support/chance.ts";

const LIMIT = 64;
const first = { verb: "ping", id: 1, word: "\u001e\nü" };
const second = [1, "two"];

const encode = (text: string) => new TextEncoder().encode(text);
const join = (...parts: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
const bodies = (framed: readonly Framed[]) =>
  framed.flatMap((part) => (part.kind === "message" ? [part.body] : []));
const strayBytes = (framed: readonly Framed[]) =>
  framed.reduce((sum, part) => sum + (part.kind === "stray" ? part.bytes : 0), 0);
const reader = () => new MessageReader(LIMIT);

describe("messages", () => {
  const whole = join(frameMessage(first), frameMessage(second));

  test("have neither of the two bytes that part them inside", () => {
    const inside = frameMessage(first).subarray(1, -1);
    expect(inside.includes(0x1e)).toBe(false);
    expect(inside.includes(0x0a)).toBe(false);
  });

  test("come whole from every two pieces, and byte by byte", () => {
    for (let cut = 0; cut <= whole.length; cut++) {
      const reading = reader();
      const framed = [
        ...reading.push(whole.subarray(0, cut)),
        ...reading.push(whole.subarray(cut)),
      ];
      expect(bodies(framed)).toEqual([first, second]);
      expect(strayBytes(framed)).toBe(0);
    }
    const reading = reader();
    expect(bodies([...whole].flatMap((byte) => reading.push(Uint8Array.of(byte))))).toEqual([
      first,
      second,
    ]);
  });

  test("a reader who comes in the middle of one takes the next", () => {
    for (let cut = 1; cut < frameMessage(first).length; cut++) {
      expect(bodies(reader().push(whole.subarray(cut)))).toEqual([second]);
    }
  });

  test("one that was cut off at any byte is dropped, and the next is taken", () => {
    const one = frameMessage(first);
    for (let cut = 1; cut < one.length; cut++) {
      const framed = reader().push(join(one.subarray(0, cut), frameMessage(second)));
      expect(bodies(framed)).toEqual([second]);
      expect(strayBytes(framed)).toBe(cut);
    }
  });

  test("of the limit are taken, of one byte more they are not, and the next is", () => {
    const longest = "x".repeat(LIMIT - 2);
    expect(bodies(reader().push(frameMessage(longest)))).toEqual([longest]);
    for (let cut = 0; cut <= LIMIT + 3; cut++) {
      const reading = reader();
      const all = join(frameMessage(`${longest}y`), frameMessage(second));
      const framed = [...reading.push(all.subarray(0, cut)), ...reading.push(all.subarray(cut))];
      expect(bodies(framed)).toEqual([second]);
      expect(framed.some((part) => part.kind === "stray" && part.why === "too-long")).toBe(true);
    }
  });

  test("what is no JSON is told, and so is what is no UTF-8", () => {
    for (const inside of [
      encode(""),
      encode("{"),
      encode("[1]]"),
      Uint8Array.of(0x22, 0xff, 0x22),
    ]) {
      const framed = reader().push(join(Uint8Array.of(0x1e), inside, encode("\n")));
      expect(framed).toEqual([{ kind: "stray", why: "no-json", bytes: inside.length + 2 }]);
    }
  });

  test("nobody makes a reader keep more than one message", () => {
    const reading = reader();
    reading.push(Uint8Array.of(0x1e));
    for (let count = 0; count < 1000; count++) {
      reading.push(encode("y".repeat(50)));
      expect(reading.keptBytes).toBeLessThanOrEqual(LIMIT);
    }
    expect(bodies(reading.push(frameMessage(1)))).toEqual([1]);
  });

  test("after a reset, the rest of what another peer said is not taken", () => {
    const reading = reader();
    reading.push(frameMessage(first).subarray(0, 5));
    reading.reset();
    expect(bodies(reading.push(encode('":1}\n')))).toEqual([]);
    expect(bodies(reading.push(frameMessage(2)))).toEqual([2]);
  });
});

describe("garbage from a seed", () => {
  const seed = Number(process.env["HOSTLER_TEST_SEED"] ?? 20_261_128);

  test(`loses no message that is whole, and invents none (seed ${seed})`, () => {
    const chance = new SeededChance(seed);
    for (let round = 0; round < 200; round++) {
      const sent: unknown[] = [];
      const parts: Uint8Array[] = [];
      for (let count = 0; count < 20; count++) {
        const size = chance.below(2 * LIMIT);
        if (chance.happens(0.5)) {
          // No newline: garbage with a separator and one could be a message by chance.
          const garbage = Uint8Array.from({ length: size }, () => chance.below(256));
          parts.push(garbage.map((byte) => (byte === 0x0a ? 0x1e : byte)));
        } else {
          sent.push({ count, round });
          parts.push(frameMessage({ count, round }));
        }
      }
      const all = join(...parts);
      const reading = reader();
      const framed: Framed[] = [];
      for (let begin = 0; begin < all.length; ) {
        const end = begin + 1 + chance.below(40);
        framed.push(...reading.push(all.subarray(begin, end)));
        expect(reading.keptBytes).toBeLessThanOrEqual(LIMIT);
        begin = end;
      }
      expect(bodies(framed)).toEqual(sent);
    }
  });
});
