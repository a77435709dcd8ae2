import { libc } from "./c-library.ts";
import { closeOnExecFrom, duplicate } from "./descriptor.ts";
import { cString, NativeMemory, StringVector } from "./memory.ts";
import type { OwnedDescriptor } from "./owned-descriptor.ts";
import { openProcess } from "./pidfd.ts";
import { SystemCallError } from "./system-call-error.ts";

/**
 * glibc's posix_spawnattr_t is 336 bytes and posix_spawn_file_actions_t 80, musl's are no larger;
 * a contract test compares these with gcc's.
 */
export const spawnLayout = { attributes: 336, fileActions: 80, signalSet: 128 };

/** <spawn.h>, equal in glibc and musl. */
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const POSIX_SPAWN_SETSCHEDULER = 0x20;
const POSIX_SPAWN_SETSID = 0x80;
const SCHED_OTHER = 0;
const O_RDWR = 2;

/** What a child is made of. */
export interface SpawnPlan {
  /** The program file, absolute or relative to the working directory of this process. */
  readonly path: string;
  readonly argv: readonly string[];
  /** NAME=value; nothing else is inherited. */
  readonly environment: readonly string[];
  readonly workingDirectory?: string;
  /** Descriptor `source` of this process becomes `target` in the child. Others do not pass. */
  readonly descriptors: readonly { readonly source: number; readonly target: number }[];
}

/** A child that was started, or why its program could not be (exec's own errno). */
export type SpawnResult =
  | { readonly kind: "started"; readonly processId: number; readonly process: OwnedDescriptor }
  | { readonly kind: "refused"; readonly errno: number };

function checkSpawn(call: string, errno: number): void {
  if (errno !== 0) throw new SystemCallError(call, errno);
}

/**
 * A start whose memory is laid out beforehand, so that starting is one call. The child gets every
 * signal at its default action, an empty signal mask, SCHED_OTHER, a session of its own, and only
 * the descriptors of the plan (0, 1 and 2 are /dev/null where the plan does not name them).
 */
export class PreparedSpawn implements Disposable {
  readonly #attributes = new NativeMemory(spawnLayout.attributes);
  readonly #actions = new NativeMemory(spawnLayout.fileActions);
  readonly #processId = new NativeMemory(4);
  readonly #kept: unknown[] = [];
  readonly #duplicates: OwnedDescriptor[] = [];
  readonly #argv: StringVector;
  readonly #environment: StringVector;
  #path: NativeMemory;

  constructor(plan: SpawnPlan) {
    this.#path = cString(plan.path);
    this.#argv = new StringVector(plan.argv);
    this.#environment = new StringVector(plan.environment);
    this.#prepareAttributes();
    this.#prepareActions(plan);
  }

  #prepareAttributes(): void {
    const attributes = this.#attributes.address;
    const set = new NativeMemory(spawnLayout.signalSet);
    const parameter = new NativeMemory(4);
    checkSpawn("posix_spawnattr_init", libc.posix_spawnattr_init(attributes));
    const flags =
      POSIX_SPAWN_SETSIGDEF |
      POSIX_SPAWN_SETSIGMASK |
      POSIX_SPAWN_SETSCHEDULER |
      POSIX_SPAWN_SETSID;
    checkSpawn("posix_spawnattr_setflags", libc.posix_spawnattr_setflags(attributes, flags));
    libc.sigemptyset(set.address);
    checkSpawn("setsigmask", libc.posix_spawnattr_setsigmask(attributes, set.address));
    // sigfillset(3) leaves out 32 and 33, and glibc then has the child ignore these two.
    set.bytes.fill(0xff);
    checkSpawn("setsigdefault", libc.posix_spawnattr_setsigdefault(attributes, set.address));
    checkSpawn("setschedpolicy", libc.posix_spawnattr_setschedpolicy(attributes, SCHED_OTHER));
    checkSpawn("setschedparam", libc.posix_spawnattr_setschedparam(attributes, parameter.address));
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
   * in this process waits for children.
   */
  spawn(): SpawnResult {
    closeOnExecFrom(3);
    const errno = libc.posix_spawn(
      this.#processId.address,
      this.#path.address,
      this.#actions.address,
      this.#attributes.address,
      this.#argv.address,
      this.#environment.address,
    );
    if (errno !== 0) return { kind: "refused", errno };
    const processId = this.#processId.view.getInt32(0, true);
    const process = openProcess(processId);
    if (process === undefined) throw new Error(`Bug: child ${processId} was reaped by somebody else`);
    return { kind: "started", processId, process };
  }

  [Symbol.dispose](): void {
    libc.posix_spawn_file_actions_destroy(this.#actions.address);
    libc.posix_spawnattr_destroy(this.#attributes.address);
    for (const descriptor of this.#duplicates) descriptor.close();
  }
}
