import * as v from "valibot";
import {
  makePipe,
  readInto,
  setBlocking,
  setNonBlocking,
  writeFrom,
} from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { waitForChild } from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import { kill } from "../../../ffi/process.ts";
import { Errno, errnoMessage, SystemCallError } from "../../../ffi/system-call-error.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { describeEnding, type Ending } from "../../units/ending.ts";
import { Signal, signalName } from "../../units/signals.ts";
import type { Milliseconds, ProcessId } from "../../units/units.ts";
import {
  STUCK_AFTER,
  type TaskEnding,
  type TaskLine,
  type TaskOrder,
  type TaskQuestion,
  taskLimits,
  taskLineSchema,
} from "../protocol-task.ts";
import { LineReader } from "./line-reader.ts";
import { livingMembersOf, placesOf } from "./process-state.ts";
import { LOOK_EVERY, type TaskRecords } from "./task-records.ts";

/** How our own file is started. */
export interface OwnProgram {
  readonly path: string;
  readonly words: readonly string[];
}

export interface TaskParts {
  readonly loop: EventLoop;
  readonly own: OwnProgram;
  /** NAME=value; nothing else is inherited. */
  readonly environment: readonly string[];
  readonly records: TaskRecords;
  /** From the end of its input until SIGKILL. */
  readonly grace: Milliseconds;
  readonly stuckAfter: Milliseconds;
}

export interface TaskHandlers {
  /** Valid, and neither its report nor its failure. */
  onLine(line: TaskLine): void;
  /** Once. After "stuck" the process is still there. */
  onEnd(ending: TaskEnding): void;
  /** Once, after `onEnd`: nothing of it is left. */
  onGone(): void;
}

type Phase =
  | { readonly kind: "running" }
  /** Its input was ended; it may still stop by itself. */
  | { readonly kind: "ending"; readonly ending: TaskEnding }
  | { readonly kind: "killed"; readonly ending: TaskEnding }
  | { readonly kind: "stuck" }
  | { readonly kind: "gone" };

const READ_SIZE = 65_536;
const READS_A_TURN = 4;
const memory = new NativeMemory(READ_SIZE);

/** Once stuck, it is looked at again so often. */
const STUCK_LOOK_EVERY: Milliseconds = 1_000;

/** One child of the same file, from its start until nothing of its process group is left. */
export class TaskProcess {
  readonly processId: ProcessId;
  readonly #parts: TaskParts;
  readonly #handlers: TaskHandlers;
  readonly #process: OwnedDescriptor;
  readonly #input: OwnedDescriptor;
  readonly #output: OwnedDescriptor;
  readonly #error: OwnedDescriptor;
  readonly #watches: Watch[];
  readonly #lines = new LineReader(taskLimits.lineBytes);
  #timers: Disposable[] = [];
  #unsent: Uint8Array;
  /** The last question that is not on its way yet. */
  #question: number | undefined;
  #lastWords = "";
  #progress = { done: 0, total: 0 };
  #told: TaskEnding | undefined;
  #phase: Phase = { kind: "running" };
  /** How its first process ended; undefined while that lives. */
  #ended: Ending | undefined;

