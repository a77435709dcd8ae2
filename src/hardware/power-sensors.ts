import {
  getSensorReading,
  type IpmiDeviceId,
  type IpmiPort,
  readSensorRecords,
  type SensorRecord,
} from "./ipmi.ts";

/** What sensors say of power supplies: IPMI 2.0, Tables 42-2 and 42-3. Pure. */

export const supplyStates = [
  "present",
  "absent",
  "failure",
  "predictive-failure",
  "input-lost",
  "input-lost-or-out-of-range",
  "input-out-of-range",
  "configuration-error",
  "inactive",
  "non-critical",
  "critical",
  "non-recoverable",
] as const;
export const redundancyStates = [
  "fully-redundant",
  "redundancy-lost",
  "redundancy-degraded",
  "not-redundant-sufficient",
  "not-redundant-insufficient",
] as const;
export const powerStates = [...supplyStates, ...redundancyStates] as const;
export type PowerState = (typeof powerStates)[number];

export const isRedundancy = (state: PowerState): boolean =>
  redundancyStates.some((one) => one === state);

export interface PowerSensor {
  readonly name: string;
  /** "10.1": what it belongs to, and which of those; 10 is a power supply. */
  readonly entity: string;
  readonly states: readonly PowerState[];
}

export interface PowerSensors {
  readonly sensors: readonly PowerSensor[];
  /** Those that are there and were not read, and why. */
  readonly unread: readonly { readonly name: string; readonly reason: string }[];
}

const POWER_SUPPLY = 0x08;
const POWER_UNIT = 0x09;

const SPECIFIC = 0x6f;
const REDUNDANCY = 0x0b;
const PRESENCE = 0x08;
const SEVERITY = 0x07;
const THRESHOLDS = 0x01;

/** By the kind of reading, what each bit says. */
const states: Readonly<Record<number, readonly (PowerState | undefined)[]>> = {
  [SPECIFIC]: [
    "present",
    "failure",
    "predictive-failure",
    "input-lost",
    "input-lost-or-out-of-range",
    "input-out-of-range",
    "configuration-error",
    "inactive",
  ],
  [REDUNDANCY]: [
    "fully-redundant",
    "redundancy-lost",
    "redundancy-degraded",
    "not-redundant-sufficient",
    "not-redundant-sufficient",
    "not-redundant-insufficient",
    "redundancy-degraded",
    "redundancy-degraded",
  ],
  [PRESENCE]: ["absent", "present"],
  [SEVERITY]: [
    undefined,
    "non-critical",
    "critical",
    "non-recoverable",
    "non-critical",
    "critical",
    "non-recoverable",
  ],
  [THRESHOLDS]: [
    "non-critical",
    "critical",
    "non-recoverable",
    "non-critical",
    "critical",
    "non-recoverable",
  ],
};

/** Whether a sensor says something of power supplies that is understood. */
export function isPowerSensor({ type, reading }: SensorRecord): boolean {
  if (type === POWER_SUPPLY) return states[reading] !== undefined;
  // A power unit is what supplies stand in: of it only whether they suffice.
  return type === POWER_UNIT && reading === REDUNDANCY;
}

/** The states of a reading; of a supply that has no bit set nothing is known but its absence. */
export function decodeStates(record: SensorRecord, bits: number): PowerState[] {
  const of = states[record.reading] ?? [];
  const found = of.flatMap((state, bit) => ((bits & (1 << bit)) === 0 ? [] : (state ?? [])));
  const told = [...new Set(found)];
  // A sensor of its own kind, whose first bit is presence, and which does not say it.
  if (record.reading === SPECIFIC && !told.includes("present")) return ["absent", ...told];
  return told;
}

/** All sensors of power supplies, by the controller's own records. */
export function readPowerSensors(port: IpmiPort, from: IpmiDeviceId): PowerSensors {
  const { records, broken } = readSensorRecords(port, from);
  const sensors: PowerSensor[] = [];
  const unread: { name: string; reason: string }[] = [];
  if (broken !== undefined) unread.push({ name: "sensor records", reason: broken });
  for (const record of records.filter(isPowerSensor)) {
    const { name, entity, entityInstance, owner } = record;
    if (owner !== SERVICE_PROCESSOR) {
      unread.push({ name, reason: `another controller has it: 0x${owner.toString(16)}` });
      continue;
    }
    const reading = getSensorReading(port, record);
    if ("unavailable" in reading) unread.push({ name, reason: reading.unavailable });
    else {
      const told = decodeStates(record, reading.states);
      sensors.push({ name, entity: `${entity}.${entityInstance}`, states: told });
    }
  }
  return { sensors, unread };
}

