import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { kill } from "../../../ffi/process.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { Signal } from "../../units/signals.ts";
import type { Milliseconds, ProcessId } from "../../units/units.ts";
import { STUCK_AFTER } from "../protocol-task.ts";
import { livingMembersOf, statusOf } from "./process-state.ts";

/**
 * Which children an agent has, for the one that follows it when it was killed. The kernel ends a
 * child with its agent, but not what the child has started. A child is recorded before it is given
 * its order: what nobody recorded has done nothing.
 */
export class TaskRecords {
  readonly #folder: string;

  /** @param folder in memory, of the agent alone */
  constructor(folder: string) {
    this.#folder = join(folder, "children");
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
  }

  add(processId: ProcessId): void {
    const ticks = statusOf(processId)?.startTicks ?? 0;
    writeFileSync(join(this.#folder, `${processId}.${ticks}`), "", { mode: 0o600 });
  }

  remove(processId: ProcessId): void {
    for (const name of readdirSync(this.#folder)) {
      if (name.startsWith(`${processId}.`)) rmSync(join(this.#folder, name), { force: true });
    }
  }

  /**
   * Ends what an earlier agent has left, and waits for it.
   * @returns those that SIGKILL does not end: they are remembered, and looked at again
   */
  async endLeft(loop: EventLoop, limit: Milliseconds = STUCK_AFTER): Promise<ProcessId[]> {
    const until = monotonicNow() + limit;
    for (;;) {
      const left = readdirSync(this.#folder).flatMap((name) => this.#end(name));
      if (left.length === 0 || monotonicNow() >= until) return left;
      const passed = Promise.withResolvers<void>();
      using _again = loop.wakeAfter(LOOK_EVERY, () => passed.resolve());
      await passed.promise;
    }
  }

  #end(name: string): ProcessId[] {
    const [, number = "", ticks = ""] = /^(\d+)\.(\d+)$/.exec(name) ?? [];
    const processId = Number(number);
    const status = statusOf(processId);
    // A group keeps its number as long as it has members: another's leader is another process.
    const isOurs = status === undefined || status.startTicks === Number(ticks);
    const isLeft = number !== "" && isOurs && kill(-processId, Signal.SIGKILL) === "sent";
    if (isLeft && livingMembersOf(processId).length > 0) return [processId];
    rmSync(join(this.#folder, name), { force: true });
    return [];
  }
}

export const LOOK_EVERY: Milliseconds = 50;
