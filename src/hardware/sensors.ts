import type { Answer, HostTree } from "./host-tree.ts";
import { pciOf } from "./pci-address.ts";
import { uniquely } from "./power-supplies.ts";
import { CPU_FOLDER, type Threads } from "./processors.ts";
import { type Sensor, sampleLimits } from "./samples.ts";

/**
 * Where a sensor is read, and what its numbers mean. Looking for them costs hundreds of files, and
 * reading them one each, so that this is done once, and again when something has gone.
 */
export interface SensorSource {
  readonly kind: Sensor["kind"];
  /** Does not depend on the order in which drivers were loaded: the device's own name is in it. */
  readonly key: string;
  readonly path: string;
  /** How much of the file's number is one of `unitOf`: 1,000 for millidegrees. */
  readonly scale: number;
  readonly critical: number | null;
  /** A file that says 1 when the sensor is not to be believed: Documentation/hwmon/sysfs. */
  readonly faultPath: string | null;
  /** Its driver asks a disk, which may take a minute to say nothing. */
  readonly slow: boolean;
}

/** All sensors of hwmon, those thermal zones that no chip covers, and the processors' clocks. */
export function findSensors(tree: HostTree): SensorSource[] {
  const chips = findChips(tree);
  const zones = findThermalZones(tree, new Set(chips.map(({ name }) => name)));
  const sources = [
    ...uniquely(chips, ({ key }) => key).flatMap(([key, chip]) => readChip(tree, key, chip)),
    ...zones,
  ];
  return uniquely(sources, ({ kind, key }) => `${kind} ${key}`)
    .map(([unique, source]) => ({ ...source, key: shortKey(unique.slice(source.kind.length + 1)) }))
    .slice(0, sampleLimits.sensors - MOST_CLOCKS);
}

const shortKey = (key: string): string => key.slice(0, sampleLimits.key);

interface Chip {
  readonly name: string;
  readonly key: string;
  readonly at: string;
}

const HWMON = "sys/class/hwmon";

function findChips(tree: HostTree): Chip[] {
  return tree.names(HWMON).map((entry) => {
    const at = `${HWMON}/${entry}`;
    const name = tree.word(`${at}/name`).value ?? "unnamed";
    return { name, key: chipKey(name, tree.place(`${at}/device`)), at };
  });
}

/**
 * "coretemp.0", "nvme 0000:01:00.0", "jc42 1-0018": the name, and where it stands. `nvme0`,
 * `hwmon3` and `thermal_zone2` are numbers of this boot: the device above is taken, or none.
 */
export function chipKey(name: string, place: string | null): string {
  if (place === null) return name;
  const own = place.split("/").at(-1) ?? "";
  if (own.startsWith(name) && own !== name && !/^nvme\d+$/.test(own)) return own;
  const isOfThisBoot = /^(nvme\d+|hwmon\d+|thermal_zone\d+|\d+:\d+:\d+:\d+)$/.test(own);
  const where = isOfThisBoot ? pciOf(place) : own;
  return where === null || where === name ? name : `${name} ${where}`;
}

type Scaled = Pick<SensorSource, "kind" | "scale">;
const kinds: Readonly<Record<string, Scaled>> = {
  temp: { kind: "temperature", scale: 1_000 },
  fan: { kind: "fan", scale: 1 },
  power: { kind: "power", scale: 1_000_000 },
  in: { kind: "voltage", scale: 1_000 },
  curr: { kind: "current", scale: 1_000 },
  freq: { kind: "frequency", scale: 1_000_000 },
};

/** Chips whose driver asks a disk: NVMe's log page, and SCT of ATA. */
const asksDisk: ReadonlySet<string> = new Set(["nvme", "drivetemp"]);

