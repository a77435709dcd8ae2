/** The lifecycle's table and diagram for people, as the lives of the tests see them. */
import { table } from "../../../src/fleet/lifecycle.ts";
import type { EventKind, Phase } from "../../../src/fleet/lifecycle-state.ts";
import { phases } from "./lives.ts";
import { keyOf, leadsToOf, type Seen } from "./observe.ts";

type Observed = ReadonlyMap<string, Seen>;

/** What stands in src/fleet/lifecycle-table.md. */
export function writeTableDocument(observed: Observed): string {
  const reasons: string[] = [];
  const sections = phases.flatMap((phase) => writePhase(observed, phase, reasons));
  return [
    "# The upgrade of a device: every phase × every event",
    "",
    "Made from the table in `lifecycle.ts` and from what the lives in `test/support/fleet-agent`",
    "see it do; a unit test compares. Written anew by",
    "`UPDATE_TABLES=1 bun test test/unit/fleet-agent-lifecycle.test.ts`.",
    "",
    "→ leads to these phases; = is handled and stays in the phase. Then what it does, in any of",
    "its cases; and what changes of the state. An answer to another order than the last, and what",
    "another candidate does, is ignored in every phase. A marker that waited is taken with what",
    "ends the upgrade before it.",
    "",
    ...sections,
    "## Why an event is ignored",
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
  ].join("\n");
}

function writePhase(observed: Observed, phase: Phase, reasons: string[]): string[] {
  const rows: string[] = [];
  const ignored = new Map<number, string[]>();
  for (const [event, cell] of sortedCells(phase)) {
    if (typeof cell === "object" && cell !== null && "ignored" in cell) {
      const reason = String(cell.ignored);
      if (!reasons.includes(reason)) reasons.push(reason);
      const number = reasons.indexOf(reason) + 1;
      ignored.set(number, [...(ignored.get(number) ?? []), event]);
      continue;
    }
    rows.push(writeCell(phase, event, observed.get(keyOf(phase, event))));
  }
  const others = [...ignored].map(([number, events]) => `${events.join(", ")} (${number})`);
  const lines = [`## ${phase}`, "", "| event | leads to | does | changes |", "|---|---|---|---|"];
  return [...lines, ...rows, "", `Ignored: ${others.join("; ")}.`, ""];
}

const sortedCells = (phase: Phase) =>
  (Object.entries(table[phase]) as [EventKind, unknown][]).sort(([one], [other]) =>
    one < other ? -1 : 1,
  );

/** One line: what a cell leads to, does and changes. */
export function writeCell(phase: Phase, event: EventKind, seen: Seen | undefined): string {
  const leadsTo = leadsToOf(seen);
  const others = leadsTo.filter((other) => other !== phase);
  // What changes nothing of the state has effects alone.
  const stays = leadsTo.includes(phase) || leadsTo.length === 0;
  const where = [stays ? "=" : "", others.length > 0 ? `→ ${others.join(", ")}` : ""];
  const effects = [...(seen?.effects ?? [])].sort().join(", ");
  const changes = [...(seen?.changes ?? [])].sort().join(", ");
  const cells = [event, where.filter((part) => part !== "").join(" "), effects, changes];
  return `| ${cells.join(" | ")} |`;
}

function writeTransitions(observed: Observed): string[] {
  const lines: string[] = [];
  for (const from of phases) {
    for (const to of phases) {
      if (from === to) continue;
      const events = sortedCells(from)
        .map(([event]) => event)
        .filter((event) => leadsToOf(observed.get(keyOf(from, event))).includes(to));
      if (events.length > 0) lines.push(`  ${from} --> ${to} : ${events.join(", ")}`);
    }
  }
  return lines;
}
