import type { AgentState, Context } from "./lifecycle-state.ts";
import { type DeviceStatus, FLEET_PROTOCOL_VERSION } from "./protocol.ts";

/** What a device says of itself, as the operator is told after the journal has it. */
export function statusOf(
  state: AgentState,
  device: Pick<DeviceStatus, "architecture" | "libc"> & Pick<Context, "executor">,
): DeviceStatus {
  const { life, current, previous, step, boot, floor } = state;
  return {
    protocol: FLEET_PROTOCOL_VERSION,
    transaction: transactionOf(state),
    phase: life.phase,
    reason: "reason" in life ? life.reason : null,
    ...("endingCause" in life && life.phase !== "reverting" && { cause: life.endingCause }),
    ...{ current, previous, step, boot, floor },
    candidate: candidateOf(state),
    progress: "marker" in life ? state.progress : null,
    last_words: "lastWords" in life ? life.lastWords : null,
    architecture: device.architecture,
    libc: device.libc,
    executor: device.executor,
  };
}

function transactionOf({ life }: AgentState): string | null {
  if ("marker" in life) return life.marker.transaction;
  return "transaction" in life ? life.transaction : null;
}

function candidateOf({ life }: AgentState): DeviceStatus["candidate"] {
  if ("marker" in life) {
    return { ...life.marker.build, instance: "instance" in life ? life.instance : null };
  }
  // What is done is `current`; what is not is told with what it left.
  if (life.phase === "idle" || life.phase === "done") return null;
  return { ...life.build, instance: life.ending?.instance ?? null };
}
