import { openSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { signalProcess } from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import { Errno, errnoMessage, SystemCallError } from "../../../ffi/system-call-error.ts";
import { makeSocketPair, sendMessage } from "../../../ffi/unix-socket.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import { Signal } from "../../units/signals.ts";
import type { Milliseconds, ProcessId } from "../../units/units.ts";
import {
  AHEAD,
  AHEAD_SOCKET,
  type ConfineOrder,
  type ConfinePlan,
  GO,
  LONGEST_ORDER,
  MOST_AHEAD_DESCRIPTORS,
  NAMED,
  NO_INVOCATION,
} from "../confine-plan.ts";
import { passStep } from "./kill-points.ts";
import { INVOCATION_VARIABLE } from "./vmm-identity.ts";
import {
  type OwnProgram,
  ownProgram,
  reap,
  type SpawnedConfiner,
  START_LIMIT,
  type VmmStart,
  type WaitingConfiners,
} from "./vmm-process.ts";

/**
 * Between a start and the next confiner, which would compete with its VMM and guest for processors.
 * Each start puts it off, so that one of many does not wait for a confiner that nobody needs yet.
 */
const AHEAD_AFTER: Milliseconds = 200;

/** Started, and without an order. */
interface Waiting {
  readonly processId: ProcessId;
  readonly process: OwnedDescriptor;
  readonly socket: OwnedDescriptor;
  /** Of its end. */
  readonly watch: Watch;
}

/**
 * At most one confiner that waits for the next start, so that this does not wait for the start of
 * the runtime. It ends with its worker, whatever becomes of that.
 */
export class ConfinersAhead implements WaitingConfiners, Disposable {
  readonly #loop: EventLoop;
  readonly #own: OwnProgram;
  readonly #onTrouble: (message: string) => void;
  /** The worker's own; undefined where VMMs have none. */
  readonly #cgroup: string | undefined;
  #waiting: Waiting | undefined;
  #anticipating: Promise<void> | undefined;
  #timer: Disposable | undefined;
  #isDisposed = false;

  constructor(
    loop: EventLoop,
    options: {
      readonly own?: OwnProgram;
      readonly cgroup?: string | undefined;
      readonly onTrouble: (message: string) => void;
    },
  ) {
    this.#cgroup = options.cgroup;
    this.#loop = loop;
    this.#own = options.own ?? ownProgram();
    this.#onTrouble = options.onTrouble;
  }

  /** The one that waits. */
  get processId(): ProcessId | undefined {
    return this.#waiting?.processId;
  }

  /** Has one wait soon. */
  prepareLater(): void {
    this.#timer?.[Symbol.dispose]();
    if (this.#isDisposed) return;
    this.#timer = this.#loop.wakeAfter(AHEAD_AFTER, () => this.prepare());
  }

  /** Has one wait, where none does. */
  prepare(): void {
    if (this.#waiting !== undefined || this.#isDisposed) return;
    try {
      this.#waiting = this.#start();
    } catch (error) {
      // No descriptor, memory or process is left for it: a start says so when it comes to that.
      if (!(error instanceof SystemCallError)) throw error;
      this.#onTrouble(`no confiner waits for the next machine: ${error.message}`);
    }
  }

  /**
   * A start follows within milliseconds. A process that joins a cgroup waits until no processor
   * looks at the old one (5 to 10 ms), unless another one joined just before. So the one that
   * waits joins the cgroup that it is in: nothing changes, and who joins next need not wait. It is
   * neither reaped nor given its order before this is done, so that nobody else can be moved by it.
   */
  anticipate(): void {
    const { processId } = this;
    if (processId === undefined || this.#cgroup === undefined) return;
    const place = join(this.#cgroup, "cgroup.procs");
    this.#anticipating ??= writeFile(place, String(processId))
      // It is refused where the worker was moved since: then its VMM waits, as any does.
      .catch(() => {})
      .finally(() => {
        this.#anticipating = undefined;
      });
  }

  #start(): Waiting | undefined {
    const [socket, other] = makeSocketPair();
    using theirs = other;
    using nothing = new OwnedDescriptor(openSync("/dev/null", "r"));
    const variable = `${INVOCATION_VARIABLE}=${NO_INVOCATION}`;
    // What it will pass on finds its places taken by nothing, and not by what the runtime opens.
    const places = Array.from({ length: MOST_AHEAD_DESCRIPTORS }, (_, index) => 3 + index);
    using prepared = new PreparedSpawn({
      path: this.#own.path,
      argv: [...this.#own.words, "--confine", AHEAD, variable],
      environment: [variable],
      workingDirectory: "/",
      descriptors: [
        ...places.map((target) => ({ source: nothing.number, target })),
        { source: theirs.number, target: AHEAD_SOCKET },
      ],
    });
    const result = prepared.spawn();
    if (result.kind === "refused") {
      socket.close();
      this.#onTrouble(`no confiner waits for the next machine: ${errnoMessage(result.errno)}`);
      return undefined;
    }
    const { processId, process } = result;
    const watch = this.#loop.watch(process, "readable", () => {
      this.#onTrouble("the confiner that waited for the next machine has ended");
      const waiting = this.#take();
      if (waiting !== undefined) void this.#end(waiting);
    });
    return { processId, process, socket, watch };
  }

  #take(): Waiting | undefined {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.watch[Symbol.dispose]();
    return waiting;
  }

  async order(start: VmmStart, plan: ConfinePlan): Promise<SpawnedConfiner | undefined> {
    this.prepareLater();
    const message = messageOf(start, plan);
    if (message === undefined) return undefined;
    const waiting = this.#take();
    if (waiting === undefined) return undefined;
    const { processId, process, socket } = waiting;
    await this.#anticipating;
    const sources = start.descriptors.map(({ source }) => source);
    const why = (await this.#refusalOf(socket, message, sources)) ?? this.#release(socket);
    if (why === undefined) return { kind: "started", processId, process, report: socket };
    this.#onTrouble(`the confiner that waited did not take its order: ${why}`);
    await this.#end(waiting);
    return undefined;
  }

  /** Tells it what it is to be. @returns why it did not take its name; undefined when it did */
  #refusalOf(
    socket: OwnedDescriptor,
    message: NativeMemory,
    sources: readonly number[],
  ): Promise<string | undefined> {
    const length = message.size;
    const sent = sendMessage(socket, message, { offset: 0, length }, sources);
    if (sent !== length) {
      return Promise.resolve(sent < 0 ? errnoMessage(-sent) : "it has no room for it");
    }
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    const memory = new NativeMemory(NAMED.length);
    let text = "";
    const finish = (why: string | undefined) => {
      watch[Symbol.dispose]();
      limit[Symbol.dispose]();
      resolve(why);
    };
    const limit = this.#loop.wakeAfter(START_LIMIT, () => finish("it says nothing"));
    const watch = this.#loop.watch(socket, "readable", () => {
      const read = readInto(socket, memory);
      if (read === -Errno.EAGAIN) return;
      text += new TextDecoder().decode(memory.bytes.subarray(0, Math.max(0, read)));
      if (text === NAMED) finish(undefined);
      else if (read <= 0) finish("it has ended");
      else if (!NAMED.startsWith(text)) finish(`it says ${JSON.stringify(text)}`);
    });
    return promise;
  }

  /**
   * Whoever looks for its VMM finds it by now: from here on it goes on without its worker.
   * @returns why it does not
   */
  #release(socket: OwnedDescriptor): string | undefined {
    passStep("spawn:named");
    const word = new NativeMemory(GO.length);
    word.bytes.set(new TextEncoder().encode(GO));
    const sent = sendMessage(socket, word, { offset: 0, length: word.size }, []);
    return sent === word.size ? undefined : errnoMessage(-sent);
  }

  async #end({ process, socket }: Waiting): Promise<void> {
    socket.close();
    signalProcess(process, Signal.SIGKILL);
    await this.#anticipating;
    await reap(this.#loop, process);
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#timer?.[Symbol.dispose]();
    const waiting = this.#take();
    // It ends when its socket does.
    waiting?.socket.close();
    waiting?.process.close();
  }
}

/** @returns undefined for what it has no room for */
function messageOf(start: VmmStart, plan: ConfinePlan): NativeMemory | undefined {
  const targets = start.descriptors.map(({ target }) => target);
  if (targets.some((target) => target >= AHEAD_SOCKET)) return undefined;
  const { program, arguments: words } = start.plan;
  const invocation = `${INVOCATION_VARIABLE}=${start.invocation}`;
  const order: ConfineOrder = {
    invocation: start.invocation,
    plan: { ...plan, report: AHEAD_SOCKET },
    program,
    words: [program, ...words, ...start.environment, invocation],
    targets,
  };
  const bytes = new TextEncoder().encode(`${JSON.stringify(order)}\n`);
  if (bytes.length > LONGEST_ORDER) return undefined;
  const memory = new NativeMemory(bytes.length);
  memory.bytes.set(bytes);
  return memory;
}
