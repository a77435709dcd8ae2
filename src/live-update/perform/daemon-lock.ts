import { fstatSync, ftruncateSync, mkdirSync, readFileSync, writeSync } from "node:fs";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { withFile } from "../../journal/file-refused.ts";
import { ExitCode } from "../../units/exit-code.ts";

/** Another daemon holds the same state directory. */
export class AlreadyRunning extends Error {
  override readonly name = "AlreadyRunning";
  readonly exitCode = ExitCode.refused;
}

/**
 * Makes the state directory if it is missing, and takes its lock, which lasts as long as this
 * process.
 * @throws AlreadyRunning; FileRefused when the directory cannot be used
 */
export function takeDaemonLock(stateDirectory: string): OwnedDescriptor {
  const path = `${stateDirectory}/lock`;
  const otherwise = "choose another by --state-directory";
  const lock = withFile({ what: "take the lock of the state directory", path, otherwise }, () => {
    mkdirSync(stateDirectory, { recursive: true, mode: 0o755 });
    return lockFile(path);
  });
  if (lock === "held") {
    const holder = readFileSync(path, "utf8").trim();
    throw new AlreadyRunning(
      `Another luod has the state directory ${stateDirectory}` +
        `${holder === "" ? "" : `: process ${holder}`}. Stop it first.`,
    );
  }
  if (fstatSync(lock.number).size > 0) ftruncateSync(lock.number);
  writeSync(lock.number, `${process.pid}\n`, 0);
  return lock;
}

/** When this kernel began, by the wall clock in milliseconds: proc_uptime(5). */
export function bootTime(): number {
  const [uptime = "0"] = readFileSync("/proc/uptime", "latin1").split(" ");
  return Date.now() - Number(uptime) * 1000;
}
