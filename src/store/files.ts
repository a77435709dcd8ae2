import { closeSync, fsyncSync, openSync } from "node:fs";

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
