import { escapeControls } from "../../logging/format.ts";
import { formatBytes } from "../../units/bytes.ts";
import { formatDuration } from "../../units/units.ts";

/** What the commands print, in words for people. */

export const yesOrNo = (value: boolean) => (value ? "yes" : "no");
export const durationText = (value: number | null) =>
  value === null ? "-" : formatDuration(value);
export const bytesText = (value: number | null) => (value === null ? "-" : formatBytes(value));

export function counted(count: number, one: string): string {
  return `${count} ${one}${count === 1 ? "" : "s"}`;
}

/** A line of a stream: its parts, and nothing in them that could drive the terminal. */
export function streamLine(parts: readonly (string | undefined)[]): string {
  const told = parts.filter((part) => part !== undefined && part !== "").map(String);
  return `${told.map(escapeControls).join(" ")}\n`;
}
