import { readdirSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds, ProcessId } from "../../units/units.ts";

/** What /proc says of a process that may be stuck: other threads read it, each with a deadline. */

const READ_WITHIN: Milliseconds = 1_000;
const most = { members: 64, threads: 64, stack: 4_096, text: 16 * 1024 } as const;

export interface ProcessStatus {
  /** "D": waits in the kernel, and no signal ends it; "Z": dead, and not reaped. */
  readonly state: string;
  readonly parentId: ProcessId;
  readonly groupId: ProcessId;
  /** Clock ticks since boot: with its number, the only one of this boot. */
  readonly startTicks: number;
}

/** proc_pid_stat(5), which waits for no lock of the process; undefined when there is none. */
export function statusOf(processId: ProcessId): ProcessStatus | undefined {
  try {
    return readStatus(readFileSync(`/proc/${processId}/stat`, "latin1"));
  } catch {
    return undefined;
  }
}

function readStatus(text: string): ProcessStatus {
  // The name stands in parentheses and may hold anything, parentheses and spaces included.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return {
    state: fields[0] ?? "X",
    parentId: Number(fields[1]),
    groupId: Number(fields[2]),
    startTicks: Number(fields[19]),
  };
}

/** Those of a process group that are not dead. For few looks: it goes through all of /proc. */
export function livingMembersOf(groupId: ProcessId): ProcessId[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((processId) => {
      const status = statusOf(processId);
      return status?.groupId === groupId && !"ZX".includes(status.state);
    });
}

export interface StuckPlace {
  /** Of each thread: its state, and the stack of it in the kernel where this host shows it. */
  readonly stack: string;
  /** What the first of them that cannot be ended waits in: "wait_on_page_bit". */
  readonly wait: string;
}

/** Where the threads of these processes are in the kernel; what cannot be read says so. */
export async function placesOf(
  loop: EventLoop,
  processIds: readonly ProcessId[],
): Promise<StuckPlace> {
  const parts: string[] = [];
  let wait = "";
  for (const processId of processIds.slice(0, most.members)) {
    const name = await readWithin(loop, `/proc/${processId}/comm`);
    const folder = `/proc/${processId}/task`;
    const threads = await within(loop, readdir(folder), []);
    for (const thread of threads.slice(0, most.threads)) {
      const [stat, channel, stack] = await Promise.all(
        ["stat", "wchan", "stack"].map((file) => readWithin(loop, `${folder}/${thread}/${file}`)),
      );
      const { state } = readStatus(stat ?? "");
      if (wait === "" && state === "D") wait = channel ?? "";
      parts.push(
        `${name} (process ${processId}, thread ${thread}): state ${state}, waits in ${channel}`,
        ...(stack ?? "").split("\n").map((line) => `  ${line}`),
      );
    }
  }
  return { stack: parts.join("\n").slice(0, most.text), wait: wait.slice(0, 128) || "unknown" };
}

async function readWithin(loop: EventLoop, path: string): Promise<string> {
  const read = readFile(path, "latin1").then((text) => text.trim().slice(0, most.stack));
  return await within(
    loop,
    read.catch((failure: Error) => `unreadable: ${failure.message}`),
    "unreadable: no answer",
  );
}

/** A read that does not come back costs a thread of Bun's, and nothing of the agent's loop. */
export async function within<T>(
  loop: EventLoop,
  work: Promise<T>,
  otherwise: T,
  limit: Milliseconds = READ_WITHIN,
): Promise<T> {
  const late = Promise.withResolvers<T>();
  using _timer = loop.wakeAfter(limit, () => late.resolve(otherwise));
  return await Promise.race([work.catch(() => otherwise), late.promise]);
}
