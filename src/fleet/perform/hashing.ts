import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";

const CHUNK_BYTES = 1024 * 1024;

export interface HashedFile {
  /** SHA-256, 64 hexadecimal digits. */
  readonly digest: string;
  /** Its owner may execute it. */
  readonly isExecutable: boolean;
}

/** Reads a regular file through. @throws Error (ENOENT, EIO …), and for what is no file */
export function hashFile(path: string): HashedFile {
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = fstatSync(file);
    if (!stats.isFile()) throw Object.assign(new Error("no file"), { code: "EISDIR" });
    const hasher = new Bun.CryptoHasher("sha256");
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    for (;;) {
      const count = readSync(file, chunk, 0, CHUNK_BYTES, null);
      if (count === 0) break;
      hasher.update(chunk.subarray(0, count));
    }
    const isExecutable = (stats.mode & constants.S_IXUSR) !== 0;
    return { digest: hasher.digest("hex"), isExecutable };
  } finally {
    closeSync(file);
  }
}
