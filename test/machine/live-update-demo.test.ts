/** The demo of live update, as a stranger runs it. */
import { expect, test } from "bun:test";
import { hostler } from "../support/binary.ts";
import { liveUpdateFeatures } from "../support/guest/live-update-guest.ts";
import { runProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";

const deadlineMilliseconds = 8 * 60_000;

function guestKernelVariable(): Record<string, string> {
  const { HOSTLER_GUEST_KERNEL: named } = process.env;
  return named === undefined ? {} : { HOSTLER_GUEST_KERNEL: named };
}

onlyInAll(() => {
  skipUnless("the demo of live update", liveUpdateFeatures, () => {
    test(
      "every step is seen",
      async () => {
        const words = ["live-update", "--program", hostler()];
        const { exitCode, stdout, stderr } = await runProgram(
          [process.execPath, "scripts/demo.ts", ...words],
          // Whatever kernel the run has: a build of one belongs before the tests.
          { deadlineMilliseconds, environment: guestKernelVariable() },
        );
        expect(exitCode, `${stdout}\n${stderr}`).toBe(0);
        expect(stdout).toMatch(/^27 of 27 seen, 0 failed$/m);
      },
      deadlineMilliseconds + 30_000,
    );
  });
});
