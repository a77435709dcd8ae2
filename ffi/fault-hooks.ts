/**
 * Hooks that exist only in the build for fault tests (`dist/hostler-faults`, made by one define).
 * In the ordinary build `faultHooks` is the constant false and all code behind it is removed.
 */
declare const HOSTLER_FAULTS: boolean | undefined;

export const faultHooks: boolean = typeof HOSTLER_FAULTS !== "undefined" && HOSTLER_FAULTS === true;

/** Kernel features that a fault build can be told to live without. */
export type AbsentFeature = "pidfd_get_info" | "so_peerpidfd" | "pidfs" | "aio" | "liveupdate";

/** True when a fault test asked for a kernel without the feature (HOSTLER_ABSENT, a comma list). */
export function isMadeAbsent(feature: AbsentFeature): boolean {
  if (typeof HOSTLER_FAULTS !== "undefined" && HOSTLER_FAULTS === true) {
    return (process.env["HOSTLER_ABSENT"] ?? "").split(",").includes(feature);
  }
  return false;
}

/**
 * The Unix socket of the kernel that a fault test puts in the place of this one, for live updates
 * and kexec alone (HOSTLER_LIVE_UPDATE_KERNEL); undefined for the machine's own.
 */
export function faultKernelSocket(): string | undefined {
  if (typeof HOSTLER_FAULTS !== "undefined" && HOSTLER_FAULTS === true) {
    return process.env["HOSTLER_LIVE_UPDATE_KERNEL"];
  }
  return undefined;
}

/** How many bits a test of memory is to flip, and where. */
export interface MemoryFlips {
  readonly count: number;
  readonly seed: number;
}

/** What a fault test asked for (HOSTLER_MEMORY_FLIPS=COUNT@SEED); undefined: none. */
export function memoryFlips(): MemoryFlips | undefined {
  if (typeof HOSTLER_FAULTS !== "undefined" && HOSTLER_FAULTS === true) {
    const [count, seed] = (process.env["HOSTLER_MEMORY_FLIPS"] ?? "").split("@").map(Number);
    return count && seed !== undefined ? { count, seed } : undefined;
  }
  return undefined;
}

/** The kind of work whose answer a fault test wants wrong, once (HOSTLER_WRONG_ANSWER). */
export function wrongAnswer(): string | undefined {
  if (typeof HOSTLER_FAULTS !== "undefined" && HOSTLER_FAULTS === true) {
    return process.env["HOSTLER_WRONG_ANSWER"];
  }
  return undefined;
}

/** Those that a child of ours is told of as well. */
const passedOn: readonly string[] = faultHooks
  ? ["HOSTLER_ABSENT", "HOSTLER_LIVE_UPDATE_KERNEL", "HOSTLER_MEMORY_FLIPS", "HOSTLER_WRONG_ANSWER"]
  : [];

/** NAME=value of these, for a process that is started without an environment; no kill point. */
export function faultVariables(): string[] {
  if (typeof HOSTLER_FAULTS !== "undefined" && HOSTLER_FAULTS === true) {
    return passedOn.flatMap((name) => {
      const value = process.env[name];
      return value === undefined ? [] : [`${name}=${value}`];
    });
  }
  return [];
}

/**
 * Whether the file of HOSTLER_KILL_ONCE was there: it is taken away before the kill, so that
 * whoever is started anew with the same environment goes on. True where no file was named.
 */
function takeOnce(): boolean {
  const path = process.env["HOSTLER_KILL_ONCE"];
  // rm(1) says whether there was one; whoever comes here has no other way to the disk.
  return path === undefined || Bun.spawnSync(["/bin/rm", path]).exitCode === 0;
}

const passes = new Map<string, number>();

/**
 * Ends this process with SIGKILL when a fault test named this place: HOSTLER_KILL_AT is
 * "<place>" or "<place>#<n>", the n-th pass (from 1).
 */
export function killPoint(place: string): void {
  if (typeof HOSTLER_FAULTS !== "undefined" && HOSTLER_FAULTS === true) {
    const wanted = process.env["HOSTLER_KILL_AT"];
    if (wanted === undefined) return;
    const count = (passes.get(place) ?? 0) + 1;
    passes.set(place, count);
    const [name, pass] = wanted.split("#");
    if (name !== place || count !== Number(pass ?? 1)) return;
    if (takeOnce()) process.kill(process.pid, "SIGKILL");
  }
}
