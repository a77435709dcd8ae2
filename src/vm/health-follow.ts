import type { HealthEvent } from "./health.ts";
import type { MachineEvent, MachineState, Phase } from "./lifecycle-state.ts";

/** From these a guest comes to run that has just been booted. */
const booting: ReadonlySet<Phase> = new Set(["connecting", "creating", "booting"]);

/**
 * What a step of a machine's life is to its checks: they are asked while its guest runs, and not
 * while it is paused, being captured, or its VMM does not answer. Pure.
 * @param hasRun this worker has watched it run before; one that it adopts, or that was restored,
 *   begins with the grace of a boot
 * @returns undefined where the step is nothing to them
 */
export function healthEventOf(
  step: {
    readonly before: MachineState;
    readonly event: MachineEvent;
    readonly after: MachineState;
  },
  hasRun: boolean,
): Extract<HealthEvent, { kind: "running" | "stopped" }> | undefined {
  const { before, event, after } = step;
  if (after.phase !== "running") {
    return before.phase === "running" ? { kind: "stopped" } : undefined;
  }
  if (before.phase !== "running") {
    return { kind: "running", booted: !hasRun || booting.has(before.phase) };
  }
  const isReset = event.kind === "guest-reset" && event.invocation === after.instance.invocation;
  return isReset ? { kind: "running", booted: true } : undefined;
}
