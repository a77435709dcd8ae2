/** The crowd of the fleet's bench, as small as it can be: nothing of it is timed here. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { measureCrowd } from "../../scripts/bench/fleet-crowd.ts";
import { hostler } from "../support/binary.ts";
import { program, root, skipUnless } from "../support/skips.ts";

setDefaultTimeout(180_000);

skipUnless("the crowd of the fleet's bench", [root, program("ip", "iproute2")], () => {
  test("connects, beats, comes back to an operator that was killed, and is upgraded", async () => {
    const plan = { hostler: hostler(), devices: 12, seconds: 1, heartbeat: 1_000 };
    const found = await measureCrowd(plan, { say: () => {} });
    const { connected, restarted, rollout } = found;
    expect(found.devices).toBe(12);
    expect(connected.beats).toBe(12);
    expect(restarted.beats).toBeGreaterThanOrEqual(12);
    expect(rollout.beats).toBeGreaterThan(12);
    expect(rollout.mostLost).toBe(0);
    expect(found.operator.resident).toBeGreaterThan(0);
  });
});
