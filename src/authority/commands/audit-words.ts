import { statSync } from "node:fs";
import { isLogFolder } from "../../audit/segments.ts";
import { FileRefused, withFile } from "../../journal/file-refused.ts";

/** Exit code: the log could be read, and is not as it was written. */
export const brokenChainExitCode = 112;

/** @throws FileRefused with a mend, where the log's folder cannot be read */
export function checkReadable(directory: string): void {
  const file = {
    what: "read the audit log",
    path: directory,
    otherwise: "give another --directory",
  };
  withFile(file, () => {
    if (statSync(directory, { throwIfNoEntry: false }) === undefined) {
      throw new FileRefused(
        `Cannot read the audit log ${directory}: expected a folder, received nothing there. ` +
          "Run this on the authority's host, or give the folder by --directory.",
      );
    }
    if (isLogFolder(directory)) return;
    throw new FileRefused(
      `Cannot read the audit log ${directory}: expected its segments, or its lock, received a ` +
        "folder with neither. Run this on the authority's host, or give the folder by --directory.",
    );
  });
}
