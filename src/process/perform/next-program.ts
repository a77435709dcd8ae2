import { randomBytes } from "node:crypto";
import {
  accessSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  writeSync,
} from "node:fs";
import { isAbsolute } from "node:path";
import * as v from "valibot";
import {
  closeOnExecFrom,
  keepOnExec,
  makePipe,
  readInto,
  setCloseOnExec,
} from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { signalProcess, waitForChild } from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import { execute, holdBackSignals, kill, resetSignals } from "../../../ffi/process.ts";
import { errnoMessage } from "../../../ffi/system-call-error.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { describeEnding, type Ending } from "../../units/ending.ts";
import { Signal, signalName } from "../../units/signals.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import { DRY_RUN_WORD, dryRunAnswerSchema } from "../dry-run-answer.ts";
import { describeVersion, STATE_VERSION } from "../protocol-state.ts";
import { STATE_FILE, STATE_VARIABLE } from "./inheritance.ts";
import type { Luggage } from "./luggage.ts";
import { digestOf } from "./own-program.ts";

/** So long a program may take to say that it can go on. */
const DRY_RUN_LIMIT: Milliseconds = 5_000;

/** Bytes of what a dry run writes that are looked at, of each of its two streams. */
const OUTPUT_LIMIT = 16_384;

/** Signals that the next program is to hear: they are held back until it listens. */
const heldBackSignals: readonly number[] = [
  Signal.SIGTERM,
  Signal.SIGINT,
  Signal.SIGHUP,
  Signal.SIGUSR1,
  Signal.SIGUSR2,
  Signal.SIGALRM,
];

/** From now on they wait for the next program, or for `hearSignals`. */
export function holdBackForNext(): void {
  holdBackSignals(heldBackSignals);
}

/** Whoever was to hear them listens. */
export function hearSignals(): void {
  holdBackSignals([]);
}

type ReexecutionRefusalKind = "program" | "dry-run" | "busy" | "not-quiet" | "execve";

/** The orchestrator stays what it is; nothing has changed. */
export class ReexecutionRefused extends Error {
  override readonly name = "ReexecutionRefused";
  readonly kind: ReexecutionRefusalKind;
  readonly expected: string;
  readonly received: string;
  readonly hint: string;

  constructor(
    kind: ReexecutionRefusalKind,
    { expected, received, hint }: { expected: string; received: string; hint: string },
  ) {
    super(`Cannot go on as another program: expected ${expected}, received ${received}`);
    this.kind = kind;
    this.expected = expected;
    this.received = received;
    this.hint = hint;
  }
}

/** The words of this process, as it was called: proc_pid_cmdline(5). */
function ownWords(): readonly [string, ...string[]] {
  const [first = "hostler", ...rest] = readFileSync("/proc/self/cmdline", "utf8")
    .split("\0")
    .slice(0, -1);
  return [first, ...rest];
}

/** What it was called with; our own variables left out: proc_pid_environ(5). */
function ownEnvironment(): string[] {
  return readFileSync("/proc/self/environ", "utf8")
    .split("\0")
    .filter((variable) => variable !== "" && !variable.startsWith(`${STATE_VARIABLE}=`));
}

/** The file that a new start of this process would run, where its first word says it. */
function usualProgram(): string {
  const [first] = ownWords();
  if (isAbsolute(first)) return first;
  return readlinkSync("/proc/self/exe").replace(/ \(deleted\)$/, "");
}

/** A file that is to be gone on as; it stays the same file, whatever is put at its path. */
export interface NextProgram extends Disposable {
  readonly path: string;
  readonly file: OwnedDescriptor;
}

const mendProgram = "Name an executable file of hostler by its absolute path";

