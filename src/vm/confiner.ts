import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import * as v from "valibot";
import { capabilities, setCapabilities } from "../../ffi/capabilities.ts";
import { closeOnExecFrom, keepOnExec, setCloseOnExec } from "../../ffi/descriptor.ts";
import {
  bindMount,
  makeDeviceNode,
  mountDeviceFolder,
  openPlace,
  separateMounts,
  setMountAttributes,
  unmount,
} from "../../ffi/mount.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import {
  becomeUser,
  changeDirectory,
  clearAmbientCapabilities,
  dropBoundingCapability,
  execute,
  forbidNewPrivileges,
  resetSignals,
  resourceLimit,
  setFileModeMask,
  setResourceLimit,
} from "../../ffi/process.ts";
import { Errno, errnoMessage, errnoName, SystemCallError } from "../../ffi/system-call-error.ts";
import { ExitCode } from "../units/exit-code.ts";
import { limitNumbers } from "../units/linux-names.ts";
import {
  AHEAD,
  type ConfinePlan,
  type ConfineReport,
  confinePlanSchema,
  describeIssue,
  type OptionalStage,
  type Stage,
} from "./confine-plan.ts";
import { awaitOrder, NOWHERE } from "./confiner-ahead.ts";

/**
 * Takes away from a VMM what it does not need, before its first instruction, then becomes the
 * VMM. Runs as the child, between the spawn and the exec; what is left out, and a failure, go back
 * on a descriptor that a successful exec closes. The end of its parent does not end it.
 */

class ConfineError extends Error {
  readonly stage: Stage;
  readonly code: string | undefined;

  constructor(
    message: string,
    options: ErrorOptions & { readonly stage: Stage; readonly code: string | undefined },
  ) {
    super(message, options);
    this.stage = options.stage;
    this.code = options.code;
  }
}

function explain(stage: Stage, error: unknown): ConfineError {
  const code = error instanceof SystemCallError ? error.code : (error as { code?: string }).code;
  const message = error instanceof Error ? error.message : String(error);
  return new ConfineError(message, { cause: error, stage, code });
}

/** Runs a stage that must succeed; what goes wrong in it carries the stage's name. */
function during(stage: Stage, call: () => void): void {
  try {
    call();
  } catch (error) {
    throw explain(stage, error);
  }
}

/** One that stands for others: its refusal is theirs as well. */
type Outcome = { readonly kind: "done" } | { readonly kind: "left-out"; readonly why: Error };

/** The stages of one plan, and what was left out of it. */
class Confinement {
  readonly #plan: ConfinePlan;
  readonly leftOut: ConfineError[] = [];

  constructor(plan: ConfinePlan) {
    this.#plan = plan;
  }

