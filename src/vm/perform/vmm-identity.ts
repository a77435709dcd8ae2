import { readdirSync, readFileSync, statSync } from "node:fs";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { hasEnded, openProcess } from "../../../ffi/pidfd.ts";
import type { ProcessId } from "../../units/units.ts";

/**
 * Who a VMM is, so that a worker that did not start it knows it again: a process number alone may
 * be another's by now, but no other has had the same number since the same moment of this boot.
 */
export interface VmmIdentity {
  readonly processId: ProcessId;
  /** Clock ticks since boot, when it was born; an exec does not change it. */
  readonly startTicks: number;
  /** random(4), /proc/sys/kernel/random/boot_id */
  readonly bootId: string;
  /** 32 hexadecimal digits: INVOCATION_ID in its environment. */
  readonly invocation: string;
}

/** What carries the invocation; systemd's own name for such a thing. */
export const INVOCATION_VARIABLE = "INVOCATION_ID";

interface Status {
  readonly state: string;
  readonly parentId: number;
  readonly threads: number;
  readonly startTicks: number;
}

/** What says that a process is gone, or not ours to look into; nothing else does. */
const unreadableCodes = ["ENOENT", "ESRCH", "EACCES", "EPERM"];

/**
 * A file of a process; undefined when there is none, or none that we may read.
 * @throws Error (EMFILE, ENOMEM …) when nothing can be said of it: it may well be there
 */
function readOf(processId: ProcessId, file: "stat" | "environ" | "cmdline"): string | undefined {
  try {
    return readFileSync(`/proc/${processId}/${file}`, "latin1");
  } catch (error) {
    if (unreadableCodes.includes((error as { code?: string }).code ?? "")) return undefined;
    throw error;
  }
}

/** proc_pid_stat(5) */
function statusOf(processId: ProcessId): Status | undefined {
  const text = readOf(processId, "stat");
  if (text === undefined) return undefined;
  // The name stands in parentheses and may hold anything, parentheses and spaces included.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return {
    state: fields[0] ?? "X",
    parentId: Number(fields[1]),
    threads: Number(fields[17]),
    startTicks: Number(fields[19]),
  };
}

/** The id of this boot. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
}

/** Who a process of ours is, dead or not; undefined once it was reaped. */
export function identityOf(processId: ProcessId, invocation: string): VmmIdentity | undefined {
  const status = statusOf(processId);
  if (status === undefined) return undefined;
  return { processId, startTicks: status.startTicks, bootId: bootId(), invocation };
}

/** A file of /proc with words that end with zero bytes; undefined when it may not be read. */
function wordsOf(processId: ProcessId, file: "environ" | "cmdline"): readonly string[] | undefined {
  return readOf(processId, file)?.split("\0").slice(0, -1);
}

/** Whether a process carries an invocation; "unreadable" where its environment does not say. */
function carries(processId: ProcessId, invocation: string): boolean | "unreadable" {
  const environment = wordsOf(processId, "environ");
  if (environment?.includes(`${INVOCATION_VARIABLE}=${invocation}`) === true) return true;
  // Everybody may read this one; a worker that is not root may not read the other's environment.
  const words = wordsOf(processId, "cmdline");
  if (words?.some((word) => word.includes(invocation)) === true) return true;
  // Nothing is in it in the middle of an exec, which has told its start already.
  return environment === undefined || environment.length === 0 ? "unreadable" : false;
}

export type Adoption =
  | { readonly kind: "adopted"; readonly process: OwnedDescriptor }
  /** It is dead for certain: what it had may be taken down. */
  | { readonly kind: "gone"; readonly reason: string }
  /** It may be ours: nothing of it may be collected, and it is asked again. */
  | { readonly kind: "doubtful"; readonly reason: string };

/**
 * Takes a VMM up again after its worker's end.
 * @throws Error (EMFILE, ENFILE, ENOMEM) when nothing can be said of it
 */
export function adoptVmm(identity: VmmIdentity): Adoption {
  const { processId, startTicks, invocation } = identity;
  if (identity.bootId !== bootId()) {
    return { kind: "gone", reason: "the host has been booted since" };
  }
  // Opened before it is looked at: what /proc says of the number later is of this process, or of
  // one that was born after it, and then the start differs.
  const process = openProcess(processId);
  if (process === undefined) return { kind: "gone", reason: `no process ${processId} is there` };
  let isTaken = false;
  try {
    const status = statusOf(processId);
    if (hasEnded(process)) return { kind: "gone", reason: `process ${processId} has ended` };
    if (status === undefined) {
      return { kind: "doubtful", reason: `process ${processId} lives, and /proc does not show it` };
    }
    if (status.startTicks !== startTicks) {
      const born = `born at ${status.startTicks} and not ${startTicks}`;
      return { kind: "gone", reason: `process ${processId} is another, ${born}` };
    }
    // One of the same number and tick that is not ours is next to impossible; a VMM that wrote
    // over its own environment is not. Neither is a reason to take its machine down.
    if (carries(processId, invocation) === false) {
      const reason = `process ${processId} does not carry invocation ${invocation}`;
      return { kind: "doubtful", reason };
    }
    isTaken = true;
    return { kind: "adopted", process };
  } finally {
    if (!isTaken) process.close();
  }
}

/** What a search for an invocation found. */
export interface VmmSearch {
  /** Living processes that carry it, the oldest first: the VMM, or its confiner before it. */
  readonly found: readonly VmmIdentity[];
  /** Living ones that have no environment yet, as in the middle of an exec: look again. */
  readonly unreadable: readonly ProcessId[];
}

/** Whose a process is: its user, or root's where it may not be looked into. */
function ownerOf(processId: ProcessId): number | undefined {
  return statSync(`/proc/${processId}`, { throwIfNoEntry: false })?.uid;
}

/**
 * Looks through /proc for a VMM by its environment: after a worker died between starting one and
 * writing down whom. Anybody may put another's invocation into an environment, so that only
 * processes of the VMM's user count, and our own, as its confiner is one. A worker that may not
 * read the environments of others finds nothing.
 * @throws Error (EMFILE, ENOMEM …) when it cannot look: nothing found would be no proof
 */
export function findVmm(invocation: string, user: number): VmmSearch {
  const wanted = `${INVOCATION_VARIABLE}=${invocation}`;
  const boot = bootId();
  const own = process.geteuid?.() ?? 0;
  const found: VmmIdentity[] = [];
  const unreadable: ProcessId[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const processId = Number(name);
    const environment = wordsOf(processId, "environ");
    const isEmpty = environment === undefined || environment.length === 0;
    if (!isEmpty && !environment.includes(wanted)) continue;
    const status = statusOf(processId);
    if (status === undefined || status.state === "X") continue;
    // A zombie has no environment any more, nor has one whose first thread alone has ended.
    const isHeadless = status.state === "Z" && status.threads > 1;
    if (status.state === "Z" && !isHeadless) continue;
    // Another's, that we may not read.
    if (environment === undefined && !isHeadless) continue;
    const owner = ownerOf(processId);
    if (owner !== user && owner !== own) continue;
    if (isEmpty) {
      // Kernel threads have no environment either; all of them descend from process 2.
      if (status.parentId !== 2 && processId !== 2) unreadable.push(processId);
      continue;
    }
    found.push({ processId, startTicks: status.startTicks, bootId: boot, invocation });
  }
  found.sort((first, second) => first.startTicks - second.startTicks);
  return { found, unreadable };
}
