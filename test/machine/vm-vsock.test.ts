/**
 * Guest agents behind vhost-vsock, in a guest whose kernel has it: the worker is there, with a
 * Linux guest of its own.
 */
import { beforeAll, expect, test } from "bun:test";
import { type DiskContent, writeDisk } from "../../scripts/guest/disk.ts";
import { busyboxLinks } from "../../scripts/guest/programs.ts";
import { findLiveUpdateKernel } from "../../scripts/guest-kernel.ts";
import { hostler } from "../support/binary.ts";
import { liveUpdateFeatures } from "../support/guest/live-update-guest.ts";
import { vmHostGuest } from "../support/guest/vm-host-guest.ts";
import { onlyInAll } from "../support/rotation.ts";
import { file, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import type { CaseResult } from "./guest/story.ts";
import { vsockCases } from "./guest/vm-vsock-cases.ts";

/** A Linux guest in an emulated machine. */
const storyMilliseconds = 20 * 60_000;

const innerInit = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t tmpfs tmpfs /run
/bin/busybox mount -t tmpfs tmpfs /tmp
echo "INNER-GUEST up"
while :; do /usr/bin/hostler vm guest-agent </dev/null; done
`;

/** Its root is a disk, of which it reads what it needs. */
const innerRoot = (): DiskContent => ({
  folders: ["dev", "proc", "sys", "run", "tmp"],
  programs: { "/usr/bin/hostler": hostler(), "/bin/busybox": "/bin/busybox" },
  files: { "/init": innerInit, "/etc/passwd": "root:x:0:0:root:/:/bin/sh\n" },
  links: busyboxLinks("/bin"),
});

/** @returns the path of a disk with the image of such a guest */
function imageDisk(folder: { file(name: string): string }): string {
  const kernel = findLiveUpdateKernel();
  if (kernel === undefined) throw new Error("There is no kernel with live update.");
  const root = folder.file("root.img");
  writeDisk(root, innerRoot(), 1);
  const cmdline = "console=ttyS0 panic=-1 no_timer_check root=/dev/vda ro init=/init";
  const configuration = {
    payload: { kernel: "vmlinuz", cmdline },
    cpus: { boot_vcpus: 1 },
    memory: { size: 320 * 2 ** 20, shared: true },
    disks: [{ path: "root.img", readonly: true }],
    serial: { mode: "Socket" },
  };
  const path = folder.file("image.img");
  const trees = { "/image/vmlinuz": kernel.path, "/image/root.img": root };
  const files = { "/image/vm-config.json": JSON.stringify(configuration) };
  writeDisk(path, { trees, files }, 1);
  return path;
}

onlyInAll(() => {
  const firmware = file("/usr/share/seabios/bios-256k.bin", "seabios");
  skipUnless("guest agents behind vhost-vsock", [...liveUpdateFeatures, firmware], () => {
    let cases: readonly CaseResult[] = [];
    let last = "the guest did not run";
    beforeAll(async () => {
      using folder = temporaryFolder();
      const run = await vmHostGuest({
        name: "guest agents behind vhost-vsock",
        stages: [{ program: "test/machine/guest/vm-vsock.ts" }],
        disks: [{ path: imageDisk(folder), writing: "refused" }],
        // An emulated timer is late where the machine has much else to do.
        kernelWords: ["no_timer_check"],
        memoryMebibytes: 3072,
        deadlineMilliseconds: storyMilliseconds,
      });
      cases = run.cases;
      last = run.lines.slice(-100).join("\n");
    }, storyMilliseconds + 60_000);

    for (const name of vsockCases) {
      test(name, () => {
        const found = cases.find((one) => one.name === name);
        expect(found, last).toMatchObject({ outcome: "ok" });
      });
    }
  });
});
