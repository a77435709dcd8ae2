/**
 * What ffi/ promises, as checks that need no test runner: ffi.test.ts runs them under `bun test`,
 * ffi-main.ts in a compiled file, which is how they come to an emulated arm64.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { duplicate, makePipe, readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { type Ending, waitForChild } from "../../../ffi/pidfd.ts";
import { PreparedSpawn, type SpawnPlan, type SpawnResult } from "../../../ffi/posix-spawn.ts";
import { Errno } from "../../../ffi/system-call-error.ts";
import { waitFor } from "../../support/wait-for.ts";

export interface CheckContext {
  /** The words that start ffi-main.ts again, for what a process can do to itself only once. */
  readonly self: readonly string[];
  /** How many failing calls the errno check makes. */
  readonly errnoCalls: number;
}

export interface Check {
  readonly name: string;
  /** Why it cannot be done here; the reason of a skip. */
  readonly absence?: () => string | undefined;
  /** What emulating another processor in user space does not do as a kernel would. */
  readonly unlikeEmulator?: string;
  readonly run: (context: CheckContext) => void | Promise<void>;
}

export const withoutRoot = () => (process.getuid?.() === 0 ? undefined : "not root");

/** @param name of a line in /proc/self/status, such as "SigIgn" */
export function statusField(status: string, name: string): string {
  const line = status.split("\n").find((candidate) => candidate.startsWith(`${name}:`));
  if (line === undefined) throw new Error(`No ${name} in the status:\n${status}`);
  return line.slice(name.length + 1).trim();
}

/** A set of signals or capabilities in /proc/self/status. */
export function statusMask(name: string, status?: string): bigint {
  return BigInt(`0x${statusField(status ?? readFileSync("/proc/self/status", "utf8"), name)}`);
}

/** The number that the next open file gets, which is also the limit that lets none open. */
export function lowestFreeDescriptor(): number {
  using free = duplicate(0, 0);
  return free.number;
}

/**
 * Gives what was opened since and is still open. What an earlier check left to the collector may
 * go in between, so a count would not do.
 */
export function openedFrom(): () => string[] {
  const before = new Set(openDescriptors());
  return () => openDescriptors().filter((descriptor) => !before.has(descriptor));
}

/** Each with what it is. */
function openDescriptors(): string[] {
  const folder = "/proc/self/fd";
  return readdirSync(folder).flatMap((number) => {
    try {
      return [`${number} ${readlinkSync(`${folder}/${number}`)}`];
    } catch {
      // The one that listed them.
      return [];
    }
  });
}

/** Starts a child; it is an error of the check when that is refused. */
export function start(spawn: PreparedSpawn): Extract<SpawnResult, { kind: "started" }> {
  const result = spawn.spawn();
  if (result.kind === "refused") throw new Error(`Refused with error number ${result.errno}`);
  return result;
}

/** Waits for the end of a child, and reaps it. */
export async function ending(child: OwnedDescriptor): Promise<Ending> {
  const end = await waitFor("the end of a child", () => waitForChild(child, "reap"));
  if (end === "not-a-child") throw new Error("The kernel says that this is no child of ours");
  return end;
}

/** All that comes through a pipe until its last writer is gone. */
export async function readToEnd(pipe: OwnedDescriptor): Promise<string> {
  const memory = new NativeMemory(65_536);
  let text = "";
  await waitFor("the end of a pipe", () => {
    for (;;) {
      const length = readInto(pipe, memory);
      if (length === -Errno.EAGAIN) return false;
      if (length < 0) throw new Error(`Cannot read: error number ${-length}`);
      if (length === 0) return true;
      text += new TextDecoder().decode(memory.bytes.subarray(0, length));
    }
  });
  return text;
}

/** Runs a program to its end, and gives what it wrote to its standard output. */
export async function outputOf(
  argv: readonly [string, ...string[]],
  options: Partial<SpawnPlan> = {},
): Promise<{ output: string; ending: Ending; processId: number }> {
  const pipe = makePipe();
  using read = pipe.read;
  using spawn = new PreparedSpawn({
    path: argv[0],
    argv,
    environment: [],
    ...options,
    descriptors: [{ source: pipe.write.number, target: 1 }, ...(options.descriptors ?? [])],
  });
  const child = start(spawn);
  using childProcess = child.process;
  pipe.write.close();
  // The duplicate that the plan may have made is a writer as well.
  spawn[Symbol.dispose]();
  const output = await readToEnd(read);
  return { output, ending: await ending(childProcess), processId: child.processId };
}
