/**
 * What of the kernel's Live Update Orchestrator our design stands on, seen in a guest: the first
 * word is "before" or "after" the kexec, which this program makes itself.
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { rebootInto } from "../../../ffi/kexec.ts";
import {
  createSession,
  finishSession,
  preserveDescriptor,
  retrieveDescriptor,
  retrieveSession,
  SESSION_NAME_BYTES,
  sessionName,
} from "../../../ffi/live-update.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno } from "../../../ffi/system-call-error.ts";
import { waitFor } from "../../support/wait-for.ts";
import type { kernelCases } from "./live-update-kernel-cases.ts";
import { loadOwnKernel } from "./load-kernel.ts";
import { type Case, requireEqual, tellCases } from "./tell.ts";

const patternBytes = 64 * 2 ** 20;
const patternSeed = 0x9e37_79b9;
const longName = "n".repeat(SESSION_NAME_BYTES);

/** The same bytes in both kernels, and none of them repeated: xorshift32. */
function pattern(): Uint8Array {
  const words = new Uint32Array(patternBytes / 4);
  let word = patternSeed;
  for (let index = 0; index < words.length; index++) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    words[index] = word;
  }
  return new Uint8Array(words.buffer);
}

function hashOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** @throws Error naming what was refused */
function given<T extends object | string>(result: T | number, what: string): T {
  if (typeof result === "number") throw new Error(`${what}: error ${-result}`);
  return result;
}

/** Of a refusal the error's number, of anything else nothing. */
function refusalOf(result: unknown): number | undefined {
  return typeof result === "number" && result < 0 ? -result : undefined;
}

function memoryFile(text: string): OwnedDescriptor {
  const file = makeMemoryFile("story");
  writeSync(file.number, text);
  return file;
}

function textOf(file: OwnedDescriptor): string {
  const bytes = new Uint8Array(fstatSync(file.number).size);
  readSync(file.number, bytes, 0, bytes.length, 0);
  return new TextDecoder().decode(bytes);
}

/** An outgoing session with one file, under token 1. */
function sessionWith(name: string, text: string): OwnedDescriptor {
  const session = given(createSession(name), `create ${name}`);
  requireEqual(preserveDescriptor(session, memoryFile(text), 1n), 0);
  return session;
}

/** Another process that holds the descriptor, and does nothing else. */
function holderOf(descriptor: OwnedDescriptor) {
  const holder = Bun.spawn(["sleep", "100000"], {
    stdio: ["ignore", "ignore", "ignore", descriptor.number],
  });
  // A story that goes wrong ends all the same.
  holder.unref();
  return holder;
}

function twice(name: string): string {
  using session = sessionWith(name, "one");
  requireEqual(refusalOf(preserveDescriptor(session, memoryFile("two"), 1n)), Errno.EEXIST);
  const file = memoryFile("three");
  requireEqual(preserveDescriptor(session, file, 2n), 0);
  return requireEqual(refusalOf(preserveDescriptor(session, file, 3n)), Errno.EBUSY);
}

function preservePattern(): string {
  const session = given(createSession("pattern"), "create");
  const file = makeMemoryFile("pattern");
  const bytes = pattern();
  for (let done = 0; done < bytes.length; ) done += writeSync(file.number, bytes, done);
  const begin = performance.now();
  requireEqual(preserveDescriptor(session, file, 7n), 0);
  return `${Math.round(performance.now() - begin)} ms`;
}

/** Given up on purpose: a descriptor that nobody closes lasts until the kexec. */
const kept: OwnedDescriptor[] = [];

const before: Record<(typeof kernelCases.before)[number], Case> = {
  "the device: nobody else opens it while it is open": () => {
    const held = openSync("/dev/liveupdate", "r+");
    const refusals = [createSession("any"), retrieveSession("any")].map(refusalOf);
    closeSync(held);
    requireEqual(refusals, [Errno.EBUSY, Errno.EBUSY]);
    using free = given(createSession("any"), "create");
    return `EBUSY, then descriptor ${free.number}`;
  },
  "a name: 63 bytes are taken, 64 refused": () => {
    kept.push(sessionWith(longName, "long"));
    return requireEqual(refusalOf(createSession(`${longName}n`)), Errno.EINVAL);
  },
  "a name that an outgoing session has is refused, EEXIST": () => {
    using session = given(createSession("twice"), "create");
    requireEqual(session.isOpen, true);
    return requireEqual(refusalOf(createSession("twice")), Errno.EEXIST);
  },
  "a token that is used is refused, a file that is preserved as well": () => twice("token"),
  "a session knows its name": () => {
    using session = given(createSession("x/y z"), "create");
    return requireEqual(sessionName(session), "x/y z");
  },
  "the last descriptor of an outgoing session, closed: its file and its name are free again":
    () => {
      const file = memoryFile("closed");
      const first = given(createSession("closed"), "create");
      requireEqual(preserveDescriptor(first, file, 1n), 0);
      first.close();
      const second = given(createSession("closed"), "create again");
      requireEqual(preserveDescriptor(second, file, 1n), 0);
      second.close();
      return "preserved twice";
    },
  "64 MiB are preserved": preservePattern,
};

