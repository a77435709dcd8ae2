import { randomBytes } from "node:crypto";
import { cLibrary } from "../../ffi/c-library.ts";
import { makePipe, readInto } from "../../ffi/descriptor.ts";
import { NativeMemory } from "../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { openProcess, waitForChild } from "../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../ffi/posix-spawn.ts";
import { descriptorLimit } from "../../ffi/process.ts";
import { Errno } from "../../ffi/system-call-error.ts";
import { monotonicNow } from "../event-loop/clock.ts";
import { EventLoop } from "../event-loop/event-loop.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import type { Milliseconds } from "../units/units.ts";
import { hostlerCommit } from "../units/version.ts";

/** From the start of a child to its last word, on a host that is busy. */
const CHILD_LIMIT: Milliseconds = 20_000;
/** Above the highest process number that a kernel can be told to give. */
const NO_PROCESS = 0x3fff_ffff;
const MOST_SAID = 65_536;

/** What libc is to us: each of these fails where a layout or a number is not this machine's. */
export const contractChecks: Readonly<Record<string, () => string | Promise<string>>> = {
  "C library": () => [cLibrary.name, cLibrary.version].filter(Boolean).join(" "),
  "system calls": checkCalls,
  "event loop and children": checkChild,
};

/** Structs that come back filled, and a refusal whose error number is the right one. */
function checkCalls(): string {
  const [before, after] = [monotonicNow(), monotonicNow()];
  if (!(before > 0 && after >= before)) {
    throw new Error(`Expected a clock that rises, received ${before} and then ${after}`);
  }
  const limit = descriptorLimit();
  if (limit === undefined || !(limit.soft > 0 && limit.hard >= limit.soft)) {
    throw new Error(`Expected a limit on descriptors, received ${JSON.stringify(limit)}`);
  }
  using nobody = openProcess(NO_PROCESS) ?? { [Symbol.dispose]: () => {}, isNobody: true };
  if (!("isNobody" in nobody)) throw new Error("Expected ESRCH for no process, received one");
  return "clock, limits and error numbers are as expected";
}

/** This file once more, as a child: started, heard through a pipe, waited for and reaped. */
async function checkChild(): Promise<string> {
  using loop = new EventLoop(startWorker);
  const { read, write } = makePipe();
  using pipe = read;
  const token = randomBytes(8).toString("hex");
  const words = Bun.main.startsWith("/$bunfs/") ? [] : [Bun.main];
  using spawn = new PreparedSpawn({
    path: "/proc/self/exe",
    argv: ["hostler", ...words, "--version"],
    environment: [`HOSTLER_SELF_TEST=${token}`],
    workingDirectory: "/",
    descriptors: [{ source: write.number, target: 1 }],
  });
  const result = spawn.spawn();
  write.close();
  spawn[Symbol.dispose]();
  if (result.kind === "refused") {
    throw new Error(`Expected to start this file, received error number ${result.errno}`);
  }
  using child = result.process;
  const [said, ending] = await within(loop, Promise.all([hear(loop, pipe), end(loop, child)]));
  if (ending !== "exited with 0" || !said.includes(hostlerCommit)) {
    throw new Error(`Expected this version and exit 0, received ${ending}: ${said.slice(0, 200)}`);
  }
  return "this file started itself, was heard and was reaped";
}

function hear(loop: EventLoop, pipe: OwnedDescriptor): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const memory = new NativeMemory(4_096);
  let text = "";
  const watch = loop.watch(pipe, "readable", () => {
    const length = readInto(pipe, memory);
    if (length === -Errno.EAGAIN) return;
    if (length > 0 && text.length < MOST_SAID) {
      text += new TextDecoder().decode(memory.bytes.subarray(0, length));
      return;
    }
    watch[Symbol.dispose]();
    resolve(text);
  });
  return promise;
}

function end(loop: EventLoop, child: OwnedDescriptor): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const watch = loop.watch(child, "readable", () => {
    const ending = waitForChild(child, "reap");
    if (ending === undefined) return;
    watch[Symbol.dispose]();
    if (ending === "not-a-child") resolve("no child of ours");
    else if (ending.kind === "exited") resolve(`exited with ${ending.status}`);
    else resolve(`ended by signal ${ending.signal}`);
  });
  return promise;
}

function within<T>(loop: EventLoop, work: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const limit = loop.wakeAfter(CHILD_LIMIT, () => {
    reject(new Error(`Expected the end of a child within ${CHILD_LIMIT} ms, received none`));
  });
  return Promise.race([work, promise]).finally(() => limit[Symbol.dispose]());
}
