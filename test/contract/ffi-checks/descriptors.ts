/** Memory, owned descriptors, pipes, counters, locks and epoll on real kernel objects. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { existsSync, fstatSync, openSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { libc } from "../../../ffi/c-library.ts";
import { architecture, F_SETFD, O_CLOEXEC, O_NONBLOCK } from "../../../ffi/constants.ts";
import {
  closeOnExecFrom,
  duplicate,
  isSameFile,
  makeEventCounter,
  makeNamedPipe,
  makePipe,
  readInto,
  setCloseOnExec,
  signalEventCounter,
  writeFrom,
} from "../../../ffi/descriptor.ts";
import {
  EPOLLHUP,
  EPOLLIN,
  EPOLLONESHOT,
  EPOLLOUT,
  EpollWaiter,
  epollAdd,
  epollModify,
  epollRemove,
  makeEpoll,
} from "../../../ffi/epoll.ts";
import { lockFile } from "../../../ffi/flock.ts";
import { cString, NativeMemory, readCString, StringVector } from "../../../ffi/memory.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { lockWhole } from "../../../ffi/record-lock.ts";
import { Errno } from "../../../ffi/system-call-error.ts";
import { armWatchdog } from "../../../ffi/watchdog.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { type Check, openedFrom } from "./check.ts";

/** The flags of an open descriptor, O_CLOEXEC among them, as the kernel lists them. */
export function descriptorFlags(descriptor: number): number {
  const information = readFileSync(`/proc/self/fdinfo/${descriptor}`, "utf8");
  return Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(information)?.[1] ?? "", 8);
}

/** Listing /proc/self/fd would itself open the lowest free number. */
function isOpen(descriptor: number): boolean {
  return existsSync(`/proc/self/fdinfo/${descriptor}`);
}

function namedPipes(): void {
  using folder = temporaryFolder();
  const path = folder.file("pipe");
  makeNamedPipe(path, 0o600);
  const found = statSync(path);
  ok(found.isFIFO());
  strictEqual(found.mode & 0o777, 0o600);
  throws(() => makeNamedPipe(path, 0o600), { code: "EEXIST" });
  throws(() => makeNamedPipe(folder.file("none/pipe"), 0o600), { code: "ENOENT" });
}

/** The address is right when the kernel, told to write there, changes the bytes we see. */
function memoryStays(): void {
  const pipe = makePipe();
  using read = pipe.read;
  using write = pipe.write;
  const sizes = [1, 7, 8, 16, 100, 1_000, 1_001, 4_096, 10_000];
  const memories = Array.from({ length: 900 }, (_, index) => {
    return new NativeMemory(sizes[index % sizes.length] ?? 1);
  });
  const source = new NativeMemory(10_000);
  for (let round = 0; round < 3; round++) {
    Bun.gc(true);
    const garbage = Array.from({ length: 2_000 }, (_, index) => new Uint8Array(index % 300));
    memories.forEach((memory, index) => {
      const value = ((index + round) % 255) + 1;
      source.bytes.fill(value);
      strictEqual(writeFrom(write, source, memory.size), memory.size);
      strictEqual(readInto(read, memory), memory.size);
      ok(
        memory.bytes.every((byte) => byte === value),
        `memory ${index} of ${memory.size} bytes in round ${round}`,
      );
      strictEqual(memory.view.getUint8(memory.size - 1), value);
    });
    strictEqual(garbage.length, 2_000);
  }
}

const memoryChecks: readonly Check[] = [
  { name: "memory keeps its address while garbage is collected", run: memoryStays },
  {
    name: "memory holds pointers and 64-bit numbers, little-endian",
    run: () => {
      const memory = new NativeMemory(24);
      memory.setUnsigned64(0, Number.MAX_SAFE_INTEGER);
      memory.setPointer(8, memory.at(16));
      strictEqual(memory.getUnsigned64(0), Number.MAX_SAFE_INTEGER);
      strictEqual(memory.view.getBigUint64(8, true), BigInt(memory.address) + 16n);
      strictEqual(new NativeMemory(0).size, 1);
    },
  },
  {
    name: "C strings end with a zero byte, and none may hold one",
    run: () => {
      const text = cString("grün");
      deepStrictEqual([...text.bytes], [103, 114, 195, 188, 110, 0]);
      strictEqual(readCString(text.address), "grün");
      strictEqual(readCString(text.address, 2), "gr");
      throws(() => cString("a\0b"), RangeError);
      throws(() => new StringVector(["a", "b\0"]), RangeError);
      const vector = new StringVector(["one", "", "drei"]);
      const texts = [0, 8, 16].map((offset) => {
        return readCString(vector.memory.getUnsigned64(offset) as typeof text.address);
      });
      deepStrictEqual(texts, ["one", "", "drei"]);
      strictEqual(vector.memory.getUnsigned64(24), 0);
    },
  },
];

