/** Transfers past the page cache, on a file; what no disk is is refused. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { diskGeometry, openDisk } from "../../../ffi/block-device.ts";
import { DirectQueue } from "../../../ffi/direct-queue.ts";
import { nvmeAdmin, scsiCommand } from "../../../ffi/disk-commands.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno } from "../../../ffi/system-call-error.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import type { Check } from "./check.ts";

const BLOCK = 64 * 1024;
const BLOCKS = 8;

/** A file takes the same transfers as a disk. */
function openFile(work: (file: OwnedDescriptor) => void): void {
  using folder = temporaryFolder();
  const path = join(folder.path, "disk");
  writeFileSync(path, new Uint8Array(BLOCK * BLOCKS));
  const opened = openDisk(path, "exclusive");
  if (typeof opened === "number") throw new Error(`open: ${opened}`);
  using file = opened;
  work(file);
}

/** Each block through the queue, several at a time. */
function goOver(
  queue: DirectQueue,
  way: "read" | "write",
  each: (slot: number, index: number) => void,
): void {
  const at = new Map<number, number>();
  const submit = (slot: number, index: number): void => {
    if (way === "write") each(slot, index);
    at.set(slot, index);
    strictEqual(queue.submit(slot, { way, offset: index * BLOCK, length: BLOCK }), 0);
  };
  let next = 0;
  for (; next < queue.depth; next++) submit(next, next);
  for (let done = 0; done < BLOCKS; ) {
    for (const { slot, result } of queue.take(10_000)) {
      strictEqual(result, BLOCK);
      if (way === "read") each(slot, at.get(slot) ?? -1);
      done += 1;
      if (next < BLOCKS) submit(slot, next++);
    }
  }
}

export const diskChecks: readonly Check[] = [
  {
    name: "what a queue writes it reads again, each block at its place",
    unlikeEmulator: "the emulator knows no io_setup",
    run: () =>
      openFile((file) => {
        using queue = new DirectQueue(file, { depth: 3, blockBytes: BLOCK });
        goOver(queue, "write", (slot, index) => queue.memory(slot).fill(index + 1));
        const seen: number[] = [];
        goOver(queue, "read", (slot, index) => {
          ok(queue.memory(slot).every((byte) => byte === index + 1));
          seen.push(index);
        });
        deepStrictEqual(
          seen.toSorted((one, other) => one - other),
          Array.from({ length: BLOCKS }, (_, index) => index),
        );
      }),
  },
  {
    name: "a transfer that is refused is its own, and waiting for nothing ends in time",
    unlikeEmulator: "the emulator knows no io_setup",
    run: () =>
      openFile((file) => {
        using queue = new DirectQueue(file, { depth: 1, blockBytes: BLOCK });
        deepStrictEqual(queue.take(1), []);
        // Not a multiple of a logical block.
        const submitted = queue.submit(0, { way: "read", offset: 1, length: 3 });
        const [first] = submitted === 0 ? queue.take(10_000) : [{ slot: 0, result: submitted }];
        deepStrictEqual(first, { slot: 0, result: -Errno.EINVAL });
      }),
  },
  {
    name: "a file is no disk, and answers no command",
    unlikeEmulator: "the emulator answers every ioctl that it does not know with ENOSYS",
    run: () =>
      openFile((file) => {
        throws(() => diskGeometry(file), /ENOTTY/);
        const identify = { opcode: 6, namespace: 0, dword10: 1, answer: 4_096 };
        deepStrictEqual(nvmeAdmin(file, identify), { kind: "refused", errno: Errno.ENOTTY });
        const inquiry = { block: [0x12, 0, 0, 0, 36, 0], answer: 36 };
        deepStrictEqual(scsiCommand(file, inquiry), { kind: "refused", errno: Errno.ENOTTY });
      }),
  },
  {
    name: "a disk that is not there",
    run: () => strictEqual(openDisk("/dev/no-such-disk", "read"), -Errno.ENOENT),
  },
];
