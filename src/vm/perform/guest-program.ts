import { makePipe, readInto, setBlocking, writeFrom } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { waitForChild } from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import { descriptorLimit, kill, setDescriptorLimit } from "../../../ffi/process.ts";
import { Errno, errnoMessage, SystemCallError } from "../../../ffi/system-call-error.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import { type ExecRequest, limits, type ProgramEnding } from "../guest-agent/protocol.ts";

const SIGKILL = 9;
/** Reads of one pipe in one turn: a program that writes much does not hold up the others. */
const READS_A_TURN = 4;
/** Reads of one pipe after the end: programs that stay behind may go on writing for ever. */
const READS_AT_END = 64;
/** Bun raises its own limit of descriptors; programs get the usual one. */
const USUAL_DESCRIPTORS = 1024;

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const defaultEnvironment: readonly string[] = [`PATH=${defaultPath}`, "HOME=/root", "LANG=C.UTF-8"];

export type OutputStream = "stdout" | "stderr";

export interface ProgramHandlers {
  /** Bytes are the handler's to keep. */
  onOutput(stream: OutputStream, bytes: Uint8Array): void;
  /** Called once, after all output. */
  onEnded(end: {
    readonly ending: ProgramEnding;
    readonly leftOut: number;
    readonly killed: KillReason | undefined;
  }): void;
}

export type KillReason = "time-limit" | "asker";

/** What was asked for, less what is the wire's. */
export type ProgramPlan = Omit<ExecRequest, "session" | "id" | "verb">;

interface OutputPipe {
  readonly stream: OutputStream;
  readonly read: OwnedDescriptor;
  readonly watch: Watch;
}

/**
 * A program that an asker began, in a session of its own. At its end the rest of its process group
 * is killed, unless it outlives its asker.
 */
export class GuestProgram {
  readonly #plan: ProgramPlan;
  readonly #handlers: ProgramHandlers;
  readonly #process: OwnedDescriptor;
  readonly processId: number;
  readonly #watch: Watch;
  readonly #timer: Disposable;
  readonly #pipes: OutputPipe[] = [];
  readonly #memory = new NativeMemory(limits.outputPieceBytes);
  #input: ProgramInput | undefined;
  #sent = 0;
  #leftOut = 0;
  #killed: KillReason | undefined;
  /** The port takes no more. */
  #isPaused = false;
  /** Its asker takes no more. */
  #isHeld = false;
  #isMute = false;
  #isOver = false;

