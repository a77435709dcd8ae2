/**
 * Each machine in a cgroup of its own, with limits that the kernel keeps: in a guest, whose kernel
 * has cgroup v2, and in which QEMU runs the machines.
 */
import { beforeAll, expect, test } from "bun:test";
import { liveUpdateFeatures } from "../support/guest/live-update-guest.ts";
import { vmHostGuest } from "../support/guest/vm-host-guest.ts";
import { onlyInAll } from "../support/rotation.ts";
import { file, skipUnless } from "../support/skips.ts";
import type { CaseResult } from "./guest/story.ts";
import { cgroupCases } from "./guest/vm-cgroup-cases.ts";

/** A machine within a machine, both translated. */
const storyMilliseconds = 20 * 60_000;

onlyInAll(() => {
  const firmware = file("/usr/share/seabios/bios-256k.bin", "seabios");
  skipUnless("machines in cgroups", [...liveUpdateFeatures, firmware], () => {
    let cases: readonly CaseResult[] = [];
    let last = "the guest did not run";
    beforeAll(async () => {
      const run = await vmHostGuest({
        name: "machines in cgroups",
        stages: [{ program: "test/machine/guest/vm-cgroups.ts" }],
        memoryMebibytes: 2048,
        deadlineMilliseconds: storyMilliseconds,
      });
      cases = run.cases;
      last = run.lines.slice(-100).join("\n");
    }, storyMilliseconds + 60_000);

    for (const name of cgroupCases) {
      test(name, () => {
        const found = cases.find((one) => one.name === name);
        expect(found, last).toMatchObject({ outcome: "ok" });
      });
    }
  });
});
