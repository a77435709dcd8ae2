import { libc } from "./c-library.ts";
import {
  AT_RECURSIVE,
  CLONE_NEWNS,
  MNT_DETACH,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  MS_BIND,
  MS_NOEXEC,
  MS_NOSUID,
  MS_PRIVATE,
  MS_REC,
  O_CLOEXEC,
  O_PATH,
  S_IFBLK,
  S_IFCHR,
  SYS_mount_setattr,
} from "./constants.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory, nullAddress } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { check } from "./system-call-error.ts";

/** What a mount can be told to refuse, whatever stands in its file system: mount_setattr(2). */
export interface MountAttributes {
  readonly readOnly?: boolean;
  /** Set-user-id bits and file capabilities count for nothing. */
  readonly noSetUser?: boolean;
  /** Nodes of devices cannot be opened. */
  readonly noDevices?: boolean;
  readonly noPrograms?: boolean;
}

const attributeBits: Readonly<Record<keyof MountAttributes, number>> = {
  readOnly: MOUNT_ATTR_RDONLY,
  noSetUser: MOUNT_ATTR_NOSUID,
  noDevices: MOUNT_ATTR_NODEV,
  noPrograms: MOUNT_ATTR_NOEXEC,
};

/**
 * Gives this thread mounts of its own, of which nothing reaches anybody else, and which nothing
 * reaches: unshare(2), mount_namespaces(7). The program that it becomes by execve(2) keeps them.
 * @throws SystemCallError (EPERM: no CAP_SYS_ADMIN here)
 */
export function separateMounts(): void {
  check("unshare", libc.unshare(CLONE_NEWNS), "CLONE_NEWNS");
  const root = cString("/");
  const flags = MS_REC | MS_PRIVATE;
  check("mount", libc.mount(nullAddress, root.address, nullAddress, flags, nullAddress), "private");
}

/**
 * Mounts a new tmpfs for nodes of devices, from which nothing is run: tmpfs(5).
 * @param inodes the most files and folders that it may have
 */
export function mountDeviceFolder(path: string, options: { readonly inodes: number }): void {
  const type = cString("tmpfs");
  const target = cString(path);
  const data = cString(`mode=0755,size=64k,nr_inodes=${options.inodes}`);
  const flags = MS_NOSUID | MS_NOEXEC;
  const result = libc.mount(type.address, target.address, type.address, flags, data.address);
  check("mount", result, `tmpfs on ${path}`);
}

/** Mounts what kernels that died have left, whose files are there once for all: pstore. */
export function mountPstore(path: string): void {
  const type = cString("pstore");
  const target = cString(path);
  const flags = MS_NOSUID | MS_NOEXEC;
  const result = libc.mount(type.address, target.address, type.address, flags, nullAddress);
  check("mount", result, `pstore on ${path}`);
}

/** Mounts what stands at `source` at `target` as well, without what is mounted below it. */
export function bindMount(source: string, target: string): void {
  const from = cString(source);
  const to = cString(target);
  const result = libc.mount(from.address, to.address, nullAddress, MS_BIND, nullAddress);
  check("mount", result, `${source} on ${target}`);
}

/** Takes the topmost mount at a path away, also while it is used: umount2(2), MNT_DETACH. */
export function unmount(path: string): void {
  const target = cString(path);
  check("umount2", libc.umount2(target.address, MNT_DETACH), path);
}

/**
 * Sets (true) and clears (false) attributes of the mount at an absolute path; the others stay.
 * With `recursive` also those of all mounts below it, or of none: mount_setattr(2), Linux 5.12.
 * @throws SystemCallError (ENOSYS: the kernel is older; EINVAL: no mount is at this path)
 */
export function setMountAttributes(
  path: string,
  attributes: MountAttributes,
  how: "this" | "recursive",
): void {
  const layout = layouts.mount_attr;
  const memory = new NativeMemory(layout.size);
  let set = 0;
  let clear = 0;
  for (const [name, wanted] of Object.entries(attributes)) {
    const bit = attributeBits[name as keyof MountAttributes];
    if (wanted === true) set |= bit;
    if (wanted === false) clear |= bit;
  }
  memory.setUnsigned64(layout.attr_set, set);
  memory.setUnsigned64(layout.attr_clr, clear);
  const target = cString(path);
  const flags = how === "recursive" ? AT_RECURSIVE : 0;
  // The path is absolute, so that the folder that it could begin at is not looked at.
  const result = libc.syscall(
    SYS_mount_setattr,
    0,
    target.address,
    flags,
    memory.address,
    layout.size,
    0,
  );
  check("mount_setattr", result, path);
}

/**
 * Makes the node of a device, whose mode the mask of this process cuts: mknod(2).
 * @param node.device as stat(2) tells it of another node: st_rdev
 * @throws SystemCallError (EPERM: no CAP_MKNOD here, or not in the first user namespace)
 */
export function makeDeviceNode(
  path: string,
  node: {
    readonly kind: "character" | "block";
    readonly device: number;
    readonly mode: number;
  },
): void {
  const name = cString(path);
  const kind = node.kind === "block" ? S_IFBLK : S_IFCHR;
  check("mknod", libc.mknod(name.address, kind | node.mode, node.device), path);
}

/** A place in a file system, which is not opened for reading or writing: open(2), O_PATH. */
export function openPlace(path: string): OwnedDescriptor {
  const name = cString(path);
  return new OwnedDescriptor(check("open", libc.open(name.address, O_PATH | O_CLOEXEC, 0), path));
}
