/** Guests with live update whose first process is systemd. */

import type { DiskContent } from "../../../scripts/guest/disk.ts";
import { busyboxLinks } from "../../../scripts/guest/programs.ts";
import { fetchDebianTree } from "../../../scripts/guest-kernel/debian-tree.ts";
import type { GuestKernel } from "../../../scripts/guest-kernel/kernel-image.ts";
import { hostler, hostlerWithFaults } from "../binary.ts";
import { commonFiles, commonLinks, ownFile } from "./live-update-guest.ts";
import { type LiveUpdateRun, type LiveUpdateScenario, runScenario } from "./scenario.ts";

/** SurviveFinalKillSignal= is of systemd 255; this release has 257. */
const release = {
  name: "guest-systemd-trixie",
  suite: "trixie",
  packages: ["systemd", "systemd-sysv"],
} as const;

/** What would wait for devices, users or packages that are not in the guest. */
const maskedUnits = [
  "getty.target",
  "ldconfig.service",
  "serial-getty@ttyS0.service",
  "systemd-firstboot.service",
  "systemd-journal-catalog-update.service",
  "systemd-logind.service",
  "systemd-machine-id-commit.service",
  "systemd-modules-load.service",
  "systemd-sysusers.service",
  "systemd-update-done.service",
] as const;

const journalConfiguration = `[Journal]
Storage=volatile
ForwardToConsole=yes
TTYPath=/dev/ttyS0
MaxLevelConsole=info
`;

/** Those of systemd, in /usr/sbin, are meant by whoever says these names. */
const shutdownPrograms = /\/(halt|poweroff|reboot)$/;

/**
 * As liveUpdateGuest, with these differences. The first process is systemd; a stage is run by a
 * service of type exec, which is stopped, as all others, when somebody asks for a kexec, and says
 * on the console what it says. The root is written to, and lasts over a kexec like /scenario, so
 * that units can be installed and enabled. What services say comes over the serial line, after
 * their names, as the journal has it. There is no Python, no D-Bus, no udev and no getty.
 */
export function systemdGuest(scenario: LiveUpdateScenario): Promise<LiveUpdateRun> {
  const kernelWords = ["systemd.show_status=false", ...(scenario.kernelWords ?? [])];
  return runScenario(
    { ...scenario, kernelWords },
    {
      name: "systemd",
      init: "/usr/lib/systemd/systemd",
      writing: "thrown-away",
      content: rootContent,
    },
  );
}

async function rootContent(kernel: GuestKernel, folder: string): Promise<DiskContent> {
  const content = await systemdContent(folder);
  return {
    ...content,
    trees: {
      ...content.trees,
      "/boot/vmlinuz": kernel.path,
      "/usr/bin/hostler-faults": hostlerWithFaults(),
    },
    files: {
      ...content.files,
      "/etc/systemd/system/hostler-stage.service": ownFile("hostler-stage.service"),
    },
    links: { ...content.links, ...startedAtBoot("hostler-stage.service") },
  };
}

/** That the unit is started with the guest. */
export function startedAtBoot(unit: string): Record<string, string> {
  return { [`/etc/systemd/system/multi-user.target.wants/${unit}`]: `../${unit}` };
}

/**
 * A root whose first process is systemd, with our program in it, and nothing of a test's.
 * @param folder for files that are made for it; gone when the disk is written
 */
export async function systemdContent(folder: string): Promise<DiskContent> {
  const tree = await fetchDebianTree(release);
  const links = Object.entries(busyboxLinks("/usr/bin"));
  const masks = maskedUnits.map((name) => [`/etc/systemd/system/${name}`, "/dev/null"]);
  return {
    folders: ["dev", "proc", "sys", "run", "tmp", "root", "var/log/journal", "scenario"],
    trees: {
      "/": tree,
      // Without the libraries of this machine: those of that release serve an older program.
      "/usr/bin/hostler": hostler(),
      "/usr/bin/busybox": "/bin/busybox",
    },
    files: {
      ...(await commonFiles(folder)),
      "/etc/systemd/journald.conf": journalConfiguration,
      "/etc/machine-id": `${"5".repeat(32)}\n`,
      "/etc/os-release": "ID=guest\nNAME=guest\n",
      "/etc/fstab": "",
    },
    links: {
      "/bin": "usr/bin",
      "/sbin": "usr/sbin",
      "/lib": "usr/lib",
      "/lib64": "usr/lib64",
      "/etc/systemd/system/default.target": "/usr/lib/systemd/system/multi-user.target",
      ...Object.fromEntries(masks),
      ...commonLinks,
      ...Object.fromEntries(links.filter(([place]) => !shutdownPrograms.test(place))),
    },
  };
}
