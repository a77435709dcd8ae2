import { randomBytes } from "node:crypto";
import { readlinkSync } from "node:fs";
import { open } from "node:fs/promises";
import { wallClock } from "../../event-loop/clock.ts";
import { hostlerCommit, hostlerVersion } from "../../units/version.ts";
import type { About } from "../protocol.ts";

/** Bytes that are hashed in one go: others have their turn between two of them. */
const CHUNK_BYTES = 256 * 1024;

/** The file that this process runs, whatever stands at its path by now: proc_pid_exe(5). */
const OWN_FILE = "/proc/self/exe";

/** SHA-256 of a file in hexadecimal; other threads read it. @throws Error (ENOENT, EIO …) */
export async function digestOf(path: string): Promise<string> {
  const file = await open(path, "r");
  try {
    const hasher = new Bun.CryptoHasher("sha256");
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, null);
      if (bytesRead === 0) return hasher.digest("hex");
      hasher.update(chunk.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}

/** What this process is: a new instance for each program that a process becomes. */
export class OwnProgram {
  readonly instance = randomBytes(8).toString("hex");
  readonly #startedAt = wallClock();
  #digest: Promise<string> | undefined;

  /** Hashes its file at the first call, once. @throws Error when that cannot be read */
  async about(): Promise<About> {
    this.#digest ??= digestOf(OWN_FILE);
    return {
      instance: this.instance,
      version: hostlerVersion,
      commit: hostlerCommit,
      digest: await this.#digest,
      program: readlinkSync(OWN_FILE),
      process_id: process.pid,
      started_at: this.#startedAt,
    };
  }
}