  private constructor(
    loop: EventLoop,
    plan: ProgramPlan,
    handlers: ProgramHandlers,
    started: Started,
  ) {
    this.#plan = plan;
    this.#handlers = handlers;
    this.#process = started.process;
    this.processId = started.processId;
    this.#watch = loop.watch(started.process, "readable", () => this.#reap());
    for (const { stream, read } of started.outputs) {
      const watch = loop.watch(read, "readable", () => this.#drain(pipe, READS_A_TURN));
      const pipe = { stream, read, watch };
      this.#pipes.push(pipe);
    }
    if (started.input !== undefined) this.#input = new ProgramInput(loop, started.input);
    this.#timer = loop.wakeAfter(plan.time_limit, () => this.kill("time-limit"));
  }

  /** @returns the program that runs, or why it cannot be started */
  static start(
    loop: EventLoop,
    plan: ProgramPlan,
    handlers: ProgramHandlers,
  ): GuestProgram | string {
    const started = start(plan);
    return typeof started === "string" ? started : new GuestProgram(loop, plan, handlers, started);
  }

  get outlives(): boolean {
    return this.#plan.outlives;
  }

  /** False when more came than the limit: then the program is killed. */
  takeInput(bytes: Uint8Array, last: boolean): boolean {
    if (this.#input === undefined || this.#input.take(bytes, last)) return true;
    this.kill("asker");
    return false;
  }

  /** Kills the program and its process group; its end is told as any other. */
  kill(reason: KillReason): void {
    if (!this.#process.isOpen) return;
    this.#killed ??= reason;
    // Until it is reaped the number is its own, and so is that of its group.
    kill(-this.processId, SIGKILL);
  }

  /** Reads no output until `resume`: the program waits when its pipe is full. */
  pause(): void {
    this.#setWaiting({ isPaused: true, isHeld: this.#isHeld });
  }

  resume(): void {
    this.#setWaiting({ isPaused: false, isHeld: this.#isHeld });
  }

  /** As `pause` and `resume`, for this program alone. */
  hold(isHeld: boolean): void {
    this.#setWaiting({ isPaused: this.#isPaused, isHeld });
  }

  #setWaiting({ isPaused, isHeld }: { readonly isPaused: boolean; readonly isHeld: boolean }) {
    const waited = this.#waits;
    this.#isPaused = isPaused;
    this.#isHeld = isHeld;
    if (this.#waits === waited) return;
    for (const { watch, read } of this.#pipes) {
      if (!read.isOpen) continue;
      if (this.#waits) watch.pause();
      else watch.change("readable");
    }
  }

  get #waits(): boolean {
    // What a program that has ended left in its pipes is read whole: nobody comes back for it.
    return !this.#isOver && (this.#isPaused || this.#isHeld);
  }

  /** Nobody hears of it any more: its output is read and thrown away. */
  mute(): void {
    this.#isMute = true;
    this.#setWaiting({ isPaused: false, isHeld: false });
  }

  #drain(pipe: OutputPipe, reads: number): void {
    for (let count = 0; count < reads && pipe.read.isOpen; count++) {
      const length = readInto(pipe.read, this.#memory);
      if (length === -Errno.EAGAIN) return;
      if (length <= 0) {
        this.#close(pipe);
        return;
      }
      this.#tell(pipe.stream, this.#memory.bytes.subarray(0, length));
      if (this.#waits) return;
    }
  }

  #tell(stream: OutputStream, bytes: Uint8Array): void {
    const room = this.#plan.output_limit - this.#sent;
    const told = bytes.slice(0, Math.min(room, bytes.length));
    this.#sent += told.length;
    this.#leftOut += bytes.length - told.length;
    if (told.length > 0 && !this.#isMute) this.#handlers.onOutput(stream, told);
  }

  #close({ watch, read }: OutputPipe): void {
    if (!read.isOpen) return;
    watch[Symbol.dispose]();
    read.close();
  }

  #reap(): void {
    if (!this.#process.isOpen) return;
    const ending = waitForChild(this.#process, "leave");
    if (ending === undefined) return;
    if (ending === "not-a-child") throw new Error("Bug: somebody else reaped a program");
    if (!this.#plan.outlives || this.#killed !== undefined) kill(-this.processId, SIGKILL);
    waitForChild(this.#process, "reap");
    this.#timer[Symbol.dispose]();
    this.#watch[Symbol.dispose]();
    this.#process.close();
    this.#input?.[Symbol.dispose]();
    this.#isOver = true;
    for (const pipe of this.#pipes) {
      this.#drain(pipe, READS_AT_END);
      this.#close(pipe);
    }
    this.#handlers.onEnded({
      ending: toWire(ending),
      leftOut: this.#leftOut,
      killed: this.#killed,
    });
  }
}

function toWire(ending: Exclude<ReturnType<typeof waitForChild>, undefined | string>) {
  if (ending.kind === "exited") return ending;
  const { signal, coreDumped } = ending;
  return { kind: "signalled" as const, signal, core_dumped: coreDumped };
}

interface Started {
  readonly processId: number;
  readonly process: OwnedDescriptor;
  readonly outputs: readonly { readonly stream: OutputStream; readonly read: OwnedDescriptor }[];
  readonly input: OwnedDescriptor | undefined;
}

/** @returns why not, where the kernel refuses */
function start(plan: ProgramPlan): Started | string {
  const { argv, environment = defaultEnvironment, working_directory: folder } = plan;
  const [name = ""] = argv;
  const path = resolveProgram(name, environment, folder);
  if (path === undefined) return `Cannot start ${name}: no such program in PATH`;
  const opened: OwnedDescriptor[] = [];
  const theirs: OwnedDescriptor[] = [];
  try {
    const outputs = openOutputs(plan.streams, opened, theirs);
    const input = plan.input ? openInput(opened, theirs) : undefined;
    const descriptors = [
      { source: outputs.stdout.number, target: 1 },
      { source: outputs.stderr.number, target: 2 },
      ...(input === undefined ? [] : [{ source: input.read.number, target: 0 }]),
    ];
    using spawn = new PreparedSpawn({
      ...{ path, argv, environment, descriptors },
      ...(folder !== undefined && { workingDirectory: folder }),
    });
    const result = withUsualDescriptors((restore) => spawn.spawn(restore));
    if (result.kind === "started") {
      const { processId, process } = result;
      return { processId, process, outputs: outputs.reads, input: input?.write };
    }
    for (const descriptor of opened) descriptor.close();
    const where = folder === undefined ? "" : ` in ${folder}`;
    return `Cannot start ${name}${where}: ${errnoMessage(result.errno)}`;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    for (const descriptor of opened) descriptor.close();
    return `Cannot start ${name}: ${error.message}`;
  } finally {
    for (const descriptor of theirs) descriptor.close();
  }
}

function openOutputs(
  streams: ProgramPlan["streams"],
  opened: OwnedDescriptor[],
  theirs: OwnedDescriptor[],
) {
  const names: readonly OutputStream[] = streams === "together" ? ["stdout"] : ["stdout", "stderr"];
  const pipes = names.map((stream) => {
    const { read, write } = makePipe();
    opened.push(read);
    theirs.push(write);
    return { stream, read, write };
  });
  const [stdout, stderr = stdout] = pipes;
  if (stdout === undefined || stderr === undefined) throw new Error("Bug: no pipe was made");
  return { reads: pipes, stdout: stdout.write, stderr: stderr.write };
}

/** A pipe whose reader waits and whose writer does not: the program is not ours to surprise. */
function openInput(opened: OwnedDescriptor[], theirs: OwnedDescriptor[]) {
  const { read, write } = makePipe();
  opened.push(write);
  theirs.push(read);
  setBlocking(read);
  return { read, write };
}

/** As execvp(3) finds it, with the program's own PATH. */
function resolveProgram(
  name: string,
  environment: readonly string[],
  folder: string | undefined,
): string | undefined {
  if (name.includes("/")) return name;
  const variable = environment.find((entry) => entry.startsWith("PATH="));
  const search = variable?.slice("PATH=".length) || defaultPath;
  return Bun.which(name, { PATH: search, cwd: folder ?? "/" }) ?? undefined;
}

function withUsualDescriptors<T>(spawn: (restore: () => void) => T): T {
  const own = descriptorLimit();
  if (own === undefined || own.soft <= USUAL_DESCRIPTORS) return spawn(() => {});
  let isLowered = true;
  setDescriptorLimit({ ...own, soft: USUAL_DESCRIPTORS });
  const restore = () => {
    if (isLowered) setDescriptorLimit(own);
    isLowered = false;
  };
  try {
    return spawn(restore);
  } finally {
    restore();
  }
}

/** Feeds a program's standard input as it is read. */
class ProgramInput implements Disposable {
  readonly #pipe: OwnedDescriptor;
  readonly #watch: Watch;
  readonly #memory = new NativeMemory(limits.inputPieceBytes);
  readonly #queue: Uint8Array[] = [];
  #taken = 0;
  #isComplete = false;

  constructor(loop: EventLoop, pipe: OwnedDescriptor) {
    this.#pipe = pipe;
    this.#watch = loop.watch(pipe, "hangup", () => this.#flush());
  }

  /** False when it is more than the limit. */
  take(bytes: Uint8Array, last: boolean): boolean {
    this.#taken += bytes.length;
    if (this.#taken > limits.inputBytes) return false;
    if (!this.#pipe.isOpen || this.#isComplete) return true;
    if (bytes.length > 0) this.#queue.push(bytes);
    this.#isComplete = last;
    this.#flush();
    return true;
  }

  #flush(): void {
    if (!this.#pipe.isOpen) return;
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      this.#memory.bytes.set(first);
      const length = writeFrom(this.#pipe, this.#memory, first.length);
      if (length === -Errno.EAGAIN) {
        this.#watch.change("writable");
        return;
      }
      if (length < 0) {
        // The program reads no more, which is its own matter.
        this[Symbol.dispose]();
        return;
      }
      if (length === first.length) this.#queue.shift();
      else this.#queue[0] = first.subarray(length);
    }
    if (this.#isComplete) this[Symbol.dispose]();
    else this.#watch.change("hangup");
  }

  [Symbol.dispose](): void {
    if (!this.#pipe.isOpen) return;
    this.#queue.splice(0);
    this.#watch[Symbol.dispose]();
    this.#pipe.close();
  }
}
