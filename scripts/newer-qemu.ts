/**
 * QEMU 10.0 of Debian 13, for the tests in which a machine of Debian 12's QEMU goes on in it:
 * fetched and unpacked with all the libraries that it needs, never installed.
 */
import { chmodSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fetchDebianTree } from "./guest-kernel/debian-tree.ts";
import { repositoryRoot } from "./setup.ts";

const release = {
  name: "qemu-trixie",
  suite: "trixie",
  packages: ["qemu-system-x86"],
} as const;

/** The tree with usr, when it was fetched. */
export function findNewerQemu(): string | undefined {
  const folder = join(repositoryRoot, ".cache", release.name);
  return existsSync(join(folder, "complete")) ? join(folder, "tree") : undefined;
}

/** Fetches it once into .cache/, by anybody; says when that cannot be, and why. */
export async function fetchNewerQemu(): Promise<void> {
  try {
    await fetchDebianTree(release);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    console.log(`No QEMU of Debian ${release.suite}, its tests are skipped: ${reason}`);
  }
}

/**
 * Writes a program that is this QEMU with its own libraries and firmware, whatever else there is.
 * @param tree as whoever runs the program sees it
 */
export function writeNewerQemu(path: string, tree: string): void {
  const libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib"].map((name) => join(tree, name));
  const data = ["qemu", "seabios"].map((name) => `-L ${join(tree, "usr/share", name)}`);
  const words = [
    join(tree, "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    `--library-path ${libraries.join(":")}`,
    join(tree, "usr/bin/qemu-system-x86_64"),
    ...data,
  ];
  writeFileSync(path, `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`);
  chmodSync(path, 0o755);
}
