import type { HostTree } from "../host-tree.ts";
import { type PartitionName, partitionsOfLoadOption, wideText } from "./partition-tables.ts";

/** Who uses a disk, as the kernel tells it: mounts, swap, and what is built on it. */

export interface DiskUse {
  readonly kind: "mounted" | "holders";
  readonly reason: string;
}

interface Part {
  readonly name: string;
  /** "8:1" */
  readonly number: string;
}

/** Of the disk, its partitions, and everything that is built on them, at whatever height. */
export function usesOf(tree: HostTree, disk: string): DiskUse[] {
  const { parts, holders } = partsOf(tree, disk);
  const uses: DiskUse[] = holders.map(({ on, name }) => ({
    kind: "holders",
    reason: `${name} is built on ${on}`,
  }));
  const names = new Set(parts.map((part) => part.name));
  const numbers = new Set(parts.map((part) => part.number));
  const isOurs = (path: string): boolean => {
    const real = tree.place(path.replace(/^\//, "")) ?? path;
    return names.has(real.split("/").at(-1) ?? "");
  };
  for (const mount of mountsOf(tree)) {
    if (!numbers.has(mount.number) && !(mount.source.startsWith("/") && isOurs(mount.source))) {
      continue;
    }
    uses.push({ kind: "mounted", reason: `${mount.source} is mounted at ${mount.place}` });
  }
  for (const path of swapsOf(tree)) {
    if (isOurs(path)) uses.push({ kind: "mounted", reason: `the kernel swaps to ${path}` });
  }
  return uses;
}

function partsOf(tree: HostTree, disk: string) {
  const parts: Part[] = [];
  const holders: { on: string; name: string }[] = [];
  const seen = new Set<string>();
  const add = (name: string, folder: string): void => {
    if (seen.has(name)) return;
    seen.add(name);
    parts.push({ name, number: tree.text(`${folder}/dev`).value ?? "" });
    for (const holder of tree.names(`${folder}/holders`)) {
      holders.push({ on: name, name: holder });
      addWhole(holder);
    }
  };
  const addWhole = (name: string): void => {
    const folder = `sys/block/${name}`;
    add(name, folder);
    for (const child of tree.names(folder)) {
      if (tree.has(`${folder}/${child}/partition`)) add(child, `${folder}/${child}`);
    }
  };
  addWhole(disk);
  return { parts, holders };
}

interface Mount {
  readonly number: string;
  readonly place: string;
  readonly source: string;
}

/** Of this process's mount namespace and of the first process's: proc_pid_mountinfo(5). */
function mountsOf(tree: HostTree): Mount[] {
  const mounts: Mount[] = [];
  for (const process of ["self", "1"]) {
    for (const line of (tree.text(`proc/${process}/mountinfo`).value ?? "").split("\n")) {
      const words = line.split(" ");
      const end = words.indexOf("-");
      const [number, place, source] = [words[2], words[4], words[end + 2]];
      if (end < 0 || number === undefined || place === undefined) continue;
      mounts.push({ number, place: unescaped(place), source: unescaped(source ?? "none") });
    }
  }
  return mounts;
}

/** proc_swaps(5) */
function swapsOf(tree: HostTree): string[] {
  const lines = (tree.text("proc/swaps").value ?? "").split("\n").slice(1);
  return lines.flatMap((line) => {
    const [path] = line.split(/\s+/);
    return path === undefined || path === "" ? [] : [unescaped(path)];
  });
}

/** A blank is written as \040. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

const GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const LOADER = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/** The label of the partition that a live image of ours is booted from. */
export const LIVE_LABEL = "hostler live";

/**
 * Why this host may have been booted from this disk: what the kernel was told on its command line,
 * what the firmware and the boot loader say, and the label of our own live image.
 */
export function bootReasons(
  tree: HostTree,
  disk: string,
  partitions: readonly PartitionName[],
): string[] {
  const reasons: string[] = [];
  const ids = new Set(partitions.map(({ id }) => id));
  for (const { id, source } of [...firmwareIds(tree), ...loaderIds(tree)]) {
    if (ids.has(id)) reasons.push(`${source} names its partition ${id}`);
  }
  for (const { label } of partitions) {
    if (label === LIVE_LABEL) reasons.push(`its partition ${label} is a live image`);
  }
  for (const word of (tree.text("proc/cmdline").value ?? "").split(/\s+/)) {
    if (isNamedBy(tree, word, disk, partitions)) reasons.push(`the kernel was told ${word}`);
  }
  return reasons;
}

/** root=, resume= and whatever else names a device on the command line. */
function isNamedBy(
  tree: HostTree,
  word: string,
  disk: string,
  partitions: readonly PartitionName[],
): boolean {
  const value = word.slice(word.indexOf("=") + 1);
  const [kind, name] = value.split("=", 2);
  if (name !== undefined) {
    const wanted = name.toLowerCase().replace(/\/partnroff=.*$/, "");
    if (kind === "PARTUUID") return partitions.some(({ id }) => id === wanted);
    if (kind === "PARTLABEL") return partitions.some(({ label }) => label === name);
  }
  if (!value.startsWith("/dev/")) return false;
  const real = tree.place(value.slice(1)) ?? value;
  const last = real.split("/").at(-1) ?? "";
  return last === disk || tree.has(`sys/block/${disk}/${last}/partition`);
}

interface BootId {
  readonly id: string;
  readonly source: string;
}

/** EFI variables begin with four bytes of attributes. */
function variable(tree: HostTree, name: string, vendor: string): Uint8Array | undefined {
  const read = tree.bytes(`sys/firmware/efi/efivars/${name}-${vendor}`);
  return read.value === null || read.value.length <= 4 ? undefined : read.value.subarray(4);
}

function firmwareIds(tree: HostTree): BootId[] {
  const current = variable(tree, "BootCurrent", GLOBAL);
  if (current === undefined || current.length < 2) return [];
  const number = ((current[1] ?? 0) << 8) | (current[0] ?? 0);
  const name = `Boot${number.toString(16).toUpperCase().padStart(4, "0")}`;
  const option = variable(tree, name, GLOBAL);
  if (option === undefined) return [];
  return partitionsOfLoadOption(option).map((id) => ({ id, source: `the firmware's ${name}` }));
}

function loaderIds(tree: HostTree): BootId[] {
  const found = variable(tree, "LoaderDevicePartUUID", LOADER);
  if (found === undefined) return [];
  return [{ id: wideText(found).toLowerCase(), source: "the boot loader" }];
}
