import type { Disk, DiskFormat, MachineSpecification } from "../driver.ts";

/** Disks as QEMU's block layer has them: a node for the file, one for its format, one device. */

/** A name in QEMU's graph: a letter first, at most 31 bytes. */
export const nodeOf = (kind: "disk" | "card", id: string) => `${kind}-${id}`;

/** The disk that a node belongs to. */
export function diskOfNode(node: string): string | undefined {
  return /^disk-(.+)$/.exec(node)?.[1];
}

/**
 * @param place what a disk's device is and where it stands, by its index
 * @returns arguments for all disks
 */
export function diskArguments(
  machine: MachineSpecification,
  place: (index: number) => string,
): string[] {
  const isBootable = machine.boot.kind === "firmware";
  return machine.disks.flatMap((disk, index) => {
    const node = nodeOf("disk", disk.id);
    const boot = isBootable ? `,bootindex=${index + 1}` : "";
    return [
      ...nodesOf(disk).flatMap((options) => ["-blockdev", JSON.stringify(options)]),
      ...["-device", `${place(index)},id=${node}-device,drive=${node},serial=${disk.id}${boot}`],
    ];
  });
}

/** From the bottom up: a node can only speak of those before it. */
function nodesOf(disk: Disk): Record<string, unknown>[] {
  const node = nodeOf("disk", disk.id);
  const { backing } = disk;
  if (backing === undefined) {
    return stack(node, disk, { readOnly: disk.readOnly, backing: null });
  }
  const below = `${node}.base`;
  return [
    ...stack(below, backing, { readOnly: true, backing: null }),
    ...stack(node, disk, { readOnly: disk.readOnly, backing: below }),
  ];
}

/**
 * A file and its format. The format is said, so that a guest cannot make a raw disk look like
 * another kind; "backing": null is said, so that a file's own word for it is not followed.
 * "locking": "on" has QEMU refuse where it cannot lock, in place of going on without.
 */
function stack(
  node: string,
  file: { readonly path: string; readonly format: DiskFormat },
  options: { readonly readOnly: boolean; readonly backing: string | null },
): Record<string, unknown>[] {
  const common = { "read-only": options.readOnly, discard: "unmap" };
  const below = `${node}.file`;
  return [
    {
      ...{ driver: "file", "node-name": below, filename: file.path, locking: "on" },
      ...common,
    },
    {
      ...{ driver: file.format, "node-name": node, file: below },
      ...(file.format === "qcow2" && { backing: options.backing }),
      ...common,
    },
  ];
}
