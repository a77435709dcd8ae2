/** DNS as bytes: what is read of queries and answers, and what is refused. */
import { describe, expect, test } from "bun:test";
import {
  LONGEST_QUERY,
  LONGEST_UDP_ANSWER,
  MOST_ADDRESSES,
  MOST_ALIASES,
  MOST_RECORDS,
} from "../../../src/network/dns/limits.ts";
import {
  encodeAnswer,
  isAnswerTo,
  parseAnswer,
  parseQuery,
  type Query,
  recordTypes,
} from "../../../src/network/dns/message.ts";
import { nameBytes, readName } from "../../../src/network/dns/name.ts";
import { FrameReader, framed } from "../../../src/network/dns/upstream.ts";
import { SeededChance } from "../../support/chance.ts";
import { addressRecord, aliasRecord, answerBytes, queryBytes } from "../../support/dns-messages.ts";

function queryOf(bytes: Uint8Array): Query {
  const parsed = parseQuery(bytes);
  if (!parsed.ok) throw new Error(parsed.refusal.key);
  return parsed.value;
}

function changed(bytes: Uint8Array, at: number, ...values: readonly number[]): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy.set(values, at);
  return copy;
}

const plain = queryBytes("www.example.org");

describe("queries", () => {
  test("a plain one, and one with EDNS", () => {
    expect(queryOf(plain)).toMatchObject({
      id: 0x1234,
      question: { name: "www.example.org", type: 1 },
      recursionDesired: true,
      udpSize: undefined,
    });
    expect(queryOf(queryBytes("x.org", { udpSize: 1_232 })).udpSize).toBe(1_232);
    // What is less than everybody takes is taken for that: RFC 6891, 6.2.3.
    expect(queryOf(queryBytes("x.org", { udpSize: 100 })).udpSize).toBe(512);
    expect(queryOf(queryBytes("")).question.name).toBe("");
  });

  test("what is passed on asks for no longer a datagram than we take", () => {
    const passedOn = (udpSize: number) => queryOf(queryBytes("x.org", { udpSize })).bytes;
    expect(passedOn(4_096)).toEqual(queryBytes("x.org", { udpSize: LONGEST_UDP_ANSWER }));
    expect(passedOn(600)).toEqual(queryBytes("x.org", { udpSize: 600 }));
  });

  test("a name is compared in lower case, and keeps its own in the answer", () => {
    const bytes = changed(plain, 13, 0x57);
    expect(queryOf(bytes).question.name).toBe("www.example.org");
    expect(encodeAnswer(queryOf(bytes), { code: "refused" })[13]).toBe(0x57);
  });

  test.each([
    ["nothing", new Uint8Array(0), "query"],
    ["half a header", plain.subarray(0, 11), "query"],
    ["an answer", changed(plain, 2, 0x81), "QR"],
    ["another operation", changed(plain, 2, 0x29), "opcode"],
    ["no question", changed(plain, 4, 0, 0), "counts"],
    ["two questions", changed(plain, 4, 0, 2), "counts"],
    ["an answer in it", changed(plain, 6, 0, 1), "counts"],
    ["an authority in it", changed(plain, 8, 0, 1), "counts"],
    ["two additional ones", changed(plain, 10, 0, 2), "counts"],
    ["a name without an end", plain.subarray(0, 20), "question"],
    ["no class", plain.subarray(0, plain.length - 2), "question"],
    ["a pointer in the question", changed(plain, 12, 0xc0, 12), "question"],
    ["a label of another kind", changed(plain, 12, 0x43), "question"],
    ["another class", changed(plain, plain.length - 1, 3), "class"],
    ["something behind it", Uint8Array.from([...plain, 0]), "query"],
    ["an additional one that is not there", changed(plain, 11, 1), "additional record"],
    [
      "another additional one",
      changed(queryBytes("x.org", { udpSize: 512 }), 24, 0, 250),
      "additional record",
    ],
    ["longer than the limit", new Uint8Array(LONGEST_QUERY + 1), "query"],
  ])("refused: %s", (_name, bytes, key) => {
    const parsed = parseQuery(bytes);
    expect(parsed.ok ? "none" : parsed.refusal.key).toBe(key);
  });

  test("whatever is changed in one, the answer is a value", () => {
    const chance = new SeededChance(11);
    const good = queryBytes("www.example.org", { udpSize: 1_232 });
    for (let count = 0; count < 20_000; count += 1) {
      const bytes = good.slice(0, chance.happens(0.5) ? chance.below(good.length) : good.length);
      for (let left = 2; left > 0 && bytes.length > 0; left -= 1) {
        bytes[chance.below(bytes.length)] = chance.below(256);
      }
      const parsed = parseQuery(bytes);
      if (parsed.ok) expect(parsed.value.question.name).toMatch(/^[a-z0-9_.\\-]*$/);
    }
  });
});

