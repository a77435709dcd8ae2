import { cLibrary, libc } from "./c-library.ts";
import {
  O_RDWR,
  P_PID,
  POSIX_SPAWN_SETSCHEDULER,
  POSIX_SPAWN_SETSID,
  POSIX_SPAWN_SETSIGDEF,
  POSIX_SPAWN_SETSIGMASK,
  SCHED_OTHER,
  SCHED_RESET_ON_FORK,
  SYS_sched_getparam,
  SYS_sched_getscheduler,
  SYS_sched_setscheduler,
  WEXITED,
} from "./constants.ts";
import { closeOnExecFrom, duplicate } from "./descriptor.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory, StringVector } from "./memory.ts";
import type { OwnedDescriptor } from "./owned-descriptor.ts";
import { openProcess } from "./pidfd.ts";
import { attempt, check, SystemCallError } from "./system-call-error.ts";

/** What a child is made of. */
export interface SpawnPlan {
  /** The program file, absolute or relative to the child's working directory. */
  readonly path: string;
  readonly argv: readonly string[];
  /** NAME=value; nothing else is inherited. */
  readonly environment: readonly string[];
  readonly workingDirectory?: string;
  /** Descriptor `source` of this process becomes `target` in the child. Others do not pass. */
  readonly descriptors: readonly { readonly source: number; readonly target: number }[];
}

/**
 * A child that was started, or why its program could not be: exec's own error number, or the one
 * of a process that is out of memory, processes or descriptors.
 */
export type SpawnResult =
  | { readonly kind: "started"; readonly processId: number; readonly process: OwnedDescriptor }
  | { readonly kind: "refused"; readonly errno: number };

/**
 * musl's posix_spawn(3) cannot schedule (ENOSYS), so that there the kernel is asked to give
 * children the ordinary class. Taking that back may be refused (EPERM); it does no harm.
 */
function withOrdinaryChildren(spawn: () => number): number {
  const own = check("sched_getscheduler", libc.syscall(SYS_sched_getscheduler, 0, 0, 0, 0, 0, 0));
  if (own === SCHED_OTHER) return spawn();
  const parameter = new NativeMemory(layouts.sched_param.size).address;
  check("sched_getparam", libc.syscall(SYS_sched_getparam, 0, parameter, 0, 0, 0, 0));
  const schedule = (policy: number) =>
    libc.syscall(SYS_sched_setscheduler, 0, policy, parameter, 0, 0, 0);
  check("sched_setscheduler", schedule(own | SCHED_RESET_ON_FORK));
  const errno = spawn();
  schedule(own);
  return errno;
}

/** For a child of ours that nobody has reaped; waits for its end, which SIGKILL makes soon. */
function killAndReap(processId: number): void {
  const SIGKILL = 9;
  check("kill", libc.kill(processId, SIGKILL));
  const information = new NativeMemory(layouts.siginfo_t.size);
  const wait = () => libc.waitid(P_PID, processId, information.address, WEXITED);
  const result = attempt(wait);
  if (result < 0) throw new SystemCallError("waitid", -result, `of process ${processId}`);
}

function checkSpawn(call: string, errno: number): void {
  if (errno !== 0) throw new SystemCallError(call, errno);
}

/**
 * A start whose memory is laid out beforehand, so that starting is one call. The child gets every
 * signal at its default action, an empty signal mask, SCHED_OTHER, a session of its own, and only
 * the descriptors of the plan (0, 1 and 2 are /dev/null where the plan does not name them).
 */
export class PreparedSpawn implements Disposable {
  readonly #attributes = new NativeMemory(layouts.posix_spawnattr_t.size);
  readonly #actions = new NativeMemory(layouts.posix_spawn_file_actions_t.size);
  readonly #processId = new NativeMemory(4);
  readonly #kept: unknown[] = [];
  readonly #duplicates: OwnedDescriptor[] = [];
  readonly #argv: StringVector;
  readonly #environment: StringVector;
  #path: NativeMemory;
  #isDisposed = false;

