/**
 * Debian 12's own kernel, whose 6.1 has no PIDFD_GET_INFO: nobody but a parent is told how a
 * process ended. The exit-status suite and the demo run on it in a guest.
 */
import { fetchDebianKernel } from "../../scripts/guest-kernel.ts";
import { defineProcessGuest } from "../support/guest/process-guest.ts";
import { guestFeatures } from "../support/machine.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";

onlyInAll(() => {
  skipUnless("Debian 12's kernel 6.1", guestFeatures, () => {
    defineProcessGuest({ kernel: fetchDebianKernel, teller: "agent" });
  });
});
