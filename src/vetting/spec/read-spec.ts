import type { Mistake } from "../../toml/configuration-reader.ts";
import { readDocument } from "../../toml/document.ts";
import { nearest } from "../../units/nearest.ts";
import { type Spec, specLimits, specSchema } from "../protocol-spec.ts";
import { stageProperties } from "../stages/properties.ts";
import { checkRules } from "./validate.ts";

/** A spec as people write it, in TOML or JSON; what is wrong is told with its place. Pure. */

export type ReadSpec =
  | { readonly kind: "read"; readonly spec: Spec }
  | { readonly kind: "refused"; readonly mistakes: readonly Mistake[] };

/** The schema first; what no host could be held to is a mistake as well. */
export function readSpec(text: string): ReadSpec {
  const outcome = readDocument(text, specSchema, specLimits.bytes);
  if (outcome.kind === "refused") return outcome;
  const mistakes = checkRules(outcome.value.rules).map(
    ({ index, at, column, expected, received, mend }): Mistake => {
      const path = ["rules", index, at];
      const where = column === 0 ? "" : ` at letter ${column}`;
      return {
        at: outcome.placeOf(path),
        path,
        expected: `${expected}${where}`,
        received,
        mend,
      };
    },
  );
  for (const { path, property, known } of unknownProperties(outcome.value)) {
    const meant = nearest(property, known);
    const mend = meant === undefined ? undefined : `Did you mean ${meant}?`;
    const expected = `one of ${known.join(", ")}`;
    mistakes.push({ at: outcome.placeOf(path), path, expected, received: property, mend });
  }
  if (mistakes.length > 0) return { kind: "refused", mistakes };
  return { kind: "read", spec: outcome.value };
}

/** Of what a stage must have seen, what no stage of that name ever says: it would never fail. */
function* unknownProperties({ stages }: Spec) {
  for (const [stage, known] of Object.entries(stageProperties)) {
    const { required } = stages[stage as keyof typeof stageProperties];
    for (const [index, property] of required.entries()) {
      if (known.includes(property)) continue;
      yield { path: ["stages", stage, "required", index], property, known };
    }
  }
}
