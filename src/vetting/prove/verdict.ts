import type { Dossier } from "../protocol-operator.ts";
import type { Outcome } from "../protocol-result.ts";
import type { Expected } from "./faults.ts";

/** Whether a run found what was wrong with its host, and nothing else. Pure. */

/** Something that a run says is not well: FAIL or ERROR. */
export interface Complaint {
  readonly by: string;
  readonly outcome: Outcome;
  /** Of a finding; of a rule its place. */
  readonly code: string;
  readonly component: string;
  readonly message: string;
}

export type Proof =
  /** As it should be: `seen` is what said it, nothing for a healthy host. */
  | { readonly kind: "proven"; readonly seen: readonly Complaint[] }
  /** The detector did not fire. */
  | { readonly kind: "missed"; readonly others: readonly Complaint[] }
  /** Detectors fired that should not have. */
  | { readonly kind: "false-alarm"; readonly others: readonly Complaint[] }
  /** The run did not come to an end that says anything. */
  | { readonly kind: "broken"; readonly reason: string };

/** @param expected undefined: the host is healthy */
export function proofOf(dossier: Dossier, expected: Expected | undefined): Proof {
  const complaints = complaintsOf(dossier);
  const { state, verdict, reason } = dossier.view;
  if (expected === undefined) {
    if (complaints.length > 0) return { kind: "false-alarm", others: complaints };
    if (state !== "Completed") return { kind: "broken", reason: `it ended ${state}: ${reason}` };
    if (verdict === "passed" || verdict === "warned") return { kind: "proven", seen: [] };
    return { kind: "broken", reason: `it ended with the verdict ${verdict}: ${reason}` };
  }
  const seen = complaints.filter((complaint) => isExpected(complaint, expected));
  const others = complaints.filter((complaint) => !seen.includes(complaint));
  const said = (code: string) => expected.by === "SpecValidate" || code === expected.code;
  const failed = seen.filter(({ outcome, code }) => outcome === "FAIL" && said(code));
  if (failed.length === 0) return { kind: "missed", others: complaints };
  if (others.length > 0) return { kind: "false-alarm", others };
  // It was seen, and the run went on as if it had not been.
  if (state !== "FailedHolding" && verdict !== "failed") return { kind: "missed", others: seen };
  return { kind: "proven", seen };
}

function isExpected(complaint: Complaint, expected: Expected): boolean {
  if (complaint.by !== expected.by) return false;
  if (expected.by === "SpecValidate") return complaint.code.startsWith(expected.place);
  return complaint.code === expected.code || expected.also?.includes(complaint.code) === true;
}

function complaintsOf({ rules, results }: Dossier): Complaint[] {
  const isBad = (outcome: Outcome) => outcome === "FAIL" || outcome === "ERROR";
  const broken = rules
    .filter(({ outcome }) => isBad(outcome))
    .map(({ path, outcome, expected, found }) => ({
      by: "SpecValidate",
      ...{ outcome, code: path, component: path },
      message: `expected ${expected}, found ${found}`,
    }));
  const found = results.flatMap(({ stage, report }) =>
    report.findings
      .filter(({ outcome }) => isBad(outcome))
      .map(({ outcome, code, component, message }) => {
        return { by: stage, outcome, code, component, message };
      }),
  );
  return [...broken, ...found];
}