  /** @throws SystemCallError where no process, descriptor or memory is left for it */
  constructor(
    parts: TaskParts,
    order: TaskOrder,
    options: TaskHandlers & { readonly deadline: Milliseconds },
  ) {
    this.#parts = parts;
    this.#handlers = options;
    const { process, processId, input, output, error } = spawn(parts);
    this.#process = process;
    this.processId = processId;
    this.#input = input;
    this.#output = output;
    this.#error = error;
    this.#unsent = lineOf(order);
    const { loop } = parts;
    const sending = loop.watch(input, "writable", () => this.#send(sending));
    this.#watches = [
      sending,
      loop.watch(output, "readable", () => this.#read()),
      loop.watch(error, "readable", () => this.#readError()),
      loop.watch(process, "readable", () => this.#onEnd()),
    ];
    this.#after(options.deadline, () => this.#stop({ kind: "overdue", ...this.#progress }));
    this.#record();
  }

  /** Has it stop. Its end comes by `onEnd`, as any other. */
  cancel(): void {
    this.#stop({ kind: "cancelled" });
  }

  /** Of a child that does not read them, no more than the last one is kept. */
  ask(question: number): void {
    if (this.#phase.kind !== "running") return;
    this.#question = question;
    this.#watches[0]?.change("writable");
  }

  /** Before it can have its order, which is sent from the loop. */
  #record(): void {
    try {
      this.#parts.records.add(this.processId);
    } catch (failure) {
      const how = `cannot be recorded: ${(failure as Error).message}`;
      this.#kill({ kind: "died", how, lastWords: "" });
    }
  }

  #after(wait: Milliseconds, call: () => void): void {
    this.#timers.push(this.#parts.loop.wakeAfter(wait, call));
  }

  #clearTimers(): void {
    for (const timer of this.#timers) timer[Symbol.dispose]();
    this.#timers = [];
  }

  #stop(ending: TaskEnding): void {
    if (this.#phase.kind !== "running") return;
    this.#phase = { kind: "ending", ending };
    this.#clearTimers();
    this.#closeInput();
    this.#after(this.#parts.grace, () => this.#kill(ending));
  }

  /** Until nothing of it is left, or it is clear that something stays. */
  #kill(ending: TaskEnding): void {
    if (this.#phase.kind === "killed" || this.#phase.kind === "stuck") return;
    this.#phase = { kind: "killed", ending };
    this.#clearTimers();
    this.#closeInput();
    kill(-this.processId, Signal.SIGKILL);
    this.#after(this.#parts.stuckAfter, () => this.#judgeStuck());
    this.#lookForEnd(LOOK_EVERY);
  }

  /** What it has started has no descriptor of ours: its group is asked whether anybody is there. */
  #lookForEnd(every: Milliseconds): void {
    if (this.#phase.kind === "gone") return;
    if (this.#ended !== undefined && kill(-this.processId, 0) === "gone") this.#finish();
    else this.#after(every, () => this.#lookForEnd(every));
  }

  #judgeStuck(): void {
    const members = livingMembersOf(this.processId);
    if (members.length === 0 && this.#ended !== undefined) {
      // Whoever has to reap them does not; they do nothing more.
      this.#finish();
      return;
    }
    this.#phase = { kind: "stuck" };
    this.#clearTimers();
    this.#closePipes();
    void placesOf(this.#parts.loop, members).then((place) => {
      this.#handlers.onEnd({ kind: "stuck", ...place });
      this.#lookForEnd(STUCK_LOOK_EVERY);
    });
  }

  /** Its first process has ended; others of its group may live. */
  #onEnd(): void {
    const left = waitForChild(this.#process, "leave");
    if (left === undefined || left === "not-a-child") return;
    if (this.#phase.kind !== "stuck") this.#drain();
    // The dead one still owns the number: nobody else's group can be meant.
    kill(-this.processId, Signal.SIGKILL);
    waitForChild(this.#process, "reap");
    this.#watches.at(-1)?.[Symbol.dispose]();
    this.#process.close();
    this.#ended = left;
    if (this.#phase.kind === "killed" || this.#phase.kind === "stuck") {
      // Whoever looks already, sees it.
      if (this.#phase.kind === "killed" && kill(-this.processId, 0) === "gone") this.#finish();
      return;
    }
    const ending = this.#phase.kind === "ending" ? this.#phase.ending : this.#ownEnding(left);
    if (kill(-this.processId, 0) === "gone") {
      this.#phase = { kind: "killed", ending };
      this.#finish();
    } else {
      this.#kill(ending);
    }
  }

  #ownEnding(ended: Ending): TaskEnding {
    if (this.#told !== undefined) return this.#told;
    const how = describeEnding(ended, signalName);
    return { kind: "died", how, lastWords: this.#lastWords };
  }

  #finish(): void {
    const phase = this.#phase;
    if (phase.kind === "gone") return;
    this.#phase = { kind: "gone" };
    this.#clearTimers();
    this.#closePipes();
    this.#parts.records.remove(this.processId);
    if (phase.kind === "killed" || phase.kind === "ending") this.#handlers.onEnd(phase.ending);
    this.#handlers.onGone();
  }

  #closeInput(): void {
    if (!this.#input.isOpen) return;
    this.#watches[0]?.[Symbol.dispose]();
    this.#input.close();
  }

  #closePipes(): void {
    this.#closeInput();
    for (const watch of this.#watches.slice(1, 3)) watch[Symbol.dispose]();
    this.#output.close();
    this.#error.close();
  }

  /** The order, then what is asked; the end of its input is a word of its own. */
  #send(watch: Watch): void {
    if (this.#unsent.length === 0 && this.#question !== undefined) {
      this.#unsent = lineOf({ question: this.#question } satisfies TaskQuestion);
      this.#question = undefined;
    }
    const size = Math.min(this.#unsent.length, READ_SIZE);
    memory.bytes.set(this.#unsent.subarray(0, size));
    const written = writeFrom(this.#input, memory, size);
    if (written === -Errno.EAGAIN) return;
    this.#unsent = this.#unsent.subarray(Math.max(0, written));
    // EPIPE: it is dead, and its end is told by another.
    const isAll = this.#unsent.length === 0 && this.#question === undefined;
    if (written < 0 || isAll) watch.pause();
  }

  #read(): void {
    for (let count = 0; count < READS_A_TURN && this.#output.isOpen; count++) {
      if (!this.#readOnce()) return;
    }
  }

  /** @returns whether there may be more */
  #readOnce(): boolean {
    const length = readInto(this.#output, memory);
    if (length === 0) this.#watches[1]?.pause();
    if (length <= 0) return false;
    const lines = this.#lines.push(memory.bytes.subarray(0, length));
    if (lines === undefined)
      return this.#violate(`a line of more than ${taskLimits.lineBytes} bytes`);
    for (const text of lines) {
      const violation = this.#take(text);
      if (violation !== undefined) return this.#violate(violation);
    }
    return length === READ_SIZE;
  }

  #violate(what: string): false {
    const how = `wrote what is no line of a task: ${what}`;
    this.#watches[1]?.pause();
    if (this.#phase.kind === "running") {
      this.#kill({ kind: "died", how, lastWords: this.#lastWords });
    }
    return false;
  }

  /** @returns what is wrong with it */
  #take(text: string): string | undefined {
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch {
      return "no JSON";
    }
    const checked = v.safeParse(taskLineSchema, body);
    if (!checked.success) return describeIssues(checked.issues);
    const line = checked.output;
    if (this.#phase.kind !== "running" || this.#told !== undefined) return undefined;
    if (line.kind === "report") this.#told = { kind: "report", report: line.report };
    else if (line.kind === "failure") this.#told = { kind: "failure", message: line.message };
    else {
      if (line.kind === "progress") this.#progress = { done: line.done, total: line.total };
      this.#handlers.onLine(line);
    }
    return undefined;
  }

  #readError(): void {
    for (let count = 0; count < READS_A_TURN && this.#error.isOpen; count++) {
      const length = readInto(this.#error, memory);
      if (length === 0) this.#watches[2]?.pause();
      if (length <= 0) return;
      const text = Buffer.from(memory.bytes.subarray(0, length)).toString();
      this.#lastWords = (this.#lastWords + text).slice(-taskLimits.errorBytes);
    }
  }

  /** All that is in its pipes now: it is dead, and writes no more. */
  #drain(): void {
    this.#read();
    this.#readError();
  }
}

const lineOf = (value: TaskOrder | TaskQuestion): Uint8Array =>
  new TextEncoder().encode(`${JSON.stringify(value)}\n`);

interface Spawned {
  readonly process: OwnedDescriptor;
  readonly processId: ProcessId;
  readonly input: OwnedDescriptor;
  readonly output: OwnedDescriptor;
  readonly error: OwnedDescriptor;
}

/** @throws SystemCallError */
function spawn({ own, environment }: TaskParts): Spawned {
  const open: OwnedDescriptor[] = [];
  const pipe = () => {
    const made = makePipe();
    open.push(made.read, made.write);
    return made;
  };
  try {
    const [input, output, error] = [pipe(), pipe(), pipe()];
    setBlocking(input.read);
    setNonBlocking(input.write);
    using prepared = new PreparedSpawn({
      path: own.path,
      argv: [...own.words, "--vetting-task"],
      environment,
      workingDirectory: "/",
      descriptors: [
        { source: input.read.number, target: 0 },
        { source: output.write.number, target: 1 },
        { source: error.write.number, target: 2 },
      ],
    });
    const result = prepared.spawn();
    if (result.kind === "refused") {
      throw new SystemCallError("posix_spawn", result.errno, errnoMessage(result.errno));
    }
    for (const end of [input.read, output.write, error.write]) end.close();
    const { process, processId } = result;
    return { process, processId, input: input.write, output: output.read, error: error.read };
  } catch (failure) {
    for (const descriptor of open) descriptor.close();
    throw failure;
  }
}

/** From the end of its input until SIGKILL. */
export const TASK_GRACE: Milliseconds = 2_000;

export const usualTimes = { grace: TASK_GRACE, stuckAfter: STUCK_AFTER } as const;
