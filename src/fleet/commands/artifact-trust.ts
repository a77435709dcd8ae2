import { headOf } from "../../artifact/installed.ts";
import type { DeviceFacts } from "../../artifact/lifecycle-verify.ts";
import { lookAtExecutable } from "../../artifact/protocol-executable.ts";
import type { Patience } from "../../artifact/published.ts";
import { tellText } from "../../command-line/output.ts";
import { escapeControls } from "../../logging/format.ts";
import { formatDuration } from "../../units/units.ts";

/** Whoever waits says so. */
export const tellingPatience = (
  signal: AbortSignal,
): Patience & Required<Pick<Patience, "onWait">> => ({
  signal,
  onWait: (time, why) => tellText(`waiting for ${formatDuration(time)}: ${escapeControls(why)}\n`),
});

/** What this program was built for, and no floor: this is no device. */
export function ownFacts(): DeviceFacts {
  const found = lookAtExecutable(headOf("/proc/self/exe"));
  if (found.kind !== "executable") throw new Error(`Bug: this program is ${found.received}`);
  const { architecture, libc } = found;
  return { architecture, libc, floor: null, channels: null };
}
