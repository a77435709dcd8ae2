/**
 * Two compiled workers on two hosts, with cloud-hypervisor, or rather with the fake of it: a
 * machine goes from one to the other with its memory and its disks.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { hashPath } from "../../src/image/nar.ts";
import type { MigrationResultRecord } from "../../src/vm/protocol.ts";
import { ConsoleTap } from "../support/console-tap.ts";
import type { FakeOrders } from "../support/fake-cloud-hypervisor.ts";
import { kvmDevice, setUpFakeCloudHypervisor } from "../support/fake-cloud-hypervisor-host.ts";
import { expectContinuous, numbersIn } from "../support/guest-numbers.ts";
import { onlyInAll } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { VmPair } from "../support/vm-pair.ts";
import type { TestImage, VmHost } from "../support/vm-worker.ts";

setDefaultTimeout(120_000);

const MEBIBYTE = 1024 ** 2;

let pair: VmPair;
let giver: VmHost;
let taker: VmHost;
let image: TestImage;

beforeEach(async () => {
  pair = await VmPair.make();
  ({ giver, taker } = pair);
  image = await giver.image();
});
afterEach(async () => {
  await pair[Symbol.asyncDispose]();
});

/** Its metrics are asked often: while a machine comes, its VMM answers nobody. */
async function start(
  orders: { readonly giver?: FakeOrders; readonly taker?: FakeOrders } = {},
): Promise<void> {
  for (const [host, own] of [
    [giver, orders.giver],
    [taker, orders.taker],
  ] as const) {
    const configuration = await setUpFakeCloudHypervisor(host, { ...own, keepsCountOnDisk: true });
    await host.start({ configuration: [...configuration, 'metrics_poll_interval = "1s"'] });
  }
}

/** An image with a disk of its own, or without, and a disk that is the machine's alone. */
async function withDisks(hasRoot: boolean): Promise<void> {
  const path = join(image.path, "vm-config.json");
  const configuration = JSON.parse(readFileSync(path, "utf8"));
  if (hasRoot) {
    writeFileSync(join(image.path, "root.img"), new Uint8Array(MEBIBYTE).fill(7));
    configuration.disks = [{ id: "root", path: "root.img", image_type: "Raw" }];
  }
  configuration.hostler = { ephemeral_disks: [{ id: "scratch", size: 16 * MEBIBYTE }] };
  writeFileSync(path, JSON.stringify(configuration));
  image = { path: image.path, hash: await hashPath(image.path) };
}

async function makeMachine(): Promise<void> {
  const from = ["--image", image.path, "--hash", image.hash];
  await giver.say("create", "web", ...from, "--start", "--memory", "64");
  await giver.counts("web");
}

async function move(): Promise<MigrationResultRecord> {
  const said = await giver.say("migrate", "web", "--ticket", await pair.ticket(), "--json");
  return JSON.parse(said) as MigrationResultRecord;
}

const needs = [root, kvmDevice, program("ip", "iproute2")];

skipUnless("a machine of cloud-hypervisor between two hosts", needs, () => {
  test("it counts on there with its memory and its disk, and nothing is left here", async () => {
    await withDisks(false);
    await start({ giver: { sendsAll: true } });
    await makeMachine();
    const scratch = openSync(join(giver.machineFolder("web"), "disks/scratch.raw"), "r+");
    for (const place of [0, 5, 15]) writeSync(scratch, `at ${place}`, place * MEBIBYTE + 64);
    closeSync(scratch);
    const before = await giver.summary("web");
    await using tap = await ConsoleTap.open(giver, "web");
    const result = await move();
    expect(result.bytes).toBeGreaterThan(64 * MEBIBYTE);
    console.log(`64 MiB: ${result.time_ms} ms, of which it stood still ${result.pause_ms} ms`);
    const after = await taker.reaches("web", "running");
    await taker.counts("web");
    const { address, mac, tap: card } = before;
    expect(after).toMatchObject({ address, mac, tap: card, restarts: 0, reason: null });
    expect(after.hypervisor).toBe("cloud-hypervisor");
    expectContinuous(numbersIn(tap.text + taker.console("web")));
    const there = readFileSync(join(taker.machineFolder("web"), "disks/scratch.raw"));
    for (const place of [0, 5, 15]) {
      expect(there.subarray(place * MEBIBYTE + 64).toString("latin1")).toStartWith(`at ${place}`);
    }
    await giver.expectNoMachines();
    // One that stands still goes as it is, and back.
    await taker.say("pause", "web", "--wait");
    await taker.say("migrate", "web", "--ticket", await pair.ticketOf(giver));
    await giver.reaches("web", "paused");
    await taker.expectNoMachines();
    await giver.say("resume", "web", "--wait");
    await giver.counts("web");
    expect(`${giver.said}${taker.said}`).not.toContain("bug");
  });

  onlyInAll(() => {
    test("an overlay goes only where its VMM keeps nothing of it to itself", async () => {
      await withDisks(true);
      await start();
      await makeMachine();
      const { stderr } = await giver.run("migrate", "web", "--ticket", await pair.ticket());
      expect(stderr).toContain("cloud-hypervisor 53.0.0 keeps parts of qcow2 files to itself");
      await giver.reaches("web", "running");
      await giver.say("delete", "web", "--now", "--wait");
      for (const host of [giver, taker]) await host.kill();
      await start({ giver: { version: "v54.0.0" }, taker: { version: "v54.0.0" } });
      await makeMachine();
      await move();
      await taker.reaches("web", "running");
      await taker.counts("web");
      const overlay = readFileSync(join(taker.machineFolder("web"), "disks/root.qcow2"));
      expect(overlay.toString("latin1")).toContain(taker.artifacts);
      expect(overlay.toString("latin1")).not.toContain(giver.artifacts);
      await giver.expectNoMachines();
    });

    test.each([
      ["the other VMM refuses its state", { taker: { at: "move/state", how: "refuse" } }],
      ["the other VMM dies", { taker: { at: "move/state", how: "crash" } }],
      ["its VMM hangs up", { giver: { at: "move/state", how: "close" } }],
    ] as const)("where %s, it goes on here without a gap", async (_what, orders) => {
      await withDisks(false);
      await start(orders);
      await makeMachine();
      const { exitCode, stderr } = await giver.run(
        "migrate",
        "web",
        "--ticket",
        await pair.ticket(),
      );
      expect([exitCode, stderr]).toEqual([111, expect.stringContaining("web goes on here")]);
      await giver.reaches("web", "running");
      await giver.counts("web");
      expectContinuous(giver.numbers("web"));
      await taker.expectNoMachines();
    });

    test("another version of it is refused, with the reason", async () => {
      await withDisks(false);
      await start({ taker: { version: "v54.0.0" } });
      await makeMachine();
      const { stderr } = await giver.run("migrate", "web", "--ticket", await pair.ticket());
      expect(stderr).toContain("expected cloud-hypervisor 53.0.0, which runs it, received 54.0.0");
      await giver.counts("web");
    });
  });
});
