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

/** In the zone of whoever looks. */
export function timeText(time: string | null): string {
  if (time === null) return "";
  const at = new Date(time);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? at.toLocaleTimeString() : at.toLocaleString();
}

export const percentText = (part: number) => `${Math.floor(part * 100)} %`;

export function valueText(value: number): string {
  return String(Number(value.toPrecision(4)));
}
