/** Disks that two workers come to, as they do on shared storage: one VMM writes to each. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { lockWhole } from "../../ffi/record-lock.ts";
import { hashPath } from "../../src/image/nar.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { isThere, type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const MEBIBYTE = 1024 ** 2;
let host: VmHost;
let image: TestImage;

beforeEach(async () => {
  host = await VmHost.make();
  const { path } = await host.image();
  writeFileSync(join(path, "root.img"), new Uint8Array(MEBIBYTE).fill(7));
  const configuration = JSON.parse(readFileSync(join(path, "vm-config.json"), "utf8"));
  configuration.disks = [
    { id: "root", path: "root.img", image_type: "Raw" },
    { id: "fixed", path: "root.img", image_type: "Raw", readonly: true },
  ];
  configuration.hostler = { ephemeral_disks: [{ id: "scratch", size: MEBIBYTE }] };
  writeFileSync(join(path, "vm-config.json"), JSON.stringify(configuration));
  image = { path, hash: await hashPath(path) };
});
afterEach(() => host[Symbol.asyncDispose]());

const disksOf = (one: VmHost, name: string) => join(one.machineFolder(name), "disks");

/** "held" while somebody has it. */
function lockOf(disk: string): "held" | "free" {
  const lock = lockWhole(join(disksOf(host, "web"), `${disk}.lock`));
  if (lock === "held") return "held";
  lock.close();
  return "free";
}

async function create(one: VmHost, name: string): Promise<void> {
  using client = await one.client();
  await client.create(one.specOf(name, image), "running");
}

/** Gives a machine that another worker is about to make the disks of the first one's. */
function shareDisks(other: VmHost): void {
  mkdirSync(other.machineFolder("web"));
  symlinkSync(realpathSync(disksOf(host, "web")), disksOf(other, "web"));
}

const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

skipUnless("one disk, and more than one who would write to it", needs, () => {
  test("each disk is locked as long as its VMM lives, whatever becomes of the worker", async () => {
    await host.start();
    await create(host, "web");
    await host.reaches("web", "running");
    const locked = ["root.qcow2.lock", "scratch.raw.lock"];
    const files = readdirSync(disksOf(host, "web"));
    expect(files.filter((name) => name.endsWith(".lock")).toSorted()).toEqual(locked);
    expect([lockOf("root.qcow2"), lockOf("scratch.raw")]).toEqual(["held", "held"]);
    await host.kill();
    expect([lockOf("root.qcow2"), lockOf("scratch.raw")]).toEqual(["held", "held"]);
    await host.start();
    await host.reaches("web", "running");
    const before = host.vmm;
    await host.say("replace-vmm", "web", "--wait");
    await host.reaches("web", "running");
    expect(host.vmm).not.toBe(before);
    expect([lockOf("root.qcow2"), lockOf("scratch.raw")]).toEqual(["held", "held"]);
    await host.say("shutdown", "web", "--now");
    await host.reaches("web", "off");
    expect([lockOf("root.qcow2"), lockOf("scratch.raw")]).toEqual(["free", "free"]);
    await host.say("delete", "web", "--wait");
    expect(isThere(host.machineFolder("web"))).toBe(false);
  });

  test("of two workers the second is refused, and the first guest is not touched", async () => {
    await host.start();
    await create(host, "web");
    await host.reaches("web", "running");
    await using other = await VmHost.make();
    await other.start();
    shareDisks(other);
    await create(other, "web");
    const refused = await waitFor("the refusal", async () => {
      const { reason } = await other.summary("web");
      return reason?.includes("a VMM has locked") === true && reason;
    });
    expect(refused).toContain("root.qcow2: expected a disk to which nobody else writes");
    expect(other.vmmProcesses()).toEqual([]);
    await host.counts("web");
    // Nor are they removed under it.
    await other.say("delete", "web", "--now");
    await waitFor("the refusal of the removal", () => other.said.includes("a VMM has locked"));
    expect(readdirSync(disksOf(host, "web"))).toContain("root.qcow2");
    await host.say("shutdown", "web", "--now");
    await host.reaches("web", "off");
  });
});
