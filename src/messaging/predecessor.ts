import { readFileSync } from "node:fs";
import { openProcess } from "../../ffi/pidfd.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import type { Milliseconds } from "../units/units.ts";
import { listenerProcess } from "./listener.ts";

/** How long one that was killed may take to be gone: the kernel frees its memory first. */
const DYING_LIMIT: Milliseconds = 2_000;

/** SIGKILL in a mask of pending signals: proc_pid_status(5). */
const SIGKILL_BIT = 1n << 8n;
/** Its exit has begun: include/linux/sched.h, in the flags of proc_pid_stat(5). */
const PF_EXITING = 4;

/**
 * Waits until the process that still holds what we want is gone, where it is about to be: right
 * after a SIGKILL its sockets and locks last a moment. One that lives is not waited for.
 * @param holder the process that a lock names, where there is a lock
 */
export async function outwaitPredecessor(
  loop: EventLoop,
  socket: string,
  holder?: number,
): Promise<void> {
  for (const processId of new Set([holder, listenerProcess(socket)])) {
    if (processId !== undefined && processId > 0) await outwaitDying(loop, processId);
  }
}

async function outwaitDying(loop: EventLoop, processId: number): Promise<void> {
  // Opened first: what is said of the number is then said of this process, or of one that is gone.
  using process = openProcess(processId);
  if (process === undefined || !isDying(processId)) return;
  const gone = Promise.withResolvers<void>();
  using _limit = loop.wakeAfter(DYING_LIMIT, () => gone.resolve());
  using _watch = loop.watch(process, "readable", () => gone.resolve());
  await gone.promise;
}

/** It was sent SIGKILL, or is on its way out. */
function isDying(processId: number): boolean {
  try {
    const status = readFileSync(`/proc/${processId}/status`, "latin1");
    const masks = [...status.matchAll(/^(?:SigPnd|ShdPnd):\s+([0-9a-f]+)$/gm)];
    if (masks.some(([, mask]) => (BigInt(`0x${mask}`) & SIGKILL_BIT) !== 0n)) return true;
    // After the signal was taken: in this order no moment lies between the two looks.
    const stat = readFileSync(`/proc/${processId}/stat`, "latin1");
    const [state, , , , , , flags] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return state === "Z" || state === "X" || (Number(flags) & PF_EXITING) !== 0;
  } catch {
    return true;
  }
}
