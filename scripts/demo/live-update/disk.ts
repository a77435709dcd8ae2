/** The guest's only disk: hostler, busybox, the kernel, and what the demo plays with. */
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { bundle } from "../../guest/bundle.ts";
import { writeDisk } from "../../guest/disk.ts";
import { busyboxLinks } from "../../guest/programs.ts";
import type { GuestKernel } from "../../guest-kernel/kernel-image.ts";

const programs = ["database", "ask", "late"] as const;
const ownFolder = join(import.meta.dirname, "guest");
const spareMebibytes = 8;

/** @param folder for the disk and what goes into it @returns the disk's path */
export async function makeDisk(
  folder: string,
  options: { readonly program: string; readonly kernel: GuestKernel },
): Promise<string> {
  const files: Record<string, string | Uint8Array> = {
    "/init": readFileSync(join(ownFolder, "init")),
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "/etc/group": "root:x:0:\n",
  };
  for (const name of programs) {
    const path = await bundle(`scripts/demo/live-update/guest/${name}.ts`, join(folder, name));
    files[`/usr/lib/demo/${name}.js`] = readFileSync(path);
    // The compiled file is run as the Bun that it holds.
    const command = `BUN_BE_BUN=1 exec hostler run /usr/lib/demo/${name}.js "$@"`;
    files[`/usr/bin/${name}`] = `#!/bin/sh\n${command}\n`;
  }
  const path = join(folder, "disk");
  const content = {
    folders: ["dev", "proc", "sys", "run", "tmp", "root", "var", "sbin", "usr/sbin"],
    programs: { "/usr/bin/hostler": options.program, "/bin/busybox": "/bin/busybox" },
    trees: { "/boot/vmlinuz": options.kernel.path },
    files,
    links: {
      "/usr/bin/luod": "hostler",
      "/usr/bin/luoctl": "hostler",
      ...busyboxLinks("/bin"),
    },
  };
  writeDisk(path, content, spareMebibytes);
  return path;
}

export interface DiskLook {
  readonly sha256: string;
  /** How often the word is on it. */
  readonly found: number;
}

/** Reads all of the disk. */
export function lookAtDisk(path: string, word: string): DiskLook {
  const hash = createHash("sha256");
  const piece = Buffer.alloc(2 ** 22);
  const descriptor = openSync(path, "r");
  let found = 0;
  let rest = Buffer.alloc(0);
  for (;;) {
    const length = readSync(descriptor, piece);
    if (length === 0) break;
    const bytes = piece.subarray(0, length);
    hash.update(bytes);
    // A word may stand where two pieces meet.
    const whole = Buffer.concat([rest, bytes]);
    for (let at = whole.indexOf(word); at >= 0; at = whole.indexOf(word, at + 1)) found += 1;
    rest = whole.subarray(Math.max(0, whole.length - word.length + 1));
  }
  closeSync(descriptor);
  return { sha256: hash.digest("hex"), found };
}