describe("names", () => {
  test("a byte that is no letter of a host makes no other name", () => {
    const dotted = Uint8Array.from([5, 97, 46, 98, 0, 32, 0]);
    expect(readName(dotted, 0)?.name).toBe("a\\046b\\000\\032");
  });

  test("pointers lead backwards, and not too often", () => {
    const message = Uint8Array.from([1, 97, 0, 1, 98, 0xc0, 0, 0xc0, 3]);
    expect(readName(message, 7)).toEqual({ name: "b.a", next: 9 });
    expect(readName(message, 7, "refuse")).toBeUndefined();
    expect(readName(Uint8Array.of(0xc0, 0), 0)).toBeUndefined();
    expect(readName(Uint8Array.of(0xc0, 2, 0xc0, 0), 2)).toBeUndefined();
    expect(readName(Uint8Array.of(0xc0, 9), 0)).toBeUndefined();
    expect(readName(Uint8Array.of(0xc0), 0)).toBeUndefined();
    const chain = Uint8Array.from([
      0,
      0,
      ...Array.from({ length: 40 }, (_, index) => [0xc0, index * 2]).flat(),
    ]);
    expect(readName(chain, 64)).toBeDefined();
    expect(readName(chain, 66)).toBeUndefined();
  });

  test("of 255 bytes at most, pointers or not", () => {
    const label = "a".repeat(62);
    expect(readName(nameBytes([label, label, label, label].join(".")), 0)).toBeDefined();
    const longer = Uint8Array.from([...nameBytes([label, label, label, label].join("."))]);
    const withMore = Uint8Array.from([...longer, 1, 98, 1, 98, 1, 98, 0xc0, 0]);
    expect(readName(withMore, longer.length)).toBeUndefined();
    expect(() => nameBytes("a".repeat(64))).toThrow(RangeError);
    expect(() => nameBytes("a..b")).toThrow(RangeError);
  });
});

