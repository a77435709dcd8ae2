import {
  closeSync,
  existsSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  type Stats,
} from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { withFile } from "../../journal/file-refused.ts";
import { FOLDER, type Found, type Item } from "../items.ts";
import { isUntouched } from "../unit-text.ts";
import { linkTarget, placeInRoot, resolveInRoot } from "./rooted-path.ts";

/** The running program, also when its file was replaced or removed since it was started. */
export const runningProgram = "/proc/self/exe";

const CHUNK_BYTES = 1024 * 1024;
/** How every program of Linux begins: elf(5). */
const ELF = Buffer.from("\x7fELF");

/** What stands where the item belongs. @throws FileRefused when it may not be looked at */
export function look(root: string, item: Item): Found {
  return withFile(
    { what: "look at", path: item.path, otherwise: "give another --prefix or --unit-directory" },
    () => {
      const place = placeInRoot(root, item.path);
      const stats = lstatSync(place, { throwIfNoEntry: false });
      if (stats === undefined) return { kind: "absent" };
      if (item.kind === "link") return lookAtLink(root, item, { place, stats });
      if (item.kind === "program" && leadsToInstallation(root, item.path)) {
        return { kind: "equivalent" };
      }
      if (!stats.isFile()) return { kind: "foreign", what: describe(place, stats) };
      return item.kind === "unit" ? lookAtUnit(place, item.text) : lookAtProgram(place);
    },
  );
}

/** What a link to the program says: from the folder that it is in, as an image may be moved. */
export function targetOf(root: string, item: Extract<Item, { kind: "link" }>): string {
  const from = dirname(placeInRoot(root, item.path));
  return relative(from, placeInRoot(root, item.program));
}

function lookAtLink(
  root: string,
  item: Extract<Item, { kind: "link" }>,
  { place, stats }: { readonly place: string; readonly stats: Stats },
): Found {
  const target = linkTarget(place);
  if (target === targetOf(root, item)) return { kind: "same" };
  const leadsThere = () => resolveInRoot(root, item.path) === placeInRoot(root, item.program);
  if (target !== undefined && leadsThere()) return { kind: "equivalent" };
  return { kind: "foreign", what: describe(place, stats) };
}

/** Where `hostler fleet install` was: the name is a link, and the fleet's agent says to what. */
function leadsToInstallation(root: string, path: string): boolean {
  const found = /^(.+)\/versions\/[^/]+\/hostler$/.exec(resolveInRoot(root, path))?.[1];
  return found !== undefined && existsSync(join(found, "layout.json"));
}

function lookAtUnit(place: string, text: string): Found {
  const found = readFileSync(place, "utf8");
  if (found === text) return { kind: "same" };
  return { kind: isUntouched(found) ? "former" : "changed" };
}

function lookAtProgram(place: string): Found {
  const [found, own] = [openSync(place, "r"), openSync(runningProgram, "r")];
  try {
    if (hasSameBytes(found, own)) return { kind: "same" };
    const beginning = Buffer.alloc(ELF.length);
    readSync(found, beginning, 0, ELF.length, 0);
    return beginning.equals(ELF)
      ? { kind: "former" }
      : { kind: "foreign", what: "a file that is no program of hostler's" };
  } finally {
    closeSync(found);
    closeSync(own);
  }
}

function hasSameBytes(left: number, right: number): boolean {
  const [one, other] = [fstatSync(left), fstatSync(right)];
  if (one.dev === other.dev && one.ino === other.ino) return true;
  if (one.size !== other.size) return false;
  const [first, second] = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)];
  for (let offset = 0; offset < one.size; ) {
    const count = readSync(left, first, 0, CHUNK_BYTES, offset);
    if (count === 0 || readSync(right, second, 0, count, offset) !== count) return false;
    if (!first.subarray(0, count).equals(second.subarray(0, count))) return false;
    offset += count;
  }
  return true;
}

function describe(place: string, stats: Stats): string {
  if (stats.isDirectory()) return FOLDER;
  if (stats.isSymbolicLink()) return `a link to ${linkTarget(place)}`;
  return stats.isFile() ? "a file" : "something that is no file";
}

/** Whether `systemctl enable` has linked the unit from a folder beside it, such as x.wants. */
export function isEnabled(root: string, unitPath: string): boolean {
  const folder = dirname(placeInRoot(root, unitPath));
  if (!existsSync(folder)) return false;
  return readdirSync(folder)
    .filter((name) => /\.(wants|requires)$/.test(name))
    .some((name) => linkTarget(join(folder, name, basename(unitPath))) !== undefined);
}
