/** errno: the right number, at once, however much is allocated and collected between calls. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { libc } from "../../../ffi/c-library.ts";
import { P_PIDFD, SYS_pidfd_open, WEXITED } from "../../../ffi/constants.ts";
import { makePipe } from "../../../ffi/descriptor.ts";
import { makeEpoll } from "../../../ffi/epoll.ts";
import { layouts } from "../../../ffi/layouts.ts";
import { cString, NativeMemory } from "../../../ffi/memory.ts";
import { signalProcess } from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import {
  attempt,
  check,
  Errno,
  errorNumber,
  SystemCallError,
} from "../../../ffi/system-call-error.ts";
import { Signal } from "../../../src/units/signals.ts";
import { type Check, start } from "./check.ts";

/** Above the highest process number that a kernel can be told to give. */
const NO_PROCESS = 0x3fff_ffff;
/** A signal comes long before. */
const DEADLINE_MILLISECONDS = 20_000;
/** Bun.gc(true) collects everything, which takes milliseconds. */
const CALLS_BETWEEN_COLLECTIONS = 8_191;

/** Calls that fail, each with a number of its own. */
function failingCalls(): { errno: number; call: () => number }[] {
  const pipe = makePipe();
  const byte = new NativeMemory(1);
  const information = new NativeMemory(128);
  const missing = cString("/proc/self/there is no such file");
  const through = cString("/proc/self/status/x");
  const directory = cString("/");
  return [
    { errno: Errno.EBADF, call: () => libc.close(-1) },
    { errno: Errno.ESRCH, call: () => libc.kill(NO_PROCESS, 0) },
    { errno: Errno.ENOENT, call: () => libc.open(missing.address, 0, 0) },
    { errno: Errno.ENOTDIR, call: () => libc.open(through.address, 0, 0) },
    { errno: Errno.EISDIR, call: () => libc.open(directory.address, 1, 0) },
    { errno: Errno.EAGAIN, call: () => libc.read(pipe.read.number, byte.address, 1) },
    { errno: Errno.EAFNOSUPPORT, call: () => libc.socket(1_000, 1, 0) },
    { errno: Errno.EINVAL, call: () => libc.syscall(SYS_pidfd_open, -1, 0, 0, 0, 0, 0) },
    {
      errno: Errno.ENOTSOCK,
      call: () => libc.listen(pipe.read.number, 1),
    },
    { errno: Errno.EFAULT, call: () => libc.chdir(1 as never) },
    {
      errno: Errno.EINVAL,
      call: () => libc.waitid(P_PIDFD, -1, information.address, WEXITED),
    },
  ];
}

/** Makes that many failing calls, allocating in between. @returns how many gave another number */
export function countWrongErrors(calls: number): number {
  const kinds = failingCalls();
  const kept: unknown[] = new Array(1_024);
  let wrong = 0;
  let seed = 1;
  for (let index = 0; index < calls; index++) {
    seed = (seed * 1_103_515_245 + 12_345) & 0x7fff_ffff;
    const kind = kinds[(seed >>> 8) % kinds.length];
    if (kind === undefined) throw new Error("Bug: no such kind of call");
    kept[index % kept.length] = allocate(seed);
    if (kind.call() !== -1) wrong += 1;
    else if (errorNumber() !== kind.errno) wrong += 1;
    if (index % CALLS_BETWEEN_COLLECTIONS === 0) Bun.gc(index % 2 === 0);
  }
  return wrong;
}

function allocate(seed: number): unknown {
  switch (seed % 4) {
    case 0:
      return new ArrayBuffer((seed >>> 4) % 4_096);
    case 1:
      return `${seed} as a text that is not shared`;
    case 2:
      return Array.from({ length: (seed >>> 4) % 64 }, (_, index) => ({ index, seed }));
    default:
      return new NativeMemory((seed >>> 4) % 512);
  }
}

export const errorChecks: readonly Check[] = [
  {
    name: "errno is right after every failing call, with garbage collected in between",
    run: ({ errnoCalls }) => strictEqual(countWrongErrors(errnoCalls), 0),
  },
  {
    name: "check throws what failed, on what, and why",
    run: () => {
      const opens = () => check("open", libc.open(cString("/none").address, 0, 0), "/none");
      throws(opens, (error: unknown) => {
        ok(error instanceof SystemCallError);
        deepStrictEqual([error.call, error.errno, error.code], ["open", 2, "ENOENT"]);
        strictEqual(error.message, "open /none: No such file or directory (ENOENT)");
        return true;
      });
      strictEqual(check("dup", 7), 7);
    },
  },
  {
    name: "attempt gives the negated error number",
    run: () => {
      strictEqual(
        attempt(() => libc.close(-1)),
        -Errno.EBADF,
      );
    },
  },
  {
    name: "attempt calls again after a signal has interrupted the call",
    run: interruptAttempt,
  },
];

/** A child sends us signals until epoll_wait(2), which is never restarted, has seen one. */
function interruptAttempt(): void {
  const ignore = () => {};
  process.on("SIGUSR2", ignore);
  using epoll = makeEpoll();
  const events = new NativeMemory(layouts.epoll_event.size);
  using spawn = new PreparedSpawn({
    path: "/bin/sh",
    argv: ["sh", "-c", `while kill -USR2 ${process.pid}; do :; done`],
    environment: [],
    descriptors: [],
  });
  const child = start(spawn);
  using sender = child.process;
  let interruptions = 0;
  const result = attempt(() => {
    if (interruptions > 0) return 42;
    const count = libc.epoll_wait(epoll.number, events.address, 1, DEADLINE_MILLISECONDS);
    if (count === -1 && errorNumber() === Errno.EINTR) interruptions += 1;
    return count;
  });
  signalProcess(sender, Signal.SIGKILL);
  libc.waitid(P_PIDFD, sender.number, new NativeMemory(layouts.siginfo_t.size).address, WEXITED);
  process.off("SIGUSR2", ignore);
  deepStrictEqual([interruptions, result], [1, 42]);
}
