import { ownTarget } from "../../artifact/installed.ts";
import type { DeviceFacts } from "../../artifact/lifecycle-verify.ts";
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
  return { ...ownTarget(), floor: null, channels: null };
}
