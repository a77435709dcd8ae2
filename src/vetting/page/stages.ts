import type { RunView } from "../protocol-operator.ts";
import { badge, element, table } from "./dom.ts";
import { durationText } from "./format.ts";

/** The way of a run. */

export function isStageUnderWay(run: RunView, stage: string): boolean {
  return run.activity?.kind === "stage" && run.activity.stage === stage && run.verdict === null;
}

/** One mark for each stage. */
export function stageDots(run: RunView): HTMLElement {
  const dots = run.stages.map(({ stage, outcome }) => {
    const state = isStageUnderWay(run, stage) ? "now" : (outcome ?? "none");
    const accepted = run.overrides.includes(stage) ? ", overridden" : "";
    const label = `${stage}: ${state === "now" ? "under way" : (outcome ?? "to come")}${accepted}`;
    return element("span", {
      class: `dot ${state}`,
      role: "img",
      "aria-label": label,
      title: label,
    });
  });
  return element("span", { class: "dots" }, ...dots);
}

export function stageTable(run: RunView): HTMLElement {
  return table(run.stages, [
    { title: "stage", cell: ({ stage }) => element("a", { href: `#${stage}` }, stage) },
    {
      title: "outcome",
      cell: ({ stage, outcome }) => {
        if (isStageUnderWay(run, stage)) return progressOf(run);
        if (outcome === null) return "to come";
        const isAccepted = run.overrides.includes(stage);
        return element("span", {}, badge(outcome), isAccepted ? " overridden" : undefined);
      },
    },
    { title: "what came of it", cell: ({ summary }) => summary },
    { title: "attempts", isNumber: true, cell: ({ attempts }) => attempts },
    {
      title: "took",
      isNumber: true,
      cell: ({ started, ended }) =>
        started === null || ended === null
          ? ""
          : durationText(Date.parse(ended) - Date.parse(started)),
    },
  ]);
}

function progressOf({ activity }: RunView): HTMLElement {
  const part = activity?.kind === "stage" ? activity.progress : null;
  return element("progress", { max: 1, value: part ?? undefined, "aria-label": "under way" });
}
