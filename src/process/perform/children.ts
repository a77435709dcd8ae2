import { readFileSync } from "node:fs";
import * as v from "valibot";
import { makePipe, readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { signalProcess, waitForChild } from "../../../ffi/pidfd.ts";
import { PreparedSpawn, type SpawnPlan, type SpawnResult } from "../../../ffi/posix-spawn.ts";
import {
  descriptorLimit,
  kill,
  niceValue,
  type ResourceLimit,
  setDescriptorLimit,
  setFileModeMask,
  setNiceValue,
} from "../../../ffi/process.ts";
import { Errno, errnoMessage, errnoName, SystemCallError } from "../../../ffi/system-call-error.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import {
  AUTOMATIC_GROUP,
  InstanceGroup,
  type InstanceGroups,
} from "../../event-loop/instance-groups.ts";
import type { Ending } from "../../units/ending.ts";
import { type LaunchPlan, launchFailureSchema } from "../launch-plan.ts";
import type { Refusal } from "../lifecycle.ts";
import type { WireConstraints } from "../protocol.ts";
import { clearGroup } from "./leftovers.ts";
import { OWNER_VARIABLE } from "./owner-mark.ts";
import { resolveProgram } from "./program-path.ts";
import { explainRefusal } from "./refused-start.ts";

const SIGKILL = 9;

/** What a start needs, whoever asks for it. */
export interface ChildRequest {
  readonly invocation: string;
  readonly argv: readonly string[];
  /** NAME=value, the whole environment. */
  readonly environment: readonly string[];
  readonly workingDirectory?: string | undefined;
  readonly umask?: number | undefined;
  readonly constraints?: WireConstraints | undefined;
  readonly descriptors: SpawnPlan["descriptors"];
  /** The launcher says in LISTEN_PID whose they are: sd_listen_fds(3). */
  readonly listen?: boolean | undefined;
  readonly leftovers: "kill" | "keep";
}

/** A start whose memory is laid out; its owner disposes of it. */
export interface PreparedChild {
  readonly request: ChildRequest;
  readonly spawn: PreparedSpawn;
}

export type StartResult =
  | { readonly kind: "started"; readonly processId: number; readonly process: OwnedDescriptor }
  | { readonly kind: "refused"; readonly refusal: Refusal };

/** What a parent learns. The pidfd stays the parent's until the child is reaped. */
export interface ChildHandlers {
  onDeath(invocation: string, ending: Ending): void;
  /** Nobody of the instance lives any more (or the rest may stay). */
  onCleared(invocation: string): void;
  onTrouble(message: string): void;
}

export interface Child {
  readonly processId: number;
  readonly process: OwnedDescriptor;
  readonly leftovers: "kill" | "keep";
  readonly group: InstanceGroup | undefined;
  readonly watch: Watch;
}

/** systemd raises its own limit and gives its services another. */
function isServiceManager(processId: number): boolean {
  try {
    return readFileSync(`/proc/${processId}/comm`, "latin1").trim() === "systemd";
  } catch {
    return true;
  }
}

/** The soft limit on open descriptors that children get: what it was before Bun raised our own. */
export function childDescriptorLimit(): ResourceLimit {
  const own = descriptorLimit() ?? { soft: 1024, hard: 4096 };
  const parent = isServiceManager(process.ppid) ? undefined : descriptorLimit(process.ppid);
  // Nothing keeps the former value. A parent with the same hard limit gave us its soft one; below
  // systemd the unit decides, and its default is 1024.
  if (parent !== undefined && parent.hard === own.hard) return { ...own, soft: parent.soft };
  return { ...own, soft: Math.min(1024, own.hard) };
}

/** How our own binary is started: when run from source, Bun and the entry file. */
function ownCommand(): string[] {
  const compiled = Bun.main.startsWith("/$bunfs/");
  return compiled ? [process.execPath] : [process.execPath, Bun.main];
}

/** A refusal that says which of folder, program and interpreter it was. */
export function refuseStart(
  request: Pick<ChildRequest, "argv" | "environment" | "workingDirectory">,
  errno: number,
): { readonly kind: "refused"; readonly refusal: Refusal } {
  const { argv, environment, workingDirectory } = request;
  const program = argv[0] ?? "";
  const path = resolveProgram(program, environment);
  const message = explainRefusal({ program, path, workingDirectory }, errno);
  return { kind: "refused", refusal: { message, code: errnoName(errno) } };
}

/** A refusal with the kernel's reason. */
function refuse(what: string, errno: number): StartResult {
  const message = `${what}: ${errnoMessage(errno)}`;
  return { kind: "refused", refusal: { message, code: errnoName(errno) } };
}

/**
 * Starts children and does a parent's duties: waits for their end, ends what they leave behind
 * while their process number is still theirs, and reaps them.
 */
