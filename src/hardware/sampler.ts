import { readFile } from "node:fs/promises";
import { readCounters } from "./counters.ts";
import { type Answer, type HostTree, reasonOf, tidyText } from "./host-tree.ts";
import { faultOf } from "./kernel-log.ts";
import { readThreads } from "./processors.ts";
import {
  type Counter,
  type KernelLine,
  type Reading,
  type Sensor,
  sampleLimits,
} from "./samples.ts";
import { findSensors, readClocks, type SensorSource, sensorValue } from "./sensors.ts";

/**
 * Reads sensors and counters again and again, and knows what there was: what has told something
 * before and tells nothing now is `missing`, with the reason. A sensor whose driver asks a disk is
 * read beside the others, because a dying disk lets nobody wait for its temperature alone.
 */
export class Sampler {
  readonly #tree: HostTree;
  readonly #readLater: (path: string) => Promise<string>;
  #sources: readonly SensorSource[] = [];
  #chips = "";
  /** Keys of `missing` that have told something. */
  readonly #known = new Set<string>();
  readonly #slow = new Map<string, SlowReading>();
  readonly #energy = new Map<string, { readonly joules: number; readonly at: number }>();
  readonly #faults = new Map<string, Counter>();

  /** @param readLater reads a file without holding anybody up */
  constructor(tree: HostTree, readLater = (path: string) => readFile(tree.path(path), "utf8")) {
    this.#tree = tree;
    this.#readLater = readLater;
  }

