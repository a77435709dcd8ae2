/**
 * Machines with KVM, in a guest whose processor has svm: QEMU emulates it where this machine has
 * none, so that what the worker's machines run by is KVM itself, only slow.
 */
import { beforeAll, expect, test } from "bun:test";
import { liveUpdateFeatures } from "../support/guest/live-update-guest.ts";
import { vmHostGuest } from "../support/guest/vm-host-guest.ts";
import { onlyInAll } from "../support/rotation.ts";
import { file, skipUnless } from "../support/skips.ts";
import type { CaseResult } from "./guest/story.ts";
import { kvmCases } from "./guest/vm-kvm-cases.ts";

const storyMilliseconds = 10 * 60_000;

onlyInAll(() => {
  const firmware = file("/usr/share/seabios/bios-256k.bin", "seabios");
  skipUnless("machines with KVM", [...liveUpdateFeatures, firmware], () => {
    let cases: readonly CaseResult[] = [];
    let last = "the guest did not run";
    beforeAll(async () => {
      const run = await vmHostGuest({
        name: "machines with KVM",
        stages: [{ program: "test/machine/guest/vm-kvm.ts" }],
        // An emulated timer is late where the machine has much else to do.
        kernelWords: ["no_timer_check"],
        deadlineMilliseconds: storyMilliseconds,
      });
      cases = run.cases;
      last = run.lines.slice(-100).join("\n");
    }, storyMilliseconds + 60_000);

    for (const name of kvmCases) {
      test(name, () => {
        const found = cases.find((one) => one.name === name);
        expect(found, last).toMatchObject({ outcome: "ok" });
      });
    }
  });
});
