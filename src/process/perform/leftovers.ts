import { existsSync, mkdirSync, openSync, readSync, rmdirSync, writeFileSync } from "node:fs";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
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

const CLEAR_AGAIN_AFTER = 100;

/** What an open cgroup.events says now. */
function isPopulated(events: OwnedDescriptor): boolean {
  const bytes = new Uint8Array(256);
  const length = readSync(events.number, bytes, 0, bytes.length, 0);
  return new TextDecoder().decode(bytes.subarray(0, length)).includes("populated 1");
}

/** A cgroup v2 folder for one instance: made before its start, killed and removed after its end. */
export class InstanceGroup {
  readonly path: string;

  /** @throws Error (EACCES, ENOENT …) when the parent is no cgroup folder that we may use. */
  constructor(parent: string, invocation: string) {
    this.path = `${parent}/${invocation}`;
    mkdirSync(this.path, { recursive: true, mode: 0o755 });
    if (existsSync(`${this.path}/cgroup.events`)) return;
    this.remove();
    throw new Error(`expected a folder of cgroup v2, received ${parent}`);
  }

  /** Kills all of it (cgroup.kill, Linux 5.14); calls `onGone` when the kernel says it is empty. */
  clear(loop: EventLoop, onGone: () => void): void {
    let events: OwnedDescriptor;
    try {
      writeFileSync(`${this.path}/cgroup.kill`, "1");
      events = new OwnedDescriptor(openSync(`${this.path}/cgroup.events`, "r"));
    } catch (error) {
      // Removed by somebody: nobody was in it. Else no descriptor is left: one will be.
      if ((error as { code?: string }).code === "ENOENT") onGone();
      else loop.wakeAfter(CLEAR_AGAIN_AFTER, () => this.clear(loop, onGone));
      return;
    }
    const finish = () => {
      events.close();
      this.remove();
      onGone();
    };
    const watch = loop.watch(events, "priority", () => {
      if (isPopulated(events)) return;
      watch[Symbol.dispose]();
      finish();
    });
    // Asked after the watch stands: an earlier change would not be told.
    if (!isPopulated(events)) {
      watch[Symbol.dispose]();
      finish();
    }
  }

  /** Removes the empty folder; one that is not empty stays. */
  remove(): void {
    try {
      rmdirSync(this.path);
    } catch {
      // Something of it lives ("keep"), or it is gone already.
    }
  }
}
