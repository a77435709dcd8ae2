import { killPoint } from "../../../ffi/fault-hooks.ts";
import type { EffectKind } from "../agent/lifecycle-state.ts";

/** Every effect of an agent: a test kills it before and after each. */
export const agentEffects = [
  "call-hello",
  "call-claim",
  "call-attempt",
  "call-result",
  "call-hold",
  "wait",
  "start-stage",
  "end-stage",
  "keep-result",
  "drop-result",
  "install-key",
  "wake-for-key",
  "remove-key",
  "wake-to-leave",
  "beat",
  "say-farewell",
  "change-power",
  "end",
  "say",
] as const satisfies readonly EffectKind[];
type Missing = Exclude<EffectKind, (typeof agentEffects)[number]>;
/** Does not compile while an effect is missing above. */
export const allEffects: [Missing] extends [never] ? typeof agentEffects : Missing = agentEffects;

/** In the build for fault tests this ends the process when a test named the place. */
export function passAgentEffect(effect: EffectKind, when: "before" | "after"): void {
  killPoint(`vetting-agent:${effect}:${when}`);
}

/** Around the writing of what is kept, and after an answer came and before it is written. */
export function passAgentKeep(when: "before" | "after"): void {
  killPoint(`vetting-agent:keep:${when}`);
}