/** What another process holds from here to the kexec, and what is retrieved and lost after it. */
function leaveSessions(): void {
  const held = sessionWith("held by another", "held");
  holderOf(held);
  held.close();
  kept.push(sessionWith("dropped", "dropped"), sessionWith("shared", "shared"));
}

/** Filled by the first case for those that come after it. */
const retrieved: { session?: OwnedDescriptor; file?: OwnedDescriptor } = {};

function onPattern() {
  const { session, file } = retrieved;
  if (session === undefined || file === undefined) throw new Error("nothing was retrieved");
  return { session, file };
}

const after: Record<(typeof kernelCases.after)[number], Case> = {
  "64 MiB are retrieved, and have the same hash": () => {
    retrieved.session = given(retrieveSession("pattern"), "retrieve");
    const begin = performance.now();
    retrieved.file = given(retrieveDescriptor(retrieved.session, 7n), "token 7");
    const took = Math.round(performance.now() - begin);
    const seen = readFileSync(`/proc/self/fd/${retrieved.file.number}`);
    requireEqual(hashOf(seen), hashOf(pattern()));
    return `${seen.length} bytes, token retrieved in ${took} ms`;
  },
  "a token is retrieved twice, and is the same file": () => {
    const { session, file } = onPattern();
    using second = given(retrieveDescriptor(session, 7n), "token 7 again");
    return requireEqual(fstatSync(second.number).ino, fstatSync(file.number).ino);
  },
  "what was retrieved outlives the finish and the session; nothing more is retrieved": () => {
    const { session, file } = onPattern();
    requireEqual(finishSession(session), 0);
    requireEqual(refusalOf(retrieveDescriptor(session, 7n)), Errno.ENOENT);
    requireEqual(finishSession(session), 0);
    session.close();
    requireEqual(refusalOf(retrieveSession("pattern")), Errno.ENOENT);
    return requireEqual(fstatSync(file.number).size, patternBytes);
  },
  "an outgoing session that was closed did not come along": () =>
    requireEqual(refusalOf(retrieveSession("closed")), Errno.ENOENT),
  "an outgoing session whose last descriptor another process held came along": () => {
    using session = given(retrieveSession("held by another"), "retrieve");
    using file = given(retrieveDescriptor(session, 1n), "token 1");
    return requireEqual(textOf(file), "held");
  },
  "the last descriptor of a retrieved session, closed: the session is gone": () => {
    given(retrieveSession("dropped"), "retrieve").close();
    return requireEqual(refusalOf(retrieveSession("dropped")), Errno.ENOENT);
  },
  "a retrieved session that another process holds is there still, and goes with it": async () => {
    const session = given(retrieveSession("shared"), "retrieve");
    const holder = holderOf(session);
    session.close();
    // There, but given out: EINVAL is what the kernel says to whoever asks once more.
    requireEqual(refusalOf(retrieveSession("shared")), Errno.EINVAL);
    holder.kill("SIGKILL");
    await holder.exited;
    const isGone = () => refusalOf(retrieveSession("shared")) === Errno.ENOENT;
    await waitFor("the session to go", isGone);
    return "EINVAL, then ENOENT";
  },
  "a session with a name of 63 bytes came along": () => {
    using session = given(retrieveSession(longName), "retrieve");
    using file = given(retrieveDescriptor(session, 1n), "token 1");
    requireEqual(sessionName(session), longName);
    return requireEqual(textOf(file), "long");
  },
};

if (Bun.argv.at(-1) === "before") {
  const failures = await tellCases(before);
  leaveSessions();
  if (failures === 0) {
    loadOwnKernel();
    console.log(`the kexec was refused: error ${-rebootInto("kexec")}`);
  }
  process.exitCode = 1;
} else {
  process.exitCode = (await tellCases(after)) === 0 ? 0 : 1;
}
