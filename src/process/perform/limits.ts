import { hasEnded } from "../../../ffi/pidfd.ts";
import { type ResourceLimit, setLimitOf } from "../../../ffi/process.ts";
import { Errno, errnoMessage, errnoName } from "../../../ffi/system-call-error.ts";
import { limitNumbers } from "../../units/linux-names.ts";
import type { Refusal } from "../lifecycle.ts";
import type { LaunchConstraints } from "../specification.ts";
import type { Scheduled } from "./scheduling.ts";

type Limits = LaunchConstraints["limits"];

/** A limit that is another from now on. */
interface ChangedLimit {
  /** "nofile". */
  readonly name: string;
  readonly before: ResourceLimit;
  readonly after: ResourceLimit;
}

export interface LimitResult {
  readonly changed: readonly ChangedLimit[];
  readonly refusal: Refusal | undefined;
}

/**
 * Gives a process that runs the resource limits that it was not started with; what it has started
 * itself keeps its own. What it set itself of those that are as they were stays.
 */
export function limit({ processId, process }: Scheduled, from: Limits, to: Limits): LimitResult {
  const changed: ChangedLimit[] = [];
  let refusal: Refusal | undefined;
  for (const [name, after] of Object.entries(to ?? {})) {
    if (Bun.deepEquals(from?.[name], after)) continue;
    // The number is its own as long as its pidfd says that it has not ended.
    if (hasEnded(process)) return { changed, refusal: undefined };
    const resource = limitNumbers[name];
    if (resource === undefined) throw new Error(`Bug: no limit ${name}`);
    const before = setLimitOf(processId, resource, after);
    if (typeof before !== "number") {
      changed.push({ name, before, after });
      continue;
    }
    if (before === -Errno.ESRCH) continue;
    // What is refused keeps nothing else from being set.
    const mend = before === -Errno.EPERM ? ": it takes CAP_SYS_RESOURCE" : "";
    const message = `limits.${name} = ${formatLimit(after)}: ${errnoMessage(-before)}${mend}`;
    refusal = { message, code: errnoName(-before) };
  }
  return { changed, refusal };
}

/** "1024 of 4096", which is the soft one first; "unlimited". */
export function formatLimit({ soft, hard }: ResourceLimit): string {
  const say = (value: number) => (Number.isFinite(value) ? String(value) : "unlimited");
  return soft === hard ? say(soft) : `${say(soft)} of ${say(hard)}`;
}
