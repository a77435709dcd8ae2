import { closeSync, fsyncSync, openSync } from "node:fs";
import { FileRefused, withFile } from "../journal/file-refused.ts";
import { codeOf, isNoRoom } from "./database.ts";

/**
 * `withFile`, for what SQLite refuses as well.
 * @throws FileRefused; any other error as it is
 */
export function withDatabase<T>(file: Parameters<typeof withFile>[0], act: () => T): T {
  return withFile(file, () => {
    try {
      return act();
    } catch (error) {
      if (isNoRoom(error)) throw Object.assign(new Error("No room"), { code: "ENOSPC" });
      const code = codeOf(error);
      if (code?.startsWith("SQLITE_") !== true) throw error;
      const why = `${(error as Error).message} (${code})`;
      throw new FileRefused(`Cannot ${file.what} ${file.path}: ${why}.`, { cause: error });
    }
  });
}

/** Makes what was renamed or made in a folder last: fsync(2) of the folder. */
export function syncFolder(path: string): void {
  syncFile(path);
}

/** fsync(2) of a file by its path. */
export function syncFile(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Lets everything else that is ready have its turn. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
