import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { Ending } from "../../../ffi/pidfd.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { ServiceNotifier } from "../../messaging/service-notify.ts";
import { formatBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { Signal, signalName } from "../../units/signals.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import {
  decodeRunManifest,
  encodeRunManifest,
  RUN_MANIFEST_VERSION,
  type RunManifest,
  runLimits,
} from "../run/manifest.ts";
import { listed, type Say } from "../run/words.ts";
import { describeError, type PreservationRequest, UpdateClient } from "../update-client.ts";
import {
  isProblem,
  MANIFEST_TOKEN,
  memoryFileOf,
  passStep,
  preserveFile,
  retrieveFile,
  retrieveManifest,
} from "./carried.ts";
import { Parking } from "./parking.ts";
import { continueGroup, type Guard, guardGroup, statusOf, stopGroup } from "./process-group.ts";
import { Program } from "./program.ts";
import { keyOf, type TakenFile, takeMemory } from "./program-memory.ts";

export interface RunOptions {
  readonly id: string;
  readonly socket: string;
  readonly required: boolean;
  readonly deadline: Milliseconds;
  readonly command: readonly string[];
  /** When the program counts as started. */
  readonly ready: "started" | "notify";
  /** What cannot be preserved is left out in place of an ABORT. */
  readonly skipOthers: boolean;
  /** How long luod is waited for before the program is started. */
  readonly wait: Milliseconds;
}

/** Those that end a program, and are asked about while its memory is preserved. */
const endingSignals = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const;
const otherSignals = ["SIGUSR1", "SIGUSR2", "SIGWINCH"] as const;
/** A terminal sends these to all of its group. */
const terminalSignals: readonly string[] = ["SIGINT", "SIGQUIT"];

/** A restored file, with its name. */
interface Restored {
  readonly descriptor: OwnedDescriptor;
  readonly name: string;
  readonly source: "program" | "parked";
}

/** An update in which the program is stopped. */
interface Preservation {
  readonly request: PreservationRequest;
  readonly session: OwnedDescriptor;
  readonly begun: number;
  readonly guard: Guard;
  /** It was stopped by somebody else before. */
  readonly wasStopped: boolean;
  readonly files: TakenFile[];
  stopping: Disposable | undefined;
  isReady: boolean;
}

/** Runs one program, and carries its memfds through changes of the kernel. */
export class ProgramRunner implements Disposable {
  readonly #loop: EventLoop;
  readonly #options: RunOptions;
  readonly #say: Say;
  readonly #ended = Promise.withResolvers<number>();
  readonly #notifier = new ServiceNotifier();
  readonly #client: UpdateClient;
  readonly #parking: Parking;
  /** Of files that came from an earlier kernel. */
  readonly #names = new Map<string, string>();
  readonly #timers = new Set<Disposable>();
  #program: Program | undefined;
  #isStarted = false;
  #isServing = false;
  /** Why what waits could not be claimed, or luod does not take this id. */
  #refusal: string | undefined;
  /** While what was restored is not finished: this process's end is the program's end. */
  #restoring: Guard | undefined;
  #preservation: Preservation | undefined;