export class Children {
  readonly #loop: EventLoop;
  readonly #handlers: ChildHandlers;
  readonly #children = new Map<string, Child>();
  /** Launchers that have not become their program yet. */
  readonly #launching = new Map<string, OwnedDescriptor>();
  /** Instances that stay unreaped, dead or not, until somebody has looked at them. */
  readonly #held = new Set<string>();
  /** Launchers that failed and are not reaped yet. */
  #discarded = 0;
  /** Instances that are dead, whose rest is being killed. */
  readonly #clearing = new Set<string>();
  /** Who waits for the end of an instance and of its rest. */
  readonly #waiting = new Map<string, (() => void)[]>();
  readonly #groups: InstanceGroups;
  /** Why nobody gets a cgroup by itself: said once. */
  #toldRefusal: string | undefined;
  readonly #ownLimit = descriptorLimit();
  readonly #childLimit = childDescriptorLimit();

  constructor(loop: EventLoop, handlers: ChildHandlers, groups: InstanceGroups) {
    this.#loop = loop;
    this.#handlers = handlers;
    this.#groups = groups;
  }

  /** Takes down what was made for cgroups, where nobody is in it; children go on. */
  close(): void {
    this.#groups.close();
  }

  get count(): number {
    return this.#children.size;
  }

  /** Those that are not reaped, by their invocations. */
  get all(): ReadonlyMap<string, Child> {
    return this.#children;
  }

