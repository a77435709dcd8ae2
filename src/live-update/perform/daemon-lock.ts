import { fstatSync, ftruncateSync, mkdirSync, readFileSync, rmSync, writeSync } from "node:fs";
import { faultKernelSocket } from "../../../ffi/fault-hooks.ts";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { withFile } from "../../journal/file-refused.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { hasDevice } from "./sessions.ts";

/** Another daemon lives: there is one for a kernel. */
export class AlreadyRunning extends Error {
  override readonly name = "AlreadyRunning";
  readonly exitCode = ExitCode.refused;
}

/** The lock of whoever serves the machine's kernel, whatever paths it was given. */
const KERNEL_LOCK = "/run/luod.lock";

/** Takes a lock that lasts as long as this process, and writes into it whose it is. */
function take(path: string): OwnedDescriptor | "held" {
  const lock = lockFile(path);
  if (lock === "held") return lock;
  try {
    if (fstatSync(lock.number).size > 0) ftruncateSync(lock.number);
    writeSync(lock.number, `${process.pid}\n`, 0);
    return lock;
  } catch (error) {
    rmSync(path, { force: true });
    lock.close();
    throw error;
  }
}

function refuseSecond(what: string, path: string): AlreadyRunning {
  const holder = readFileSync(path, "utf8").trim();
  const who = holder === "" ? "" : `: process ${holder}`;
  return new AlreadyRunning(`Another luod ${what}${who}. Stop it first.`);
}

/**
 * Makes the state directory if it is missing, and takes its lock.
 * @throws AlreadyRunning; FileRefused when the directory cannot be used
 */
export function takeDaemonLock(stateDirectory: string): OwnedDescriptor {
  const path = `${stateDirectory}/lock`;
  const otherwise = "choose another by --state-directory";
  const lock = withFile({ what: "take the lock of the state directory", path, otherwise }, () => {
    mkdirSync(stateDirectory, { recursive: true, mode: 0o755 });
    return take(path);
  });
  if (lock === "held") throw refuseSecond(`has the state directory ${stateDirectory}`, path);
  return lock;
}

/**
 * Takes the lock of the kernel that is asked for live updates. It is a file that only root can
 * open: the device itself has one opener at a time, and a name that anybody can take would let
 * anybody keep luod from starting. Undefined where there is no device, and nothing to have alone.
 * @throws AlreadyRunning
 */
export function takeKernelLock(onTrouble: (message: string) => void): OwnedDescriptor | undefined {
  if (!hasDevice()) return undefined;
  const other = faultKernelSocket();
  const path = other === undefined ? KERNEL_LOCK : `${other}.luod.lock`;
  let lock: OwnedDescriptor | "held";
  try {
    lock = take(path);
  } catch (error) {
    // The lock of the state directory, and the holder, stand in the way of most second ones.
    const { message } = error as Error;
    onTrouble(
      `cannot take ${path}, which keeps other luods from this kernel: ${message}; ignoring`,
    );
    return undefined;
  }
  if (lock === "held") throw refuseSecond("serves this kernel", path);
  return lock;
}

/** When this kernel began, by the wall clock in milliseconds: proc_uptime(5). */
export function bootTime(): number {
  const [uptime = "0"] = readFileSync("/proc/uptime", "latin1").split(" ");
  return Date.now() - Number(uptime) * 1000;
}
