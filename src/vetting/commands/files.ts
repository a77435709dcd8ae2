import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { withNamedFile, withNewFile } from "../../journal/file-refused.ts";
import type { readSpec } from "../spec/read-spec.ts";

/** Files that a command is given by name. */

/** @param what "read the spec" */
export function readNamed(what: string, name: string): string {
  const path = resolve(name);
  return withNamedFile({ what, path, otherwise: "give another file" }, () =>
    readFileSync(path, "utf8"),
  );
}

/**
 * What is there already may be something that somebody keeps.
 * @param what "write the spec"
 */
export function writeNew(what: string, name: string, text: string): void {
  const path = resolve(name);
  withNewFile({ what, path, otherwise: "name a file that is new" }, () =>
    writeFileSync(path, text, { flag: "wx" }),
  );
}

/** What is wrong with a file, as commands tell it. */
export function errorsOf(
  file: string,
  mistakes: Extract<ReturnType<typeof readSpec>, { kind: "refused" }>["mistakes"],
) {
  return mistakes.map(({ at, path, expected, received, mend }) => ({
    ...{ file, line: at.line, column: at.column, key_path: path.join(".") },
    ...{ expected, received, ...(mend !== undefined && { mend }) },
  }));
}
