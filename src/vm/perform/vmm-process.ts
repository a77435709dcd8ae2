import * as v from "valibot";
import { makePipe, readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import {
  type Ending,
  processInformation,
  signalProcess,
  waitForChild,
} from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import { Errno, errnoMessage, errnoName, SystemCallError } from "../../../ffi/system-call-error.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import type { VmmPlan } from "../../hypervisor/driver.ts";
import { Signal } from "../../units/signals.ts";
import type { Milliseconds, ProcessId } from "../../units/units.ts";
import {
  type ConfineLimits,
  type ConfinePlan,
  type ConfineReport,
  confinePlanSchema,
  confineReportSchema,
  describeIssue,
  type OptionalStage,
  type Stage,
} from "../confine-plan.ts";
import { INVOCATION_VARIABLE, identityOf, type VmmIdentity } from "./vmm-identity.ts";

/** From spawn to exec, which takes some ten milliseconds on a host at rest. */
export const START_LIMIT: Milliseconds = 30_000;
/** Reports are short; what comes after so many characters is not kept. */
export const MOST_REPORT_LENGTH = 16_384;
/** Of what a confiner said that is no report. */
const MOST_SHOWN = 200;
/** How the end of one that is not our child is looked for, once it is dead and not yet reaped. */
const ENDING_LOOK_AGAIN_AFTER: Milliseconds = 1;
const ENDING_LOOKS = 20;

/** Descriptor `source` of ours becomes `target` of the VMM. */
export interface GivenDescriptor {
  readonly source: number;
  readonly target: number;
}

/** How a VMM is started: what its driver planned, and what the worker decided around it. */
export interface VmmStart {
  /** New for each start: 32 hexadecimal digits. */
  readonly invocation: string;
  readonly plan: VmmPlan;
  /** NAME=value; INVOCATION_ID is added. */
  readonly environment: readonly string[];
  readonly user: number;
  readonly group: number;
  /** A folder of cgroup v2 that is there; undefined where there is none to be used. */
  readonly cgroup: string | undefined;
  readonly limits: ConfineLimits;
  /** -1000 to 1000 */
  readonly outOfMemoryScore: number;
  /** Folders and files that it may change, which belong to its user; all others it may not. */
  readonly writable: readonly string[];
  /** Those of the plan, and any of 0, 1 and 2. */
  readonly descriptors: readonly GivenDescriptor[];
  /** What may be left out on a machine that refuses it. */
  readonly optional: readonly OptionalStage[];
  readonly timeLimit?: Milliseconds;
}

/** A part of the confinement that the machine refused, and the plan did not insist on. */
export interface LeftOut {
  readonly stage: Stage;
  readonly message: string;
  readonly code: string | undefined;
}

/** Nothing of it is left. "time-limit": it did not come to its exec in time. */
export interface RefusedStart {
  readonly kind: "refused";
  readonly refusal: {
    readonly stage: RefusedStage;
    readonly message: string;
    readonly code: string | undefined;
  };
}

export type VmmStartResult =
  /** Its program runs. The pidfd is the caller's: give it to a VmmProcess. */
  | {
      readonly kind: "started";
      readonly identity: VmmIdentity;
      readonly process: OwnedDescriptor;
      readonly leftOut: readonly LeftOut[];
    }
  | RefusedStart;

export type RefusedStage = Stage | "spawn" | "time-limit";

/** How our own file is started: when run from source, Bun and the entry file. */
export interface OwnProgram {
  readonly path: string;
  readonly words: readonly string[];
}

export function ownProgram(): OwnProgram {
  const compiled = Bun.main.startsWith("/$bunfs/");
  const words = compiled ? [process.execPath] : [process.execPath, Bun.main];
  return { path: "/proc/self/exe", words };
}

/** What the confiner is told. Exported for tests. */
export function confinePlanOf(start: VmmStart): ConfinePlan {
  const { plan } = start;
  const targets = start.descriptors.map(({ target }) => target);
  const missing = plan.descriptors.find(({ number }) => !targets.includes(number));
  if (missing !== undefined) {
    throw new Error(`Bug: nothing is given for descriptor ${missing.number} (${missing.role})`);
  }
  const built: ConfinePlan = {
    user: start.user,
    group: start.group,
    limits: start.limits,
    oom_score: start.outOfMemoryScore,
    devices: [...plan.devices],
    writable: [...start.writable],
    folder: "/",
    // Sockets and files that it makes are its own and root's.
    umask: 0o077,
    optional: [...start.optional],
    arguments: plan.arguments.length + 1,
    descriptors: targets.filter((target) => target > 2),
    report: Math.max(2, ...targets) + 1,
  };
  if (start.cgroup !== undefined) built.cgroup = start.cgroup;
  return built;
}

/** Confiners that wait already. */
export interface WaitingConfiners {
  /** Has one confine and become a VMM; undefined where a new one has to, and nothing was done. */
  order(start: VmmStart, plan: ConfinePlan): Promise<SpawnedConfiner | undefined>;
  /** A start follows soon. */
  anticipate(): void;
}

/**
 * Starts a VMM through the confiner, as a child of this process that outlives it. Answers when the
 * program runs, or when nothing of it is left.
 * @param options.own the file that is the confiner as well
 */
export async function startVmm(
  loop: EventLoop,
  start: VmmStart,
  options: { readonly own?: OwnProgram; readonly waiting?: WaitingConfiners } = {},
): Promise<VmmStartResult> {
  const plan = confinePlanOf(start);
  const checked = v.safeParse(confinePlanSchema, plan);
  if (!checked.success) return refused("confine", describeIssue(checked.issues[0]));
  const { own = ownProgram(), waiting } = options;
  const spawned = (await waiting?.order(start, plan)) ?? spawn(start, plan, own);
  if (spawned.kind === "refused") return spawned;
  const { processId, process, report } = spawned;
  // Not reaped before its end is looked at, so that the number is still its own.
  const identity = identityOf(processId, start.invocation);
  if (identity === undefined) throw new Error(`Bug: child ${processId} was reaped by another`);
  const timeLimit = start.timeLimit ?? START_LIMIT;
  const told = await readReport(loop, { process, report, timeLimit });
  const { leftOut, failure } = parseReports(told.text);
  if (failure === undefined && !told.isLate) return { kind: "started", identity, process, leftOut };
  await reap(loop, process);
  if (failure !== undefined) return refused(failure.stage, failure.message, failure.code);
  return refused("time-limit", `no program ran within ${timeLimit} ms`);
}

function refused(stage: RefusedStage, message: string, code?: string): RefusedStart {
  return { kind: "refused", refusal: { stage, message, code } };
}

/** On its way to the exec. */
export interface SpawnedConfiner {
  readonly kind: "started";
  readonly processId: ProcessId;
  /** A pidfd. */
  readonly process: OwnedDescriptor;
  readonly report: OwnedDescriptor;
}

function spawn(
  start: VmmStart,
  plan: ConfinePlan,
  own: OwnProgram,
): SpawnedConfiner | RefusedStart {
  const invocation = `${INVOCATION_VARIABLE}=${start.invocation}`;
  const { program } = start.plan;
  const argv = [program, ...start.plan.arguments];
  const words = [...own.words, "--confine", JSON.stringify(plan), program, ...argv];
  let report: OwnedDescriptor | undefined;
  try {
    const pipe = makePipe();
    report = pipe.read;
    using write = pipe.write;
    using prepared = new PreparedSpawn({
      path: own.path,
      argv: [...words, ...start.environment, invocation],
      // Whoever looks for the VMM must find the confiner as well; nothing else may steer it.
      environment: [invocation],
      workingDirectory: "/",
      descriptors: [...start.descriptors, { source: write.number, target: plan.report }],
    });
    const result = prepared.spawn();
    if (result.kind === "started") return { ...result, report };
    report.close();
    const message = `cannot start the confiner: ${errnoMessage(result.errno)}`;
    return refused("spawn", message, errnoName(result.errno));
  } catch (error) {
    report?.close();
    // No descriptor, memory or process is left for it.
    if (error instanceof SystemCallError) return refused("spawn", error.message, error.code);
    throw error;
  }
}

/**
 * All that the confiner says until its exec, or its end, closes the report. One that takes longer
 * than its limit is killed.
 */
function readReport(
  loop: EventLoop,
  starting: {
    readonly process: OwnedDescriptor;
    readonly report: OwnedDescriptor;
    readonly timeLimit: Milliseconds;
  },
): Promise<{ readonly text: string; readonly isLate: boolean }> {
  const { process, report, timeLimit } = starting;
  const { promise, resolve } = Promise.withResolvers<{ text: string; isLate: boolean }>();
  const memory = new NativeMemory(4096);
  const decoder = new TextDecoder();
  let text = "";
  let isLate = false;
  const limit = loop.wakeAfter(timeLimit, () => {
    isLate = true;
    signalProcess(process, Signal.SIGKILL);
  });
  const watch = loop.watch(report, "readable", () => {
    const length = readInto(report, memory);
    if (length === -Errno.EAGAIN) return;
    if (length > 0) {
      text += decoder.decode(memory.bytes.subarray(0, length), { stream: true });
      text = text.slice(0, MOST_REPORT_LENGTH);
      return;
    }
    watch[Symbol.dispose]();
    limit[Symbol.dispose]();
    report.close();
    resolve({ text, isLate });
  });
  return promise;
}

/** What a confiner said, line by line; what is no report of ours counts as a failure. */
export function parseReports(text: string): {
  readonly leftOut: readonly LeftOut[];
  readonly failure: LeftOut | undefined;
} {
  const leftOut: LeftOut[] = [];
  let failure: LeftOut | undefined;
  for (const line of text.split("\n").filter((found) => found !== "")) {
    const { kind, stage, message, code } = parseReport(line);
    if (kind === "failed") failure = { stage, message, code };
    else leftOut.push({ stage, message, code });
  }
  return { leftOut, failure };
}

function parseReport(line: string): ConfineReport {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    parsed = undefined;
  }
  const result = v.safeParse(confineReportSchema, parsed);
  if (result.success) return result.output;
  const message = `the confiner failed: ${line.slice(0, MOST_SHOWN)}`;
  return { kind: "failed", stage: "confine", message };
}