  constructor(plan: SpawnPlan) {
    this.#path = cString(plan.path);
    this.#argv = new StringVector(plan.argv);
    this.#environment = new StringVector(plan.environment);
    try {
      this.#prepareAttributes();
      this.#prepareActions(plan);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #prepareAttributes(): void {
    const attributes = this.#attributes.address;
    const set = new NativeMemory(layouts.sigset_t.size);
    const parameter = new NativeMemory(layouts.sched_param.size);
    checkSpawn("posix_spawnattr_init", libc.posix_spawnattr_init(attributes));
    libc.sigemptyset(set.address);
    checkSpawn("setsigmask", libc.posix_spawnattr_setsigmask(attributes, set.address));
    // sigfillset(3) leaves out 32 and 33, and glibc then has the child ignore these two.
    set.bytes.fill(0xff);
    checkSpawn("setsigdefault", libc.posix_spawnattr_setsigdefault(attributes, set.address));
    let flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID;
    if (cLibrary.name === "glibc") {
      flags |= POSIX_SPAWN_SETSCHEDULER;
      checkSpawn("setschedpolicy", libc.posix_spawnattr_setschedpolicy(attributes, SCHED_OTHER));
      checkSpawn(
        "setschedparam",
        libc.posix_spawnattr_setschedparam(attributes, parameter.address),
      );
    }
    checkSpawn("posix_spawnattr_setflags", libc.posix_spawnattr_setflags(attributes, flags));
  }

  #prepareActions(plan: SpawnPlan): void {
    const actions = this.#actions.address;
    checkSpawn("file_actions_init", libc.posix_spawn_file_actions_init(actions));
    if (plan.workingDirectory !== undefined) {
      const directory = cString(plan.workingDirectory);
      this.#kept.push(directory);
      const result = libc.posix_spawn_file_actions_addchdir_np(actions, directory.address);
      checkSpawn("file_actions_addchdir_np", result);
    }
    const named = new Set(plan.descriptors.map((descriptor) => descriptor.target));
    const nothing = cString("/dev/null");
    this.#kept.push(nothing);
    for (const target of [0, 1, 2].filter((standard) => !named.has(standard))) {
      const result = libc.posix_spawn_file_actions_addopen(
        actions,
        target,
        nothing.address,
        O_RDWR,
        0,
      );
      checkSpawn("file_actions_addopen", result);
    }
    // A source below a target could be overwritten before it is used: those move up first.
    const above = Math.max(2, ...named) + 1;
    for (const { source, target } of plan.descriptors) {
      let number = source;
      if (source < above) {
        const moved = duplicate(source, above);
        this.#duplicates.push(moved);
        number = moved.number;
      }
      checkSpawn("adddup2", libc.posix_spawn_file_actions_adddup2(actions, number, target));
    }
  }

  /** Names another program file for the starts to come. */
  setPath(path: string): void {
    this.#path = cString(path);
  }

  /** Overwrites variable `index` of the environment by a text of the same length in bytes. */
  replaceVariable(index: number, text: string): void {
    const offset = this.#environment.offsets[index];
    const memory = this.#environment.memory;
    if (offset === undefined) throw new Error(`Bug: no variable ${index} in this environment`);
    const end = memory.bytes.indexOf(0, offset);
    if (end - offset !== text.length) throw new Error("Bug: the new variable differs in length");
    new TextEncoder().encodeInto(text, memory.bytes.subarray(offset, end));
  }

  /**
   * Starts the child: posix_spawn(3), then pidfd_open(2), which cannot miss it while nobody else
   * in this process waits for children. `onCalled` is called between the two, whatever came of
   * the first: what was ours to change for the child's sake ends there.
   */
  spawn(onCalled: () => void = () => {}): SpawnResult {
    if (this.#isDisposed) throw new Error("Bug: a plan was used after it was disposed of");
    closeOnExecFrom(3);
    const errno =
      cLibrary.name === "glibc" ? this.#call() : withOrdinaryChildren(() => this.#call());
    onCalled();
    if (errno !== 0) return { kind: "refused", errno };
    const processId = this.#processId.view.getInt32(0, true);
    try {
      const process = openProcess(processId);
      if (process !== undefined) return { kind: "started", processId, process };
    } catch (error) {
      // A child that we cannot watch must not run: EMFILE, ENFILE or ENOMEM.
      killAndReap(processId);
      if (error instanceof SystemCallError) return { kind: "refused", errno: error.errno };
      throw error;
    }
    throw new Error(`Bug: child ${processId} was reaped by somebody else`);
  }

  #call(): number {
    return libc.posix_spawn(
      this.#processId.address,
      this.#path.address,
      this.#actions.address,
      this.#attributes.address,
      this.#argv.address,
      this.#environment.address,
    );
  }

  /** Frees what the C library and the kernel hold for it. Disposing twice does nothing. */
  [Symbol.dispose](): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    libc.posix_spawn_file_actions_destroy(this.#actions.address);
    libc.posix_spawnattr_destroy(this.#attributes.address);
    for (const descriptor of this.#duplicates) descriptor.close();
  }
}
