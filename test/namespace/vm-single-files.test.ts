/** The compiled worker with QEMU: machines of single files, each verified by its hash. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeTestGuest } from "../../scripts/test-guest.ts";
import { hostler } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { VmHost } from "../support/vm-worker.ts";

setDefaultTimeout(60_000);

let host: VmHost;
beforeEach(async () => {
  host = await VmHost.make();
});
afterEach(() => host[Symbol.asyncDispose]());

const sha256 = (bytes: Uint8Array) =>
  `sha256-${new Bun.CryptoHasher("sha256").update(bytes).digest("base64")}`;

function place(name: string, bytes: Uint8Array) {
  const path = host.folder.file(name);
  writeFileSync(path, bytes);
  return { path, hash: sha256(bytes) };
}

/** A kernel that counts, an initramfs that nobody reads, and a disk. */
function files() {
  const kernel = place("vmlinux", makeTestGuest({ pause: 3_000_000 }));
  const initrd = place("initrd.img", Buffer.from("initramfs"));
  const disk = place("disk.img", Buffer.alloc(1024 ** 2, "disk"));
  return {
    kernelPath: kernel.path,
    kernelHash: kernel.hash,
    initrdPath: initrd.path,
    initrdHash: initrd.hash,
    diskImagePath: disk.path,
    diskImageHash: disk.hash,
    memoryMb: 32,
  };
}

async function apply(machine: readonly object[]) {
  const path = host.folder.file("machines.json");
  writeFileSync(path, JSON.stringify({ machine }));
  return await host.run("apply", path);
}

skipUnless(
  "machines of single files",
  [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")],
  () => {
    test("run from what was verified, write to a disk of their own, and share it", async () => {
      await host.start();
      const source = files();
      const link = host.folder.file("current");
      symlinkSync(source.kernelPath, link);
      const told = await runProgram([hostler(), "vm", "hash", "--contents", link]);
      expect(told.stdout).toBe(`${source.kernelHash}\n`);
      const web = { ...source, kernelPath: link, name: "web", cmdline: "quiet" };
      const db = { ...source, name: "db", power: "off" };
      expect(await apply([web, db])).toMatchObject({ exitCode: 0 });
      await host.reaches("web", "running");
      await host.reaches("db", "off");
      await host.counts("web");
      const words = readFileSync(`/proc/${host.vmm}/cmdline`, "latin1").split("\0");
      const kernel = words[words.indexOf("-kernel") + 1] ?? "";
      expect(kernel).toStartWith(join(host.artifacts, "images"));
      expect(words[words.indexOf("-append") + 1]).toBe("quiet");
      expect(words[words.indexOf("-initrd") + 1]).toStartWith(join(host.artifacts, "images"));
      expect(existsSync(join(host.machineFolder("web"), "disks", "disk.qcow2"))).toBe(true);
      // One copy of the files for both, that nobody writes to.
      expect(host.kept().images).toHaveLength(1);

      // What the paths lead to by now is nobody's business.
      for (const path of [source.kernelPath, source.initrdPath, source.diskImagePath]) {
        writeFileSync(path, "changed");
      }
      process.kill(host.vmm, "SIGKILL");
      await host.kill();
      await host.start();
      await host.reaches("web", "running");
      await host.counts("web");
      expect(await apply([])).toMatchObject({ exitCode: 0 });
      // Its guest has no driver of a power button: it is not waited for.
      await host.say("delete", "web", "--now", "--wait");
      using client = await host.client();
      for (const name of ["web", "db"]) await client.wait(name, "removed");
      expect(host.kept()).toEqual({ machines: [], images: [], run: [] });
    });

    test("that are not what their hashes say, or have none, are refused", async () => {
      await host.start();
      const source = files();
      const { initrdHash: _hash, ...without } = source;
      const noHash = await apply([{ ...without, name: "web" }]);
      expect(noHash.stderr).toContain(
        `web: initrdHash: expected the hash of ${source.initrdPath}, received none`,
      );
      const both = await apply([
        { ...source, name: "web", imagePath: "/image", hash: source.kernelHash },
      ]);
      expect(both.stderr).toContain("kernelPath: expected none beside imagePath");
      writeFileSync(source.diskImagePath, Buffer.alloc(1024 ** 2, "else"));
      expect(await apply([{ ...source, name: "web" }])).toMatchObject({ exitCode: 0 });
      const { reason } = await host.reaches("web", "failed");
      expect(reason).toContain(
        `Cannot use the file ${source.diskImagePath}, diskImagePath: expected ` +
          `${source.diskImageHash}, received sha256-`,
      );
      expect(readdirSync(join(host.artifacts, "images"))).toEqual([]);
    });
  },
);