/** Waits for the end of a child that has no more to do. */
export function reap(loop: EventLoop, process: OwnedDescriptor): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const watch = loop.watch(process, "readable", () => {
    waitForChild(process, "reap");
    watch[Symbol.dispose]();
    process.close();
    resolve();
  });
  return promise;
}

/** How a VMM ended; "unknown" where its parent was another, and the kernel does not tell. */
export type VmmEnding = Ending | { readonly kind: "unknown"; readonly reason: string };

/** A VMM that runs, whoever started it. Disposing of it lets it run on, unwatched. */
export class VmmProcess implements Disposable {
  readonly identity: VmmIdentity;
  readonly #loop: EventLoop;
  readonly #process: OwnedDescriptor;
  readonly #onEnd: (ending: VmmEnding) => void;
  readonly #watch: Watch;
  #again: Disposable | undefined;
  #looks = 0;

  /**
   * @param vmm of a start or an adoption; the pidfd is this object's from now on
   * @param onEnd called once, when the process is dead, and reaped where it was our child
   */
  constructor(
    loop: EventLoop,
    vmm: { readonly identity: VmmIdentity; readonly process: OwnedDescriptor },
    onEnd: (ending: VmmEnding) => void,
  ) {
    this.identity = vmm.identity;
    this.#loop = loop;
    this.#process = vmm.process;
    this.#onEnd = onEnd;
    this.#watch = loop.watch(this.#process, "readable", () => this.#look());
  }

