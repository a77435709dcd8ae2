/**
 * The kernel that live update stands on: what it preserves over a real kexec, what it destroys,
 * and what it refuses. When one of these changes in a newer kernel, our design has to know.
 */
import { beforeAll, expect, test } from "bun:test";
import { liveUpdateFeatures, liveUpdateGuest } from "../support/guest/live-update-guest.ts";
import type { LiveUpdateRun } from "../support/guest/scenario.ts";
import { skipUnless } from "../support/skips.ts";
import { kernelCases } from "./guest/live-update-kernel-cases.ts";

const program = "test/machine/guest/live-update-kernel.ts";

skipUnless("the kernel's live update", liveUpdateFeatures, () => {
  let run: LiveUpdateRun | undefined;
  beforeAll(async () => {
    run = await liveUpdateGuest({
      name: "the kernel's live update",
      stages: [
        { program, words: ["before"] },
        { program, words: ["after"] },
      ],
    });
  }, 6 * 60_000);

  test.each([...kernelCases.before, ...kernelCases.after])("%s", (name) => {
    const result = run?.cases.find((candidate) => candidate.name === name);
    expect(result, run?.lines.slice(-60).join("\n")).toMatchObject({ outcome: "ok" });
  });

  test("the verdict is good", () => expect(run?.passed).toBe(true));
});
