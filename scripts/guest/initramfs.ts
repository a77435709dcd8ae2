/**
 * The archive that a kernel unpacks as its first file system: cpio in its "newc" form, as
 * Documentation/driver-api/early-userspace/buffer-format.rst has it. Written without root, and the
 * same bytes for the same entries: all belongs to root and carries no time.
 */

export type ArchiveEntry =
  | { readonly kind: "folder"; readonly path: string; readonly mode?: number }
  | { readonly kind: "file"; readonly path: string; readonly content: Uint8Array; mode?: number }
  | { readonly kind: "link"; readonly path: string; readonly target: string }
  /** A character device. */
  | { readonly kind: "device"; readonly path: string; readonly major: number; minor: number };

/** S_IFMT and its kind: inode(7). */
const types = { folder: 0o040000, file: 0o100000, link: 0o120000, device: 0o020000 } as const;
const usualModes = { folder: 0o755, file: 0o644, link: 0o777, device: 0o600 } as const;
const nothing = new Uint8Array(0);

/** @returns the archive in pieces, in their order; contents are not copied */
export function packArchive(entries: readonly ArchiveEntry[]): Uint8Array[] {
  const whole = withParents(entries);
  const pieces = whole.flatMap((entry, index) => packEntry(entry, index + 1));
  return [...pieces, ...pack("TRAILER!!!", { number: 0, mode: 0, content: nothing })];
}

/** The kernel makes no folder that has no entry of its own, before what is in it. */
function withParents(entries: readonly ArchiveEntry[]): ArchiveEntry[] {
  const known = new Map<string, ArchiveEntry>();
  for (const entry of entries) {
    const names = entry.path.split("/");
    for (let depth = 1; depth < names.length; depth++) {
      const path = names.slice(0, depth).join("/");
      if (!known.has(path)) known.set(path, { kind: "folder", path });
    }
    known.set(entry.path, entry);
  }
  return [...known.values()];
}

function packEntry(entry: ArchiveEntry, number: number): Uint8Array[] {
  const mode = types[entry.kind] | (("mode" in entry && entry.mode) || usualModes[entry.kind]);
  const device = entry.kind === "device" ? entry : undefined;
  return pack(entry.path, { number, mode, content: contentOf(entry), device });
}

function contentOf(entry: ArchiveEntry): Uint8Array {
  if (entry.kind === "file") return entry.content;
  return entry.kind === "link" ? new TextEncoder().encode(entry.target) : nothing;
}

interface Fields {
  readonly number: number;
  readonly mode: number;
  readonly content: Uint8Array;
  readonly device?: { readonly major: number; readonly minor: number } | undefined;
}

function pack(path: string, { number, mode, content, device }: Fields): Uint8Array[] {
  const links = 1;
  const name = new TextEncoder().encode(`${path}\0`);
  const [user, group, time, deviceMajor, deviceMinor, check] = [0, 0, 0, 0, 0, 0];
  const head = [number, mode, user, group, links, time, content.length, deviceMajor, deviceMinor];
  const tail = [device?.major ?? 0, device?.minor ?? 0, name.length, check];
  const digits = [...head, ...tail].map((field) => field.toString(16).padStart(8, "0"));
  const header = new TextEncoder().encode(`070701${digits.join("")}`);
  return [header, name, filler(header.length + name.length), content, filler(content.length)];
}

/** Zero bytes up to the next multiple of four. */
function filler(length: number): Uint8Array {
  return new Uint8Array((4 - (length % 4)) % 4);
}
