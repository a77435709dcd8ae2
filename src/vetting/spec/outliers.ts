import type { Inventory } from "../../hardware/inventory.ts";
import type { Outlier } from "../protocol-operator.ts";
import type { Measurement } from "../protocol-result.ts";
import { factsOf } from "./facts.ts";
import { foundText } from "./match.ts";

/**
 * What of a host is far from all others that are held to the same spec, though no limit of the spec
 * is broken: a disk that reads at half the speed of its like, another firmware. By the median and
 * the median absolute deviation, which some bad hosts among the others do not move. Pure.
 */

export const outlierRules = {
  /** Other hosts that must have told the same, or nothing is said. */
  hosts: 5,
  /**
   * Deviations, scaled to those of a normal distribution, from which a value is far: B. Iglewicz,
   * D. Hoaglin, How to Detect and Handle Outliers (1993).
   */
  deviations: 3.5,
  /** Of the median: hosts that are all but equal have some deviation still. */
  leastSpread: 0.01,
  /** Of the other hosts, how many must have the same fact, that another one is far. */
  agreement: 0.9,
  /** Told of one host. */
  most: 256,
} as const;

/** 1.4826 median absolute deviations are one standard deviation of a normal distribution. */
const NORMAL = 1.4826;

export interface HostFacts {
  readonly run: number;
  readonly mac: string;
  readonly inventory: Inventory | null;
  readonly measurements: readonly Measurement[];
}

/** The farthest first; facts after measurements. A host is not compared with runs of its own. */
export function outliers(run: HostFacts, fleet: readonly HostFacts[]): Outlier[] {
  const others = lastOfEach(fleet.filter(({ mac }) => mac !== run.mac));
  const measured = measuredOutliers(run, others).toSorted(
    (left, right) => Math.abs(right.deviations) - Math.abs(left.deviations),
  );
  return [...measured, ...factOutliers(run, others)].slice(0, outlierRules.most);
}

/** A host that was vetted ten times is one host. */
function lastOfEach(fleet: readonly HostFacts[]): readonly HostFacts[] {
  const last = new Map<string, HostFacts>();
  for (const one of fleet) {
    const known = last.get(one.mac);
    if (known === undefined || known.run < one.run) last.set(one.mac, one);
  }
  return [...last.values()];
}

type Measured = Extract<Outlier, { readonly kind: "measurement" }>;

function measuredOutliers(run: HostFacts, others: readonly HostFacts[]): Measured[] {
  const known = new Map<string, { readonly values: number[]; hosts: number }>();
  for (const host of others) {
    for (const [kind, values] of valuesOf(host)) {
      const group = known.get(kind) ?? { values: [], hosts: 0 };
      group.values.push(...values);
      group.hosts += 1;
      known.set(kind, group);
    }
  }
  return run.measurements.flatMap((measurement): Measured[] => {
    const group = known.get(kindOf(measurement, run.inventory));
    if (group === undefined || group.hosts < outlierRules.hosts) return [];
    const median = medianOf(group.values);
    const spread = medianOf(group.values.map((value) => Math.abs(value - median))) * NORMAL;
    const least = Math.abs(median) * outlierRules.leastSpread;
    const deviations = (measurement.value - median) / Math.max(spread, least, Number.EPSILON);
    if (Math.abs(deviations) <= outlierRules.deviations) return [];
    const { name, component, value, unit } = measurement;
    const { hosts } = group;
    return [{ kind: "measurement", name, component, value, unit, median, deviations, hosts }];
  });
}

function valuesOf(host: HostFacts): Map<string, number[]> {
  const grouped = Map.groupBy(host.measurements, (one) => kindOf(one, host.inventory));
  return new Map([...grouped].map(([kind, all]) => [kind, all.map(({ value }) => value)]));
}

/** Disks are compared by their model, processors with each other, all else by its name. */
function kindOf({ name, unit, component }: Measurement, inventory: Inventory | null): string {
  return JSON.stringify([name, unit, likeOf(component, inventory)]);
}

function likeOf(component: string, inventory: Inventory | null): string {
  if (component.startsWith("disk ")) {
    const named = component.slice("disk ".length);
    const disk = inventory?.disks.find(({ serial, name }) => serial === named || name === named);
    return `disk of ${disk?.model ?? "any model"}`;
  }
  return component.replace(/^(cpu|core|node|gpu) ?\d+$/, "$1");
}

/** Of an even number, the mean of the two in the middle. */
export function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

function factOutliers(run: HostFacts, others: readonly HostFacts[]): Outlier[] {
  if (run.inventory === null) return [];
  const usual = usualFacts(others);
  return [...factTexts(run.inventory)].flatMap(([path, found]): Outlier[] => {
    const counts = usual.get(path);
    if (counts === undefined) return [];
    const hosts = [...counts.values()].reduce((sum, count) => sum + count, 0);
    if (hosts < outlierRules.hosts) return [];
    const [most, agreeing] = [...counts].reduce((best, one) => (one[1] > best[1] ? one : best));
    if (most === found || agreeing < hosts * outlierRules.agreement) return [];
    return [{ kind: "fact", path, found, usual: most, agreeing, hosts }];
  });
}

function usualFacts(hosts: readonly HostFacts[]): Map<string, Map<string, number>> {
  const usual = new Map<string, Map<string, number>>();
  for (const { inventory } of hosts) {
    if (inventory === null) continue;
    for (const [path, text] of factTexts(inventory)) {
      const counts = usual.get(path) ?? new Map<string, number>();
      counts.set(text, (counts.get(text) ?? 0) + 1);
      usual.set(path, counts);
    }
  }
  return usual;
}

function factTexts(inventory: Inventory): Map<string, string> {
  const texts = new Map<string, string>();
  for (const { path, match } of factsOf(inventory, { serials: false })) {
    if (match.is === "absent") texts.set(path, "absent");
    else if ("value" in match) texts.set(path, foundText(match.value, path));
  }
  return texts;
}
