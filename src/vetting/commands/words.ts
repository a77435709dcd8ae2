import { renderFacts, renderTableWithin } from "../../command-line/table.ts";
import { escapeControls } from "../../logging/format.ts";
import { formatDuration } from "../../units/units.ts";
import type { LogLine } from "../protocol.ts";
import {
  type Dossier,
  type HostView,
  type KeptResult,
  type RunView,
  stateWord,
} from "../protocol-operator.ts";

/** What an orchestrator's answers look like to people. */

const moment = (time: string | null) => time?.slice(0, 19).replace("T", " ") ?? "-";

/** @param width of the terminal; undefined where it is none */
export function renderHosts(hosts: readonly HostView[], width?: number): string {
  if (hosts.length === 0) return "there is no host yet: hostler vetting host add MAC\n";
  const columns = ["HOST", "CARD", "VERDICT", "RUN", "SPEC", "WINDOW UNTIL", "LAST SEEN"];
  const rows = hosts.map((host) => [
    host.enrolled ? host.name : `${host.name} (not taken in)`,
    host.mac,
    host.verdict === null ? "-" : `${host.verdict.verdict} (run ${host.verdict.run})`,
    host.run === null ? "-" : String(host.run),
    host.spec ?? "-",
    moment(host.window_until),
    moment(host.last_seen),
  ]);
  return renderTableWithin(columns, rows, width);
}

export function renderRuns(runs: readonly RunView[], width?: number): string {
  if (runs.length === 0) return "there is no such run: hostler vetting start HOST\n";
  const columns = ["RUN", "HOST", "STATE", "VERDICT", "SPEC", "HEARD", "CREATED", "REASON"];
  const rows = runs.map((run) => [
    String(run.run),
    run.host,
    stateText(run),
    run.verdict ?? "-",
    `${run.spec} ${run.spec_revision}`,
    run.silent_ms === null || run.ended !== null ? "-" : `${formatDuration(run.silent_ms)} ago`,
    moment(run.created),
    run.reason,
  ]);
  return renderTableWithin(columns, rows, width);
}

function stateText(view: RunView): string {
  const { activity, directives } = view;
  const part = activity?.kind === "stage" ? activity.progress : null;
  const progress = part === null ? "" : ` ${Math.floor(part * 100)} %`;
  const told = directives.map(({ kind }) => kind).join(", ");
  return `${stateWord(view)}${progress}${told === "" ? "" : ` (${told} waits)`}`;
}

/** One run, for a person who wants to know what is wrong with a host. */
export function renderDossier(dossier: Dossier, width: number | undefined): string {
  const { view, rules, results, events } = dossier;
  const broken = rules.filter(({ outcome }) => outcome !== "PASS");
  return [
    renderFacts(factsOf(view), width),
    "\n",
    renderStages(view, width),
    ...(broken.length === 0 ? [] : ["\n", renderRules(broken, width)]),
    ...findingsOf(results, width),
    "\n",
    renderTableWithin(
      ["WHEN", "WHO", "WHAT", "MESSAGE"],
      events.map(({ at, who, what, message }) => [moment(at), who, what, message]),
      width,
    ),
  ].join("");
}

function factsOf(view: RunView): (readonly [string, string])[] {
  const { hold, address, agent_version: version } = view;
  const place = address ?? "an unknown address";
  const facts: (readonly [string, string])[] = [
    ["RUN", `${view.run} of ${view.host} (${view.mac})`],
    ["SPEC", `${view.spec} revision ${view.spec_revision}`],
    ["STATE", stateText(view)],
    ["VERDICT", view.verdict ?? "-"],
    ["REASON", view.reason === "" ? "-" : view.reason],
    ["AGENT", version === null ? "-" : `hostler ${version} at ${place}`],
    ["CREATED", moment(view.created)],
    ["ENDED", moment(view.ended)],
  ];
  if (view.overrides.length > 0) facts.push(["OVERRIDDEN", view.overrides.join(", ")]);
  if (hold !== null) {
    facts.push(["KEY UNTIL", moment(hold.key_until)], ["HOST KEY", hold.host_key ?? "-"]);
  }
  if (view.dropped > 0) facts.push(["DROPPED", `${view.dropped} lines and readings`]);
  return facts;
}

function renderStages({ stages, overrides }: RunView, width: number | undefined): string {
  const rows = stages.map(({ stage, outcome, attempts, started, ended, summary }) => {
    const accepted = overrides.includes(stage) ? " (overridden)" : "";
    const word = `${outcome ?? "-"}${accepted}`;
    return [stage, word, String(attempts), moment(started), moment(ended), summary];
  });
  const columns = ["STAGE", "OUTCOME", "ATTEMPTS", "STARTED", "ENDED", "SUMMARY"];
  return renderTableWithin(columns, rows, width);
}

function renderRules(rules: Dossier["rules"], width: number | undefined): string {
  const rows = rules.map(({ outcome, path, rule, found }) => [outcome, path, rule, found]);
  return renderTableWithin(["RULE", "PLACE", "EXPECTED", "FOUND"], rows, width);
}

/** What was not well, of the last result of each stage. */
function findingsOf(results: readonly KeptResult[], width: number | undefined): string[] {
  const last = new Map(results.map((result) => [result.stage, result]));
  const rows = [...last.values()].flatMap(({ stage, report }) =>
    report.findings
      .filter(({ outcome }) => outcome !== "PASS")
      .map(({ outcome, component, message, expected, found }) => {
        const compared = expected === null ? "" : ` (expected ${expected}, found ${found ?? "-"})`;
        return [stage, outcome, component, `${message}${compared}`];
      }),
  );
  if (rows.length === 0) return [];
  return ["\n", renderTableWithin(["STAGE", "OUTCOME", "COMPONENT", "FINDING"], rows, width)];
}

export function renderLine({ time, level, stage, text }: LogLine): string {
  return `${[moment(time), level, stage ?? "-", text].map(escapeControls).join(" ")}\n`;
}
