/**
 * The kernel that HOSTLER_GUEST_KERNEL names, when it tells everybody who holds a pidfd how the
 * process ended (PIDFD_GET_INFO with exit, Linux 6.15): the same suite and demo in a guest.
 */
import { type GuestKernel, readNamedKernel } from "../../scripts/guest-kernel/kernel-image.ts";
import { defineProcessGuest, processGuestOptions } from "../support/guest/process-guest.ts";
import { guestFeatures, kernelOptions } from "../support/machine.ts";
import { onlyInAll } from "../support/rotation.ts";
import { feature, isKernelAtLeast, skipUnless } from "../support/skips.ts";

const named = process.env["HOSTLER_GUEST_KERNEL"] ?? "";

onlyInAll(() => {
  const isNamed = feature("HOSTLER_GUEST_KERNEL names no kernel", () => named !== "");
  const isPossible = [...guestFeatures, isNamed].every(({ absence }) => absence() === undefined);
  const kernel: GuestKernel | undefined = isPossible ? readNamedKernel(named) : undefined;
  const tells = feature(
    "a named kernel older than 6.15",
    () => kernel !== undefined && isKernelAtLeast("6.15", kernel.release),
  );
  const features = [...guestFeatures, isNamed, tells, kernelOptions(kernel, processGuestOptions)];
  skipUnless("a kernel that tells endings", features, () => {
    if (kernel === undefined) throw new Error("a suite whose features are absent was defined");
    defineProcessGuest({ kernel: async () => kernel, teller: "kernel" });
  });
});