/** @throws ReexecutionRefused for what is no program, or another one than was asked for */
export async function openProgram(asked: {
  readonly program?: string | undefined;
  readonly digest?: string | undefined;
}): Promise<NextProgram> {
  const path = asked.program ?? usualProgram();
  const refuse = (expected: string, received: string) =>
    new ReexecutionRefused("program", { expected, received, hint: mendProgram });
  if (!isAbsolute(path)) throw refuse("an absolute path", path);
  let file: OwnedDescriptor;
  try {
    accessSync(path, constants.X_OK);
    file = new OwnedDescriptor(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
  } catch (error) {
    throw refuse(`an executable file at ${path}`, (error as Error).message);
  }
  try {
    if (!fstatSync(file.number).isFile()) throw refuse(`a file at ${path}`, "something else");
    if (asked.digest !== undefined) {
      const digest = await digestOf(`/proc/self/fd/${file.number}`);
      if (digest !== asked.digest) {
        throw refuse(`SHA-256 ${asked.digest} of ${path}`, digest);
      }
    }
  } catch (error) {
    file.close();
    throw error;
  }
  return { path, file, [Symbol.dispose]: () => file.close() };
}

/** A file in memory with this text, to be read from its beginning. @throws Error (ENOSPC …) */
function writeState(encoded: string): OwnedDescriptor {
  const file = makeMemoryFile(STATE_FILE);
  try {
    const bytes = new TextEncoder().encode(encoded);
    for (let offset = 0; offset < bytes.length; ) {
      offset += writeSync(file.number, bytes, offset, bytes.length - offset, offset);
    }
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

/** How our own binary is called: when run from source, Bun and the entry file. */
function callOf(words: readonly string[]): readonly string[] {
  return Bun.main.startsWith("/$bunfs/") ? words.slice(0, 1) : words.slice(0, 2);
}

interface Trial {
  readonly encoded: string;
  readonly invocation: string;
  readonly onStarted: (end: () => void) => void;
}

/** What a dry run came to. */
interface DryRun {
  readonly ending: Ending | "late";
  readonly said: string;
  readonly complained: string;
}

/**
 * Starts the program with the state, and has it say that it can go on with it.
 * @param trial with an invocation, by which a dry run is found that outlives this process;
 * `onStarted` is told how to end it before its time
 * @returns "of-former-version" when it does not read this version of the state
 * @throws ReexecutionRefused when it cannot, or does not say so in time
 */
export async function tryState(
  loop: EventLoop,
  program: NextProgram,
  trial: Trial,
): Promise<{ readonly version: string; readonly commit: string } | "of-former-version"> {
  const nonce = randomBytes(16).toString("hex");
  const run = await runDry(loop, program, { ...trial, nonce });
  const expected = `${program.path} to say that it can go on with the state`;
  const refuse = (received: string) =>
    new ReexecutionRefused("dry-run", {
      expected,
      received,
      hint: "The orchestrator goes on as it was. Name another file, or restart it instead",
    });
  const { ending, said, complained } = run;
  if (ending === "late") throw refuse(`no answer within ${formatDuration(DRY_RUN_LIMIT)}`);
  const answer = parseAnswer(said);
  if (answer?.answer === "ready" && answer.nonce === nonce && isSuccess(ending)) return answer;
  if (answer?.answer === "refused") {
    if (answer.received === describeVersion(STATE_VERSION)) return "of-former-version";
    throw refuse(`its refusal: it expects ${answer.expected}, and received ${answer.received}`);
  }
  const words = complained.trim().split("\n")[0]?.slice(0, 300);
  const detail = words ? `; it said: ${words}` : "";
  throw refuse(`no such word before its end (${describeEnding(ending, signalName)})${detail}`);
}

const isSuccess = (ending: Ending) => ending.kind === "exited" && ending.status === 0;

function parseAnswer(said: string) {
  try {
    const parsed = v.safeParse(dryRunAnswerSchema, JSON.parse(said.trim()));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** Reads what comes into a pipe while it is watched, and its rest at the end. */
class Listening implements Disposable {
  readonly #read: OwnedDescriptor;
  readonly #memory = new NativeMemory(4_096);
  readonly #watch: Disposable;
  readonly #decoder = new TextDecoder();
  text = "";

  constructor(loop: EventLoop, read: OwnedDescriptor) {
    this.#read = read;
    const watch = loop.watch(read, "readable", () => {
      if (this.take() === 0) watch.pause();
    });
    this.#watch = watch;
  }

  /** Bytes that were read last: 0 at the end. What is too much is thrown away. */
  take(): number {
    for (;;) {
      const length = readInto(this.#read, this.#memory);
      if (length <= 0) return length;
      const bytes = this.#memory.bytes.subarray(0, length);
      if (this.text.length < OUTPUT_LIMIT) this.text += this.#decoder.decode(bytes);
    }
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#read.close();
  }
}

/** A service manager is to hear nothing of a dry run. */
const managerVariables = /^(NOTIFY_SOCKET|WATCHDOG_USEC|WATCHDOG_PID|INVOCATION_ID)=/;

async function runDry(
  loop: EventLoop,
  { file }: NextProgram,
  options: Trial & { readonly nonce: string },
): Promise<DryRun> {
  using state = writeState(options.encoded);
  const words = ownWords();
  const output = makePipe();
  using said = new Listening(loop, output.read);
  using sayTo = output.write;
  const errors = makePipe();
  using complained = new Listening(loop, errors.read);
  using complainTo = errors.write;
  const environment = ownEnvironment().filter((variable) => !managerVariables.test(variable));
  using prepared = new PreparedSpawn({
    path: `/proc/self/fd/${file.number}`,
    argv: [...callOf(words), DRY_RUN_WORD, options.nonce, ...words.slice(callOf(words).length)],
    environment: [...environment, `INVOCATION_ID=${options.invocation}`],
    descriptors: [state, sayTo, complainTo].map(({ number }, target) => ({
      source: number,
      target,
    })),
  });
  const started = prepared.spawn();
  if (started.kind === "refused") {
    const reason = `it cannot be run: ${errnoMessage(started.errno)}`;
    return { ending: { kind: "unknown", reason }, said: "", complained: "" };
  }
  options.onStarted(() => {
    if (started.process.isOpen) signalProcess(started.process, Signal.SIGKILL);
  });
  const ending = await awaitEnd(loop, started);
  said.take();
  complained.take();
  return { ending, said: said.text, complained: complained.text };
}

/** Waits for its end, or ends it; none of its group lives then. */
async function awaitEnd(
  loop: EventLoop,
  { process, processId }: { readonly process: OwnedDescriptor; readonly processId: number },
): Promise<Ending | "late"> {
  const over = Promise.withResolvers<void>();
  let isLate = false;
  using _limit = loop.wakeAfter(DRY_RUN_LIMIT, () => {
    isLate = true;
    signalProcess(process, Signal.SIGKILL);
  });
  using _watch = loop.watch(process, "readable", () => over.resolve());
  await over.promise;
  kill(-processId, Signal.SIGKILL);
  const ending = waitForChild(process, "reap");
  process.close();
  if (isLate) return "late";
  if (typeof ending === "object") return ending;
  return { kind: "unknown", reason: "somebody else reaped it" };
}

/**
 * Becomes the program, with the same process number and children, and with what is packed:
 * execve(2). Everything else of this process ends with it. Gives the kernel's reason when it
 * refuses; all is as before then.
 */
export function become(
  { file }: NextProgram,
  { encoded, luggage }: { readonly encoded: string; readonly luggage: Luggage },
): string {
  using state = writeState(encoded);
  const environment = [...ownEnvironment(), `${STATE_VARIABLE}=${state.number}`];
  const words = ownWords();
  closeOnExecFrom(3);
  luggage.keep();
  keepOnExec(state.number);
  const restoreSignals = resetSignals(heldBackSignals);
  const errno = execute(`/proc/self/fd/${file.number}`, words, environment);
  restoreSignals();
  luggage.keepNot();
  setCloseOnExec(state.number);
  return errnoMessage(errno);
}
