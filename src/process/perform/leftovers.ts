import { openProcess, signalProcess } from "../../../ffi/pidfd.ts";
import { kill } from "../../../ffi/process.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { findInvocation, livingGroupMembers } from "./process-table.ts";

const SIGKILL = 9;

/**
 * Kills processes and calls `onGone` when every one of them is dead: at once when there are none.
 * `list` is asked again afterwards, because a process may have been born while others died.
 */
function killAll(loop: EventLoop, list: () => readonly number[], onGone: () => void): void {
  const alive = list()
    .map((processId) => openProcess(processId))
    .filter((descriptor) => descriptor !== undefined);
  if (alive.length === 0) {
    onGone();
    return;
  }
  let waiting = alive.length;
  for (const descriptor of alive) {
    signalProcess(descriptor, SIGKILL);
    const watch = loop.watch(descriptor, "readable", () => {
      watch[Symbol.dispose]();
      descriptor.close();
      waiting -= 1;
      if (waiting === 0) killAll(loop, list, onGone);
    });
  }
}

/** Kills what is left of a process group and calls `onGone` when nobody of it lives. */
export function clearGroup(loop: EventLoop, group: number, onGone: () => void): void {
  // The number of a group is not given away while it has members, so it is still this group.
  if (kill(-group, SIGKILL) === "gone") onGone();
  else killAll(loop, () => livingGroupMembers(group), onGone);
}

/** Kills every process that carries an invocation, whatever group it went to. */
export function clearInvocation(loop: EventLoop, invocation: string, onGone: () => void): void {
  const list = () => findInvocation(invocation).found.map((status) => status.processId);
  killAll(loop, list, onGone);
}

/** How often processes without an environment are looked at again, and after how long. */
const LOOKS = 100;
const LOOK_AGAIN_AFTER = 10;

/**
 * As `clearInvocation`, for a start that may just have been made: in the middle of its exec a
 * process has no environment yet.
 */
export function endUncertain(
  loop: EventLoop,
  invocation: string,
  onGone: () => void,
  looks = LOOKS,
): void {
  const { unreadable } = findInvocation(invocation);
  clearInvocation(loop, invocation, () => {
    if (unreadable.length === 0 || looks === 0) onGone();
    else {
      const again = () => endUncertain(loop, invocation, onGone, looks - 1);
      loop.wakeAfter(LOOK_AGAIN_AFTER, again);
    }
  });
}
