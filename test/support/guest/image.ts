/** What a guest boots into: programs of this machine with their libraries, and files of a test. */
import { closeSync, openSync, readFileSync, realpathSync, writeSync } from "node:fs";
import { type ArchiveEntry, packArchive } from "../../../scripts/guest/initramfs.ts";
import { librariesOf } from "../../../scripts/guest/programs.ts";

export interface ImageContent {
  /** Paths in the guest → files of this machine; the libraries they are linked with come along. */
  readonly programs: Readonly<Record<string, string>>;
  /** Paths in the guest → their text. */
  readonly files: Readonly<Record<string, string>>;
  /** The text of /init, the guest's first process. */
  readonly init: string;
}

const folders = ["dev", "proc", "sys", "run", "tmp", "root", "etc", "var", "sbin", "usr/sbin"];
const executable = 0o755;

/** Writes the image; it is not packed, because the guest would take longer to unpack it. */
export function writeImage(path: string, content: ImageContent): void {
  const entries: ArchiveEntry[] = [
    ...folders.map((folder) => ({ kind: "folder" as const, path: folder })),
    { kind: "device", path: "dev/console", major: 5, minor: 1 },
    { kind: "device", path: "dev/null", major: 1, minor: 3 },
    program("init", new TextEncoder().encode(content.init)),
  ];
  const libraries = new Set<string>();
  for (const [place, source] of Object.entries(content.programs)) {
    entries.push(program(relative(place), readFileSync(realpathSync(source))));
    for (const library of librariesOf(source)) libraries.add(library);
  }
  for (const library of libraries) {
    entries.push(program(relative(library), readFileSync(realpathSync(library))));
  }
  for (const [place, text] of Object.entries(content.files)) {
    const bytes = new TextEncoder().encode(text);
    entries.push({ kind: "file", path: relative(place), content: bytes });
  }
  writePieces(path, packArchive(entries));
}

function program(path: string, content: Uint8Array): ArchiveEntry {
  return { kind: "file", path, content, mode: executable };
}

function relative(path: string): string {
  return path.replace(/^\/+/, "");
}

function writePieces(path: string, pieces: readonly Uint8Array[]): void {
  const descriptor = openSync(path, "w");
  try {
    for (const piece of pieces) {
      for (let done = 0; done < piece.length; ) done += writeSync(descriptor, piece, done);
    }
  } finally {
    closeSync(descriptor);
  }
}
