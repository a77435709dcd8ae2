/** The file system that a folder lies on, as proc_pid_mountinfo(5) says. */
export interface FolderMount {
  /** Such as "ext4". */
  readonly type: string;
  readonly mountPoint: string;
  /** Of this mount, or of the whole file system. */
  readonly isReadOnly: boolean;
}

/** Whether versions that are kept there are there after the next start of the host. */
export type Persistence =
  | { readonly kind: "lasting"; readonly mount: FolderMount }
  | { readonly kind: "volatile"; readonly mount: FolderMount }
  | { readonly kind: "immutable"; readonly mount: FolderMount };

/** In memory, or the upper layer of a container or a live image, which goes with it. */
const volatileTypes = ["tmpfs", "ramfs", "rootfs", "devtmpfs", "overlay", "aufs"];
/** Nothing can be written there, however it is mounted. */
const immutableTypes = ["squashfs", "erofs", "cramfs", "iso9660"];

/**
 * @param path absolute, with no link in it
 * @returns undefined where the text names no mount that the path lies on
 */
export function judgePersistence(mountInformation: string, path: string): Persistence | undefined {
  const mount = findMount(mountInformation, path);
  if (mount === undefined) return undefined;
  if (mount.isReadOnly || immutableTypes.includes(mount.type)) return { kind: "immutable", mount };
  if (volatileTypes.includes(mount.type)) return { kind: "volatile", mount };
  return { kind: "lasting", mount };
}

/** The deepest one; of several at one place the last, which hides the others. */
function findMount(text: string, path: string): FolderMount | undefined {
  let found: FolderMount | undefined;
  for (const line of text.split("\n")) {
    const mount = parseLine(line);
    if (mount === undefined || !isBelow(path, mount.mountPoint)) continue;
    if (mount.mountPoint.length >= (found?.mountPoint.length ?? 0)) found = mount;
  }
  return found;
}

function isBelow(path: string, folder: string): boolean {
  return folder === "/" || path === folder || path.startsWith(`${folder}/`);
}

/** "36 35 98:0 /root /mount rw,noatime shared:1 - ext4 /dev/sda rw" */
function parseLine(line: string): FolderMount | undefined {
  const [before = "", after] = line.split(" - ");
  const [, , , , mountPoint, options = ""] = before.split(" ");
  const [type, , superOptions = ""] = after?.split(" ") ?? [];
  if (mountPoint === undefined || type === undefined) return undefined;
  const isReadOnly = [options, superOptions].some((words) => words.split(",").includes("ro"));
  return { type, mountPoint: plainText(mountPoint), isReadOnly };
}

/** Blanks and backslashes are written as octal numbers: getmntent(3). */
function plainText(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
