import { fstatSync, lstatSync } from "node:fs";
import { lockFile } from "../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { SystemCallError } from "../../ffi/system-call-error.ts";
import { ExitCode } from "../units/exit-code.ts";
import { type HolderRefusal, holderLockOf } from "./protocol.ts";

/** Another holder lives for the same daemon. */
export class AnotherHolder extends Error {
  override readonly name = "AnotherHolder";
  readonly exitCode = ExitCode.refused;
}

/** That there is one holder of a daemon: a lock beside its control socket. */
export class HolderLock {
  readonly #path: string;
  #lock: OwnedDescriptor;

  /** @throws AnotherHolder; SystemCallError when the file cannot be used */
  constructor(controlSocket: string) {
    this.#path = holderLockOf(controlSocket);
    this.#lock = this.#take();
  }

  #take(): OwnedDescriptor {
    const lock = lockFile(this.#path);
    if (lock !== "held") return lock;
    throw new AnotherHolder(`Another holder lives: it has the lock ${this.#path}`);
  }

  /** After somebody removed what stands beside the control socket. @throws as the constructor */
  restore(): void {
    const found = lstatSync(this.#path, { throwIfNoEntry: false });
    const own = fstatSync(this.#lock.number);
    if (found?.ino === own.ino && found.dev === own.dev) return;
    const lock = this.#take();
    this.#lock.close();
    this.#lock = lock;
  }
}

/** Why this cannot be the holder of the daemon. */
export function refusalOf(error: unknown): HolderRefusal {
  const { message } = error as Error;
  if (error instanceof AnotherHolder) return { code: "EADDRINUSE", message };
  // A path that cannot be used, by whatever is there already.
  return { code: error instanceof SystemCallError ? error.code : "EINVAL", message };
}