describe("answers", () => {
  const question = { name: "www.example.org", type: recordTypes.A };
  const read = (bytes: Uint8Array) => {
    const parsed = parseAnswer(bytes, question);
    return parsed.ok ? parsed.value : parsed.refusal.key;
  };

  test("addresses of the name and of what it is an alias of, with the shortest time", () => {
    const records = [
      aliasRecord("www.example.org", "a.cdn.test", 300),
      aliasRecord("a.cdn.test", "b.cdn.test", 30),
      addressRecord("b.cdn.test", "192.0.2.1", 600),
      addressRecord("b.cdn.test", "192.0.2.2", 600),
      // Nobody asked for these.
      addressRecord("a.cdn.test", "198.51.100.1"),
      addressRecord("other.test", "198.51.100.2"),
    ];
    expect(read(answerBytes(plain, records))).toEqual({
      code: 0,
      truncated: false,
      addresses: ["192.0.2.1", "192.0.2.2"],
      timeToLive: 30,
    });
  });

  test("IPv6, and compressed names", () => {
    const address = Uint8Array.from([0x20, 1, 0xd, 0xb8, ...new Array(11).fill(0), 1]);
    const compressed = Uint8Array.from([
      ...changed(answerBytes(plain, []), 6, 0, 1),
      ...[0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16],
      ...address,
    ]);
    expect(read(compressed)).toMatchObject({ addresses: ["2001:db8:0:0:0:0:0:1"] });
  });

  test("aliases in a circle, or more than the limit, have no addresses", () => {
    const circle = [
      aliasRecord("www.example.org", "b.test"),
      aliasRecord("b.test", "www.example.org"),
    ];
    expect(read(answerBytes(plain, circle))).toMatchObject({ addresses: [] });
    const chainOf = (length: number) => [
      aliasRecord("www.example.org", "a0.test"),
      ...Array.from({ length: length - 1 }, (_, index) =>
        aliasRecord(`a${index}.test`, `a${index + 1}.test`),
      ),
      addressRecord(`a${length - 1}.test`, "192.0.2.1"),
    ];
    expect(read(answerBytes(plain, chainOf(MOST_ALIASES)))).toMatchObject({
      addresses: ["192.0.2.1"],
    });
    expect(read(answerBytes(plain, chainOf(MOST_ALIASES + 1)))).toMatchObject({ addresses: [] });
  });

  test("a time with its highest bit is none", () => {
    const record = addressRecord("www.example.org", "192.0.2.1", 0x8000_0000);
    expect(read(answerBytes(plain, [record]))).toMatchObject({ timeToLive: 0 });
  });

  test("of a truncated one nothing is used", () => {
    const bytes = answerBytes(plain, [addressRecord("www.example.org", "192.0.2.1")], {
      flags: 0x8380,
    });
    expect(read(bytes)).toMatchObject({ truncated: true, addresses: [] });
  });

  const one = answerBytes(plain, [addressRecord("www.example.org", "192.0.2.1")]);
  const many = (count: number) =>
    answerBytes(
      plain,
      Array.from({ length: count }, (_, index) =>
        addressRecord("www.example.org", `192.0.${index >> 8}.${index & 255}`),
      ),
    );
  test.each([
    ["fewer records than it says", changed(one, 7, 2), "record 1"],
    ["a record that is cut off", one.subarray(0, one.length - 1), "record 0"],
    ["something behind it", Uint8Array.from([...one, 0]), "answer"],
    ["an address of 3 bytes", changed(one.subarray(0, -1), one.length - 5, 3), "record 0"],
    ["more records than the limit", changed(one, 6, ...[4, 1]), "records"],
    ["more addresses than the limit", many(MOST_ADDRESSES + 1), "addresses"],
    ["longer than the limit", new Uint8Array(65_536), "answer"],
  ])("refused: %s", (_name, bytes, key) => {
    expect(read(bytes)).toBe(key);
    expect(MOST_RECORDS).toBe(0x400);
  });

  test("one that is to another question, or under another id, is none", () => {
    const asked = { id: 0x1234, question };
    expect(isAnswerTo(one, asked)).toBe(true);
    expect(isAnswerTo(one, { ...asked, id: 0x1235 })).toBe(false);
    expect(isAnswerTo(one, { ...asked, question: { ...question, type: 28 } })).toBe(false);
    expect(isAnswerTo(one, { ...asked, question: { ...question, name: "x" } })).toBe(false);
    expect(isAnswerTo(plain, asked)).toBe(false);
    expect(isAnswerTo(changed(one, 4, 0, 0), asked)).toBe(false);
    expect(isAnswerTo(one.subarray(0, 11), asked)).toBe(false);
    expect(isAnswerTo(one.subarray(0, 20), asked)).toBe(false);
    expect(isAnswerTo(changed(one, 13, 0x57), asked)).toBe(true);
  });

  test("whatever is changed in one, the result is a value", () => {
    const chance = new SeededChance(13);
    const good = answerBytes(plain, [
      aliasRecord("www.example.org", "a.cdn.test"),
      addressRecord("a.cdn.test", "192.0.2.1"),
    ]);
    for (let count = 0; count < 20_000; count += 1) {
      const bytes = good.slice(0, chance.happens(0.5) ? chance.below(good.length) : good.length);
      for (let left = 3; left > 0 && bytes.length > 12; left -= 1) {
        bytes[4 + chance.below(bytes.length - 4)] = chance.below(256);
      }
      if (isAnswerTo(bytes, { id: 0x1234, question })) read(bytes);
    }
  });
});

describe("frames of a stream", () => {
  test("come out whole, however they came in", () => {
    const all = Uint8Array.from([...framed(Uint8Array.of(1, 2)), ...framed(Uint8Array.of(3))]);
    const reader = new FrameReader(10);
    const messages = [...all].flatMap((byte) => reader.add(Uint8Array.of(byte)) ?? []);
    expect(messages).toEqual([Uint8Array.of(1, 2), Uint8Array.of(3)]);
    expect(new FrameReader(10).add(all)).toEqual(messages);
  });

  test("one that is longer than the limit is not waited for", () => {
    expect(new FrameReader(10).add(Uint8Array.of(0, 11))).toBeUndefined();
    expect(new FrameReader(10).add(Uint8Array.of(0, 10))).toEqual([]);
  });
});
