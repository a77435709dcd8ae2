/** Parts of vetting's bench, short, on the compiled file: that they measure what they say. */
import { expect, test } from "bun:test";
import { measureCrowd } from "../../scripts/bench/vetting-agents.ts";
import { measureBusy, measureFlips } from "../../scripts/bench/vetting-load.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";

test("agents are answered, each on its own connections, and pages hear of changes", async () => {
  const found = await measureCrowd({ hostler: hostler(), agents: 5, seconds: 6 });
  expect([found.agents, found.refused]).toEqual([5, 0]);
  expect(found.beats.length).toBeGreaterThanOrEqual(5);
  // One call for readings, and two or three for lines, beside the heartbeat.
  expect(found.calls).toBeGreaterThanOrEqual(5 * 4);
  expect(found.updates.length).toBeGreaterThanOrEqual(found.pages);
  expect(Math.min(...found.updates)).toBeGreaterThan(0);
  expect(found.memory.most).toBeGreaterThanOrEqual(found.memory.resident);
}, 120_000);

test("flipped bits are counted, and each processor has its load", async () => {
  expect(await measureFlips(hostlerWithFaults(), 1)).toEqual({ flipped: 200, found: 200 });
  const busy = await measureBusy(hostler(), 1);
  expect(busy.map(({ processor }) => processor)).toHaveLength(navigator.hardwareConcurrency);
  for (const { ofAll, ofFree } of busy) {
    expect(ofAll).toBeGreaterThan(0);
    expect(ofFree).toBeLessThanOrEqual(1);
  }
}, 120_000);
