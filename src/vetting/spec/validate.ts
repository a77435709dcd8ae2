import type { Inventory } from "../../hardware/inventory.ts";
import type { Rule, RuleFinding, Spec } from "../protocol-spec.ts";
import { cut, expectedText, foundText, holds, type Match, ruleText } from "./match.ts";
import type { PathRefusal, Scalar } from "./path.ts";
import {
  type KnownPath,
  knownPath,
  type Place,
  type PlaceType,
  placesAt,
  typeOf,
} from "./place.ts";
import { hidingOf, type Unseen, unseenOf } from "./unseen.ts";

/** A spec held against one host. Pure. */

export const findingLimits = {
  /** Of one rule with `[*]`: broken places that are named; then one that counts the rest. */
  perRule: 32,
  /** Of a spec: over it, each rule that follows names its first broken place alone. */
  total: 8_192,
} as const;

/** What is wrong with a rule itself, whatever the host. */
export interface RuleMistake {
  readonly index: number;
  readonly at: "path" | "match";
  /** "column 14: expected …, received …" is made of these. */
  readonly column: number;
  readonly expected: string;
  readonly received: string;
  readonly mend?: string;
}

/** Rules that no host could be held to; those of a spec that was checked have none. */
export function checkRules(rules: readonly Rule[]): readonly RuleMistake[] {
  return rules.flatMap((rule, index) => {
    const known = readRule(rule);
    return known.kind === "path" ? [] : [{ index, ...known.mistake }];
  });
}

type ReadRule =
  | KnownPath
  | { readonly kind: "mistake"; readonly mistake: Omit<RuleMistake, "index"> };

function readRule({ path, match }: Rule): ReadRule {
  const known = knownPath(path);
  if (known.kind === "refused") return { kind: "mistake", mistake: mistakeOf(known) };
  const wrong = checkMatch(match, known.type);
  if (wrong === undefined) return known;
  return { kind: "mistake", mistake: { at: "match", column: 0, ...wrong } };
}

function mistakeOf({ column, expected, received, mend }: PathRefusal): Omit<RuleMistake, "index"> {
  return { at: "path", column, expected, received, ...(mend !== undefined && { mend }) };
}

function checkMatch(
  match: Match,
  type: PlaceType,
): { readonly expected: string; readonly received: string } | undefined {
  const scalar = type === "count" ? "number" : type;
  switch (match.is) {
    case "present":
    case "absent":
      if (type !== "count") return undefined;
      return { expected: "equal, one-of, at-least or at-most for a count", received: match.is };
    case "like":
      return scalar === "text" ? undefined : refusedMatch(match.is, type);
    case "at-least":
    case "at-most":
      return scalar === "number" ? undefined : refusedMatch(match.is, type);
    case "equal":
    case "one-of": {
      if (type === "table" || type === "list") return refusedMatch(match.is, type);
      const values = match.is === "equal" ? [match.value] : match.values;
      const other = values.find((value) => typeOf(value) !== scalar);
      if (other === undefined) return undefined;
      return { expected: `a ${scalar} there`, received: JSON.stringify(other) };
    }
  }
}

function refusedMatch(is: Match["is"], type: PlaceType) {
  return { expected: `a match that a ${type} can have`, received: is };
}

/** Every rule, in its order: one finding where it holds, one for each place where it is broken. */
export function validateSpec(spec: Pick<Spec, "rules">, inventory: Inventory): RuleFinding[] {
  return validateEach(spec.rules, inventory).flat();
}

/** The findings of each rule, one at least. */
export function validateEach(rules: readonly Rule[], inventory: Inventory): RuleFinding[][] {
  const unseen = unseenOf(inventory);
  let total = 0;
  return rules.map((rule) => {
    const most = total < findingLimits.total ? findingLimits.perRule : 1;
    const findings = findingsOf(rule, { inventory, unseen, most });
    total += findings.length;
    return findings;
  });
}

function findingsOf(
  rule: Rule,
  host: {
    readonly inventory: Inventory;
    readonly unseen: readonly Unseen[];
    readonly most: number;
  },
): RuleFinding[] {
  const known = readRule(rule);
  if (known.kind === "mistake") {
    const { expected, received } = known.mistake;
    const found = cut(
      `the rule says nothing of a host: expected ${expected}, received ${received}`,
    );
    return [{ ...told(rule, rule.path), found, outcome: "ERROR" }];
  }
  const places = placesAt(known, host.inventory);
  const judged = places.map((place) => judge(rule.match, place, known.type, host.unseen));
  const broken = judged.filter(({ isBroken }) => isBroken);
  if (broken.length === 0) {
    const found = judged.length === 1 ? (judged[0]?.found ?? "") : shared(judged);
    return [{ ...told(rule, rule.path), found, outcome: "PASS" }];
  }
  const named = broken.slice(0, host.most);
  const findings = named.map(
    ({ path, found }): RuleFinding => ({ ...told(rule, path), found, outcome: rule.outcome }),
  );
  const more = broken.length - named.length;
  if (more > 0) {
    findings.push({ ...told(rule, rule.path), found: `${more} more`, outcome: rule.outcome });
  }
  return findings;
}

function told({ path: asked, match, because }: Rule, path: string) {
  return {
    // A place with a long key may be longer than any path of a rule.
    path: path.length <= 256 ? path : asked,
    rule: ruleText(match),
    expected: expectedText(match, asked),
    because: because ?? null,
  };
}

/** Of several places that are all well: what they have, when that is one thing. */
function shared(judged: readonly Judged[]): string {
  const different = new Set(judged.map(({ found }) => found));
  return cut(`${[...different].slice(0, 4).join(", ")} (${judged.length} of them)`);
}

interface Judged {
  readonly path: string;
  readonly found: string;
  readonly isBroken: boolean;
}

function judge(match: Match, place: Place, type: PlaceType, unseen: readonly Unseen[]): Judged {
  const { path, value } = place;
  const hidden = hidingOf(place, unseen);
  if (value === null || value === undefined) {
    const found = absentText(place, hidden, unseen);
    return { path, found, isBroken: match.is !== "absent" || hidden !== undefined };
  }
  const found = foundText(value, path);
  const isBroken = !holds(match, value as Scalar);
  // What is counted may be more than was seen: only "at least" is proven by it.
  if (type === "count" && hidden !== undefined && (isBroken || match.is !== "at-least")) {
    return { path, found: cut(`${found}; not seen: ${hidden.reason}`), isBroken: true };
  }
  return { path, found, isBroken };
}

function absentText(place: Place, hidden: Unseen | undefined, unseen: readonly Unseen[]): string {
  if (hidden !== undefined) return cut(`not seen: ${hidden.reason}`);
  if (place.value === null) return "not told by this host";
  const missed = missedKey(place, unseen);
  if (missed === undefined) return "not there";
  return cut(`not there; ${missed.property} was not seen: ${missed.reason}`);
}

/** An element whose own key could not be read may be the one that is missing. */
function missedKey(place: Place, unseen: readonly Unseen[]): Unseen | undefined {
  const at = place.steps.findIndex(
    ({ element, key }) => element === undefined && key !== undefined,
  );
  const list = place.steps[at]?.word;
  if (list === undefined) return undefined;
  return unseen.find(({ steps }) => steps?.[at]?.word === list && steps.length === at + 2);
}
