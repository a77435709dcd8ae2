/** The image of the demo's machines: Debian's cloud kernel, or the smallest guest that counts. */
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ScriptError } from "../../terminal.ts";
import { makeTestGuest } from "../../test-guest.ts";
import { GUEST_COMMAND_LINE, makeVmGuest } from "../../vm-guest.ts";

const MEBIBYTE = 1024 * 1024;

export interface GuestImage {
  /** A folder with vm-config.json, as `hostler vm create --image` takes it. */
  readonly folder: string;
  /** linux: it has an address and a shell. counter: it counts in memory, and nothing else. */
  readonly kind: "linux" | "counter";
  /** What it is, for people. */
  readonly words: string;
}

/**
 * @param options.small the guest that counts, whatever can be fetched
 * @throws ScriptError when an image cannot be written
 */
export async function makeGuestImage(options: {
  readonly folder: string;
  readonly program: string;
  readonly small: boolean;
}): Promise<GuestImage> {
  const { small } = options;
  if (small) return makeCountingImage(options.folder, "as --small wants it");
  try {
    return await makeLinuxImage(options.folder, options.program);
  } catch (error) {
    if (!(error instanceof ScriptError)) throw error;
    return makeCountingImage(
      options.folder,
      `because Debian's kernel cannot be had here: ${error.message.trim().split("\n").at(-1)}`,
    );
  }
}

async function makeLinuxImage(parent: string, program: string): Promise<GuestImage> {
  const workshop = join(parent, "workshop");
  mkdirSync(workshop);
  const { kernel, initramfs, release } = await makeVmGuest({ folder: workshop, program });
  const folder = join(parent, "image");
  mkdirSync(folder);
  renameSync(kernel, join(folder, "vmlinuz"));
  renameSync(initramfs, join(folder, "initramfs"));
  rmSync(workshop, { recursive: true });
  writeConfiguration(folder, {
    payload: {
      kernel: "vmlinuz",
      initramfs: "initramfs",
      cmdline: `${GUEST_COMMAND_LINE} rdinit=/init`,
    },
    mebibytes: 512,
  });
  return { folder, kind: "linux", words: `Debian's cloud kernel ${release}, and busybox` };
}

function makeCountingImage(parent: string, why: string): GuestImage {
  const folder = join(parent, "image");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  writeFileSync(join(folder, "vmlinux"), makeTestGuest());
  writeConfiguration(folder, { payload: { kernel: "vmlinux", cmdline: "" }, mebibytes: 64 });
  return { folder, kind: "counter", words: `a guest of 4 KB that counts, ${why}` };
}

function writeConfiguration(
  folder: string,
  machine: { readonly payload: Readonly<Record<string, string>>; readonly mebibytes: number },
): void {
  const configuration = {
    payload: machine.payload,
    cpus: { boot_vcpus: 1 },
    memory: { size: machine.mebibytes * MEBIBYTE, shared: true },
    serial: { mode: "Socket" },
  };
  writeFileSync(join(folder, "vm-config.json"), `${JSON.stringify(configuration, null, 2)}\n`);
}
