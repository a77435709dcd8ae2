import { readlinkSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { FileRefused, withFile } from "../../journal/file-refused.ts";

/** The kernel's own limit: path_resolution(7). */
const MOST_LINKS = 40;

/**
 * The folder of an image, by its one name.
 * @param flag that named it
 * @throws FileRefused when there is no such folder
 */
export function readRoot(root: string, flag = "--root"): string {
  const what = `use the ${flag.slice("--".length)}`;
  return withFile({ what, path: root, otherwise: `give another ${flag}` }, () => {
    const path = realpathSync(root);
    if (statSync(path).isDirectory()) return path;
    throw new FileRefused(`Cannot ${what} ${root}: expected a folder, received a file.`);
  });
}

/**
 * Where a path of the installed system lies on this one. Links on the way are followed as if the
 * root were /, as they will be there: those of an image must not lead into this system. The last
 * part is not followed.
 */
export function placeInRoot(root: string, path: string): string {
  return join(resolveInRoot(root, dirname(path)), basename(path));
}

/** As `placeInRoot`, the last part included. What is not there is taken as it is named. */
export function resolveInRoot(root: string, path: string): string {
  const waiting = partsOf(path);
  let found: string[] = [];
  let links = 0;
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
    if (name === "..") {
      found.pop();
      continue;
    }
    const target = linkTarget(join(root, ...found, name));
    if (target === undefined) {
      found.push(name);
      continue;
    }
    links += 1;
    if (links > MOST_LINKS) {
      throw new FileRefused(`Cannot use ${path}: expected at most ${MOST_LINKS} links on the way.`);
    }
    if (target.startsWith("/")) found = [];
    waiting.unshift(...partsOf(target));
  }
  return join(root, ...found);
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

/** What a link says; undefined for anything else, also for what is not there. */
export function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    const { code = "" } = error as { readonly code?: string };
    if (["EINVAL", "ENOENT", "ENOTDIR"].includes(code)) return undefined;
    throw error;
  }
}