  /** What has begun here and has not come to its end, in words; undefined when nothing has. */
  get underWay(): string | undefined {
    if (this.#launching.size > 0) return "a start through the launcher";
    if (this.#discarded > 0) return "the end of a launcher";
    if (this.#held.size > 0) return "a start that is still to be told";
    if (this.#clearing.size > 0) return "the end of what an instance left behind";
    return undefined;
  }

  /** True while the instance lives, or its rest does. */
  knows(invocation: string): boolean {
    if (this.#launching.has(invocation)) return true;
    return this.#children.has(invocation) || this.#clearing.has(invocation);
  }

  /** Leaves the instance unreaped until `release`. */
  hold(invocation: string): void {
    this.#held.add(invocation);
  }

  /** The instance may be reaped, now if it is dead. */
  release(invocation: string): void {
    if (this.#held.delete(invocation)) this.#reap(invocation);
  }

  /** A child's pidfd, which stays ours; undefined once it was reaped. */
  processOf(invocation: string): OwnedDescriptor | undefined {
    return this.#children.get(invocation)?.process;
  }

  /**
   * Kills a launcher that does not come to an end. Its start is then answered, and its death told,
   * as those of any child. False when no such launcher is there.
   */
  killLauncher(invocation: string): boolean {
    const launcher = this.#launching.get(invocation);
    if (launcher !== undefined) signalProcess(launcher, SIGKILL);
    return launcher !== undefined;
  }

  /** A child's number; undefined once it was reaped. */
  processIdOf(invocation: string): number | undefined {
    return this.#children.get(invocation)?.processId;
  }

  /**
   * Calls back when the instance is dead and cleared; at once when we know nothing of it. "alive"
   * when it lives.
   */
  afterEndOf(invocation: string, onGone: () => void): "alive" | "waiting" | "gone" {
    if (this.#children.has(invocation)) this.#reap(invocation);
    if (this.#children.has(invocation)) return "alive";
    return this.whenGone(invocation, onGone);
  }

  /** Calls back when the instance is dead and cleared, however long it lives. */
  whenGone(invocation: string, onGone: () => void): "waiting" | "gone" {
    if (!this.knows(invocation)) {
      onGone();
      return "gone";
    }
    this.#waiting.set(invocation, [...(this.#waiting.get(invocation) ?? []), onGone]);
    return "waiting";
  }

  /** Takes a `whenGone` back. */
  leaveAlone(invocation: string, onGone: () => void): void {
    const left = (this.#waiting.get(invocation) ?? []).filter((call) => call !== onGone);
    if (left.length > 0) this.#waiting.set(invocation, left);
    else this.#waiting.delete(invocation);
  }

  /** Starts a child; one with constraints through the launcher, which answers a little later. */
  start(request: ChildRequest, onResult: (result: StartResult) => void): void {
    try {
      const { constraints = {}, listen = false } = request;
      if (listen || Object.keys(constraints).length > 0) {
        this.#launch(request, constraints, onResult);
      } else this.#startPlainly(request, onResult);
    } catch (error) {
      // No descriptor or memory is left for what precedes the spawn.
      if (!(error instanceof SystemCallError)) throw error;
      onResult(refuse(`Cannot start ${request.argv[0]}`, error.errno));
    }
  }

  /** Lays out the memory of a start without constraints, which `startPrepared` makes later. */
  prepare(request: ChildRequest): PreparedChild {
    const path = resolveProgram(request.argv[0] ?? "", request.environment);
    const plan = this.#plan(request, path, request.argv, request.environment);
    return { request, spawn: new PreparedSpawn(plan) };
  }

  /** Makes a prepared start, once; one that cannot be made as it was prepared is made anew. */
  startPrepared(prepared: PreparedChild, onResult: (result: StartResult) => void): void {
    const { request } = prepared;
    const result = this.spawn(prepared.spawn, request.umask);
    if (result.kind === "refused") {
      // Its program may stand elsewhere by now.
      this.start(request, onResult);
      return;
    }
    this.adopt(request.invocation, result, request.leftovers);
    onResult(result);
  }

  #startPlainly(request: ChildRequest, onResult: (result: StartResult) => void): void {
    using prepared = this.prepare(request).spawn;
    const result = this.spawn(prepared, request.umask);
    if (result.kind === "refused") onResult(refuseStart(request, result.errno));
    else {
      this.adopt(request.invocation, result, request.leftovers);
      onResult(result);
    }
  }

  #plan(
    request: ChildRequest,
    path: string,
    argv: readonly string[],
    environment: readonly string[],
  ): SpawnPlan {
    const { descriptors, workingDirectory } = request;
    const plan = { path, argv, environment, descriptors };
    return workingDirectory === undefined ? plan : { ...plan, workingDirectory };
  }

  /**
   * One posix_spawn with what it cannot be told by attributes: the limit on descriptors, the mask
   * and the nice value are our own for its duration. No other thread of ours opens files then.
   */
  spawn(prepared: PreparedSpawn, umask: number | undefined): ReturnType<PreparedSpawn["spawn"]> {
    const own = this.#ownLimit;
    const nice = niceValue();
    const mask = umask === undefined ? undefined : setFileModeMask(umask);
    if (nice !== 0) setNiceValue(0);
    let lowers = own !== undefined && own.soft !== this.#childLimit.soft;
    if (lowers) setDescriptorLimit(this.#childLimit);
    const restoreLimit = () => {
      if (lowers && own !== undefined) setDescriptorLimit(own);
      lowers = false;
    };
    try {
      // We may have more descriptors than a child may: its pidfd needs our own limit again.
      return prepared.spawn(restoreLimit);
    } finally {
      restoreLimit();
      if (nice !== 0) setNiceValue(nice);
      if (mask !== undefined) setFileModeMask(mask);
    }
  }

  /** Takes up a parent's duties for a child that `spawn` started. */
  adopt(
    invocation: string,
    started: { readonly processId: number; readonly process: OwnedDescriptor },
    leftovers: "kill" | "keep",
    group?: InstanceGroup,
  ): void {
    const { processId, process } = started;
    const watch = this.#loop.watch(process, "readable", () => this.#reap(invocation));
    this.#children.set(invocation, { processId, process, leftovers, group, watch });
  }

  #launch(
    request: ChildRequest,
    constraints: WireConstraints,
    onResult: (result: StartResult) => void,
  ): void {
    let group: InstanceGroup | undefined;
    try {
      group = this.#makeGroup(constraints.cgroup, request.invocation);
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      const refusal = { message: `Cannot make the cgroup: ${message}`, code };
      onResult({ kind: "refused", refusal });
      return;
    }
    let report: OwnedDescriptor | undefined;
    let result: SpawnResult;
    try {
      const pipe = makePipe();
      report = pipe.read;
      using write = pipe.write;
      const spawnPlan = this.#launchPlan(request, { constraints, group, report: write.number });
      using prepared = new PreparedSpawn(spawnPlan);
      result = this.spawn(prepared, request.umask);
    } catch (error) {
      report?.close();
      group?.remove();
      throw error;
    }
    if (result.kind === "refused") {
      report.close();
      group?.remove();
      // Of what is asked for, the launcher needs the folder alone.
      const { workingDirectory } = request;
      const start = { program: "the launcher", path: "/proc/self/exe", workingDirectory };
      const refusal = {
        message: explainRefusal(start, result.errno),
        code: errnoName(result.errno),
      };
      onResult({ kind: "refused", refusal });
      return;
    }
    const started = result;
    this.#launching.set(request.invocation, started.process);
    this.#awaitReport(report, (refusal) => {
      this.#launching.delete(request.invocation);
      if (refusal === undefined) {
        group?.inhabited();
        this.adopt(request.invocation, started, request.leftovers, group);
        onResult(started);
      } else {
        this.#discard(started.process, group, () => onResult({ kind: "refused", refusal }));
      }
    });
  }

  /** @throws Error (EACCES, ENOENT …) where it has to be in a folder that we may not use */
  #makeGroup(parent: string | undefined, invocation: string): InstanceGroup | undefined {
    if (parent === undefined) return undefined;
    if (parent !== AUTOMATIC_GROUP) return this.#groups.make(parent, invocation);
    const made = this.#groups.makeAutomatic(invocation);
    if (made instanceof InstanceGroup) return made;
    const { refusal } = made;
    if (refusal !== this.#toldRefusal) {
      this.#handlers.onTrouble(`processes have no cgroups of their own: ${refusal}`);
    }
    this.#toldRefusal = refusal;
    return undefined;
  }

  /**
   * How the launcher is started. The child's environment comes as words behind its arguments, so
   * that nothing in it can change what the launcher does; its invocation and its owner alone are
   * there already, because whoever looks for it must find the launcher as well.
   */
  #launchPlan(
    request: ChildRequest,
    launch: {
      readonly constraints: WireConstraints;
      readonly group: InstanceGroup | undefined;
      readonly report: number;
    },
  ): SpawnPlan {
    const { argv, environment } = request;
    const { constraints, group, report } = launch;
    const target = Math.max(2, ...request.descriptors.map((descriptor) => descriptor.target)) + 1;
    const plan: LaunchPlan = {
      constraints,
      open_files: this.#childLimit,
      arguments: argv.length,
      descriptors: request.descriptors.map((descriptor) => descriptor.target),
      report: target,
    };
    if (group !== undefined) plan.cgroup = group.path;
    if (request.listen === true) plan.listen = true;
    const program = resolveProgram(argv[0] ?? "", environment);
    const words = [...ownCommand(), "--launch", JSON.stringify(plan), program];
    const descriptors = [...request.descriptors, { source: report, target }];
    const own = environment.filter(
      (variable) =>
        variable.startsWith("INVOCATION_ID=") || variable.startsWith(`${OWNER_VARIABLE}=`),
    );
    const allWords = [...words, ...argv, ...environment];
    return this.#plan({ ...request, descriptors }, "/proc/self/exe", allWords, own);
  }

  /** Reads the launcher's report: its end without a word means that the program runs. */
  #awaitReport(report: OwnedDescriptor, onReport: (refusal: Refusal | undefined) => void): void {
    const memory = new NativeMemory(4096);
    let text = "";
    const watch = this.#loop.watch(report, "readable", () => {
      const length = readInto(report, memory);
      if (length === -Errno.EAGAIN) return;
      if (length > 0) {
        text += new TextDecoder().decode(memory.bytes.subarray(0, length));
        return;
      }
      watch[Symbol.dispose]();
      report.close();
      onReport(text === "" ? undefined : parseReport(text));
    });
  }

