/** The kernel's own watchdog: fed it resets nobody, disarmed neither, and left it does. */
import { expect, test } from "bun:test";
import { liveUpdateFeatures, liveUpdateGuest } from "../support/guest/live-update-guest.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { rejectionOf } from "../support/wait-for.ts";

const limitMilliseconds = 10 * 60_000;

const run = (what: "fed" | "left") =>
  liveUpdateGuest({
    name: `a watchdog that is ${what}`,
    stages: [{ program: "test/machine/guest/watchdog.ts", words: [] }],
    files: { what: `${what}\n` },
    deadlineMilliseconds: limitMilliseconds / 2,
  });

onlyInAll(() => {
  skipUnless("a watchdog of the kernel", liveUpdateFeatures, () => {
    test(
      "while it is fed, and after it was disarmed, the host lives",
      async () => expect((await run("fed")).passed).toBe(true),
      limitMilliseconds,
    );

    test(
      "one whose device was only closed resets the host",
      async () => {
        const { message } = await rejectionOf(run("left"));
        expect(message).toContain("gave no verdict");
        expect(message).toContain('"staysArmed":true');
      },
      limitMilliseconds,
    );
  });
});
