import { accessSync, constants, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { faultKernelSocket } from "../../../ffi/fault-hooks.ts";
import { isKernelLoaded, rebootInto, syncFilesystems } from "../../../ffi/kexec.ts";
import { kill } from "../../../ffi/process.ts";
import { Errno, errnoMessage, errnoName } from "../../../ffi/system-call-error.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { SessionRefusal } from "../lifecycle-state.ts";
import type { EntryWay } from "../options.ts";

const SIGTERM = 15;
const SIGKILL = 9;
/** Milliseconds that a hook has, and that processes have to end after SIGTERM. */
export const HOOK_LIMIT = 60_000;
const STOP_LIMIT = 10_000;
const LOOK_AGAIN_AFTER = 50;

/** The bytes of a hook's words that are told when it fails. */
const SAID_LIMIT = 500;

/**
 * Runs the hooks, one after the other: whatever an operator wants drained or written before the
 * kernel is replaced. The first that fails ends it. @returns why it cannot go on
 */
export async function runHooks(hooks: readonly string[]): Promise<string | undefined> {
  for (const hook of hooks) {
    const problem = await runHook(hook);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** Why these hooks would fail, as far as it can be seen without running them. */
export function lookAtHooks(hooks: readonly string[]): string[] {
  return hooks.flatMap((hook) => {
    try {
      if (!statSync(hook).isFile()) return [`${hook}: expected a file`];
      accessSync(hook, constants.X_OK);
      return [];
    } catch (error) {
      const { code = "error" } = error as { code?: string };
      return [`${hook}: ${code}`];
    }
  });
}

async function runHook(hook: string): Promise<string | undefined> {
  try {
    const child = Bun.spawn([hook], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
      timeout: HOOK_LIMIT,
      killSignal: "SIGKILL",
    });
    const said = (await new Response(child.stderr).text()).trim().slice(-SAID_LIMIT);
    const code = await child.exited;
    if (code === 0) return undefined;
    const ended = child.signalCode === null ? `exit ${code}` : `ended by ${child.signalCode}`;
    return `the hook ${hook} failed (${ended})${said === "" ? "" : `: ${said}`}`;
  } catch (error) {
    return `the hook ${hook} cannot be run: ${(error as Error).message}`;
  }
}

/** Whether PID 1 is systemd: sd_booted(3). */
export function isSystemd(): boolean {
  try {
    return readFileSync("/proc/1/comm", "latin1").trim() === "systemd";
  } catch {
    return false;
  }
}

/** systemd is on the way down: systemctl(1), is-system-running. */
export function isSystemStopping(): boolean {
  if (!isSystemd()) return false;
  try {
    const { stdout } = Bun.spawnSync(["systemctl", "is-system-running"], { stderr: "ignore" });
    return stdout.toString().trim() === "stopping";
  } catch {
    // Whatever runs here without systemctl is not on the way down by it.
    return false;
  }
}

/** How the kernel will be entered when the command said this. */
export function resolveWay(way: EntryWay): "reboot" | "systemctl" {
  if (way !== "auto") return way;
  return isSystemd() ? "systemctl" : "reboot";
}

/** Writes what is in memory alone to the disks. */
export function writeOut(): void {
  syncFilesystems();
}

/**
 * Has systemd stop everything and enter the kernel. It ends this process like all others, unless
 * its unit says SurviveFinalKillSignal. @returns why systemd refused; undefined when it has begun
 */
export async function enterBySystemd(): Promise<SessionRefusal | undefined> {
  try {
    const child = Bun.spawn(["systemctl", "kexec", "--no-wall"], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const said = (await new Response(child.stderr).text()).trim().slice(-SAID_LIMIT);
    const code = await child.exited;
    if (code === 0) return undefined;
    return { code: `exit ${code}`, message: said === "" ? "systemctl kexec failed" : said };
  } catch (error) {
    const { code = "error", message } = error as { code?: string; message: string };
    return { code, message: `systemctl cannot be run: ${message}` };
  }
}

/**
 * Ends all other processes, makes file systems read-only, and enters the kernel.
 * @param keep processes that are not ended: the holder
 * @returns (through `onRefused`) only when the kernel refuses; the processes are gone then
 */
export function enterByReboot(
  loop: EventLoop,
  options: {
    readonly keep: readonly number[];
    /** The very last before the call. */
    readonly onEntering: () => void;
    readonly onRefused: (refusal: SessionRefusal) => void;
  },
): void {
  if (!isKernelLoaded()) {
    options.onRefused({ code: "EINVAL", message: "no kernel is loaded" });
    return;
  }
  const enter = () => {
    remountReadOnly();
    syncFilesystems();
    options.onEntering();
    const result = rebootInto("kexec");
    options.onRefused({
      code: errnoName(-result),
      message: result === -Errno.EINVAL ? "no kernel is loaded" : errnoMessage(-result),
    });
  };
  // Another kernel is entered than the one that runs all these processes.
  if (faultKernelSocket() !== undefined) enter();
  else stopProcesses(loop, options.keep, enter);
}

/** SIGTERM to all but init, ourselves and those to keep; SIGKILL to what stays. */
function stopProcesses(loop: EventLoop, keep: readonly number[], onStopped: () => void): void {
  const others = () => otherProcesses(keep);
  for (const processId of others()) kill(processId, SIGTERM);
  const look = (left: number) => {
    if (others().length === 0) {
      onStopped();
    } else if (left <= 0) {
      for (const processId of others()) kill(processId, SIGKILL);
      onStopped();
    } else loop.wakeAfter(LOOK_AGAIN_AFTER, () => look(left - LOOK_AGAIN_AFTER));
  };
  look(STOP_LIMIT);
}

/** Every process that is no kernel thread and no zombie. */
function otherProcesses(keep: readonly number[]): number[] {
  const spared = new Set([1, process.pid, ...keep]);
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((processId) => !spared.has(processId) && hasProgram(processId));
}

/** A kernel thread and a zombie have no memory, and so no command line. */
function hasProgram(processId: number): boolean {
  try {
    return readFileSync(`/proc/${processId}/cmdline`).length > 0;
  } catch {
    return false;
  }
}

/** SysRq u: every file system that can be is made read-only, at once. */
function remountReadOnly(): void {
  if (faultKernelSocket() !== undefined) return;
  try {
    writeFileSync("/proc/sysrq-trigger", "u");
  } catch {
    // Without SysRq what is mounted stays so; the sync before it has written everything.
  }
}
