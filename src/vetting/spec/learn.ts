import type { Inventory } from "../../hardware/inventory.ts";
import { type Rule, type Spec, type StageSettings, specLimits } from "../protocol-spec.ts";
import { type Fact, factsOf, type Part, parts } from "./facts.ts";
import { validateEach } from "./validate.ts";

/** A golden spec: what good hosts are made of, as rules for the next one. Pure. */

export interface LearnOptions {
  readonly name: string;
  readonly description?: string;
  /** Also what tells one machine from all others of its kind. */
  readonly serials: boolean;
  /** Parts that the spec says nothing of. */
  readonly without?: readonly Part[];
  /** How hard the next host is looked at. */
  readonly stages: StageSettings;
}

export interface Learned {
  readonly spec: Spec;
  /** What no rule could be made of, for people. */
  readonly leftOut: readonly string[];
}

export type LearnOutcome =
  | ({ readonly kind: "learned" } & Learned)
  /** More than a spec can hold; `rules` of each part. */
  | { readonly kind: "too-many"; readonly rules: Readonly<Record<Part, number>> };

/** Rules are what all of them share, and hold on each. */
export function learnSpec(
  inventories: readonly [Inventory, ...Inventory[]],
  options: LearnOptions,
): LearnOutcome {
  const [first, ...others] = inventories;
  const leftOut = new Set<string>();
  const facts = factsOf(first, options).filter(
    ({ part }) => options.without?.includes(part) !== true,
  );
  const shared = others.reduce<readonly Fact[]>((left, inventory) => {
    const known = new Set(factsOf(inventory, options).map(identityOfFact));
    return left.filter((fact) => known.has(identityOfFact(fact)));
  }, facts);
  const made = shared.map(({ part, path, match }) => {
    const rule: Rule = { path, match, outcome: "FAIL" };
    return { part, rule };
  });
  const reasons = whyNot(
    made.map(({ rule }) => rule),
    inventories,
  );
  const rules = made.filter((_, index) => reasons[index] === undefined);
  for (const [index, { rule }] of made.entries()) {
    const reason = reasons[index];
    if (reason !== undefined) leftOut.add(`${rule.path}: ${reason}`);
  }
  for (const { property, reason } of inventories.flatMap(({ unseen }) => unseen)) {
    leftOut.add(`${property}: not seen: ${reason}`);
  }
  if (rules.length > specLimits.rules) return tooMany(rules);
  const { name, description = "", stages } = options;
  const isOne = options.serials && others.length === 0;
  const spec: Spec = {
    name,
    description,
    rules: rules.map(({ rule }) => rule),
    expected_disks: isOne ? disksOf(first) : [],
    stages: isOne && stages.Network.speeds.length === 0 ? withSpeeds(stages, first) : stages,
  };
  return { kind: "learned", spec, leftOut: [...leftOut] };
}

/** The same place, held to the same: not what an other host happens to be at. */
const identityOfFact = ({ path, match }: Fact) => JSON.stringify([path, match]);

/** What firmware says twice, or at too great a length, is no rule: it would hold nowhere. */
function whyNot(
  rules: readonly Rule[],
  inventories: readonly Inventory[],
): readonly (string | undefined)[] {
  const judged = inventories.map((inventory) => validateEach(rules, inventory));
  return rules.map(({ path }, index) => {
    if (path.length > specLimits.path) return `its path has more than ${specLimits.path} letters`;
    const findings = judged.flatMap((each) => each[index] ?? []);
    const broken = findings.find(({ outcome }) => outcome !== "PASS");
    if (broken === undefined) return undefined;
    return `it does not hold where it was learned: ${broken.found}`;
  });
}

function tooMany(rules: readonly { readonly part: Part }[]): LearnOutcome {
  const counts = parts.map((part) => [part, rules.filter((rule) => rule.part === part).length]);
  return { kind: "too-many", rules: Object.fromEntries(counts) as Record<Part, number> };
}

function disksOf({ disks }: Inventory): Spec["expected_disks"] {
  return disks.flatMap(({ serial, size_bytes, removable, read_only }) =>
    serial === null || removable || read_only ? [] : [{ serial, size_bytes }],
  );
}

function withSpeeds(stages: StageSettings, { network }: Inventory): StageSettings {
  const speeds = network.flatMap(({ mac, speed_mbps }) =>
    speed_mbps === null || speed_mbps === 0 ? [] : [{ mac, mbps: speed_mbps }],
  );
  return { ...stages, Network: { ...stages.Network, speeds } };
}
