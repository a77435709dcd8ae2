import type { RunEvent, RunView } from "../protocol-operator.ts";
import { badge, type Column, element, table } from "./dom.ts";
import { durationText, percentText, timeText } from "./format.ts";

/** The way of a run. */

type StageView = RunView["stages"][number];

export function isStageUnderWay(run: RunView, stage: string): boolean {
  return run.activity?.kind === "stage" && run.activity.stage === stage && run.verdict === null;
}

/** Of a host that is lost nobody knows what it does. */
const underWayText = ({ state }: RunView) =>
  state === "Lost" ? "under way when it was last heard" : "under way";

/** One mark for each stage: a letter and a form, not a colour alone. */
export function stageDots(run: RunView): HTMLElement {
  const now = run.state === "Lost" ? "now still" : "now";
  const dots = run.stages.map(({ stage, outcome }) => {
    const isNow = isStageUnderWay(run, stage);
    const state = isNow ? now : (outcome ?? "none");
    const label = `${stage}: ${isNow ? underWayText(run) : (outcome ?? "to come")}`;
    return element("span", {
      class: `dot ${state}`,
      role: "img",
      "aria-label": label,
      title: label,
    });
  });
  return element("span", { class: "dots" }, ...dots);
}

/** Who accepted what failed, and why, by what was accepted. */
export type Accepted = ReadonlyMap<string, RunEvent>;

/** An operator's word counts until the stage has another result. */
export function acceptedOf(run: RunView, events: readonly RunEvent[]): Accepted {
  const accepted = new Map<string, RunEvent>();
  for (const event of events) {
    if (event.what === "override") accepted.set(event.message.split(":", 1)[0] ?? "", event);
  }
  for (const { stage, ended } of run.stages) {
    const at = accepted.get(stage)?.at;
    if (at !== undefined && ended !== null && Date.parse(at) < Date.parse(ended)) {
      accepted.delete(stage);
    }
  }
  return accepted;
}

/** "accepted by operator alice: the supply is on its way" */
export function acceptedText({ who, message }: RunEvent): string {
  const reason = message.includes(":") ? message.slice(message.indexOf(":")) : "";
  return `accepted by ${who}${reason}`;
}

export function stageTable(run: RunView, accepted: Accepted): HTMLElement {
  const columns: readonly Column<StageView>[] = [
    {
      title: "stage",
      kind: "tight",
      cell: ({ stage, attempts }) =>
        attempts === 0 ? stage : element("a", { href: `#${stage}` }, stage),
    },
    { title: "outcome", kind: "tight", cell: (stage) => outcomeOf(run, stage) },
    {
      title: "what came of it",
      kind: "wide",
      cell: (stage) => summaryOf(run, stage, accepted.get(stage.stage)),
    },
    { title: "attempts", kind: "number", cell: ({ attempts }) => attempts || "" },
    { title: "took", kind: "number", cell: (stage) => tookOf(run, stage) },
  ];
  return table(run.stages, columns, "stages");
}

function outcomeOf(run: RunView, { stage, outcome }: StageView) {
  if (isStageUnderWay(run, stage)) return progressOf(run);
  return outcome === null ? element("span", { class: "faint" }, "to come") : badge(outcome);
}

function summaryOf(run: RunView, { stage, summary }: StageView, by?: RunEvent) {
  if (isStageUnderWay(run, stage)) return run.state === "Lost" ? underWayText(run) : "";
  if (by === undefined) return summary;
  return element("span", {}, summary, element("small", { class: "accepted" }, acceptedText(by)));
}

function tookOf(run: RunView, { stage, started, ended }: StageView): string {
  if (started === null) return "";
  if (isStageUnderWay(run, stage)) return `since ${timeText(started)}`;
  return ended === null ? "" : durationText(Date.parse(ended) - Date.parse(started));
}

function progressOf({ activity }: RunView): HTMLElement {
  const part = activity?.kind === "stage" ? activity.progress : null;
  const bar = element("progress", { max: 1, value: part ?? undefined, "aria-label": "under way" });
  const words = part === null ? "under way" : percentText(part);
  return element("span", { class: "progress" }, bar, ` ${words}`);
}
