import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { kill } from "../../../ffi/process.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { Signal } from "../../units/signals.ts";
import { formatDuration, type Milliseconds, type ProcessId } from "../../units/units.ts";
import { VmmUnreachable } from "../driver.ts";

/** What stands beside a control socket while the process that has it stands still. */
export const STOPPED_SUFFIX = ".stopped";

/** Between two looks at whether all threads of a process stand still, and for how long. */
const LOOK_AGAIN: Milliseconds = 1;
const STOP_TIME: Milliseconds = 5_000;

/**
 * Has a process stand still, all of its threads: whatever it hears meanwhile, it does nothing. Only
 * `continueStopped` and its end change that.
 * @param mark a file that says so to whoever comes after us; it is there before the process stands
 * @throws VmmUnreachable when it is gone, or does not; Error (ENOSPC …)
 */
export async function stopProcess(
  loop: EventLoop,
  process: ProcessId,
  mark: string,
): Promise<void> {
  rmSync(mark, { force: true });
  writeFileSync(mark, "", { flag: "wx", mode: 0o600 });
  if (kill(process, Signal.SIGSTOP) !== "sent") {
    throw new VmmUnreachable(`Process ${process} cannot be stopped: it has ended`);
  }
  const end = monotonicNow() + STOP_TIME;
  while (!stands(process)) {
    if (monotonicNow() >= end) {
      const time = formatDuration(STOP_TIME);
      throw new VmmUnreachable(`Process ${process} does not stand still within ${time}`);
    }
    const again = Promise.withResolvers<void>();
    loop.wakeAfter(LOOK_AGAIN, again.resolve);
    await again.promise;
  }
}

/** Lets it go on where we stopped it; one that somebody else stopped is left as it is. */
export function continueStopped(process: () => ProcessId | undefined, mark: string): void {
  if (!existsSync(mark)) return;
  const number = process();
  if (number !== undefined) kill(number, Signal.SIGCONT);
  rmSync(mark, { force: true });
}

/** Whether every thread is stopped by a signal: "T" of proc_pid_stat(5), after its name. */
function stands(process: ProcessId): boolean {
  const folder = `/proc/${process}/task`;
  try {
    return readdirSync(folder).every((thread) => {
      const text = readFileSync(`${folder}/${thread}/stat`, "latin1");
      return text.slice(text.lastIndexOf(")") + 2).startsWith("T");
    });
  } catch {
    // It, or a thread of it, has ended meanwhile.
    return false;
  }
}