const ownershipChecks: readonly Check[] = [
  {
    name: "an owned descriptor is closed once, and never used after",
    run: () => {
      const counter = makeEventCounter();
      const number = counter.number;
      ok(counter.isOpen && isOpen(number));
      counter.close();
      ok(!counter.isOpen && !isOpen(number));
      throws(() => counter.number, /used after it was closed/);
      throws(() => counter.release(), /used after it was closed/);
      // Another file gets the same number; closing again must not close that one.
      using next = makeEventCounter();
      strictEqual(next.number, number);
      counter.close();
      counter[Symbol.dispose]();
      ok(isOpen(number));
    },
  },
  {
    name: "a block with `using` closes its descriptor, and release gives it away",
    run: () => {
      let inside: number;
      let released: number;
      {
        using counter = makeEventCounter();
        using other = makeEventCounter();
        inside = counter.number;
        released = other.release();
        ok(!other.isOpen);
      }
      ok(!isOpen(inside) && isOpen(released));
      new OwnedDescriptor(released).close();
      ok(!isOpen(released));
    },
  },
  {
    name: "closing what somebody else closed is a bug that is told",
    run: () => {
      const counter = makeEventCounter();
      strictEqual(libc.close(counter.number), 0);
      throws(() => counter.close(), /Bug: descriptor \d+ was closed by somebody else/);
      ok(!counter.isOpen);
    },
  },
];

const fileChecks: readonly Check[] = [
  {
    name: "a pipe carries bytes; only its read end answers EAGAIN; both close on exec",
    run: () => {
      const { read, write } = makePipe();
      const memory = cString("hello");
      strictEqual(descriptorFlags(read.number) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC | O_NONBLOCK);
      strictEqual(descriptorFlags(write.number) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC);
      strictEqual(readInto(read, memory), -Errno.EAGAIN);
      strictEqual(writeFrom(write, memory, 5), 5);
      const received = new NativeMemory(8);
      strictEqual(readInto(read, received, 2), 2);
      strictEqual(readInto(read, received), 3);
      strictEqual(readCString(received.address), "llo");
      write.close();
      strictEqual(readInto(read, received), 0);
      read.close();
    },
  },
  { name: "a named pipe is made once, with its mode", run: namedPipes },
  {
    name: "writing into a pipe without a reader is EPIPE, not a death",
    run: () => {
      const { read, write } = makePipe();
      read.close();
      strictEqual(writeFrom(write, new NativeMemory(1), 1), -Errno.EPIPE);
      write.close();
    },
  },
  {
    name: "two descriptors lead to one open file, or to two of the same path",
    run: () => {
      const pipe = makePipe();
      using read = pipe.read;
      using write = pipe.write;
      using again = duplicate(read.number);
      deepStrictEqual(
        [isSameFile(read, again), isSameFile(read, read), isSameFile(read, write)],
        [true, true, false],
      );
      using one = new OwnedDescriptor(openSync("/dev/null", "r"));
      using other = new OwnedDescriptor(openSync("/dev/null", "r"));
      using same = duplicate(one.number);
      strictEqual(isSameFile(one, other), false);
      // Of a path alone nobody can tell where the kernel, or its emulator, does not say.
      if (architecture === "x64") ok(isSameFile(one, same));
    },
  },
  {
    name: "a duplicate is the same file, high enough, and closes on exec",
    run: () => {
      using counter = makeEventCounter();
      using copy = duplicate(counter.number, 200);
      ok(copy.number >= 200);
      strictEqual(descriptorFlags(copy.number) & O_CLOEXEC, O_CLOEXEC);
      signalEventCounter(counter);
      signalEventCounter(copy);
      const count = new NativeMemory(8);
      strictEqual(readInto(copy, count), 8);
      strictEqual(count.getUnsigned64(0), 2);
      strictEqual(readInto(counter, count), -Errno.EAGAIN);
      throws(() => duplicate(-1), { code: "EBADF", call: "fcntl" });
    },
  },
  {
    name: "close_range marks what is open from a number on",
    run: () => {
      const F_DUPFD = 0;
      using counter = makeEventCounter();
      const inherited = libc.fcntl(counter.number, F_DUPFD, 300);
      using owned = new OwnedDescriptor(inherited);
      strictEqual(descriptorFlags(owned.number) & O_CLOEXEC, 0);
      closeOnExecFrom(inherited + 1);
      strictEqual(descriptorFlags(owned.number) & O_CLOEXEC, 0);
      closeOnExecFrom(inherited);
      strictEqual(descriptorFlags(owned.number) & O_CLOEXEC, O_CLOEXEC);
      libc.fcntl(inherited, F_SETFD, 0);
      setCloseOnExec(inherited);
      strictEqual(descriptorFlags(owned.number) & O_CLOEXEC, O_CLOEXEC);
    },
  },
  {
    name: "a lock has one holder until it is closed, and follows no link",
    run: () => {
      using folder = temporaryFolder();
      const path = folder.file("lock");
      const first = lockFile(path);
      ok(first !== "held");
      strictEqual(statSync(path).mode & 0o777, 0o600);
      const opened = openedFrom();
      strictEqual(lockFile(path), "held");
      deepStrictEqual(opened(), [], "nothing stays open");
      first.close();
      const second = lockFile(path);
      ok(second !== "held");
      strictEqual(fstatSync(second.number).ino, statSync(path).ino);
      second.close();
      symlinkSync(path, folder.file("link"));
      throws(() => lockFile(folder.file("link")), { code: "ELOOP", call: "open" });
      throws(() => lockFile(folder.file("none/lock")), { code: "ENOENT" });
    },
  },
  {
    name: "the lock of an opening is the duplicates' as well, and ends with the last",
    run: () => {
      using folder = temporaryFolder();
      const path = folder.file("lock");
      const first = lockWhole(path);
      ok(first !== "held");
      strictEqual(statSync(path).mode & 0o777, 0o600);
      const opened = openedFrom();
      strictEqual(lockWhole(path), "held");
      deepStrictEqual(opened(), [], "nothing stays open");
      const second = duplicate(first.number);
      first.close();
      strictEqual(lockWhole(path), "held");
      second.close();
      const third = lockWhole(path);
      ok(third !== "held");
      third.close();
      symlinkSync(path, folder.file("link"));
      throws(() => lockWhole(folder.file("link")), { code: "ELOOP", call: "open" });
    },
  },
  {
    name: "what is no watchdog is refused, and nothing stays open",
    run: () => {
      using folder = temporaryFolder();
      const path = folder.file("pipe");
      makeNamedPipe(path, 0o600);
      const opened = openedFrom();
      // The emulator of another architecture knows no ioctl of watchdogs.
      throws(() => armWatchdog(path, 60), { code: /^(?:ENOTTY|ENOSYS)$/, call: "ioctl" });
      throws(() => armWatchdog(folder.file("none"), 60), { code: "ENOENT", call: "open" });
      deepStrictEqual(opened(), [], "nothing stays open");
    },
  },
];

