/** Writes tar files whose bytes depend on names and contents alone: no time, no owner, no order. */

export interface ArchiveEntry {
  /** Without a leading slash; at most 100 bytes. */
  readonly path: string;
  /** Permission bits. */
  readonly mode: number;
  readonly content: Uint8Array;
}

/** POSIX.1-1988 "ustar", tar(5): blocks of 512 bytes. */
const blockBytes = 512;

/** @returns the archive: entries in the order of their paths, time 0, owner and group 0 */
export function makeArchive(entries: readonly ArchiveEntry[]): Uint8Array<ArrayBuffer> {
  const sorted = entries.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  const blocks = sorted.reduce((sum, entry) => sum + 1 + blocksFor(entry.content.length), 0);
  // Two blocks of zeros are the end.
  const archive = new Uint8Array((blocks + 2) * blockBytes);
  let offset = 0;
  for (const entry of sorted) {
    archive.set(makeHeader(entry), offset);
    archive.set(entry.content, offset + blockBytes);
    offset += (1 + blocksFor(entry.content.length)) * blockBytes;
  }
  return archive;
}

function blocksFor(bytes: number): number {
  return Math.ceil(bytes / blockBytes);
}

/** Offsets of struct posix_header: name 0, mode 100, uid 108, gid 116, size 124, mtime 136, … */
function makeHeader(entry: ArchiveEntry): Uint8Array {
  const header = new Uint8Array(blockBytes);
  const write = (offset: number, text: string) =>
    header.set(new TextEncoder().encode(text), offset);
  if (new TextEncoder().encode(entry.path).length > 100) {
    throw new RangeError(`${entry.path}: a path in an archive has at most 100 bytes`);
  }
  write(0, entry.path);
  write(100, octal(entry.mode, 7));
  write(108, octal(0, 7));
  write(116, octal(0, 7));
  write(124, octal(entry.content.length, 11));
  write(136, octal(0, 11));
  write(156, "0");
  write(257, "ustar\u000000");
  // The checksum is taken with spaces in its own place.
  write(148, " ".repeat(8));
  const sum = header.reduce((total, byte) => total + byte, 0);
  write(148, `${octal(sum, 6)}\0 `);
  return header;
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, "0");
}
