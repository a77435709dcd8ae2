import { readFileSync } from "node:fs";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type { Usage } from "../metrics.ts";

/** Who is measured: an instance that runs, and its cgroup where it has one. */
export interface Measured {
  readonly name: string;
  readonly processId: number;
  readonly cgroup: string | undefined;
}

/** Processes that are measured before others have their turn: about half a millisecond. */
const PROCESSES_A_TURN = 32;
/** Whoever asks again so soon gets what was measured: nobody can have it measured all the time. */
const GOOD_FOR: Milliseconds = 200;

/** USER_HZ of every Linux that Bun runs on: time(7), sysconf(_SC_CLK_TCK). */
const ticksPerSecond = 100;

/** Measures processes, a few in each turn, and never twice at the same time. */
export class UsageMeter {
  readonly #loop: EventLoop;
  readonly #subjects: () => readonly Measured[];
  #last: { readonly at: MonotonicTime; readonly usage: ReadonlyMap<string, Usage> } | undefined;
  #underWay: Promise<ReadonlyMap<string, Usage>> | undefined;

  constructor(loop: EventLoop, subjects: () => readonly Measured[]) {
    this.#loop = loop;
    this.#subjects = subjects;
  }

  async take(): Promise<ReadonlyMap<string, Usage>> {
    if (this.#last !== undefined && monotonicNow() - this.#last.at < GOOD_FOR) {
      return this.#last.usage;
    }
    this.#underWay ??= this.#measure().finally(() => {
      this.#underWay = undefined;
    });
    return await this.#underWay;
  }

  async #measure(): Promise<ReadonlyMap<string, Usage>> {
    const usage = new Map<string, Usage>();
    const subjects = this.#subjects();
    for (let begin = 0; begin < subjects.length; begin += PROCESSES_A_TURN) {
      if (begin > 0) await this.#loop.letOthers();
      for (const subject of subjects.slice(begin, begin + PROCESSES_A_TURN)) {
        const used = measure(subject);
        if (used !== undefined) usage.set(subject.name, used);
      }
    }
    this.#last = { at: monotonicNow(), usage };
    return usage;
  }
}

/** What an instance uses; undefined when it is gone. */
export function measure({ processId, cgroup }: Omit<Measured, "name">): Usage | undefined {
  const own = measureProcess(processId);
  if (own === undefined || cgroup === undefined) return own;
  // cpu.stat is always there, memory.current only where the controller was given to the folder.
  const microseconds = numberIn(`${cgroup}/cpu.stat`, /^usage_usec (\d+)$/m);
  const bytes = numberIn(`${cgroup}/memory.current`, /^(\d+)$/m);
  return {
    cpu: microseconds === undefined ? own.cpu : { by: "cgroup", value: microseconds / 1_000_000 },
    memory: bytes === undefined ? own.memory : { by: "cgroup", value: bytes },
  };
}

function numberIn(path: string, pattern: RegExp): number | undefined {
  try {
    const digits = pattern.exec(readFileSync(path, "latin1"))?.[1];
    return digits === undefined ? undefined : Number(digits);
  } catch {
    return undefined;
  }
}

/** User and system time of all threads, and resident pages: proc_pid_stat(5), 14, 15 and 24. */
function measureProcess(processId: number): Usage | undefined {
  try {
    const text = readFileSync(`/proc/${processId}/stat`, "latin1");
    // The name stands in parentheses and may hold anything, parentheses and spaces included.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const ticks = Number(fields[11]) + Number(fields[12]);
    return {
      cpu: { by: "process", value: ticks / ticksPerSecond },
      memory: { by: "process", value: Number(fields[21]) * pageSize() },
    };
  } catch {
    return undefined;
  }
}

let knownPageSize: number | undefined;

/** AT_PAGESZ of the auxiliary vector: getauxval(3), proc_pid_auxv(5). */
function pageSize(): number {
  knownPageSize ??= readPageSize();
  return knownPageSize;
}

const AT_PAGESZ = 6n;

function readPageSize(): number {
  const bytes = readFileSync("/proc/self/auxv");
  for (let at = 0; at + 16 <= bytes.length; at += 16) {
    if (bytes.readBigUInt64LE(at) === AT_PAGESZ) return Number(bytes.readBigUInt64LE(at + 8));
  }
  throw new Error("The kernel tells no size of pages in /proc/self/auxv");
}