function readChip(tree: HostTree, key: string, { name, at }: Chip): SensorSource[] {
  const files = tree.names(at);
  const has = new Set(files);
  return files.flatMap((file): SensorSource[] => {
    const match = /^(temp|fan|power|in|curr|freq)(\d+)_(input|average)$/.exec(file);
    const scaled = kinds[match?.[1] ?? ""];
    if (match === null || scaled === undefined) return [];
    const channel = `${match[1]}${match[2]}`;
    // Power has one of both, or both: then what it is now.
    if (match[3] === "average" && has.has(`${channel}_input`)) return [];
    const label = has.has(`${channel}_label`) ? tree.word(`${at}/${channel}_label`).value : null;
    return [
      {
        ...scaled,
        key: `${key}/${label ?? channel}`,
        path: `${at}/${file}`,
        critical: readCritical(tree, `${at}/${channel}_crit`, has.has(`${channel}_crit`), scaled),
        faultPath: has.has(`${channel}_fault`) ? `${at}/${channel}_fault` : null,
        slow: asksDisk.has(name),
      },
    ];
  });
}

/** Above this a chip's register was never set: 65,261.85 °C was seen. */
const HOTTEST = 200;

function readCritical(
  tree: HostTree,
  path: string,
  isThere: boolean,
  { kind, scale }: Scaled,
): number | null {
  const value = isThere ? tree.number(path).value : null;
  if (value === null) return null;
  const critical = value / scale;
  if (kind === "temperature" && (critical <= 0 || critical > HOTTEST)) return null;
  return critical;
}

const ZONES = "sys/class/thermal";

/** The kernel gives most zones a chip of their own, under hwmon: those are covered. */
function findThermalZones(tree: HostTree, chips: ReadonlySet<string>): SensorSource[] {
  return tree.names(ZONES).flatMap((entry): SensorSource[] => {
    if (!/^thermal_zone\d+$/.test(entry)) return [];
    const at = `${ZONES}/${entry}`;
    const type = tree.word(`${at}/type`).value ?? entry;
    const isCovered =
      tree.names(at).some((name) => /^hwmon\d+$/.test(name)) ||
      chips.has(type) ||
      chips.has(type.replaceAll("-", "_"));
    if (isCovered) return [];
    return [
      {
        kind: "temperature",
        key: `thermal/${type}`,
        path: `${at}/temp`,
        scale: 1_000,
        critical: tripOf(tree, at),
        faultPath: null,
        slow: false,
      },
    ];
  });
}

function tripOf(tree: HostTree, at: string): number | null {
  for (const name of tree.names(at)) {
    const match = /^trip_point_(\d+)_type$/.exec(name);
    if (match === null || tree.word(`${at}/${name}`).value !== "critical") continue;
    return readCritical(tree, `${at}/trip_point_${match[1]}_temp`, true, {
      kind: "temperature",
      scale: 1_000,
    });
  }
  return null;
}

/** What a sensor says now; `text` is its file's. */
export function sensorValue(source: SensorSource, text: Answer<string>): Answer<number> {
  if (text.value === null) return text;
  if (!/^-?\d{1,15}$/.test(text.value)) {
    return { value: null, reason: `not a number: ${JSON.stringify(text.value.slice(0, 40))}` };
  }
  return { value: Number(text.value) / source.scale };
}

/** Clocks are told for each processor: the mean of its threads, and the lowest. */
const MOST_CLOCKS = 128;

/** Of each package, from cpufreq: a processor that throttles shows here before it counts. */
export function readClocks(tree: HostTree, threads: Threads): Sensor[] {
  const packages = new Map<number, number[]>();
  for (const thread of threads.online) {
    const clock = tree.number(`${CPU_FOLDER}/cpu${thread}/cpufreq/scaling_cur_freq`).value;
    if (clock === null || clock <= 0) continue;
    const number = threads.packageOf(thread);
    const clocks = packages.get(number) ?? [];
    clocks.push(clock / 1_000);
    packages.set(number, clocks);
  }
  const sensor = (key: string, value: number): Sensor => ({
    kind: "frequency",
    key,
    value: Math.round(value),
    critical: null,
  });
  return [...packages]
    .slice(0, MOST_CLOCKS / 2)
    .flatMap(([number, clocks]) => [
      sensor(
        `package${number}/mean`,
        clocks.reduce((sum, clock) => sum + clock, 0) / clocks.length,
      ),
      sensor(`package${number}/lowest`, Math.min(...clocks)),
    ]);
}
