import { describeEnding, type Ending } from "../units/ending.ts";
import { signalName } from "../units/signals.ts";
import { formatDuration } from "../units/units.ts";
import type { HistoryEntry } from "./lifecycle-state.ts";

/** What an entry says beyond its name, in words; undefined when the name says it all. */
export function describeEntry(entry: HistoryEntry): string | undefined {
  switch (entry.what) {
    case "attached":
      return `the guest is ${entry.guest}`;
    case "prepare-refused":
    case "network-refused":
    case "start-refused":
    case "discard-refused":
      return entry.refusal.message;
    case "detached":
    case "replacement-given-up":
      return entry.reason;
    case "attach-refused":
      return `${entry.refusal.message} (attempt ${entry.attempts})`;
    case "call-refused":
      return `${entry.call}: ${entry.refusal.message}`;
    case "captured":
    case "capture-forgotten":
      return entry.capture;
    case "capture-lost":
      return `${entry.capture}: ${entry.reason}`;
    case "sending":
    case "given":
    case "given-away":
    case "receiving":
    case "arrived":
    case "taken-over":
      return entry.migration;
    case "taken-back":
    case "withdrawn":
    case "undecided":
      return `${entry.migration}: ${entry.reason}`;
    case "snapshotted":
      return entry.snapshot;
    case "guest-off":
      return `by the ${entry.by}`;
    case "healthy":
      return entry.check;
    case "unhealthy":
      return `${entry.check}: ${entry.reason} (${entry.failures} in a row)`;
    case "died":
      return `ran for ${formatDuration(entry.ranFor)}`;
    case "ended":
      return endingText(entry.ending);
    case "backing-off":
      return `restart in ${formatDuration(entry.wait)} (failure ${entry.failures} in a row)`;
    case "failed":
    case "off":
      return entry.reason;
    default:
      return undefined;
  }
}

const endingText = (ending: Ending) => describeEnding(ending, signalName);
