/** Frames: bytes in, in any pieces; frames or one refusal out. */
import { describe, expect, test } from "bun:test";
import {
  encodeFrame,
  type Frame,
  FrameReader,
  type FrameRefusal,
  HEAD_LIMIT,
  quoteBytes,
} from "../../src/messaging/frame.ts";
import { SeededChance } from "../support/chance.ts";

const limits = { frameBytes: 4_096, frameDescriptors: 8 };
const bytesOf = (text: string) => new TextEncoder().encode(text);

const bodies: readonly unknown[] = [
  null,
  true,
  0,
  "",
  "a\nb",
  "é漢😀",
  [],
  {},
  { kind: "start", argv: ["/bin/true", "{", '"}\n'], deep: [[[{ a: 1 }]]] },
  "x".repeat(3_000),
];

/** All that a reader says of these pieces, up to the first refusal. */
function readAll(pieces: readonly Uint8Array[], reader = new FrameReader(limits)) {
  const frames: Frame[] = [];
  for (const piece of pieces) {
    reader.push(piece);
    for (let next = reader.next(); next !== undefined; next = reader.next()) {
      if ("refusal" in next) return { frames, refusal: next.refusal, reader };
      frames.push(next);
    }
  }
  return { frames, refusal: undefined, reader };
}

function refusalOf(...texts: readonly string[]): FrameRefusal {
  const { refusal } = readAll(texts.map(bytesOf));
  if (refusal === undefined) throw new Error(`It was not refused: ${texts.join("")}`);
  expect(refusal.expected).not.toBe("");
  expect(refusal.received).not.toBe("");
  return refusal;
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

const stream = join(bodies.map((body, index) => encodeFrame(body, index % 3)));
const expected = bodies.map((body, index) => ({ body, descriptors: index % 3 }));

describe("encoding", () => {
  test("says its own length, whatever number of digits that has", () => {
    for (let length = 0; length < 1_200; length += 1) {
      const frame = encodeFrame("x".repeat(length), 3);
      const text = new TextDecoder().decode(frame);
      expect(text).toStartWith(`{"bytes":${frame.length},"descriptors":3,"body":`);
      expect(text).toEndWith("}\n");
      expect(JSON.parse(text)).toEqual({
        bytes: frame.length,
        descriptors: 3,
        body: "x".repeat(length),
      });
    }
    for (const length of [9_950, 9_951, 9_952, 9_953, 9_954, 9_955, 99_948, 99_949, 99_950]) {
      const frame = encodeFrame("x".repeat(length));
      expect(new TextDecoder().decode(frame)).toStartWith(`{"bytes":${frame.length},`);
    }
  });

  test("counts bytes, not characters", () => {
    const frame = encodeFrame("é漢😀");
    expect(readAll([frame]).frames).toEqual([{ body: "é漢😀", descriptors: 0 }]);
  });
});

describe("reading", () => {
  test("one push of many frames", () => {
    const { frames, refusal, reader } = readAll([stream]);
    expect(frames).toEqual(expected);
    expect(refusal).toBeUndefined();
    expect(reader.pending).toBe(0);
    expect(reader.atEnd()).toBeUndefined();
  });

  test("a byte at a time", () => {
    const pieces = Array.from(stream, (byte) => Uint8Array.of(byte));
    expect(readAll(pieces).frames).toEqual(expected);
  });

  test("pieces of any size, seeds 0 to 499", () => {
    for (let seed = 0; seed < 500; seed += 1) {
      const chance = new SeededChance(seed);
      const most = chance.pick([2, 10, 100, 5_000]);
      const pieces: Uint8Array[] = [];
      for (let offset = 0; offset < stream.length; ) {
        const size = chance.below(most + 1);
        pieces.push(stream.slice(offset, offset + size));
        offset += size;
      }
      const { frames, reader } = readAll(pieces);
      if (!Bun.deepEquals(frames, expected)) throw new Error(`other frames with seed ${seed}`);
      expect(reader.atEnd()).toBeUndefined();
    }
  });

  test("what was pushed may be overwritten by the next read", () => {
    const shared = new Uint8Array(64);
    const reader = new FrameReader(limits);
    const frames: unknown[] = [];
    for (let offset = 0; offset < stream.length; offset += shared.length) {
      const piece = stream.subarray(offset, offset + shared.length);
      shared.set(piece);
      reader.push(shared.subarray(0, piece.length));
      shared.fill(0xff);
      for (let next = reader.next(); next !== undefined; next = reader.next()) frames.push(next);
    }
    expect(frames).toEqual([...expected]);
  });

  test("other limits hold once they are set", () => {
    const reader = new FrameReader({ frameBytes: 64, frameDescriptors: 0 });
    expect(readAll([encodeFrame("hello")], reader).frames).toHaveLength(1);
    reader.setLimits(limits);
    expect(readAll([encodeFrame("x".repeat(1_000), 8)], reader).frames).toHaveLength(1);
    reader.setLimits({ frameBytes: 64, frameDescriptors: 0 });
    expect(readAll([encodeFrame("x".repeat(1_000))], reader).refusal?.kind).toBe("too-long");
  });
});

describe("refusing", () => {
  test("a frame that is too long, from its head alone", () => {
    const frame = encodeFrame("x".repeat(5_000));
    const { refusal } = readAll([frame.slice(0, HEAD_LIMIT)]);
    expect(refusal).toEqual({
      kind: "too-long",
      expected: "a frame of at most 4096 bytes",
      received: `${frame.length} bytes`,
    });
  });

  test("a frame of exactly the limit is taken, one byte more is not", () => {
    const overhead = encodeFrame("x".repeat(4_000)).length - 4_000;
    const most = encodeFrame("x".repeat(4_096 - overhead));
    expect(most).toHaveLength(4_096);
    expect(readAll([most]).frames).toHaveLength(1);
    const more = encodeFrame("x".repeat(4_097 - overhead));
    expect(readAll([more]).refusal?.kind).toBe("too-long");
  });

  test("too many descriptors", () => {
    expect(readAll([encodeFrame("", 8)]).frames).toHaveLength(1);
    expect(readAll([encodeFrame("", 9)]).refusal).toEqual({
      kind: "too-many-descriptors",
      expected: "at most 8 descriptors with a frame",
      received: "9 announced",
    });
  });

  test.each([
    "\n",
    "GET / HTTP/1.1\r\n",
    "x",
    "{}\n",
    '{"bytes":-1,"descriptors":0,"body":1}\n',
    '{"bytes":1e9,"descriptors":0,"body":1}\n',
    '{"bytes":1234567890,"descriptors":0,"body":1}\n',
    '{"bytes": 40,"descriptors":0,"body":1}\n',
    '{"descriptors":0,"bytes":40,"body":1}\n',
    '{"bytes":40,"body":1,"descriptors":0}\n',
    `{"bytes":40${" ".repeat(HEAD_LIMIT)}`,
    "\u0002\u0000\u0000\u0000",
  ])("a head that is none: %j", (text) => {
    expect(refusalOf(text)).toMatchObject({
      kind: "head",
      expected: '{"bytes":<count>,"descriptors":<count>,"body":…}',
    });
  });

  test("a count that does not cover its own head", () => {
    expect(refusalOf('{"bytes":7,"descriptors":0,"body":1}\n').kind).toBe("head");
    expect(refusalOf('{"bytes":0,"descriptors":0,"body":1}\n').kind).toBe("head");
  });

  test("counts that are wrong by any number", () => {
    const right = encodeFrame({ a: [1, 2, 3], b: "}\n" });
    const text = new TextDecoder().decode(right);
    for (let wrong = 10; wrong < 99; wrong += 1) {
      if (wrong === right.length) continue;
      const said = text.replace(`"bytes":${right.length}`, `"bytes":${wrong}`);
      const { frames, refusal } = readAll([bytesOf(said + said)]);
      expect(frames).toEqual([]);
      expect(refusal?.kind ?? "waits").toMatch(/^(head|json)$/);
    }
  });

  test.each([
    '{"bytes":38,"descriptors":0,"body":x}\n',
    '{"bytes":38,"descriptors":0,"body":1]\n',
    '{"bytes":38,"descriptors":0,"body":1}}',
    '{"bytes":40,"descriptors":0,"body":"\u0001"}\n',
  ])("a body that is none: %j", (text) => {
    expect(refusalOf(text).kind).toBe("json");
  });

  test("bytes that are no UTF-8", () => {
    const frame = encodeFrame("xx");
    frame[frame.length - 4] = 0xff;
    expect(readAll([frame]).refusal?.kind).toBe("json");
  });

  test("a stream that ends within a frame", () => {
    const frame = encodeFrame({ a: 1 });
    for (let length = 1; length < frame.length; length += 1) {
      const { frames, refusal, reader } = readAll([frame.slice(0, length)]);
      expect(frames).toEqual([]);
      expect(refusal).toBeUndefined();
      const end = reader.atEnd();
      expect(end?.kind).toBe("end");
      expect(end?.received).toBe(`the end after ${length} bytes`);
    }
  });

  test("nothing is taken after a refusal, and nothing is kept", () => {
    const { reader, refusal } = readAll([bytesOf("x")]);
    for (let count = 0; count < 100; count += 1) reader.push(stream);
    expect(reader.next()).toEqual({ refusal } as never);
    expect(reader.atEnd()).toEqual(refusal as never);
    expect(reader.pending).toBe(0);
  });
});

/** Something that is nearly a frame, or not at all. */
function makeMalformed(chance: SeededChance): Uint8Array {
  const valid = encodeFrame(chance.pick(bodies), chance.below(12));
  const random = () => Uint8Array.from({ length: chance.below(80) }, () => chance.below(256));
  switch (chance.below(6)) {
    case 0:
      return random();
    case 1:
      return valid.slice(0, chance.below(valid.length));
    case 2:
      valid[chance.below(valid.length)] = chance.below(256);
      return valid;
    case 3:
      return join([valid, random()]);
    case 4:
      return join([valid.slice(0, chance.below(60)), random(), valid]);
    default: {
      const text = new TextDecoder().decode(valid);
      return bytesOf(text.replace(/\d+/, String(chance.below(10 ** (1 + chance.below(9))))));
    }
  }
}

test("100,000 malformed inputs are refused with a reason, or wait for more", () => {
  const chance = new SeededChance(1);
  const said = { frames: 0, refusals: 0, waits: 0 };
  for (let count = 0; count < 100_000; count += 1) {
    const input = makeMalformed(chance);
    const cut = chance.below(input.length + 1);
    const { frames, refusal, reader } = readAll([input.slice(0, cut), input.slice(cut)]);
    said.frames += frames.length;
    if (refusal === undefined) {
      said.waits += 1;
      if (reader.pending > limits.frameBytes) throw new Error(`case ${count} keeps too much`);
      continue;
    }
    said.refusals += 1;
    const isSaid = refusal.expected.length > 0 && refusal.received.length > 0;
    if (!isSaid || refusal.received.length > 300) throw new Error(`case ${count} says too little`);
  }
  for (const number of Object.values(said)) expect(number).toBeGreaterThan(1_000);
}, 60_000);

test("quoted bytes are short and have no control characters", () => {
  expect(quoteBytes(bytesOf('{"a"\n'))).toBe('"{"a"\\x0a"');
  expect(quoteBytes(new Uint8Array(1_000))).toMatch(/^"(\\x00){40}" … \(1000 bytes\)$/);
});