  /** Runs a stage. @throws ConfineError when it fails and the plan does not mark it optional */
  perform(stage: OptionalStage, call: () => void): Outcome {
    try {
      call();
      return { kind: "done" };
    } catch (error) {
      const why = explain(stage, error);
      if (!this.#plan.optional.includes(stage)) throw why;
      this.leftOut.push(why);
      return { kind: "left-out", why };
    }
  }

  all(): void {
    const plan = this.#plan;
    const { cgroup } = plan;
    if (cgroup !== undefined) {
      this.perform("cgroup", () => writeFileSync(`${cgroup}/cgroup.procs`, "0"));
    }
    for (const [name, limit] of Object.entries(plan.limits)) {
      this.perform("limits", () => applyLimit(name, limit));
    }
    const score = String(plan.oom_score);
    this.perform("oom-score", () => writeFileSync("/proc/self/oom_score_adj", score));
    this.#mounts();
    this.perform("capabilities", boundCapabilities);
    const { user, group } = plan;
    this.perform("user", () => becomeUser({ user, group, groups: [] }));
    // Those of a user that is not root went with the change, but not the inheritable ones.
    const none = { effective: 0n, permitted: 0n, inheritable: 0n };
    this.perform("capabilities", () => setCapabilities(none));
    during("no-new-privileges", forbidNewPrivileges);
    // As its user, and after the mounts: the folder before may lie below one of them.
    during("folder", () => changeDirectory(plan.folder));
  }

  #mounts(): void {
    const { devices, writable } = this.#plan;
    const separated = this.perform("mounts", separateMounts);
    if (separated.kind === "left-out") {
      const refuse = () => {
        throw separated.why;
      };
      this.perform("read-only", refuse);
      this.perform("devices", refuse);
      return;
    }
    const sealed = this.perform("read-only", () => makeReadOnly(writable));
    const made = this.perform("devices", () =>
      makeDevices(this.#plan, devices, { isSealed: sealed.kind === "done" }),
    );
    if (sealed.kind === "left-out") return;
    // Where its own were left out, it needs those of the host.
    const attributes = made.kind === "done" ? { readOnly: true } : { noDevices: false };
    this.perform("read-only", () => setMountAttributes("/dev", attributes, "this"));
  }
}

function applyLimit(
  name: string,
  limit: { readonly soft: number | null; readonly hard: number | null },
): void {
  const number = limitNumbers[name];
  if (number === undefined) throw new Error(`Bug: the limit ${name} has no number`);
  const soft = limit.soft ?? Number.POSITIVE_INFINITY;
  const hard = limit.hard ?? Number.POSITIVE_INFINITY;
  try {
    setResourceLimit(number, { soft, hard });
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    throw new ConfineError(`${name} of ${soft} and ${hard}: ${error.message}`, {
      cause: error,
      stage: "limits",
      code: error.code,
    });
  }
}

function makeReadOnly(writable: readonly string[]): void {
  // Each becomes a mount of its own, so that it can differ from what it lies in.
  for (const path of writable) bindMount(path, path);
  const everywhere = { readOnly: true, noSetUser: true, noDevices: true };
  setMountAttributes("/", everywhere, "recursive");
  for (const path of writable) {
    setMountAttributes(path, { readOnly: false, noPrograms: true }, "this");
  }
}

interface HostDevice {
  readonly path: string;
  readonly kind: "character" | "block";
  readonly device: number;
  /** True when user and group of the plan may read and write the host's own node. */
  readonly isUsable: boolean;
  readonly place: OwnedDescriptor;
}

/** @throws Error (ENOENT, ENXIO …) naming the path when it is no device */
function findDevice(plan: Pick<ConfinePlan, "user" | "group">, path: string): HostDevice {
  const status = statSync(path);
  if (!status.isCharacterDevice() && !status.isBlockDevice()) {
    throw new Error(`Expected the node of a device, received ${path}, which is none`);
  }
  const { mode, uid, gid, rdev } = status;
  const allows = (shift: number) => ((mode >> shift) & 0o6) === 0o6;
  const forGroup = gid === plan.group ? allows(3) : allows(0);
  const isUsable = uid === plan.user ? allows(6) : forGroup;
  const kind = status.isBlockDevice() ? "block" : "character";
  return { path, kind, device: rdev, isUsable, place: openPlace(path) };
}

/** Nodes of its own, which its user may open; where none may be made, the host's own ones. */
function makeDevices(
  plan: ConfinePlan,
  paths: readonly string[],
  { isSealed }: { readonly isSealed: boolean },
): void {
  // The host's are looked at before they are covered; their descriptors end with the exec.
  const devices = paths.map((path) => findDevice(plan, path));
  mountDeviceFolder("/dev", { inodes: 4 * (paths.length + 1) });
  try {
    setFileModeMask(0);
    for (const found of devices) makeDevice(found, { isSealed });
  } catch (error) {
    // Left out means the host's own /dev, and never a half of one of its own.
    unmount("/dev");
    throw error;
  }
}

function makeDevice(found: HostDevice, options: { readonly isSealed: boolean }): void {
  const { path, kind, device } = found;
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  try {
    // Nobody but this VMM sees it, and root, who may open all.
    makeDeviceNode(path, { kind, device, mode: 0o666 });
  } catch (error) {
    if (!(error instanceof SystemCallError) || error.errno !== Errno.EPERM) throw error;
    bindDevice(found, options);
  }
}

/** @throws SystemCallError (EACCES) when the VMM's user could not open the node as it is */
function bindDevice(found: HostDevice, { isSealed }: { readonly isSealed: boolean }): void {
  const { path, place, isUsable } = found;
  if (!isUsable) throw new SystemCallError("open", Errno.EACCES, `${path} of the host`);
  writeFileSync(path, "");
  bindMount(`/proc/self/fd/${place.number}`, path);
  if (isSealed) setMountAttributes(path, { noDevices: false }, "this");
}

/** Takes all capabilities out of the bounding set, while we still may. */
function boundCapabilities(): void {
  const last = Number(readFileSync("/proc/sys/kernel/cap_last_cap", "latin1"));
  clearAmbientCapabilities();
  for (let capability = 0; capability <= last; capability++) dropBoundingCapability(capability);
}

/** Why the program does not run: the kernel has one number for a file and for its loader. */
function explainExec(program: string, errno: number): string {
  const why = `Cannot start ${program}: ${errnoMessage(errno)}`;
  if (errno !== Errno.ENOENT || !existsSync(program)) return why;
  return `${why}: the file is there, but not the loader or interpreter that it names`;
}

function report(plan: ConfinePlan, kind: ConfineReport["kind"], error: ConfineError): void {
  const { stage, message, code } = error;
  const line: ConfineReport = { kind, stage, message, ...(code !== undefined && { code }) };
  try {
    writeSync(plan.report, `${JSON.stringify(line)}\n`);
  } catch {
    // EPIPE: the worker is gone. The next one finds us by our invocation.
  }
}

function run(plan: ConfinePlan, program: string, words: readonly string[]): void {
  const confinement = new Confinement(plan);
  confinement.all();
  for (const part of confinement.leftOut) report(plan, "left-out", part);
  setFileModeMask(plan.umask);
  resetSignals();
  // The report closes with a successful exec, and whatever Bun has opened.
  closeOnExecFrom(3);
  for (const descriptor of plan.descriptors) keepOnExec(descriptor);
  const argv = words.slice(0, plan.arguments);
  const errno = execute(program, argv, words.slice(plan.arguments));
  throw new ConfineError(explainExec(program, errno), { stage: "exec", code: errnoName(errno) });
}

/**
 * The calls of a confinement, of which none changes anything: they name what is not there, or what
 * is so already. Each for itself: what a host refuses is told when an order asks for it.
 */
const rehearsals: readonly (() => void)[] = [
  () => {
    const path = "/proc/self/oom_score_adj";
    writeFileSync(path, readFileSync(path, "latin1"));
  },
  () => {
    const core = limitNumbers["core"] ?? 0;
    const limit = resourceLimit(0, core);
    if (limit !== undefined) setResourceLimit(core, limit);
  },
  () => bindMount(NOWHERE, NOWHERE),
  () => setMountAttributes(NOWHERE, { readOnly: true, noSetUser: true, noDevices: true }, "this"),
  () => findDevice({ user: 1, group: 1 }, "/dev/null").place.close(),
  () => mountDeviceFolder(NOWHERE, { inodes: 1 }),
  () => {
    mkdirSync("/dev", { recursive: true, mode: 0o755 });
    makeDeviceNode(`${NOWHERE}/null`, { kind: "character", device: 0, mode: 0o666 });
  },
  () => dropBoundingCapability(Number(readFileSync("/proc/sys/kernel/cap_last_cap", "latin1")) + 1),
  () => setCapabilities(capabilities()),
  () => changeDirectory("/"),
  () => closeOnExecFrom(3),
  () => execute(NOWHERE, [NOWHERE], [NOWHERE]),
];

function rehearse(): void {
  for (const call of rehearsals) {
    try {
      call();
    } catch {
      // As most are meant to be.
    }
  }
}

/** The confiner's whole life. Returns only when it failed, with its exit code. */
export function runConfiner(): number {
  const [text, program, ...words] = process.argv.slice(3);
  if (text === AHEAD) {
    const outcome = awaitOrder(rehearse);
    // Nobody is there to tell: its worker has ended, or has no use for it.
    if (outcome.kind === "dismissed") return ExitCode.done;
    if (outcome.kind === "refused") return refuse(outcome.why);
    const { order } = outcome;
    return confine(order.plan, order.program, order.words);
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text ?? "");
  } catch {
    parsed = undefined;
  }
  const result = v.safeParse(confinePlanSchema, parsed);
  if (!result.success || program === undefined || words.length === 0) {
    return refuse(result.success ? "no program" : describeIssue(result.issues[0]));
  }
  return confine(result.output, program, words);
}

function refuse(why: string): number {
  const expected = "it expects a plan, a program, argv";
  writeSync(2, `hostler --confine is for hostler's own use: ${expected} (${why})\n`);
  return ExitCode.usage;
}

function confine(plan: ConfinePlan, program: string, words: readonly string[]): number {
  try {
    setCloseOnExec(plan.report);
    run(plan, program, words);
  } catch (error) {
    report(plan, "failed", error instanceof ConfineError ? error : explain("confine", error));
  }
  return ExitCode.refused;
}
