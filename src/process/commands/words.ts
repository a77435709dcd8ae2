import { escapeControls } from "../../logging/format.ts";
import { describeEnding } from "../../units/ending.ts";
import { signalName } from "../../units/signals.ts";
import { decodeEnding } from "../ending.ts";
import type { ProcessEventRecord, ProcessSummary, WireEnding } from "../protocol.ts";

/** What the commands print, in words for people. */

/** "exit 0", "SIGKILL", "SIGSEGV (core dumped)", "unknown: why". */
export function endingText(ending: WireEnding | null | undefined): string {
  if (ending === null || ending === undefined) return "-";
  return describeEnding(decodeEnding(ending), signalName);
}

/** The same for a table: why it is unknown stands in `show`. */
export function shortEnding(ending: WireEnding | null): string {
  return ending?.kind === "unknown" ? ending.kind : endingText(ending);
}

/** "ready, process 4711" with why, where there is a reason. */
export function phaseText(summary: ProcessSummary): string {
  const process = summary.pid === null ? "" : `, process ${summary.pid}`;
  const reason = summary.reason === null ? "" : `: ${summary.reason}`;
  return `${summary.phase}${process}${reason}`;
}

/** The end of an event's line: which process, how it ended, and the rest in words. */
export function eventDetail(event: ProcessEventRecord): string {
  const process = event.pid === undefined ? "" : `process ${event.pid}`;
  const ending = event.ending === undefined ? "" : endingText(event.ending);
  const detail = event.detail === ending ? "" : (event.detail ?? "");
  return [process, ending, detail].filter((part) => part !== "").join(", ");
}

/** A line of a stream: its parts, and nothing in them that could drive the terminal. */
export function streamLine(parts: readonly string[]): string {
  return `${parts.map(escapeControls).join(" ").trimEnd()}\n`;
}
