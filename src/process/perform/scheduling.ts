import { readdirSync, writeFileSync } from "node:fs";
import { tieOtherThread } from "../../../ffi/affinity.ts";
import {
  SCHED_BATCH,
  SCHED_FIFO,
  SCHED_IDLE,
  SCHED_OTHER,
  SCHED_RR,
} from "../../../ffi/constants.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { hasEnded } from "../../../ffi/pidfd.ts";
import { setThreadNice, setThreadPolicy } from "../../../ffi/scheduling.ts";
import { Errno, errnoMessage, errnoName } from "../../../ffi/system-call-error.ts";
import { refusalCode } from "../../journal/file-refused.ts";
import type { Refusal } from "../lifecycle.ts";
import type { Scheduling, SchedulingPolicy } from "../specification.ts";

/** A process that runs: its number, as the host sees it, and what proves whose that is. */
export interface Scheduled {
  readonly processId: number;
  readonly process: OwnedDescriptor;
}

/** What became of it: its process has it, is gone, or was refused it. */
export type ScheduleResult = "done" | "gone" | Refusal;

const policies: Readonly<Record<SchedulingPolicy["name"], number>> = {
  other: SCHED_OTHER,
  batch: SCHED_BATCH,
  idle: SCHED_IDLE,
  fifo: SCHED_FIFO,
  "round-robin": SCHED_RR,
};

/** Passes over the threads of a process, which may make others meanwhile. */
const MOST_PASSES = 16;

/**
 * Has all threads of a process scheduled so; what it starts later inherits it. The number is its
 * own as long as its pidfd says that it has not ended, which is looked at before and after.
 */
export function schedule({ processId, process }: Scheduled, wanted: Scheduling): ScheduleResult {
  if (Object.keys(wanted).length === 0) return "done";
  if (hasEnded(process)) return "gone";
  // What is refused keeps nothing else from being set.
  const score = adjustScore(processId, wanted);
  const refusal = scheduleThreads(processId, wanted) ?? score;
  return hasEnded(process) ? "gone" : (refusal ?? "done");
}

function adjustScore(processId: number, { oomScoreAdjust }: Scheduling): Refusal | undefined {
  if (oomScoreAdjust === undefined) return undefined;
  try {
    writeFileSync(`/proc/${processId}/oom_score_adj`, String(oomScoreAdjust));
    return undefined;
  } catch (error) {
    const code = refusalCode(error);
    if (code === undefined) throw error;
    const mend = code === "EACCES" ? "to lower it takes CAP_SYS_RESOURCE" : code;
    return { message: `oom_score_adjust = ${oomScoreAdjust} is refused: ${mend}`, code };
  }
}

/** A thread that comes into being has what its maker has: until a pass finds nobody new. */
function scheduleThreads(processId: number, wanted: Scheduling): Refusal | undefined {
  const done = new Set<string>();
  let refused: Refusal | undefined;
  for (let pass = 0; pass < MOST_PASSES; pass += 1) {
    const fresh = threadsOf(processId).filter((thread) => !done.has(thread));
    if (fresh.length === 0) return refused;
    for (const thread of fresh) {
      done.add(thread);
      refused = scheduleThread(Number(thread), wanted) ?? refused;
    }
  }
  return refused;
}

function threadsOf(processId: number): string[] {
  try {
    return readdirSync(`/proc/${processId}/task`);
  } catch {
    return [];
  }
}

function scheduleThread(thread: number, wanted: Scheduling): Refusal | undefined {
  const { nice, affinity, policy } = wanted;
  const steps: readonly (readonly [what: string, act: () => number])[] = [
    ...(policy === undefined ? [] : [stepOfPolicy(thread, policy)]),
    ...(nice === undefined ? [] : [[`nice = ${nice}`, () => setThreadNice(thread, nice)] as const]),
    ...(affinity === undefined
      ? []
      : [[`affinity = [${affinity}]`, () => tieOtherThread(thread, affinity)] as const]),
  ];
  let refused: Refusal | undefined;
  for (const [what, act] of steps) {
    const result = act();
    // A thread that has ended needs nothing.
    if (result >= 0 || result === -Errno.ESRCH) continue;
    refused = { message: `${what}: ${explain(what, -result)}`, code: errnoName(-result) };
  }
  return refused;
}

function stepOfPolicy(thread: number, policy: SchedulingPolicy) {
  const priority = "priority" in policy ? policy.priority : 0;
  const said = "priority" in policy ? `${policy.name}, priority ${priority}` : policy.name;
  const act = () => setThreadPolicy(thread, policies[policy.name], priority);
  return [`scheduling = ${said}`, act] as const;
}

/** What the number alone does not say. */
function explain(what: string, errno: number): string {
  const message = errnoMessage(errno);
  if (what.startsWith("affinity") && errno === Errno.EINVAL) {
    return `${message}: none of these processors is online, or its cgroup has none of them`;
  }
  if (what.startsWith("scheduling") && errno === Errno.EPERM) {
    return `${message}: it takes CAP_SYS_NICE, and with cgroup v1 a cgroup that has real time`;
  }
  return message;
}
