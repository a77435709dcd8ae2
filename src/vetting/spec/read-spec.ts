import type { Mistake } from "../../toml/configuration-reader.ts";
import { readDocument } from "../../toml/document.ts";
import { type Spec, specLimits, specSchema } from "../protocol-spec.ts";
import { checkRules } from "./validate.ts";

/** A spec as people write it, in TOML or JSON; what is wrong is told with its place. Pure. */

export type ReadSpec =
  | { readonly kind: "read"; readonly spec: Spec }
  | { readonly kind: "refused"; readonly mistakes: readonly Mistake[] };

/** The schema first; rules that no host could be held to are mistakes as well. */
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
  if (mistakes.length > 0) return { kind: "refused", mistakes };
  return { kind: "read", spec: outcome.value };
}
