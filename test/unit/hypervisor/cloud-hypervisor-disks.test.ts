/** Disks on their way to another host: what changes meanwhile, and what nobody may send. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { DiskReceiver, DiskSender } from "../../../src/hypervisor/cloud-hypervisor/disk-copy.ts";
import {
  DISK_BLOCK_BYTES,
  encodeDiskFrame,
} from "../../../src/hypervisor/cloud-hypervisor/disk-wire.ts";
import type { Disk } from "../../../src/hypervisor/driver.ts";
import {
  ByteSocket,
  byteSocketHandlers,
  connectUnixBytes,
  type SocketData,
} from "../../../src/messaging/byte-socket.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { waitFor } from "../../support/wait-for.ts";

let folder: TemporaryFolder;
let server: Bun.UnixSocketListener<SocketData>;
let receiver: DiskReceiver;
let refusals: string[];
let here: Disk;
let there: Disk;
const never = new AbortController().signal;

const disk = (name: string, size: number): Disk => {
  const path = folder.file(name);
  const file = openSync(path, "w");
  ftruncateSync(file, size);
  closeSync(file);
  return { id: "data", path, format: "raw", readOnly: false, backing: undefined };
};

function write(path: string, text: string, offset: number): void {
  const file = openSync(path, "r+");
  writeSync(file, text, offset);
  closeSync(file);
}

beforeEach(() => {
  folder = temporaryFolder();
  here = disk("here", 10 * DISK_BLOCK_BYTES + 5);
  there = disk("there", 0);
  refusals = [];
  receiver = new DiskReceiver([there], (reason) => refusals.push(reason));
  server = Bun.listen<SocketData>({
    unix: folder.file("socket"),
    data: { peer: undefined },
    socket: { ...byteSocketHandlers, open: (raw) => receiver.take(new ByteSocket(raw)) },
  });
});
afterEach(() => {
  receiver[Symbol.dispose]();
  server.stop(true);
  folder[Symbol.dispose]();
});

const connect = () => connectUnixBytes(folder.file("socket"));
const expectSame = () => expect(readFileSync(there.path)).toEqual(readFileSync(here.path));

test("what is written, emptied, cut off and added meanwhile goes with the rest", async () => {
  for (const block of [0, 3, 9, 10]) write(here.path, `block`, block * DISK_BLOCK_BYTES);
  writeFileSync(there.path, new Uint8Array(40 * DISK_BLOCK_BYTES).fill(7));
  await using sender = await DiskSender.open(here, await connect());
  let seen = 0;
  await sender.sendAll(never, (count) => {
    seen += count;
  });
  // Holes are not even looked at.
  expect(seen).toBe(3 * DISK_BLOCK_BYTES + 5);
  expectSame();
  expect(statSync(there.path).blocks * 512).toBeLessThan(8 * DISK_BLOCK_BYTES);
  write(here.path, "other", 3 * DISK_BLOCK_BYTES);
  write(here.path, "new", 5 * DISK_BLOCK_BYTES + 1);
  write(here.path, "\0\0\0\0\0", 9 * DISK_BLOCK_BYTES);
  truncateSync(here.path, 10 * DISK_BLOCK_BYTES);
  truncateSync(here.path, 12 * DISK_BLOCK_BYTES);
  await sender.sendRest(never);
  expectSame();
  receiver.end();
  expect(refusals).toEqual([]);
});

test("a write in the same moment as the copy counts", async () => {
  write(here.path, "old", 0);
  const now = new Date();
  utimesSync(here.path, now, now);
  await using sender = await DiskSender.open(here, await connect());
  await sender.sendAll(never, () => {});
  write(here.path, "new", 0);
  // A clock that is too coarse to tell.
  utimesSync(here.path, now, now);
  await sender.sendRest(never);
  expectSame();
});

test("without all of them there is no end", async () => {
  await using sender = await DiskSender.open(here, await connect());
  await sender.sendAll(never, () => {});
  expect(() => receiver.end()).toThrow("expected all disks, and did not receive data whole");
});

const line = (id: string) => Buffer.from(`{"disk":"${id}"}\n`);
const frame = (kind: "data" | "size", length: number, offset: number) =>
  encodeDiskFrame({ kind, length, offset });

test.each([
  ["another machine's disk", [line("root")], 'expected a disk that has not come, received "root"'],
  ["no line", [Buffer.alloc(100, "x")], "Expected a line of at most 64 bytes"],
  ["a path", [line("../data")], "expected a disk that has not come"],
  ["no frame", [line("data"), Buffer.alloc(16, 9)], "expected a frame of the kinds 1 to 5"],
  ["a long frame", [line("data"), frame("data", DISK_BLOCK_BYTES + 1, 0)], "expected at most"],
  ["half a disk", [line("data"), frame("data", 9, 0)], "a disk did not come whole"],
] as const)("%s is refused", async (_what, pieces, reason) => {
  const socket = await connect();
  for (const piece of pieces) socket.write(piece);
  socket.finish();
  await waitFor("the refusal", () => refusals.length > 0);
  expect(refusals[0]).toContain(reason);
  expect(statSync(there.path).size).toBe(0);
});

test("a disk comes once, and to no other file than its own", async () => {
  await using sender = await DiskSender.open(here, await connect());
  await sender.sendAll(never, () => {});
  const again = await connect();
  again.write(line("data"));
  await waitFor("the refusal", () => refusals.length > 0);
  expect(refusals[0]).toContain("expected a disk that has not come");
  const link = folder.file("link");
  symlinkSync(there.path, link);
  const other: string[] = [];
  receiver = new DiskReceiver([{ ...there, path: link }], (reason) => other.push(reason));
  const socket = await connect();
  socket.write(line("data"));
  await waitFor("the refusal", () => other.length > 0);
  expect(other[0]).toContain("ELOOP");
});
