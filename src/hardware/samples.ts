import * as v from "valibot";

/**
 * What is read again and again while a host works: sensors, which have a value at a moment, and
 * counters, which only rise, and whose difference over a stage belongs to that stage. Pure.
 */

export const sampleLimits = {
  key: 128,
  sensors: 1_024,
  counters: 4_096,
  /** Characters of a line of the kernel's log. */
  kernelLine: 1_024,
} as const;

const key = v.pipe(v.string(), v.minLength(1), v.maxLength(sampleLimits.key));

export const sensorKinds = [
  "temperature",
  "fan",
  "power",
  "voltage",
  "current",
  "frequency",
  "utilisation",
] as const;

/** What each kind is told in. */
export const unitOf = {
  temperature: "°C",
  fan: "rpm",
  power: "W",
  voltage: "V",
  current: "A",
  frequency: "MHz",
  utilisation: "%",
} as const satisfies Record<(typeof sensorKinds)[number], string>;

export const sensorSchema = v.strictObject({
  kind: v.picklist(sensorKinds),
  /** The same from one reading to the next, and from one boot to the next: "coretemp.0/Core 3". */
  key,
  value: v.pipe(v.number(), v.finite()),
  /** What the hardware itself calls critical, in the same unit; null where it says nothing. */
  critical: v.nullable(v.pipe(v.number(), v.finite())),
});
export type Sensor = v.InferOutput<typeof sensorSchema>;

export const counterSources = [
  /** Machine checks, of /sys/devices/system/machinecheck and the kernel's log. */
  "machine-check",
  /** EDAC: memory's corrected and uncorrected errors. */
  "memory-corrected",
  "memory-uncorrected",
  /** PCIe Advanced Error Reporting. */
  "pcie-correctable",
  "pcie-nonfatal",
  "pcie-fatal",
  /** /sys/devices/system/cpu/cpu N/thermal_throttle. */
  "throttle",
  /** Changes of a network card's carrier, and its errors. */
  "carrier",
  "network-errors",
  /** Lines of the kernel's log that name a fault of hardware, by what they name. */
  "kernel-log",
] as const;
export type CounterSource = (typeof counterSources)[number];

export const counterSchema = v.strictObject({
  source: v.picklist(counterSources),
  /** Whose: "mc0/dimm3", "0000:03:00.0", "cpu7", "eth0". */
  component: key,
  value: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
});
export type Counter = v.InferOutput<typeof counterSchema>;

export const kernelLineSchema = v.strictObject({
  /** Rises by one with each record of /dev/kmsg. */
  sequence: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  /** Microseconds since boot. */
  microseconds: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  /** 0 (emergency) to 7 (debug). */
  level: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(7)),
  text: v.pipe(v.string(), v.maxLength(sampleLimits.kernelLine)),
});
export type KernelLine = v.InferOutput<typeof kernelLineSchema>;

/** One reading of all that there is. */
export const readingSchema = v.strictObject({
  /** Milliseconds on CLOCK_MONOTONIC. */
  at: v.number(),
  sensors: v.pipe(v.array(sensorSchema), v.maxLength(sampleLimits.sensors)),
  counters: v.pipe(v.array(counterSchema), v.maxLength(sampleLimits.counters)),
  /** Keys of sensors and counters that were there before and told nothing this time, with why. */
  missing: v.pipe(
    v.array(v.strictObject({ key, reason: v.pipe(v.string(), v.maxLength(256)) })),
    v.maxLength(sampleLimits.counters),
  ),
});
export type Reading = v.InferOutput<typeof readingSchema>;
