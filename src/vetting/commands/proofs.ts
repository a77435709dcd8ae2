import { renderTableWithin } from "../../command-line/table.ts";
import { escapeControls } from "../../logging/format.ts";
import { formatDuration } from "../../units/units.ts";
import type { Proven, ProverEvent } from "../prove/prover.ts";
import type { Complaint } from "../prove/verdict.ts";

/** What the prover's answers look like to people. */

const words = {
  proven: "proven",
  missed: "MISSED",
  "false-alarm": "FALSE ALARM",
  broken: "BROKEN",
} as const;

/** @param width of the terminal; undefined where it is none */
export function renderProofs(proofs: readonly Proven[], width?: number): string {
  const rows = proofs.map((one) => [
    one.name,
    words[one.proof.kind],
    one.wrong,
    reasonOf(one),
    formatDuration(one.took),
  ]);
  return renderTableWithin(
    ["HOST", "TESTER", "WHAT IS WRONG", "WHAT WAS SAID", "TOOK"],
    rows,
    width,
  );
}

function reasonOf({ proof }: Proven): string {
  switch (proof.kind) {
    case "proven":
      return proof.seen.length === 0 ? "nothing, and it passed" : list(proof.seen);
    case "missed":
      return proof.others.length === 0 ? "nothing" : `not that, but ${list(proof.others)}`;
    case "false-alarm":
      return list(proof.others);
    case "broken":
      return escapeControls(proof.reason.split("\n")[0] ?? "");
  }
}

function list(complaints: readonly Complaint[]): string {
  const [first] = complaints;
  if (first === undefined) return "nothing";
  const more = complaints.length > 1 ? `, and ${complaints.length - 1} more` : "";
  return `${first.by} ${first.outcome}: ${first.message}${more}`;
}

/** A line for each step of a proof; undefined for what is not told. */
export function renderProgress(event: ProverEvent): string | undefined {
  switch (event.kind) {
    case "orchestrator":
      return `orchestrator at ${event.address}\n`;
    case "state":
      return `${event.name}: run ${event.run} is ${event.state}\n`;
    case "injected":
      return `${event.name}: ${event.what}\n`;
    case "console":
      return undefined;
  }
}
