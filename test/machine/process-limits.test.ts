/**
 * Processes in cgroups of their own, with limits that the kernel keeps: in a guest, whose kernel
 * has cgroup v2.
 */
import { beforeAll, expect, test } from "bun:test";
import { liveUpdateFeatures } from "../support/guest/live-update-guest.ts";
import { vmHostGuest } from "../support/guest/vm-host-guest.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { limitCases } from "./guest/process-limit-cases.ts";
import type { CaseResult } from "./guest/story.ts";

/** A processor is emulated, on a machine that may have much else to do. */
const storyMilliseconds = 15 * 60_000;

onlyInAll(() => {
  skipUnless("limits of processes", liveUpdateFeatures, () => {
    let cases: readonly CaseResult[] = [];
    let last = "the guest did not run";
    beforeAll(async () => {
      const run = await vmHostGuest({
        name: "limits of processes",
        stages: [{ program: "test/machine/guest/process-limits.ts" }],
        memoryMebibytes: 1024,
        deadlineMilliseconds: storyMilliseconds,
      });
      cases = run.cases;
      last = run.lines.slice(-100).join("\n");
    }, storyMilliseconds + 60_000);

    for (const name of limitCases) {
      test(name, () => {
        const found = cases.find((one) => one.name === name);
        expect(found, last).toMatchObject({ outcome: "ok" });
      });
    }
  });
});
