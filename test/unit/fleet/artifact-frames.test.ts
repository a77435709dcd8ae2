import { describe, expect, test } from "bun:test";
import { hashBytes, packFrame, unpackFrame } from "../../../src/artifact/frames.ts";
import type { Block } from "../../../src/artifact/protocol-blocks.ts";
import { executable } from "../../support/artifact.ts";

const bytes = executable({ size: 4_096, seed: 3 });
const blockOf = (frame: Uint8Array, change: Partial<Block> = {}): Block => ({
  ...{ position: 0, size: bytes.length, digest: hashBytes(bytes) },
  ...{ framePosition: 0, frameSize: frame.length, frameDigest: hashBytes(frame) },
  ...change,
});

describe("a frame", () => {
  test("has the block that was packed", async () => {
    for (const level of [1, 19]) {
      const frame = await packFrame(bytes, level);
      expect(unpackFrame(blockOf(frame), frame)).toEqual(bytes);
    }
  });

  test("that was packed otherwise is refused, though its block is the same", async () => {
    const [signed, other] = [await packFrame(bytes, 1), await packFrame(bytes, 19)];
    expect(other).not.toEqual(signed);
    expect(unpackFrame(blockOf(signed), other)).toBeUndefined();
  });

  test("that is as the map says, and has another block, is refused", async () => {
    const frame = await packFrame(Buffer.alloc(bytes.length, 7), 1);
    expect(unpackFrame(blockOf(frame), frame)).toBeUndefined();
  });

  test("that unpacks to more, or to less, or to nothing, is refused", async () => {
    const long = await packFrame(Buffer.alloc(64 * 1024 * 1024), 1);
    expect(long.length).toBeLessThan(8_192);
    const zeros = { digest: hashBytes(Buffer.alloc(bytes.length)) };
    expect(unpackFrame(blockOf(long, zeros), long)).toBeUndefined();
    const short = await packFrame(bytes.subarray(1), 1);
    const shorter = { digest: hashBytes(bytes.subarray(1)) };
    expect(unpackFrame(blockOf(short, shorter), short)).toBeUndefined();
    const none = Buffer.from("no frame");
    expect(unpackFrame(blockOf(none), none)).toBeUndefined();
  });
});
