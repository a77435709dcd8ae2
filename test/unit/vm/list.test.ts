/** `hostler vm list` on a screen. */
import { expect, test } from "bun:test";
import { renderMachines } from "../../../src/vm/commands/list.ts";
import type { VmSummary } from "../../../src/vm/protocol.ts";

const web: VmSummary = {
  ...{ name: "web", phase: "running", wanted: "running", reason: null, pid: 7, invocation: "i1" },
  ...{ address: null, mac: null, tap: null, hypervisor: "qemu", version: null, progress: null },
  ...{ accelerator: "tcg", processors: 1, memory_bytes: 1, uptime_ms: 1_000, restarts: 0 },
  ...{ image_hash: null, detached_ms: null, capture: null, health: null, cards: [], forwards: [] },
};
const reason = "the VMM ended: no room for what it was told to hold in memory";
const failing: VmSummary = { ...web, name: "db", phase: "backing-off", pid: null, reason };

test("a reason is the last column, and moves no other", () => {
  expect(renderMachines([web])).toBe(
    "NAME  PHASE    ADDRESS  HYPERVISOR  PID  UPTIME  RESTARTS\n" +
      "web   running  -        qemu (tcg)  7    1.00 s  0\n",
  );
  expect(renderMachines([web, failing])).toBe(
    "NAME  PHASE                        ADDRESS  HYPERVISOR  PID  UPTIME  RESTARTS  WHY\n" +
      "web   running                      -        qemu (tcg)  7    1.00 s  0\n" +
      `db    backing-off (to be running)  -        qemu (tcg)  -    1.00 s  0         ${reason}\n`,
  );
});

test("a terminal's edge cuts it, and a record that is not understood is told there", () => {
  const damaged = [{ name: "old", path: "/m/old/machine.json", reason: "expected JSON" }];
  const text = renderMachines([web, failing], damaged, 100);
  const lines = text.trimEnd().split("\n");
  expect(lines.map((line) => Bun.stringWidth(line) <= 100)).toEqual([true, true, true, true]);
  expect(lines[2]).toEndWith("…");
  expect(renderMachines([], damaged)).toEndWith(
    "old   damaged  -        -           -    -       -         " +
      "/m/old/machine.json is not understood: expected JSON\n",
  );
});
