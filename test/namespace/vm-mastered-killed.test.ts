/** The worker is killed at each step between it and its master; the next one goes on. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { masterSteps } from "../../src/vm/perform/kill-points.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { rotating } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { assigned, startMastered, WireMaster } from "../support/vm-mastered-host.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";
import { WatchdogDevice } from "../support/watchdog-device.ts";

setDefaultTimeout(120_000);

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

const start = () => startMastered(host, master, options());
function options(point?: string) {
  return {
    binary: hostlerWithFaults(),
    environment: point === undefined ? {} : { HOSTLER_KILL_AT: point },
    lines: [`watchdog = ${JSON.stringify(host.folder.file("watchdog.sock"))}`],
  };
}

const stale = [{ name: "web", owner_generation: 10 }];
const give = () =>
  master.assigns([assigned(host, image, { movable: true, fencing: "watchdog" })], { revision: 1 });

/** Brings the worker to that step, at which it dies. */
async function die(step: (typeof masterSteps)[number]): Promise<void> {
  const point = `vm:${step}`;
  if (step === "watchdog:disarmed") {
    await startMastered(host, master, options(point));
    await master.hears("of the watchdog", ({ watchdog }) => watchdog !== null);
    process.kill(host.workerProcessId, "SIGTERM");
  } else if (step === "held:ended") {
    await startMastered(host, master, options(point));
    await host.reaches("web", "running");
    await master.says({ stale });
  } else {
    // It may die before it takes requests.
    await startMastered(host, master, options(point)).catch(() => undefined);
    // What the first assignment brought is kept already: another one has to come.
    await master.assigns([assigned(host, image, { movable: true, fencing: "watchdog" })], {
      revision: 2,
    });
  }
  await waitFor(`the worker to die at ${step} (${host.said})`, () => host.hasDied);
}

const turn = rotating("the steps between a worker and its master", masterSteps, { outOf: 3 });
const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

skipUnless("the worker is killed between it and its master", needs, () => {
  for (const step of turn) {
    test(step, async () => {
      await give();
      await start();
      const first = (await host.reaches("web", "running")).pid;
      await host.kill();
      await die(step);
      await start();
      host.expectOneVmm();
      if (step === "held:ended") {
        await host.reaches("web", "off");
        expect(host.vmmProcesses()).toEqual([]);
        return;
      }
      expect((await host.reaches("web", "running")).pid).toBe(first);
      await host.counts("web");
      await master.hears("of the watchdog", ({ watchdog }) => watchdog !== null);
      const place = ({ observed }: { readonly observed: { readonly revision: number } | null }) =>
        observed?.revision === (step === "watchdog:disarmed" ? 1 : 2);
      await master.hears("of the newest assignment", place);
      expect(host.said).not.toContain("stopped by a bug");
    });
  }
});
