import { accessSync, constants, statSync } from "node:fs";
import { makePipe, readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { type Ending, signalProcess, waitForChild } from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import { descriptorLimit, kill } from "../../../ffi/process.ts";
import { Errno, errnoMessage } from "../../../ffi/system-call-error.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import type { ProcessId } from "../../units/units.ts";

/** SD_LISTEN_FDS_START of sd_listen_fds(3). */
const FIRST_DESCRIPTOR = 3;
const REPORT_SIZE = 4096;
const defaultSearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export interface ProgramPlan {
  readonly command: readonly string[];
  /** NAME=value; LISTEN_PID is added where there are descriptors. */
  readonly environment: readonly string[];
  /** Become 3, 4, …; they stay the caller's. */
  readonly descriptors: readonly OwnedDescriptor[];
}

export interface ProgramHandlers {
  /** The program's first instruction is near: exec succeeded. */
  onStarted(): void;
  /** It could not be executed. */
  onRefused(reason: string): void;
  onEnded(ending: Ending): void;
}

/** A program that we started, with our own standard streams, in a session and group of its own. */
export class Program implements Disposable {
  readonly processId: ProcessId;
  readonly #process: OwnedDescriptor;
  readonly #loop: EventLoop;
  readonly #handlers: ProgramHandlers;
  readonly #watch: Watch;
  /** Why the launcher failed; its end is no end of the program then. */
  #failure = "";
  #report: { readonly descriptor: OwnedDescriptor; readonly watch: Watch } | undefined;
  #isOver = false;

  /** @throws Error when no process can be made */
  constructor(loop: EventLoop, plan: ProgramPlan, handlers: ProgramHandlers) {
    this.#loop = loop;
    this.#handlers = handlers;
    const { read, write } = makePipe();
    using report = write;
    const { processId, process } = startLauncher(plan, report);
    this.processId = processId;
    this.#process = process;
    this.#awaitReport(read);
    this.#watch = loop.watch(process, "readable", () => this.#onEnd());
  }

  /** A signal to the program itself. */
  signal(signal: number): void {
    if (!this.#isOver) signalProcess(this.#process, signal);
  }

  /** A signal to its whole group, as a terminal sends it. */
  signalGroup(signal: number): void {
    if (!this.#isOver) kill(-this.processId, signal);
  }

  /** The launcher's end of it closes with a successful exec. */
  #awaitReport(descriptor: OwnedDescriptor): void {
    const memory = new NativeMemory(REPORT_SIZE);
    const watch = this.#loop.watch(descriptor, "readable", () => {
      const length = readInto(descriptor, memory);
      if (length === -Errno.EAGAIN) return;
      if (length > 0) {
        this.#failure += new TextDecoder().decode(memory.bytes.subarray(0, length));
        return;
      }
      this.#closeReport();
      if (this.#failure === "") this.#handlers.onStarted();
    });
    this.#report = { descriptor, watch };
  }

  #closeReport(): void {
    this.#report?.watch[Symbol.dispose]();
    this.#report?.descriptor.close();
    this.#report = undefined;
  }

  #onEnd(): void {
    const ending = waitForChild(this.#process, "reap");
    if (ending === undefined || ending === "not-a-child") return;
    this.#isOver = true;
    this.#watch.pause();
    this.#loop.afterTurn(() => {
      // A program may have ended before the news of its start was read.
      const wasStarted = this.#report === undefined;
      if (!wasStarted) this.#readRest();
      this[Symbol.dispose]();
      if (this.#failure !== "") this.#handlers.onRefused(reasonOf(this.#failure));
      else this.#handlers.onEnded(ending);
    });
  }

  #readRest(): void {
    const memory = new NativeMemory(REPORT_SIZE);
    const report = this.#report?.descriptor;
    if (report === undefined) return;
    for (let length = readInto(report, memory); length > 0; length = readInto(report, memory)) {
      this.#failure += new TextDecoder().decode(memory.bytes.subarray(0, length));
    }
  }

  [Symbol.dispose](): void {
    this.#closeReport();
    this.#watch[Symbol.dispose]();
    this.#process.close();
    this.#isOver = true;
  }
}

/** What our launcher says of its failure, in words. */
function reasonOf(failure: string): string {
  try {
    return (JSON.parse(failure) as { message: string }).message;
  } catch {
    return failure;
  }
}

/** Our own binary becomes the program: only there its own process number is known. */
function startLauncher(
  plan: ProgramPlan,
  report: OwnedDescriptor,
): { readonly processId: ProcessId; readonly process: OwnedDescriptor } {
  const { command, environment, descriptors } = plan;
  const carried = descriptors.map((descriptor, index) => ({
    source: descriptor.number,
    target: FIRST_DESCRIPTOR + index,
  }));
  const reportTarget = FIRST_DESCRIPTOR + descriptors.length;
  const own = descriptorLimit() ?? { soft: 1024, hard: 4096 };
  const launch = {
    constraints: {},
    open_files: { soft: Math.min(formerLimit(own), own.hard), hard: own.hard },
    arguments: command.length,
    descriptors: carried.map(({ target }) => target),
    listen: descriptors.length > 0,
    report: reportTarget,
  };
  const program = resolveProgram(command[0] ?? "", environment);
  const words = [...launcherCommand(), JSON.stringify(launch), program, ...command];
  using spawn = new PreparedSpawn({
    path: "/proc/self/exe",
    argv: [...words, ...environment],
    environment: [],
    descriptors: [
      ...[0, 1, 2].map((number) => ({ source: number, target: number })),
      ...carried,
      { source: report.number, target: reportTarget },
    ],
  });
  const result = spawn.spawn();
  if (result.kind === "started") return result;
  throw new Error(`Cannot start a process: ${errnoMessage(result.errno)}`);
}

function launcherCommand(): string[] {
  const isCompiled = Bun.main.startsWith("/$bunfs/");
  return [process.execPath, ...(isCompiled ? [] : [Bun.main]), "--launch"];
}

/** Bun has raised our own soft limit; whoever started us has it still, as a rule. */
function formerLimit(own: { readonly soft: number; readonly hard: number }): number {
  const parent = descriptorLimit(process.ppid);
  return parent !== undefined && parent.hard === own.hard ? parent.soft : 1024;
}

/** The file of a program, as execvp(3) finds it with the program's own PATH. */
function resolveProgram(name: string, environment: readonly string[]): string {
  if (name.includes("/") || name === "") return name;
  const variable = environment.find((entry) => entry.startsWith("PATH="));
  const folders = (variable?.slice("PATH=".length) || defaultSearchPath).split(":");
  for (const folder of folders) {
    const path = `${folder === "" ? "." : folder}/${name}`;
    try {
      if (!statSync(path).isFile()) continue;
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // The next folder may have it.
    }
  }
  return `${folders[0] || "."}/${name}`;
}
