/** The stream of a machine that goes to another host, in any pieces; frames of its disks. */
import { describe, expect, test } from "bun:test";
import {
  DISK_BLOCK_BYTES,
  decodeDiskFrame,
  encodeDiskFrame,
  renameBacking,
} from "../../../src/hypervisor/cloud-hypervisor/disk-wire.ts";
import { MoveReader } from "../../../src/hypervisor/cloud-hypervisor/move-stream.ts";
import { makeOverlay } from "../../../src/image/qcow2.ts";
import { SeededChance } from "../../support/chance.ts";

/** Written out by hand: u16 command, 6 bytes of its own, u64 length. */
function header(command: number, length: bigint | number, version = 0): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(command, 0);
  bytes.writeUInt16LE(version, 2);
  bytes.writeBigUInt64LE(BigInt(length), 8);
  return bytes;
}

function memory(...ranges: readonly (readonly [number, number])[]): Buffer {
  const table = Buffer.alloc(16 * ranges.length);
  for (const [index, [address, length]] of ranges.entries()) {
    table.writeBigUInt64LE(BigInt(address), 16 * index);
    table.writeBigUInt64LE(BigInt(length), 16 * index + 8);
  }
  const size = ranges.reduce((sum, [, length]) => sum + length, 0);
  // What looks like requests is memory.
  const contents = Buffer.alloc(size, header(5, 0));
  return Buffer.concat([header(4, table.length), table, contents]);
}

const parts = {
  start: header(1, 0),
  config: Buffer.concat([header(2, 6), Buffer.from("config")]),
  memory: memory([0, 100], [4096, 7]),
  more: memory([8192, 33]),
  none: memory(),
  state: Buffer.concat([header(3, 5), Buffer.from("state")]),
  complete: header(5, 0),
};

function read(stream: Buffer, cut: () => number) {
  const reader = new MoveReader(100);
  const told: string[] = [];
  const passed: Uint8Array[] = [];
  for (let offset = 0; offset < stream.length; ) {
    const size = cut();
    for (const piece of reader.push(stream.subarray(offset, offset + size))) {
      if (piece.kind === "memory") passed.push(Uint8Array.from(piece.bytes));
      else if (piece.kind === "request") {
        const { command, payload } = piece.request;
        told.push(`${command} ${Buffer.from(payload).toString()}`);
      } else told.push(`expected ${piece.refusal.expected}, received ${piece.refusal.received}`);
    }
    offset += size;
  }
  return { told, passed: Buffer.concat(passed) };
}

describe("a machine's stream", () => {
  test("is read whole, whatever pieces it comes in", () => {
    const stream = Buffer.concat(Object.values(parts));
    const chance = new SeededChance(7);
    const cuts = [() => 1, () => stream.length, ...Array(50).fill(() => 1 + chance.below(40))];
    for (const cut of cuts) {
      const { told, passed } = read(stream, cut);
      expect(told).toEqual(["start ", "config config", "state state", "complete "]);
      expect(passed).toEqual(Buffer.concat([parts.memory, parts.more, parts.none]));
    }
  });

  test.each([
    ["another order", [parts.start, parts.state], "expected config, received state"],
    ["memory first", [parts.start, parts.memory], "expected config, received memory"],
    ["a descriptor", [parts.start, header(7, 4)], "expected config, received memory-descriptor"],
    ["nothing known", [header(99, 0)], "expected start, received the command 99"],
    ["another version", [header(1, 0, 3)], "expected version 0 of the migration, received 3"],
    ["a long state", [parts.start, parts.config, header(3, 101)], "at most 100 bytes after state"],
    ["half a range", [parts.start, parts.config, header(4, 24)], "ranges of 16 bytes each"],
    [
      "more memory than there can be",
      [parts.start, parts.config, header(4, 16), Buffer.alloc(16, 0xff)],
      "expected ranges of memory, received 18446744073709551615 bytes of it",
    ],
    [
      "more after its end",
      [parts.start, parts.config, parts.state, parts.complete, parts.start],
      "expected nothing more, received start",
    ],
  ] as const)("%s is refused, and nothing is read after it", (_what, stream, reason) => {
    const { told } = read(Buffer.concat([...stream, parts.start]), () => 3);
    expect(told.at(-1)).toContain(reason);
  });
});

describe("a disk's frames", () => {
  test("are read as they were written, and nothing else is one", () => {
    for (const kind of ["data", "empty", "size", "end", "sync"] as const) {
      const frame = { kind, length: kind === "data" ? 12 : 0, offset: 2 ** 40 };
      expect(decodeDiskFrame(encodeDiskFrame(frame))).toEqual(frame);
    }
    const odd = Buffer.from(encodeDiskFrame({ kind: "end", length: 0, offset: 0 }));
    odd.writeUInt32LE(9, 0);
    expect(decodeDiskFrame(odd)).toContain("expected a frame of the kinds 1 to 5, received 9");
    const long = encodeDiskFrame({ kind: "data", length: DISK_BLOCK_BYTES + 1, offset: 0 });
    expect(decodeDiskFrame(long)).toContain(`expected at most ${DISK_BLOCK_BYTES} bytes of data`);
    const far = Buffer.from(encodeDiskFrame({ kind: "data", length: 1, offset: 0 }));
    far.fill(0xff, 8);
    expect(decodeDiskFrame(far)).toContain("expected a place in a disk");
  });

  test("an overlay is given another name below it, or is none", () => {
    const overlay = (backing: string) =>
      makeOverlay({ backing, backingFormat: "raw", virtualSize: 1024 ** 2 }).bytes;
    for (const [one, other] of [
      ["/a", "/much/longer"],
      ["/much/longer", "/a"],
    ] as const) {
      const bytes = Buffer.from(overlay(one));
      const pieces = renameBacking(bytes.subarray(0, 65_536), other);
      if (typeof pieces === "string") throw new Error(pieces);
      for (const piece of pieces) bytes.set(piece.bytes, piece.offset);
      expect(bytes).toEqual(Buffer.from(overlay(other)));
    }
    expect(renameBacking(Buffer.alloc(65_536), "/a")).toContain("the header of a qcow2 file");
    const full = Buffer.from(overlay("/a"));
    full.fill(1, 130, 400);
    expect(renameBacking(full.subarray(0, 65_536), "/much/longer")).toContain("with room");
  });
});
