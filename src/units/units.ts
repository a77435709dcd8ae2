/** A duration in milliseconds; fractions are allowed. */
export type Milliseconds = number & { readonly unit?: "milliseconds" };

/** A moment on CLOCK_MONOTONIC, in milliseconds since boot; comparable between processes. */
export type MonotonicTime = number & { readonly clock?: "monotonic" };

/** A size in bytes. */
export type Bytes = number & { readonly unit?: "bytes" };

/** A process number in the PID namespace of whoever holds it. */
export type ProcessId = number & { readonly what?: "process" };

export const milliseconds = (value: number): Milliseconds => value as Milliseconds;

const factors = { us: 0.001, ms: 1, s: 1_000, min: 60_000, h: 3_600_000 } as const;

/** "100ms", "1.5s", "2min" or "1h" as milliseconds; undefined for anything else. */
export function parseDuration(text: string): Milliseconds | undefined {
  const match = /^(\d+(?:\.\d+)?)(us|ms|s|min|h)$/.exec(text);
  if (match === null) return undefined;
  return milliseconds(Number(match[1]) * factors[match[2] as keyof typeof factors]);
}

/** A duration for people: "87 µs", "4.2 ms", "1.50 s", "3 min 20 s", "2 h 5 min". */
export function formatDuration(duration: Milliseconds): string {
  if (duration < 1) return `${Math.round(duration * 1_000)} µs`;
  if (duration < 1_000) return `${duration < 10 ? duration.toFixed(1) : Math.round(duration)} ms`;
  if (duration < 60_000) return `${(duration / 1_000).toFixed(2)} s`;
  const seconds = Math.round(duration / 1_000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
}
