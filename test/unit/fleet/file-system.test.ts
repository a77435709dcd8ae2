/** Whether versions that are kept in a folder are there after the next start. */
import { expect, test } from "bun:test";
import { judgePersistence } from "../../../src/fleet/file-system.ts";

const host = `21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw - proc proc rw
23 21 0:21 / /tmp rw,nosuid shared:5 - tmpfs tmpfs rw
24 21 8:2 / /opt ro,relatime - ext4 /dev/sda2 rw
25 21 8:3 / /srv rw - ext4 /dev/sda3 ro,errors=remount-ro
26 21 7:0 / /live rw - squashfs /dev/loop0 rw
27 21 8:4 / /mnt/a\\040folder rw - xfs /dev/sda4 rw
28 21 0:22 / /data rw - ext4 /dev/sda5 rw
29 28 0:23 / /data rw - tmpfs tmpfs rw
not a line of it
`;

test.each([
  ["/usr/lib", "lasting", "ext4"],
  ["/tmp/hostler", "volatile", "tmpfs"],
  ["/tmpfiles", "lasting", "ext4"],
  ["/opt/hostler", "immutable", "ext4"],
  ["/srv", "immutable", "ext4"],
  ["/live/hostler", "immutable", "squashfs"],
  ["/mnt/a folder/hostler", "lasting", "xfs"],
  // The later mount hides the earlier one.
  ["/data/hostler", "volatile", "tmpfs"],
] as const)("%s is %s, on %s", (path, kind, type) => {
  expect(judgePersistence(host, path)).toMatchObject({ kind, mount: { type } });
});

test.each(["overlay", "rootfs", "ramfs", "aufs"])(
  "the root of a container on %s goes with it",
  (type) => {
    const lines = [`21 1 0:1 / / rw - ${type} none rw`, "30 21 8:1 / /data rw - ext4 /dev/sda rw"];
    const container = lines.join("\n");
    expect(judgePersistence(container, "/opt/hostler")?.kind).toBe("volatile");
    expect(judgePersistence(container, "/data/hostler")?.kind).toBe("lasting");
  },
);

test("without a mount nothing is said", () => {
  expect(judgePersistence("", "/opt")).toBeUndefined();
});