  constructor(loop: EventLoop, options: RunOptions, say: Say) {
    this.#loop = loop;
    this.#options = options;
    this.#say = say;
    this.#parking = new Parking(loop, {
      onReady: () => this.#onReady(),
      onForward: (lines) => this.#notifier.tell(...lines),
      onTrouble: (message) => this.#trouble(message),
    });
    const { id, socket, required, deadline } = options;
    const words = { id, socket, program: "hostler live-update run" };
    this.#client = new UpdateClient(
      loop,
      { ...words, subscription: { required, deadline } },
      {
        onStart: (request, session) => this.#onStart(request, session),
        onAborted: (reason) => this.#onAborted(reason),
        onClaimed: (session) => this.#onClaimed(session),
        onNothing: (why) => {
          say({ what: "nothing-waits", text: `starts the program anew: ${why}` });
          this.#start([]);
        },
        onClaimRefused: (error) => {
          this.#refusal = describeError(error);
          this.#trouble(`cannot claim yet: ${this.#refusal}`);
        },
        onRefused: (error, isFinal) => this.#onRefused(describeError(error), isFinal),
        onSettled: () => this.#onSettled(),
        onTrouble: (message) => this.#trouble(message),
      },
    );
  }

  /** @returns the exit code: the program's own */
  async run(): Promise<number> {
    for (const signal of endingSignals) process.on(signal, () => this.#onEndingSignal(signal));
    for (const signal of otherSignals) process.on(signal, () => this.#pass(signal));
    this.#keepWatchdog();
    this.#wake(this.#options.wait, () => this.#startWithoutLuod({ kind: "waited" }));
    this.#client.start();
    return await this.#ended.promise;
  }

  fail(failure: unknown): void {
    this.#ended.reject(failure);
  }

  #wake(after: Milliseconds, call: () => void): void {
    const timer = this.#loop.wakeAfter(after, () => {
      this.#timers.delete(timer);
      call();
    });
    this.#timers.add(timer);
  }

  #trouble(message: string): void {
    this.#say({ what: "trouble", text: message });
  }

  /** The program cannot beat while it is stopped, so we do. */
  #keepWatchdog(): void {
    const { watchdog } = this.#notifier;
    if (watchdog === undefined) return;
    this.#notifier.tell("WATCHDOG=1");
    this.#wake(watchdog / 2, () => this.#keepWatchdog());
  }

  /** One that runs goes on: it is tried again. One that is to begin has no use of waiting. */
  #onRefused(why: string, isFinal: boolean): void {
    this.#refusal = `luod refuses ${this.#options.id}: ${why}`;
    if (isFinal) this.#startWithoutLuod({ kind: "refused" });
  }

  /** Whether memory waits cannot be known: one that must not lose it does not start without. */
  #startWithoutLuod(cause: { readonly kind: "waited" | "refused" }): void {
    if (this.#program !== undefined) return;
    const { wait, socket, required } = this.#options;
    const unclaimed = this.#refusal ?? `no answer of luod at ${socket}`;
    const what =
      cause.kind === "refused" ? unclaimed : `${unclaimed} (for ${formatDuration(wait)})`;
    if (required) {
      const begin = this.#refusal === undefined ? "Start luod, or say" : "Say";
      const mend = `${begin} --optional to start without it.`;
      const risk = "memory of an earlier kernel may wait there";
      this.#end(ExitCode.refused, `${what}. The program is not started: ${risk}. ${mend}`);
      return;
    }
    this.#trouble(`${what}: starts without; memory that waits there would be claimed next time`);
    this.#start([]);
  }

  #end(code: number, text?: string): void {
    if (text !== undefined) this.#say({ what: "ends", text });
    this.#ended.resolve(code);
  }

  // After a kexec.

  #onClaimed(given: OwnedDescriptor): void {
    using session = given;
    passStep("run", "claimed");
    if (this.#program !== undefined) {
      this.#trouble("memory of an earlier kernel waits, and the program was started without it");
      return;
    }
    const restored = restoreFiles(session);
    passStep("run", "retrieved");
    if (isProblem(restored)) {
      const mend = "Its session stays at luod, to be claimed again or finished by luoctl finish.";
      this.#end(ExitCode.refused, `cannot restore: ${restored.problem}. ${mend}`);
      return;
    }
    const { manifest, files } = restored;
    this.#compare(manifest);
    const bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
    const text = `restores ${files.length} files, ${formatBytes(bytes)}`;
    this.#say({ what: "restoring", text, files: files.length, bytes });
    this.#start(files);
  }

  #compare({ command }: RunManifest): void {
    const now = this.#options.command;
    if (JSON.stringify(command) === JSON.stringify(now)) return;
    this.#trouble(`this memory is of another command: ${command.join(" ")}`);
  }

  /** Starts the program; with restored files under 3, 4, …: sd_listen_fds(3). */
  #start(files: readonly Restored[]): void {
    const { command, ready } = this.#options;
    const names = files.map(({ name }) => name).join(":");
    const listen = [`LISTEN_FDS=${files.length}`, `LISTEN_FDNAMES=${names}`];
    const environment = [
      ...Object.entries(process.env)
        .filter(([name]) => !/^(LISTEN_|NOTIFY_SOCKET$|WATCHDOG_)/.test(name))
        .map(([name, value]) => `${name}=${value}`),
      `NOTIFY_SOCKET=${this.#parking.path}`,
      ...(files.length > 0 ? listen : []),
    ];
    const descriptors = files.map(({ descriptor }) => descriptor);
    const program = new Program(
      this.#loop,
      { command, environment, descriptors },
      {
        onStarted: () => this.#onStarted(ready),
        onRefused: (reason) => this.#end(ExitCode.refused, reason),
        onEnded: (ending) => this.#onProgramEnded(ending),
      },
    );
    this.#program = program;
    this.#parking.serve(program.processId);
    if (files.length > 0) {
      // Two programs on one memory would be worse than none: the next `run` claims it again.
      const trouble = (message: string) => this.#trouble(message);
      this.#restoring = guardGroup(program.processId, "KILL", trouble);
    }
    for (const { name, descriptor, source } of files) {
      this.#names.set(keyOf(descriptor), name);
      if (source === "parked") this.#parking.store(name, descriptor);
      else descriptor.close();
    }
  }

  #onStarted(ready: RunOptions["ready"]): void {
    passStep("run", "started");
    this.#isStarted = true;
    const text = `started process ${this.#program?.processId}`;
    this.#say({ what: "started", text });
    if (ready === "started") this.#serves();
  }

  #onReady(): void {
    if (this.#options.ready === "notify") this.#serves();
  }

  /** The program has what was restored. */
  #serves(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    if (this.#options.ready === "started") this.#notifier.tell("READY=1");
    const guard = this.#restoring;
    this.#restoring = undefined;
    if (guard === undefined) {
      this.#client.finished();
      return;
    }
    // First, so that no death of ours can end the only one who still has this memory.
    void guard.release().then(() => {
      passStep("run", "released");
      this.#client.finished();
    });
  }

  #onSettled(): void {
    passStep("run", "finished");
    this.#say({ what: "finished", text: "the restored memory is the program's alone" });
  }

  #onProgramEnded(ending: Ending): void {
    const { code, how } = describeEnding(ending);
    if (this.#preservation !== undefined) {
      this.#client.abort(`its program ended (${how})`);
      this.#leave(this.#preservation);
    }
    // Whoever it left in the background goes on.
    void this.#restoring?.release();
    this.#say({ what: "ended", text: `the program ended: ${how}` });
    this.#end(code);
  }

  // Signals.

  #pass(signal: (typeof otherSignals)[number] | (typeof endingSignals)[number]): void {
    const number = Signal[signal];
    if (terminalSignals.includes(signal)) this.#program?.signalGroup(number);
    else this.#program?.signal(number);
  }

  /**
   * What is preserved must not change by a program that cleans up, unless the update is over: at a
   * kexec everybody is sent SIGTERM.
   */
  #onEndingSignal(signal: (typeof endingSignals)[number]): void {
    if (this.#program === undefined) {
      this.#end(128 + Signal[signal], `${signal} before the program was started`);
      return;
    }
    const preservation = this.#preservation;
    if (preservation === undefined) {
      this.#pass(signal);
      return;
    }
    this.#client.abort(`received ${signal}`, (what) => {
      if (what === "aborted") {
        this.#pass(signal);
        return;
      }
      const text = `${signal} while the new kernel is entered: the program is ended as it is`;
      this.#say({ what: "entering", text });
      this.#program?.signalGroup(Signal.SIGKILL);
      void preservation.guard.release();
      this.#end(128 + Signal[signal]);
    });
  }

  // Before a kexec.

  #onStart(request: PreservationRequest, session: OwnedDescriptor): void {
    if (this.#preservation !== undefined) this.#leave(this.#preservation);
    if (this.#program === undefined || !this.#isStarted) {
      session.close();
      this.#client.abort("its program is not started yet");
      return;
    }
    const { processId } = this.#program;
    const what = request.dryRun ? "dry run" : "update";
    const text = `${what} ${request.update}: stops the program`;
    this.#say({ what: "stopping", text, update: request.update });
    const preservation: Preservation = {
      request,
      session,
      begun: monotonicNow(),
      wasStopped: statusOf(processId)?.state === "T",
      guard: guardGroup(processId, "CONT", (message) => this.#trouble(message)),
      files: [],
      stopping: undefined,
      isReady: false,
    };
    this.#preservation = preservation;
    preservation.stopping = stopGroup(this.#loop, processId, {
      limit: runLimits.stopTime,
      onDone: (members) => {
        if ("problem" in members) this.#refuse(preservation, members.problem);
        else this.#guarded(preservation, () => this.#take(preservation, members));
      },
    });
  }

  /** What fails in a preservation ends this preservation alone. */
  #guarded(preservation: Preservation, call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#refuse(preservation, error instanceof Error ? error.message : String(error));
    }
  }

  #take(preservation: Preservation, members: readonly number[]): void {
    passStep("run", "stopped");
    this.#parking.receive();
    const { files, others } = takeMemory(members, this.#parking.stored, this.#names);
    preservation.files.push(...files);
    passStep("run", "taken");
    if (others.length > 0 && !this.#options.skipOthers) {
      const mend = "--skip-others goes on without";
      this.#refuse(preservation, `it cannot be preserved: ${listed(others)} (${mend})`);
      return;
    }
    if (others.length > 0) this.#sayLeftOut(others);
    this.#preserveNext(preservation, []);
  }

  #sayLeftOut(names: readonly string[]): void {
    this.#say({ what: "left-out", text: `goes without ${listed(names)}`, names });
  }

  /** One file in a turn: a kernel takes seconds for gigabytes, and luod is to hear of them. */
  #preserveNext(preservation: Preservation, done: RunManifest["files"]): void {
    if (this.#preservation !== preservation) return;
    const { files, session } = preservation;
    const next = files.shift();
    if (next === undefined) {
      this.#preserveManifest(preservation, done);
      return;
    }
    const { descriptor, file } = next;
    const token = BigInt(done.length + 1);
    const problem = preserveFile(session, descriptor, token);
    descriptor.close();
    passStep("run", "preserved");
    if (problem !== undefined && !this.#options.skipOthers) {
      this.#refuse(preservation, `memfd ${file.name} cannot be preserved: ${problem}`);
      return;
    }
    if (problem !== undefined) this.#sayLeftOut([`memfd ${file.name}: ${problem}`]);
    const kept = problem === undefined ? [...done, { ...file, token: String(token) }] : done;
    this.#tellProgress(kept, files);
    this.#wake(0, () => this.#guarded(preservation, () => this.#preserveNext(preservation, kept)));
  }

  #tellProgress(done: RunManifest["files"], left: readonly TakenFile[]): void {
    const bytes = bytesOf(done);
    const all = bytes + bytesOf(left.map(({ file }) => file));
    const percent = all === 0 ? 100 : (100 * bytes) / all;
    const detail = `${done.length} of ${done.length + left.length} files`;
    this.#client.progress({ percent, bytes, detail });
  }

  #preserveManifest(preservation: Preservation, files: RunManifest["files"]): void {
    const { session, request, begun } = preservation;
    const manifest = encodeRunManifest({
      version: RUN_MANIFEST_VERSION,
      kind: "run",
      command: [...this.#options.command],
      environment: Object.entries(process.env).map(([name, value]) => `${name}=${value}`),
      working_directory: process.cwd(),
      files,
    });
    using file = memoryFileOf("hostler-run", manifest);
    const problem = preserveFile(session, file, MANIFEST_TOKEN);
    passStep("run", "manifest");
    if (problem !== undefined) {
      this.#refuse(preservation, `the manifest cannot be preserved: ${problem}`);
      return;
    }
    session.close();
    preservation.isReady = true;
    const bytes = bytesOf(files) + manifest.length;
    this.#client.ready(bytes);
    passStep("run", "ready");
    const took = formatDuration(monotonicNow() - begun);
    const text = `ready after ${took}: ${files.length} files, ${formatBytes(bytes)}`;
    this.#say({ what: "ready", text, update: request.update, bytes, files: files.length });
  }

  #refuse(preservation: Preservation, reason: string): void {
    if (this.#preservation !== preservation) return;
    this.#say({ what: "refused", text: reason, update: preservation.request.update });
    this.#client.abort(reason);
    this.#resume(preservation);
  }

  #onAborted(reason: string): void {
    const preservation = this.#preservation;
    const update = preservation?.request.update;
    const text = `the update ended: ${reason}; the program goes on`;
    this.#say({ what: "aborted", text, ...(update !== undefined && { update }) });
    if (preservation !== undefined) this.#resume(preservation);
  }

  #resume(preservation: Preservation): void {
    this.#leave(preservation);
    const group = this.#program?.processId;
    if (group !== undefined && !preservation.wasStopped) continueGroup(group);
    void preservation.guard.release();
  }

  /** Lets go of all that was taken for it. */
  #leave(preservation: Preservation): void {
    this.#preservation = undefined;
    preservation.stopping?.[Symbol.dispose]();
    preservation.session.close();
    for (const { descriptor } of preservation.files.splice(0)) descriptor.close();
  }

  [Symbol.dispose](): void {
    for (const timer of this.#timers) timer[Symbol.dispose]();
    this.#client[Symbol.dispose]();
    this.#parking[Symbol.dispose]();
    this.#program?.[Symbol.dispose]();
  }
}

const bytesOf = (files: readonly { readonly bytes: number }[]) =>
  files.reduce((sum, { bytes }) => sum + bytes, 0);

function describeEnding(ending: Ending): { readonly code: number; readonly how: string } {
  if (ending.kind === "exited") return { code: ending.status, how: `exit ${ending.status}` };
  return { code: 128 + ending.signal, how: signalName(ending.signal) };
}

/** All files of a restored session, or why it is not to be used. */
function restoreFiles(
  session: OwnedDescriptor,
): { readonly manifest: RunManifest; readonly files: Restored[] } | { readonly problem: string } {
  const found = retrieveManifest(session, runLimits.manifestBytes);
  if (isProblem(found)) return found;
  const manifest = decodeRunManifest(found.bytes);
  if (isProblem(manifest))
    return { problem: `its manifest is not understood: ${manifest.problem}` };
  const files: Restored[] = [];
  for (const { token, name, source } of manifest.files) {
    const file = retrieveFile(session, BigInt(token));
    if (isProblem(file)) {
      for (const { descriptor } of files) descriptor.close();
      return { problem: `${name}: ${file.problem}` };
    }
    files.push({ descriptor: file, name, source });
  }
  return { manifest, files };
}
