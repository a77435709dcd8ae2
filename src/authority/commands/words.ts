import { shortFingerprint } from "../../identity/protocol.ts";
import { formatDuration } from "../../units/units.ts";

/** What the commands print, in words for people. */

/** "2026-11-28 17:20:03" in UTC. */
export function timeText(milliseconds: number): string {
  return new Date(milliseconds).toISOString().slice(0, 19).replace("T", " ");
}

export function agoText(milliseconds: number): string {
  return formatDuration(Math.max(0, milliseconds));
}

export const hashText = (hash: string | null) => (hash === null ? "-" : shortFingerprint(hash));

export const listText = (words: readonly string[]) => (words.length === 0 ? "-" : words.join(", "));
