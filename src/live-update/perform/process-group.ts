import { readdirSync, readFileSync } from "node:fs";
import { kill } from "../../../ffi/process.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { Signal } from "../../units/signals.ts";
import type { Milliseconds, ProcessId } from "../../units/units.ts";

/** The wait between two looks at processes that stop: nothing tells of those that are not ours. */
const LOOK_AGAIN: Milliseconds = 1;

interface Member {
  readonly processId: ProcessId;
  /** Of its threads, one letter: proc_pid_stat(5). */
  readonly state: string;
}

/**
 * Group, session and state of a process; undefined when it is gone.
 * @param which its number, or PID/task/TID for a thread
 */
export function statusOf(
  which: ProcessId | string,
): { readonly state: string; readonly group: number; readonly session: number } | undefined {
  try {
    const text = readFileSync(`/proc/${which}/stat`, "latin1");
    // The name stands in parentheses and may hold anything.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0] ?? "X", group: Number(fields[2]), session: Number(fields[3]) };
  } catch {
    return undefined;
  }
}

/** The living processes of a group. */
function membersOf(group: ProcessId): Member[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    const status = statusOf(Number(name));
    if (status?.group !== group || isDead(status.state)) return [];
    return [{ processId: Number(name), state: statesOf(Number(name)) }];
  });
}

const isDead = (state: string) => state === "Z" || state === "X";

/** "T" when all threads have stopped, else the state of one that has not. */
function statesOf(processId: ProcessId): string {
  try {
    const threads = readdirSync(`/proc/${processId}/task`);
    const states = threads.map((name) => statusOf(`${processId}/task/${name}`)?.state ?? "X");
    return states.find((state) => !isDead(state) && state !== "T" && state !== "t") ?? "T";
  } catch {
    return "T";
  }
}

/**
 * Stops a process group, and tells its members once all of them have stopped; whoever is born
 * meanwhile is stopped as well.
 * @param onDone with a problem when they have not stopped in the time; they are left as they are
 */
export function stopGroup(
  loop: EventLoop,
  group: ProcessId,
  options: {
    readonly limit: Milliseconds;
    readonly onDone: (result: readonly ProcessId[] | { readonly problem: string }) => void;
  },
): Disposable {
  const end = monotonicNow() + options.limit;
  let timer: Disposable | undefined;
  let isOver = false;
  const look = (): void => {
    if (isOver) return;
    // Again each time: a process that was just born has not heard it.
    kill(-group, Signal.SIGSTOP);
    const members = membersOf(group);
    const running = members.filter(({ state }) => state !== "T");
    if (running.length === 0) options.onDone(members.map(({ processId }) => processId));
    else if (monotonicNow() < end) timer = loop.wakeAfter(LOOK_AGAIN, look);
    else {
      const who = running.map(({ processId, state }) => `${processId} (${state})`).join(", ");
      options.onDone({ problem: `these do not stop: process ${who}` });
    }
  };
  look();
  return {
    [Symbol.dispose]: () => {
      isOver = true;
      timer?.[Symbol.dispose]();
    },
  };
}

/** Lets a stopped group go on. */
export function continueGroup(group: ProcessId): void {
  kill(-group, Signal.SIGCONT);
}

/** A process that sends a group a signal when this process dies without having said otherwise. */
export interface Guard {
  /** Nothing is to be done any more; it is so when the promise is kept. */
  release(): Promise<void>;
}

/**
 * Sets a guard: a shell that waits for a line of ours, and acts when the end comes in its place.
 * The kernel's own means (PR_SET_PDEATHSIG) reaches the child alone, not its group, and cannot be
 * taken back by the parent.
 */
export function guardGroup(
  group: ProcessId,
  signal: "CONT" | "KILL",
  onTrouble: (message: string) => void,
): Guard {
  try {
    const script = 'read _ || kill -"$1" "-$2"';
    const words = ["/bin/sh", "-c", script, "hostler-guard", signal, String(group)];
    const guard = Bun.spawn(words, {
      stdin: "pipe",
      stdout: "ignore",
      stderr: "ignore",
      detached: true,
    });
    guard.unref();
    return {
      release: async () => {
        try {
          guard.stdin.write("\n");
          await guard.stdin.end();
        } catch {
          // It was killed by somebody: it does nothing then.
        }
        await guard.exited;
      },
    };
  } catch (error) {
    onTrouble(`no guard for process group ${group}: ${(error as Error).message}`);
    return { release: async () => {} };
  }
}
