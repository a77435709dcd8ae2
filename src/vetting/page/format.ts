/** Values as people read them. */

const units = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

export function bytesText(bytes: number): string {
  let [amount, unit] = [bytes, 0];
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${Number(amount.toFixed(amount >= 100 ? 0 : 1))} ${units[unit]}`;
}

/** "2 h 3 min", "3 min 5 s", "4 s". */
export function durationText(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1_000));
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor((seconds % 3_600) / 60)];
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

const twoDigits = (value: number) => String(value).padStart(2, "0");

/** "09:14:03", in the zone of whoever looks. */
export function clockText(at: Date): string {
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map(twoDigits).join(":");
}

/** "2026-11-30", in the zone of whoever looks. */
export function dayText(at: Date): string {
  return [at.getFullYear(), twoDigits(at.getMonth() + 1), twoDigits(at.getDate())].join("-");
}

/** "09:14:03" of today, "2026-11-30 09:14" of another day; in the zone of whoever looks. */
export function timeText(time: string | null): string {
  if (time === null) return "";
  const at = new Date(time);
  if (at.toDateString() === new Date().toDateString()) return clockText(at);
  return `${dayText(at)} ${clockText(at).slice(0, 5)}`;
}

/** What the orchestrator says, with its times as whoever looks reads them. */
export function reasonText(reason: string): string {
  return reason.replaceAll(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, timeText);
}

/**
 * Letters that nobody sees, or that turn the direction of what follows, as boxes with their number,
 * as in a report: a serial cannot be shown as another one.
 */
export function shownText(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Bidi_C}\p{Cs}]/gu, (letter) =>
    letter === "\n" || letter === "\t" ? letter : `⟦${numberOf(letter)}⟧`,
  );
}

const numberOf = (letter: string) => (letter.codePointAt(0) ?? 0).toString(16).padStart(4, "0");

export const percentText = (part: number) => `${Math.floor(part * 100)} %`;

export function valueText(value: number): string {
  return String(Number(value.toPrecision(4)));
}