/** What one look at an epoll gives; `always` is watched too, so that the look ends. */
function look(waiter: EpollWaiter): Map<number, number> {
  const flat = waiter.wait();
  const ready = new Map<number, number>();
  for (let index = 0; index < flat.length; index += 2) {
    ready.set(flat[index] ?? -1, flat[index + 1] ?? -1);
  }
  return ready;
}

function oneShotIsOne(): void {
  using epoll = makeEpoll();
  using always = makeEventCounter();
  using counter = makeEventCounter();
  const sentinel = 1;
  // Keys rise for ever; this one needs both halves of the 64 bits.
  const key = 2 ** 53 - 2;
  const waiter = new EpollWaiter(epoll.number, 8);
  epollAdd(epoll, always, { events: EPOLLOUT, key: sentinel });
  const wanted = { events: EPOLLIN | EPOLLONESHOT, key };
  epollAdd(epoll, counter, wanted);
  deepStrictEqual([...look(waiter).keys()], [sentinel]);
  signalEventCounter(counter);
  deepStrictEqual(look(waiter).get(key), EPOLLIN);
  deepStrictEqual([...look(waiter).keys()], [sentinel], "one-shot is over");
  epollModify(epoll, counter, wanted);
  deepStrictEqual(look(waiter).get(key), EPOLLIN, "armed again, still ready");
  epollModify(epoll, counter, { ...wanted, key: key - 1 });
  deepStrictEqual(look(waiter).get(key - 1), EPOLLIN, "under another key");
  epollRemove(epoll, counter);
  deepStrictEqual([...look(waiter).keys()], [sentinel]);
  epollRemove(epoll, counter);
}

const epollChecks: readonly Check[] = [
  { name: "epoll reports a one-shot watch once, under its own key", run: oneShotIsOne },
  {
    name: "epoll gives many at once, each under its key",
    run: () => {
      using epoll = makeEpoll();
      using stack = new DisposableStack();
      for (let key = 10; key < 15; key++) {
        const counter = stack.use(makeEventCounter());
        signalEventCounter(counter);
        epollAdd(epoll, counter, { events: EPOLLIN, key });
      }
      deepStrictEqual(
        [...look(new EpollWaiter(epoll.number, 8)).keys()].toSorted(),
        [10, 11, 12, 13, 14],
      );
      strictEqual(look(new EpollWaiter(epoll.number, 2)).size, 2);
    },
  },
  {
    name: "epoll tells of a hang-up without being asked, and refuses what cannot wait",
    run: () => {
      using epoll = makeEpoll();
      const { read, write } = makePipe();
      epollAdd(epoll, read, { events: 0, key: 5 });
      write.close();
      deepStrictEqual([...look(new EpollWaiter(epoll.number, 8))], [[5, EPOLLHUP]]);
      throws(() => epollAdd(epoll, read, { events: 0, key: 6 }), { code: "EEXIST" });
      read.close();
      using file = new OwnedDescriptor(openSync("/proc/self/exe", "r"));
      throws(() => epollAdd(epoll, file, { events: EPOLLIN, key: 7 }), { code: "EPERM" });
      using counter = makeEventCounter();
      throws(() => epollModify(epoll, counter, { events: EPOLLIN, key: 7 }), { code: "ENOENT" });
    },
  },
];

export const descriptorChecks: readonly Check[] = [
  ...memoryChecks,
  ...ownershipChecks,
  ...fileChecks,
  ...epollChecks,
];