  /** To this process and to no other, whoever has its number by now. */
  signal(signal: number): "sent" | "gone" | "refused" {
    if (!this.#process.isOpen) return "gone";
    return signalProcess(this.#process, signal);
  }

  #look(): void {
    if (!this.#process.isOpen) return;
    const ending = waitForChild(this.#process, "reap");
    // Woken without cause.
    if (ending === undefined) return;
    if (ending !== "not-a-child") {
      this.#end(ending);
      return;
    }
    const information = processInformation(this.#process);
    if (information === "unsupported" || information === "gone") {
      this.#end({ kind: "unknown", reason: "another was its parent, and this kernel keeps none" });
    } else if (information.ending !== undefined) {
      this.#end(information.ending);
    } else if (this.#looks < ENDING_LOOKS) {
      // Its status is told when its parent has reaped it. A pidfd of a dead one wakes for ever.
      this.#looks += 1;
      this.#watch.pause();
      this.#again = this.#loop.wakeAfter(ENDING_LOOK_AGAIN_AFTER, () => this.#look());
    } else {
      this.#end({ kind: "unknown", reason: "its parent has not reaped it" });
    }
  }

  #end(ending: VmmEnding): void {
    this[Symbol.dispose]();
    this.#onEnd(ending);
  }

  [Symbol.dispose](): void {
    this.#again?.[Symbol.dispose]();
    this.#watch[Symbol.dispose]();
    this.#process.close();
  }
}
