import {
  chmodSync,
  closeSync,
  existsSync,
  fchmodSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { killPoint } from "../../../ffi/fault-hooks.ts";
import { withFile } from "../../journal/file-refused.ts";
import type { Item } from "../items.ts";
import { runningProgram, targetOf } from "./look.ts";
import { placeInRoot } from "./rooted-path.ts";

const CHUNK_BYTES = 1024 * 1024;
/** Whatever the umask is: others run the program, and systemctl reads units as anybody. */
const FOLDER_MODE = 0o755;
const PROGRAM_MODE = 0o755;
const UNIT_MODE = 0o644;

const otherwise = "give another --prefix, --unit-directory or --root";

/**
 * Makes an item, or replaces what stands there, as a whole: whoever looks finds the former or the
 * new one, also after a power cut. @throws FileRefused
 */
export function make(root: string, item: Item): void {
  withFile({ what: "write", path: item.path, otherwise }, () => {
    const place = placeInRoot(root, item.path);
    makeFolder(dirname(place));
    removeLeftovers(place);
    const temporary = `${place}.${process.pid}.new`;
    try {
      makeAt(temporary, root, item);
      killPoint("install:written");
      renameSync(temporary, place);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
    syncFolder(dirname(place));
  });
}

/** @throws FileRefused */
export function remove(root: string, item: Item): void {
  withFile({ what: "remove", path: item.path, otherwise }, () => {
    const place = placeInRoot(root, item.path);
    unlinkSync(place);
    syncFolder(dirname(place));
  });
}

function makeAt(path: string, root: string, item: Item): void {
  switch (item.kind) {
    case "link":
      symlinkSync(targetOf(root, item), path);
      return;
    case "unit":
      writeFile(path, UNIT_MODE, (file) => writeAll(file, Buffer.from(item.text)));
      return;
    case "program":
      writeFile(path, PROGRAM_MODE, copyProgram);
      return;
  }
}

function writeFile(path: string, mode: number, write: (file: number) => void): void {
  const file = openSync(path, "wx", mode);
  try {
    write(file);
    fchmodSync(file, mode);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function copyProgram(file: number): void {
  const source = openSync(runningProgram, "r");
  const chunk = Buffer.alloc(CHUNK_BYTES);
  try {
    for (;;) {
      const count = readSync(source, chunk, 0, CHUNK_BYTES, null);
      if (count === 0) return;
      writeAll(file, chunk.subarray(0, count));
    }
  } finally {
    closeSync(source);
  }
}

function writeAll(file: number, bytes: Buffer): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(file, bytes, offset);
}

function makeFolder(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) return;
  makeFolder(dirname(path));
  mkdirSync(path);
  chmodSync(path, FOLDER_MODE);
}

/** Of an install that was killed: it would take the room of a whole program for ever. */
function removeLeftovers(place: string): void {
  const prefix = `${basename(place)}.`;
  for (const name of readdirSync(dirname(place))) {
    if (!name.startsWith(prefix)) continue;
    const writer = /^(\d+)\.new$/.exec(name.slice(prefix.length))?.[1];
    if (writer === undefined) continue;
    if (writer === String(process.pid) || !existsSync(`/proc/${writer}`)) {
      rmSync(join(dirname(place), name), { force: true });
    }
  }
}

function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
