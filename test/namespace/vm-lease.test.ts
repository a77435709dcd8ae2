/** A worker with a watchdog: fed while the master answers, and while nothing is at stake. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import type { WorkerStatus } from "../../src/vm/protocol.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { onlyInAll } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { assigned, startMastered, WireMaster } from "../support/vm-mastered-host.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";
import { WatchdogDevice } from "../support/watchdog-device.ts";

setDefaultTimeout(120_000);

/** Long enough for reports every half a second, and short enough to be waited for. */
const SHORT_LEASE = 3_000;

let host: VmHost;
let master: WireMaster;
let image: TestImage;
let device: WatchdogDevice;

beforeEach(async () => {
  host = await VmHost.make();
  device = await WatchdogDevice.at(host.folder.file("watchdog.sock"));
  master = new WireMaster(host);
  await master.start();
  await master.enrol();
  image = await host.image();
});
afterEach(async () => {
  await master[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
  await device[Symbol.asyncDispose]();
});

const start = () =>
  startMastered(host, master, {
    binary: hostlerWithFaults(),
    lines: [
      `watchdog = ${JSON.stringify(host.folder.file("watchdog.sock"))}`,
      'watchdog_timeout = "10s"',
    ],
  });

const status = async () => JSON.parse(await host.say("status", "--json")) as WorkerStatus;

/** The machine that is to run elsewhere when this host is gone, and one that is not. */
async function give(): Promise<void> {
  await master.assigns(
    [
      assigned(host, image, { movable: true, fencing: "watchdog" }),
      assigned(host, image, { name: "stays", owner_generation: 11, power: "created" }),
    ],
    { revision: 1 },
  );
  await host.reaches("web", "running");
  await host.reaches("stays", "created");
}

const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

skipUnless("a worker with a watchdog", needs, () => {
  test("arms it before it says so, and ends what may run elsewhere when cut off", async () => {
    await start();
    const armed = await master.hears("of a watchdog", ({ watchdog }) => watchdog !== null);
    expect(armed.watchdog).toMatchObject({ timeout_ms: 10_000, stays_armed: true });
    expect(device.told[0]).toBe("open 10");
    await give();
    await master.says({ lease_ms: SHORT_LEASE });
    await master.hears("of the shorter lease", () => true);
    await master.says({ mute: true });
    await waitFor("the end of the VMM", () => host.vmmProcesses().length === 1);
    await host.reaches("web", "off");
    await host.reaches("stays", "created");
    expect((await status()).master?.held).toEqual([
      { name: "web", reason: expect.stringContaining("it may run elsewhere") },
    ]);
    const before = device.feedings;
    await waitFor("a feeding, now that nothing is at stake", () => device.feedings > before);
    expect(device.told).not.toContain("closed");
    // Nor does anybody else start it.
    const starts = async () =>
      (await host.history("web")).filter(({ what }) => what === "started").length;
    const started = await starts();
    await host.run("boot", "web");
    await host.reaches("web", "off");
    expect(await starts()).toBe(started);
    await master.says({ mute: false, lease_ms: 30_000 });
    await host.reaches("web", "running");
    await host.counts("web");
  });

  test("leaves it counting when killed, and disarms it when the master knows", async () => {
    await start();
    await master.hears("of a watchdog", ({ watchdog }) => watchdog !== null);
    await give();
    const { vmm } = await host.summary("web").then(({ pid }) => ({ vmm: pid }));
    await host.kill();
    await waitFor("the end of its descriptor", () => device.told.at(-1) === "closed");
    expect(device.told).not.toContain("V");
    await start();
    await waitFor("it to be opened again", () => device.told.filter(isOpening).length === 2);
    await master.hears("of it", ({ watchdog }) => watchdog !== null);
    expect((await host.summary("web")).pid).toBe(vmm);

    const seen = master.reports.length;
    process.kill(host.workerProcessId, "SIGTERM");
    await host.worker.ended();
    expect(device.told.slice(-2)).toEqual(["V", "closed"]);
    expect(master.reports.at(-1)?.watchdog).toBeNull();
    expect(master.reports.length).toBeGreaterThan(seen);
    expect(host.vmmProcesses()).toHaveLength(2);
    await start();
    await host.reaches("web", "running");
    expect((await host.summary("web")).pid).toBe(vmm);
  });

  // They wait for the time that the master, and the watchdog, are given.
  onlyInAll(() => {
    test("is not fed beyond the lease where a record is not understood", async () => {
      await start();
      await master.hears("of a watchdog", ({ watchdog }) => watchdog !== null);
      await give();
      await host.kill();
      // Nobody knows whether this is one that may run elsewhere.
      writeFileSync(`${host.machineFolder("web")}/machine.json`, "{}");
      await start();
      await master.hears("of it again", ({ watchdog }) => watchdog !== null);
      await master.says({ lease_ms: SHORT_LEASE });
      await master.hears("of the shorter lease", () => true);
      await master.says({ mute: true });
      await waitFor("the host to be reset", () => device.hasReset, 60_000);
      expect(host.hasDied).toBeFalse();
      expect(device.told).not.toContain("V");
    });

    test("a master that is silent at the end leaves it counting, and that is told", async () => {
      await start();
      await master.hears("of a watchdog", ({ watchdog }) => watchdog !== null);
      await give();
      await master.says({ mute: true });
      process.kill(host.workerProcessId, "SIGTERM");
      await host.worker.ended();
      expect(device.told).not.toContain("V");
      expect(host.said).toContain("this host is RESET within 10 s unless a worker is started");
    });
  });
});

const isOpening = (line: string) => line.startsWith("open");
