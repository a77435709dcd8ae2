import type { Bytes } from "./units.ts";

const factors = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 } as const;

/** "512B", "256KiB", "1MiB" or "2GiB" as bytes; undefined for anything else. */
export function parseBytes(text: string): Bytes | undefined {
  const match = /^(\d{1,12})(B|KiB|MiB|GiB)$/.exec(text);
  if (match === null) return undefined;
  return Number(match[1]) * factors[match[2] as keyof typeof factors];
}

/** A size for people: "512 B", "1.5 KiB", "256 KiB". */
export function formatBytes(bytes: Bytes): string {
  if (bytes < factors.KiB) return `${bytes} B`;
  const units = (["GiB", "MiB", "KiB"] as const).filter((name) => bytes >= factors[name]);
  const [unit = "KiB"] = units;
  const amount = bytes / factors[unit];
  return `${amount >= 100 ? Math.round(amount) : Number(amount.toFixed(1))} ${unit}`;
}