const SERVICE_PROCESSOR = 0x20;

/** What ipmitool calls the states: lib/ipmi_sel.h of it. The longest that matches counts. */
const words: readonly (readonly [RegExp, PowerState])[] = [
  [/Presence detected|Device Present/i, "present"],
  [/Device Absent/i, "absent"],
  [/(?<!Predictive )Failure detected/i, "failure"],
  [/Predictive failure/i, "predictive-failure"],
  [/(AC|input) lost or out-of-range/i, "input-lost-or-out-of-range"],
  [/(AC|input) lost(?! or)/i, "input-lost"],
  [/(AC|input) out-of-range, but present/i, "input-out-of-range"],
  [/Config(uration)? Error/i, "configuration-error"],
  [/Power Supply Inactive/i, "inactive"],
  [/Fully Redundant/i, "fully-redundant"],
  [/Redundancy Lost/i, "redundancy-lost"],
  [/Redundancy Degraded/i, "redundancy-degraded"],
  [/Non-Redundant: Sufficient/i, "not-redundant-sufficient"],
  [/Non-Redundant: Insufficient/i, "not-redundant-insufficient"],
  [/Non-recoverable/i, "non-recoverable"],
  [/(?<!Non-)Critical/i, "critical"],
  [/Non-critical/i, "non-critical"],
];

/** Characters of ipmitool's output that are read, and of a line of it. */
export const ipmitoolLimits = { output: 1024 ** 2, line: 1_024 } as const;

/**
 * What `ipmitool -v sdr type "Power Supply"` says: for each sensor a paragraph of "Key : value",
 * with states in brackets below. Without -v a sensor of thresholds none of which is crossed looks
 * like a supply that is absent.
 */
export function parseIpmitool(output: string): PowerSensors {
  const sensors: PowerSensor[] = [];
  const unread: { name: string; reason: string }[] = [];
  for (const one of paragraphsOf(output.slice(0, ipmitoolLimits.output))) {
    const entity = /^\d{1,3}\.\d{1,3}/.exec(one.values.get("Entity ID") ?? "")?.[0];
    const reading = one.values.get("Sensor Reading");
    // One that only sends events has no reading.
    if (entity === undefined || reading === undefined) continue;
    const isOfThresholds = one.values.has("Sensor Type (Threshold)");
    const status = isOfThresholds ? (one.values.get("Status") ?? "Not Available") : "";
    if (/No Reading|Disabled/i.test(reading) || status === "Not Available") {
      const reason = status === "Not Available" ? status : reading;
      unread.push({ name: one.name, reason });
      continue;
    }
    const states = isOfThresholds ? statesIn(status) : discreteStates(one.asserted.join(", "));
    sensors.push({ name: one.name, entity, states });
  }
  return { sensors, unread };
}

interface Paragraph {
  readonly name: string;
  readonly values: Map<string, string>;
  /** What is in brackets below "States Asserted"; events have brackets too. */
  readonly asserted: string[];
}

function paragraphsOf(output: string): Paragraph[] {
  const found: Paragraph[] = [];
  let key = "";
  for (const line of output.split("\n")) {
    if (line.length > ipmitoolLimits.line) continue;
    const name = /^Sensor ID {14}: (.*) \(0x[0-9a-f]+\)$/.exec(line)?.[1];
    if (name !== undefined) found.push({ name: name.trim(), values: new Map(), asserted: [] });
    const last = found.at(-1);
    const [, word, value = ""] = /^ (\S[^:]*?) *: (.*)$/.exec(line) ?? [];
    if (word !== undefined) {
      key = word;
      last?.values.set(word, value.trim());
    }
    const state = /^ +\[(.*)\]$/.exec(line)?.[1];
    if (state !== undefined && key === "States Asserted") last?.asserted.push(state);
  }
  return found;
}

const statesIn = (text: string): PowerState[] =>
  words.flatMap(([pattern, state]) => (pattern.test(text) ? [state] : []));

function discreteStates(text: string): PowerState[] {
  const told = statesIn(text);
  // "Fully Redundant" stands in "Redundancy Degraded from Fully Redundant" as well.
  const degraded = told.includes("redundancy-degraded");
  const kept = told.filter((state) => !(degraded && state === "fully-redundant"));
  const isSpecific = kept.some((state) => specific.has(state));
  const isAbsent = (kept.length === 0 || isSpecific) && !kept.includes("present");
  return isAbsent ? ["absent", ...kept] : kept;
}

/** States of the kind of sensor that tells a presence. */
const specific = new Set(states[SPECIFIC]);
