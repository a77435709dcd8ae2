/** Guests that are hosts of virtual machines: a kernel with cgroup v2 and QEMU in its root. */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import type { DiskContent } from "../../../scripts/guest/disk.ts";
import { busyboxLinks } from "../../../scripts/guest/programs.ts";
import type { GuestKernel } from "../../../scripts/guest-kernel/kernel-image.ts";
import { hostler, hostlerWithFaults } from "../binary.ts";
import { commonFiles, commonLinks, ownFile } from "./live-update-guest.ts";
import { type LiveUpdateRun, type LiveUpdateScenario, runScenario } from "./scenario.ts";

/** Of QEMU's own files, what its machines are started with. */
const firmware = [
  "/usr/share/seabios/bios-256k.bin",
  "/usr/share/qemu/kvmvapic.bin",
  "/usr/share/qemu/linuxboot_dma.bin",
  "/usr/share/qemu/pvh.bin",
] as const;
const qemu = "/usr/bin/qemu-system-x86_64";
const moduleFolder = "/usr/lib/x86_64-linux-gnu/qemu";

/** Debian's QEMU has its translator as a module, which is in none of its libraries. */
function translators(): string[] {
  if (!existsSync(moduleFolder)) return [];
  const names = readdirSync(moduleFolder).filter((name) => name.startsWith("accel-tcg-"));
  return names.map((name) => join(moduleFolder, name));
}

/** As liveUpdateGuest, with QEMU of this machine in it, and its firmware. */
export function vmHostGuest(scenario: LiveUpdateScenario): Promise<LiveUpdateRun> {
  return runScenario(scenario, {
    name: "vm-host",
    init: "/init",
    writing: "refused",
    content: rootContent,
  });
}

async function rootContent(kernel: GuestKernel, folder: string): Promise<DiskContent> {
  return {
    folders: ["dev", "proc", "sys", "run", "tmp", "root", "var", "scenario", "sbin", "usr/sbin"],
    programs: {
      "/usr/bin/hostler": hostler(),
      "/usr/bin/hostler-faults": hostlerWithFaults(),
      "/bin/busybox": "/bin/busybox",
      ...Object.fromEntries([qemu, ...translators()].map((path) => [path, path])),
    },
    trees: {
      "/boot/vmlinuz": kernel.path,
      // Some of them are links to files of other packages.
      ...Object.fromEntries(firmware.map((path) => [path, realpathSync(path)])),
    },
    files: { ...(await commonFiles(folder)), "/init": ownFile("stages-init") },
    links: { ...commonLinks, ...busyboxLinks("/bin") },
  };
}
