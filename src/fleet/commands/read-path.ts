import { normalize } from "node:path";
import { UsageError } from "../../command-line/usage-error.ts";

/** What a unit can name without quoting, and without a specifier: systemd.unit(5). */
export function readPath(flag: string, path: string): string {
  if (/^\/[\w.+@/-]*$/.test(path) && path !== "/") {
    return normalize(path).replace(/(?<=.)\/$/, "");
  }
  throw new UsageError(
    `Expected an absolute path of letters, digits and . _ + @ - /, not / itself, after ${flag}, ` +
      `received ${JSON.stringify(path)}`,
  );
}