  /** Reaps a launcher that failed; it ends by itself right after its report. */
  #discard(process: OwnedDescriptor, group: InstanceGroup | undefined, onGone: () => void): void {
    this.#discarded += 1;
    const watch = this.#loop.watch(process, "readable", () => {
      this.#discarded -= 1;
      waitForChild(process, "reap");
      watch[Symbol.dispose]();
      process.close();
      group?.remove();
      onGone();
    });
  }

  #reap(invocation: string): void {
    const child = this.#children.get(invocation);
    if (child === undefined) return;
    if (this.#held.has(invocation)) {
      // Readable for good: it would wake us again and again.
      child.watch.pause();
      return;
    }
    // Left as a zombie, the child still owns its number, and so the number of its group.
    const ending = waitForChild(child.process, "leave");
    if (ending === undefined) {
      child.watch.change("readable");
      return;
    }
    if (child.leftovers === "kill") kill(-child.processId, SIGKILL);
    waitForChild(child.process, "reap");
    child.watch.pause();
    this.#loop.afterTurn(() => {
      child.watch[Symbol.dispose]();
      child.process.close();
    });
    this.#children.delete(invocation);
    this.#clearing.add(invocation);
    const known: Ending =
      ending === "not-a-child" ? { kind: "unknown", reason: "somebody else reaped it" } : ending;
    this.#handlers.onDeath(invocation, known);
    this.#clear(invocation, child);
  }

  #clear(invocation: string, child: Child): void {
    const onGone = () => {
      const waiting = this.#waiting.get(invocation) ?? [];
      this.#waiting.delete(invocation);
      this.#clearing.delete(invocation);
      this.#handlers.onCleared(invocation);
      for (const call of waiting) call();
    };
    if (child.leftovers === "keep") {
      // Its cgroup goes when nobody is in it; whoever stays keeps it.
      child.group?.remove();
      onGone();
    } else if (child.group !== undefined) child.group.clear(this.#loop, onGone);
    else clearGroup(this.#loop, child.processId, onGone);
  }
}

function parseReport(text: string): Refusal {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  const result = v.safeParse(launchFailureSchema, parsed);
  if (!result.success) return { message: `The launcher failed: ${text}`, code: undefined };
  const { stage, message, code } = result.output;
  return { message: stage === "exec" ? message : `${stage}: ${message}`, code };
}
