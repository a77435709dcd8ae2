import type { HypervisorDriver } from "../driver.ts";
import { connectQemu } from "./connection.ts";
import { isMadeAlone, planQemu } from "./plan.ts";
import { type QmpLimits, qmpLimits } from "./qmp.ts";
import { boundToBuild } from "./refuse.ts";

/** @param limits other ones, for tests of what goes over them */
export function makeQemuDriver(limits: QmpLimits = qmpLimits): HypervisorDriver {
  return {
    hypervisor: "qemu",
    plan: planQemu,
    boundToBuild,
    whyStays: () => undefined,
    takesAlone: isMadeAlone,
    connect: (files, options) => connectQemu(files, options, limits),
  };
}

/** QEMU, steered by QMP. */
export const qemuDriver: HypervisorDriver = makeQemuDriver();
