/** The lifecycle's table and diagram for people, as the scenarios see them. */
import { type EventKind, type Phase, table } from "../../../src/process/lifecycle.ts";
import { eventKinds } from "./life.ts";
import type { Observed } from "./mutants.ts";
import { phases } from "./phases.ts";

/** What stands in src/process/lifecycle-table.md. */
export function writeTableDocument(observed: ReadonlyMap<string, Observed>): string {
  const reasons: string[] = [];
  const rows = phases.map((phase) => {
    const cells = eventKinds.map((event) => writeCell(observed, { phase, event }, reasons));
    return `| **${phase}** | ${cells.join(" | ")} |`;
  });
  const lines = [
    "# The life of a process: every phase × every event",
    "",
    "Made from the table in `lifecycle.ts` and from what the scenarios in",
    "`test/support/lifecycle-scenarios.ts` see it do; a unit test compares. Written anew by",
    "`UPDATE_TABLES=1 bun test test/unit/process-lifecycle.test.ts`.",
    "",
    "→ leads to these phases; = is handled and stays in the phase; a number is ignored, for the",
    "reason below. An event of another instance than the present one is ignored in every phase,",
    "but for the ending of a former instance, which is noted, and a start that was given up and",
    "happened after all, which is killed.",
    "",
    `| phase | ${eventKinds.join(" | ")} |`,
    `|---|${eventKinds.map(() => "---").join("|")}|`,
    ...rows,
    "",
    ...reasons.map((reason, index) => `${index + 1}. ${reason}`),
    "",
    "## Diagram",
    "",
    "```mermaid",
    "stateDiagram-v2",
    "  [*] --> idle",
    ...writeTransitions(observed),
    "```",
    "",
  ];
  return lines.join("\n");
}

interface Cell {
  readonly phase: Phase;
  readonly event: EventKind;
}

/** Adds the reason of an ignored cell to the reasons when it is a new one. */
function writeCell(
  observed: ReadonlyMap<string, Observed>,
  { phase, event }: Cell,
  reasons: string[],
): string {
  const cell: unknown = table[phase][event];
  if (typeof cell === "object" && cell !== null && "ignored" in cell) {
    const reason = String(cell.ignored);
    if (!reasons.includes(reason)) reasons.push(reason);
    return `${reasons.indexOf(reason) + 1}`;
  }
  const leadsTo = leadsToOf(observed.get(`${phase} × ${event}`));
  const others = leadsTo.filter((other) => other !== phase);
  // What changes nothing of the state has effects alone.
  const stays = leadsTo.includes(phase) || leadsTo.length === 0;
  return [stays ? "=" : "", others.length > 0 ? `→ ${others.join(", ")}` : ""]
    .filter((part) => part !== "")
    .join(" ");
}

/** In the order of the table, whatever the order of the scenarios. */
function leadsToOf(cell: Observed | undefined): Phase[] {
  return phases.filter((phase) => cell?.leadsTo.has(phase) === true);
}

function writeTransitions(observed: ReadonlyMap<string, Observed>): string[] {
  const lines: string[] = [];
  for (const from of phases) {
    for (const to of phases) {
      if (from === to) continue;
      const events = eventKinds.filter((event) =>
        leadsToOf(observed.get(`${from} × ${event}`)).includes(to),
      );
      if (events.length === 0) continue;
      lines.push(`  ${from} --> ${to} : ${events.join(", ")}`);
    }
  }
  return lines;
}
