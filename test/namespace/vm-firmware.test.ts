/**
 * A stock image: the compiled worker with QEMU starts a disk by the host's firmware, with variables
 * of the machine's own and a seed for cloud-init beside it.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeEfiDisk } from "../../scripts/efi-guest.ts";
import { hashPath } from "../../src/image/nar.ts";
import type { SnapshotSummary } from "../../src/vm/protocol.ts";
import { onlyInAll } from "../support/rotation.ts";
import { file, program, root, skipUnless } from "../support/skips.ts";
import { VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

/** Generous: the firmware is emulated for seconds, on a machine that may have much else to do. */
setDefaultTimeout(5 * 60_000);

const template = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const needs = [
  root,
  program("qemu-system-x86_64", "qemu-system-x86"),
  program("ip", "iproute2"),
  file("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
];

async function stockImage(host: VmHost) {
  const path = host.folder.file("stock");
  mkdirSync(path);
  writeFileSync(join(path, "disk.img"), makeEfiDisk());
  const configuration = {
    cpus: { boot_vcpus: 1 },
    memory: { size: 256 * 1024 ** 2, shared: true },
    disks: [{ path: "disk.img" }],
    serial: { mode: "Socket" },
    hostler: { firmware: "host", cloud_init: { user_data: "#cloud-config\n" } },
  };
  writeFileSync(join(path, "vm-config.json"), JSON.stringify(configuration));
  return { path, hash: await hashPath(path) };
}

/** Its next number; the firmware takes its time before the first. */
async function counts(host: VmHost, name: string): Promise<number> {
  const seen = host.numbers(name).length;
  return await waitFor(`${name} to count`, () => host.numbers(name)[seen], 120_000);
}

const create = (host: VmHost, name: string, image: { path: string; hash: string }) =>
  host.say("create", name, "--image", image.path, "--hash", image.hash, "--start");

skipUnless("a disk with a boot loader", needs, () => {
  test("is refused where the firmware's variables are nowhere", async () => {
    await using host = await VmHost.make();
    const image = await stockImage(host);
    await host.start({ configuration: ['firmware_variables_path = "/nonexistent/VARS.fd"'] });
    const made = ["--image", image.path, "--hash", image.hash];
    const { exitCode, stderr } = await host.run("create", "web", ...made);
    expect(exitCode).not.toBe(0);
    expect(stderr).toContain("/nonexistent/VARS.fd");
    expect(stderr).toContain("Install the firmware (Debian: ovmf)");
  });

  onlyInAll(() => {
    test("starts by the firmware, goes on under another VMM, and from a snapshot", async () => {
      await using host = await VmHost.make();
      const image = await stockImage(host);
      const pristine = readFileSync(template);
      await host.start();
      await create(host, "web", image);
      await counts(host, "web");
      const variables = join(host.machineFolder("web"), "disks", "firmware-variables.fd");
      const { size, mode, uid } = statSync(variables);
      expect([size, mode & 0o777]).toEqual([pristine.length, 0o600]);
      expect(uid).toBeGreaterThan(0);
      // The firmware has written down what it starts from, in the machine's own alone.
      expect(readFileSync(variables).equals(pristine)).toBe(false);
      expect(readFileSync(template).equals(pristine)).toBe(true);
      const words = readFileSync(`/proc/${host.vmm}/cmdline`, "latin1");
      expect(words).toContain("seed.iso");
      const seed = readFileSync(join(host.machineFolder("web"), "disks", "seed.iso"), "latin1");
      expect(seed).toContain("#cloud-config");

      expect(await host.say("replace-vmm", "web", "--wait")).toStartWith("web: running");
      const last = await counts(host, "web");
      await host.say("snapshot", "web", "first");
      const written = readFileSync(variables);
      await host.say("delete", "web", "--now", "--wait");
      const [snapshot] = JSON.parse(
        await host.say("snapshot", "--list", "--json"),
      ) as SnapshotSummary[];
      expect(snapshot?.name).toBe("web");
      await host.say("restore", "web", "first");
      await host.reaches("web", "running");
      expect(await counts(host, "web")).toBeGreaterThan(last);
      expect(readFileSync(variables).equals(written)).toBe(true);
      expect(statSync(variables).mode & 0o777).toBe(0o600);
    });
  });
});
