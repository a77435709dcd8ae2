/** Processes that stand still. */
import { readdirSync, readFileSync } from "node:fs";

/** In which the kernel must have stopped every thread, however busy the machine is. */
const SUSPENDED_WITHIN_MILLISECONDS = 30_000;

/**
 * Sends SIGSTOP and waits until no thread of the process runs: the signal is the whole process's,
 * and a thread on another processor may still answer whoever asks next.
 */
export function suspend(processId: number): void {
  process.kill(processId, "SIGSTOP");
  const deadline = performance.now() + SUSPENDED_WITHIN_MILLISECONDS;
  while (!standsStill(processId)) {
    if (performance.now() > deadline) throw new Error(`Process ${processId} does not stand still`);
  }
}

function standsStill(processId: number): boolean {
  const threads = `/proc/${processId}/task`;
  return readdirSync(threads).every((thread) => {
    const state = stateOf(`${threads}/${thread}/stat`);
    return state === undefined || "TtZX".includes(state);
  });
}

/** proc_pid_stat(5): the letter behind the name, which may hold brackets; undefined: it ended. */
function stateOf(path: string): string | undefined {
  try {
    const text = readFileSync(path, "latin1");
    return text[text.lastIndexOf(")") + 2];
  } catch {
    return undefined;
  }
}
