/** VLANs of virtual machines' networks, in a guest whose kernel has them. */
import { beforeAll, expect, test } from "bun:test";
import { liveUpdateFeatures, liveUpdateGuest } from "../support/guest/live-update-guest.ts";
import type { LiveUpdateRun } from "../support/guest/scenario.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { vlanCases } from "./guest/vm-vlan-cases.ts";

onlyInAll(() => {
  skipUnless("a network in a VLAN", liveUpdateFeatures, () => {
    let run: LiveUpdateRun | undefined;
    beforeAll(async () => {
      run = await liveUpdateGuest({
        name: "a network in a VLAN",
        stages: [{ program: "test/machine/guest/vm-vlan.ts" }],
        // An emulated timer is late where the machine has much else to do.
        kernelWords: ["no_timer_check"],
      });
    }, 6 * 60_000);

    test.each(vlanCases)("%s", (name) => {
      const result = run?.cases.find((candidate) => candidate.name === name);
      expect(result, run?.lines.slice(-60).join("\n")).toMatchObject({ outcome: "ok" });
    });

    test("the verdict is good", () => expect(run?.passed).toBe(true));
  });
});
