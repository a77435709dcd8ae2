import { rmSync } from "node:fs";
import { makePipe, readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { openProcess, signalProcess, waitForChild } from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import { kill, setFileModeMask } from "../../../ffi/process.ts";
import { Errno, errnoMessage, SystemCallError } from "../../../ffi/system-call-error.ts";
import { bindUnix, makeUnixSocket, receiveMessage } from "../../../ffi/unix-socket.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import type { Ending } from "../../units/ending.ts";
import { Signal } from "../../units/signals.ts";
import { ExecutorRefused } from "../executor.ts";
import { MOST_LOG } from "../protocol-supervise.ts";
import { statOf, whereItIsThere } from "./process-files.ts";

export interface ChildPlan {
  readonly program: string;
  readonly words: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** Where it tells of itself, as by sd_notify(3); made here, and removed at its end. */
  readonly notifySocket: string;
  /** own: what it says goes where our own output goes; kept: as well, and its end is kept. */
  readonly output: "own" | "kept";
}

export interface ChildEnding {
  readonly ending: Ending;
  /** The end of what it said. */
  readonly log: string;
  readonly processorSeconds: number | null;
}

const READ_BYTES = 16_384;
/** Clock ticks a second in /proc: proc_pid_stat(5); x86-64 and arm64 have no other. */
const TICKS = 100;
const STDERR = 2;

/**
 * A program that is started in a session of its own, heard, and waited for. When its first process
 * ends, whoever is left of its process group is ended while the number is still theirs.
 */
export class SupervisedChild {
  readonly processId: number;
  readonly ended: Promise<ChildEnding>;
  readonly #loop: EventLoop;
  readonly #plan: ChildPlan;
  readonly #process: OwnedDescriptor;
  readonly #notices: OwnedDescriptor;
  readonly #output: OwnedDescriptor | undefined;
  readonly #watches: Watch[] = [];
  readonly #onNotice: (lines: readonly string[]) => void;
  readonly #settle: (ending: ChildEnding) => void;
  readonly #decoder = new TextDecoder();
  #log = "";

  /** @throws ExecutorRefused when it cannot be started: nothing is left of it then */
  static start(
    loop: EventLoop,
    plan: ChildPlan,
    onNotice: (lines: readonly string[]) => void,
  ): SupervisedChild {
    const notices = listenFor(plan);
    const pipe = plan.output === "kept" ? makePipe() : undefined;
    const said = pipe?.write.number;
    const environment = { ...plan.environment, NOTIFY_SOCKET: plan.notifySocket };
    using prepared = new PreparedSpawn({
      path: plan.program,
      argv: [plan.program, ...plan.words],
      environment: Object.entries(environment).map(([name, value]) => `${name}=${value}`),
      workingDirectory: "/",
      descriptors: [
        { source: said ?? 1, target: 1 },
        { source: said ?? STDERR, target: STDERR },
      ],
    });
    const result = prepared.spawn();
    pipe?.write.close();
    if (result.kind === "started") {
      const { processId, process } = result;
      const output = pipe?.read;
      return new SupervisedChild(loop, plan, { processId, process, notices, output, onNotice });
    }
    pipe?.read.close();
    notices.close();
    rmSync(plan.notifySocket, { force: true });
    throw new ExecutorRefused(
      `Cannot start ${plan.program}: expected a program that can be run, received ` +
        `${errnoMessage(result.errno)}. Look at the file.`,
    );
  }

  /**
   * Takes up a child that this process has started as another program, before an execve(2).
   * @returns undefined when it is no child of ours, or has ended and was reaped
   */
  static adopt(
    loop: EventLoop,
    child: { readonly processId: number; readonly plan: ChildPlan },
    onNotice: (lines: readonly string[]) => void,
  ): SupervisedChild | undefined {
    const { processId, plan } = child;
    const process = openProcess(processId);
    if (process === undefined) return undefined;
    if (waitForChild(process, "leave") === "not-a-child") {
      process.close();
      return undefined;
    }
    const [notices, output] = [listenFor(plan), undefined];
    return new SupervisedChild(loop, plan, { processId, process, notices, output, onNotice });
  }

  private constructor(
    loop: EventLoop,
    plan: ChildPlan,
    parts: {
      readonly processId: number;
      readonly process: OwnedDescriptor;
      readonly notices: OwnedDescriptor;
      readonly output: OwnedDescriptor | undefined;
      readonly onNotice: (lines: readonly string[]) => void;
    },
  ) {
    const { promise, resolve } = Promise.withResolvers<ChildEnding>();
    this.#loop = loop;
    this.#plan = plan;
    this.#process = parts.process;
    this.#notices = parts.notices;
    this.#output = parts.output;
    this.#onNotice = parts.onNotice;
    this.#settle = resolve;
    this.processId = parts.processId;
    this.ended = promise;
    this.#watches.push(
      this.#loop.watch(this.#process, "readable", () => this.#onDeath()),
      this.#loop.watch(this.#notices, "readable", () => this.#readNotices()),
    );
    const { output } = parts;
    if (output !== undefined) {
      const watch = this.#loop.watch(output, "readable", () => {
        // After its end nothing more comes; the death tells the rest.
        if (this.#readOutput() === "over") watch[Symbol.dispose]();
      });
      this.#watches.push(watch);
    }
  }

  /** To it and to all of its process group; nothing once it is reaped. */
  signal(signal: number): void {
    if (this.#process.isOpen && signalProcess(this.#process, 0) !== "gone") {
      kill(-this.processId, signal);
    }
  }

  #onDeath(): void {
    const ending = waitForChild(this.#process, "leave");
    if (ending === undefined) return;
    if (ending === "not-a-child") throw new Error(`Bug: ${this.processId} was reaped by another`);
    const processorSeconds = processorTimeOf(this.processId);
    // The dead leader still owns the number of the group.
    kill(-this.processId, Signal.SIGKILL);
    waitForChild(this.#process, "reap");
    this.#readNotices();
    if (this.#output !== undefined) this.#readOutput();
    for (const watch of this.#watches) watch[Symbol.dispose]();
    this.#process.close();
    this.#notices.close();
    this.#output?.close();
    rmSync(this.#plan.notifySocket, { force: true });
    this.#settle({ ending, log: this.#log, processorSeconds });
  }

  #readNotices(): void {
    const memory = new NativeMemory(READ_BYTES);
    for (;;) {
      const { length, descriptors } = receiveMessage(this.#notices, memory);
      for (const descriptor of descriptors) descriptor.close();
      if (length <= 0) return;
      this.#onNotice(new TextDecoder().decode(memory.bytes.subarray(0, length)).split("\n"));
    }
  }

  #readOutput(): "open" | "over" {
    const output = this.#output;
    if (output === undefined) return "over";
    const memory = new NativeMemory(READ_BYTES);
    for (;;) {
      const length = readInto(output, memory);
      if (length === -Errno.EAGAIN) return "open";
      if (length <= 0) return "over";
      const text = this.#decoder.decode(memory.bytes.subarray(0, length), { stream: true });
      process.stderr.write(text);
      this.#log = `${this.#log}${text}`.slice(-MOST_LOG);
    }
  }
}

function listenFor({ notifySocket }: ChildPlan): OwnedDescriptor {
  rmSync(notifySocket, { force: true });
  const socket = makeUnixSocket("datagram");
  const before = setFileModeMask(0o077);
  const result = bindUnix(socket, notifySocket);
  setFileModeMask(before);
  if (result === 0) return socket;
  socket.close();
  throw new SystemCallError("bind", -result, notifySocket);
}

/** Of a process that is not reaped yet; null where /proc does not say. */
function processorTimeOf(processId: number): number | null {
  const fields = whereItIsThere(() => statOf(processId)) ?? [];
  const ticks = Number(fields[11]) + Number(fields[12]);
  return Number.isFinite(ticks) ? ticks / TICKS : null;
}
