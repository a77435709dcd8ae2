/** A machine of Debian 12's QEMU goes on in that of Debian 13, and there again. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { findNewerQemu, writeNewerQemu } from "../../scripts/newer-qemu.ts";
import { runProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { feature, program, root, skipUnless } from "../support/skips.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";

setDefaultTimeout(120_000);

const newer = feature(
  "QEMU of Debian trixie is not in .cache",
  () => findNewerQemu() !== undefined,
);
const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

let host: VmHost;
let image: TestImage;

/** @returns the program, which VMMs of this host can reach */
async function placeNewerQemu(): Promise<string> {
  const tree = host.folder.file("debian");
  mkdirSync(tree);
  await host.on("mount", "--bind", findNewerQemu() ?? "", tree);
  const path = host.folder.file("newer-qemu");
  writeNewerQemu(path, tree);
  return path;
}

/** What the VMM's program says of itself, whatever the worker thinks. */
const programOf = (processId: number) =>
  readFileSync(`/proc/${processId}/cmdline`, "latin1").split("\0").slice(0, 5).join(" ");

async function versionOf(words: readonly string[]): Promise<readonly number[]> {
  const { stdout } = await runProgram([...host.enter, ...words, "--version"]);
  const [, major = "0", minor = "0"] = /version (\d+)\.(\d+)/.exec(stdout) ?? [];
  return [Number(major), Number(minor)];
}

/** Each number follows the one before it, but for those that nobody heard between two workers. */
function expectGrowing(numbers: readonly number[]): void {
  expect(numbers).toEqual([...new Set(numbers)].toSorted((one, other) => one - other));
}

onlyInAll(() => {
  beforeEach(async () => {
    host = await VmHost.make();
    image = await host.image();
  });
  afterEach(() => host[Symbol.asyncDispose]());

  skipUnless("a newer QEMU under a machine", [...needs, newer], () => {
    test("takes it from the older one, and from itself, and the guest counts on", async () => {
      const path = await placeNewerQemu();
      const [older = 0] = await versionOf(["qemu-system-x86_64"]);
      const [major = 0] = await versionOf([path]);
      expect(major).toBeGreaterThanOrEqual(10);
      expect(major).toBeGreaterThan(older);

      await host.start();
      await host.say("create", "web", "--image", image.path, "--hash", image.hash, "--start");
      await host.counts("web");
      expect(programOf(host.vmm)).not.toContain("ld-linux");
      await host.kill();

      await host.start({ configuration: [`qemu_path = "${path}"`, 'hypervisor = "qemu"'] });
      await host.reaches("web", "running");
      const before = await host.counts("web");
      const heard = host.numbers("web").indexOf(before);
      for (let turn = 0; turn < 2; turn += 1) {
        const former = host.vmm;
        expect(await host.say("replace-vmm", "web", "--wait")).toStartWith("web: running");
        await host.counts("web");
        expect(host.vmm).not.toBe(former);
        expect(programOf(host.vmm)).toContain(`${host.folder.file("debian")}/usr/lib`);
      }
      const after = host.numbers("web").slice(heard);
      expect(after).toEqual(after.map((_number, index) => before + index));
      expectGrowing(host.numbers("web"));
      expect(await host.summary("web")).toMatchObject({ phase: "running", restarts: 0 });
    });
  });
});