  /** @param at milliseconds on CLOCK_MONOTONIC */
  read(at: number): Reading {
    this.#findAgain();
    const missing = new Map<string, string>();
    const sensors = this.#sources.flatMap((source) => this.#readSensor(source, at, missing));
    const threads = readThreads(this.#tree);
    sensors.push(...readClocks(this.#tree, threads), ...this.#readPower(at));
    const counters: Counter[] = [...this.#faults.values()];
    for (const { source, component, answer } of readCounters(this.#tree, threads)) {
      if (answer.value !== null) counters.push({ source, component, value: answer.value });
      else missing.set(`${source} ${component}`, answer.reason);
    }
    const told = new Set([
      ...sensors.map(({ kind, key }) => `${kind} ${key}`),
      ...counters.map(({ source, component }) => `${source} ${component}`),
    ]);
    for (const key of told) this.#known.add(key);
    return {
      at,
      sensors: sensors.slice(0, sampleLimits.sensors),
      counters: counters.slice(0, sampleLimits.counters),
      missing: this.#missing(told, missing),
    };
  }

  /** Counts what names a fault of hardware: from the next reading on it is among the counters. */
  take(line: KernelLine): void {
    const found = faultOf(line.text);
    if (found === undefined) return;
    const isMachineCheck = found.fault === "machine-check";
    const name = isMachineCheck ? `log ${found.component}` : `${found.fault} ${found.component}`;
    const source = isMachineCheck ? "machine-check" : "kernel-log";
    // Who is named is the kernel's word, and may be a new one in every line.
    const isNew = !this.#faults.has(`${source} ${name}`);
    const component =
      isNew && this.#faults.size >= MOST_FAULTS ? "others" : name.slice(0, sampleLimits.key);
    const value = (this.#faults.get(`${source} ${component}`)?.value ?? 0) + 1;
    this.#faults.set(`${source} ${component}`, { source, component, value });
  }

  /** Drivers come and go: what chips there are is looked at each time, what they have only then. */
  #findAgain(): void {
    // Loaded anew, a driver may get the number that was another's.
    const named = this.#tree
      .names("sys/class/hwmon")
      .map((entry) => `${entry} ${this.#tree.place(`sys/class/hwmon/${entry}`)}`);
    const chips = [...named, ...this.#tree.names("sys/class/thermal")].join(" ");
    if (chips === this.#chips && this.#sources.length > 0) return;
    this.#chips = chips;
    this.#sources = findSensors(this.#tree);
  }

  #readSensor(source: SensorSource, at: number, missing: Map<string, string>): Sensor[] {
    const answer = this.#sensorAnswer(source, at);
    const { kind, key, critical } = source;
    if (answer.value !== null) return [{ kind, key, value: answer.value, critical }];
    const name = `${kind} ${key}`;
    if (this.#known.has(name) || !notFitted.has(answer.reason)) missing.set(name, answer.reason);
    return [];
  }

  #sensorAnswer(source: SensorSource, at: number): Answer<number> {
    const { faultPath } = source;
    if (faultPath !== null && this.#tree.number(faultPath).value === 1) {
      return { value: null, reason: "its chip says that it is faulty" };
    }
    const text = source.slow ? this.#askLater(source.path, at) : this.#tree.text(source.path);
    return sensorValue(source, text);
  }

  /** What the last asking gave; while one is on the way there is no other. */
  #askLater(path: string, at: number): Answer<string> {
    const before = this.#slow.get(path);
    if (before?.answer === undefined && before !== undefined) {
      const seconds = Math.round((at - before.since) / 1_000);
      return { value: null, reason: `no answer for ${seconds} s` };
    }
    const asked: SlowReading = { since: at, answer: undefined };
    this.#slow.set(path, asked);
    this.#readLater(path).then(
      (text) => {
        asked.answer = { value: tidyText(text) };
      },
      (error: unknown) => {
        asked.answer = { value: null, reason: reasonOf(error) };
      },
    );
    return before?.answer ?? { value: null, reason: NOT_ASKED };
  }

  /** RAPL counts energy: watts are the difference over the time since the reading before. */
  #readPower(at: number): Sensor[] {
    const folder = "sys/class/powercap";
    return this.#tree.names(folder).flatMap((zone): Sensor[] => {
      if (!/^[a-z-]*rapl:\d+(:\d+)?$/.test(zone)) return [];
      const joules = (this.#tree.number(`${folder}/${zone}/energy_uj`).value ?? Number.NaN) / 1e6;
      if (Number.isNaN(joules)) return [];
      const before = this.#energy.get(zone);
      this.#energy.set(zone, { joules, at });
      // Where the counter has begun anew, there is no difference.
      if (before === undefined || at <= before.at || joules < before.joules) return [];
      const value = ((joules - before.joules) * 1_000) / (at - before.at);
      const name = this.#tree.word(`${folder}/${zone}/name`).value ?? "energy";
      const key = `${zone}/${name}`.slice(0, sampleLimits.key);
      return [{ kind: "power", key, value: Math.round(value * 100) / 100, critical: null }];
    });
  }

  #missing(told: ReadonlySet<string>, reasons: ReadonlyMap<string, string>): Reading["missing"] {
    // A counter's that never told anything is a file that is there, and refuses: that is told too.
    const keys = new Set([...this.#known].filter((key) => !told.has(key)));
    for (const key of reasons.keys()) keys.add(key);
    return [...keys]
      .filter((key) => !isDerived(key))
      .slice(0, sampleLimits.counters)
      .map((key) => ({
        key: key.slice(0, sampleLimits.key),
        reason: (reasons.get(key) ?? "gone").slice(0, 256),
      }));
  }
}

interface SlowReading {
  readonly since: number;
  answer: Answer<string> | undefined;
}

/** Names that faults in the kernel's log are counted under. */
export const MOST_FAULTS = 512;
const NOT_ASKED = "it was asked for the first time";

/** A sensor that answers so from the beginning is one that the board does not have. */
const notFitted: ReadonlySet<string> = new Set([
  "ENODATA",
  "ENXIO",
  "ENOENT",
  "EAGAIN",
  "EOPNOTSUPP",
  NOT_ASKED,
]);

/** Watts of RAPL have a gap where the counter begins anew: that says nothing of the hardware. */
const isDerived = (key: string): boolean => /^power [a-z-]*rapl:/.test(key);
