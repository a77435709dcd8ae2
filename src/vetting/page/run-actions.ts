import type { RunView } from "../protocol-operator.ts";
import { ask } from "./ask.ts";
import { button, element, field } from "./dom.ts";
import type { Shell } from "./shell.ts";

/** What an operator can do to a run, and what can be taken along. */

export function runActions(view: RunView, shell: Shell): HTMLElement[] {
  const isOpen = view.verdict === null;
  const holds = isOpen && view.state === "FailedHolding";
  const path = `/v1/vetting/runs/${view.run}`;
  const reasoned = (title: string, call: string, action: string, isDangerous = false) =>
    button(
      `${title}…`,
      () => {
        const reason = element("input", { name: "reason", maxlength: 512 });
        shell.dialog({
          ...{ title: `${title}: run ${view.run} of ${view.host}`, action, isDangerous },
          content: [field("Why, for whoever looks", reason)],
          act: () => ask("POST", `${path}/${call}`, reason.value ? { reason: reason.value } : {}),
        });
      },
      isDangerous ? { class: "danger" } : {},
    );
  const actions = [
    holds ? reasoned("Try again", "retry", "Try again") : undefined,
    holds ? button("Accept…", () => openOverride(view, shell)) : undefined,
    // One that holds is released: there is no stage to cancel.
    isOpen && !holds ? reasoned("Cancel", "cancel", "Cancel the run", true) : undefined,
    isOpen ? reasoned("Abort", "abort", "Abort at once", true) : undefined,
  ];
  const name = element("span", { class: "faint" }, "Take along");
  return [
    element("div", { class: "actions" }, ...actions),
    element("div", { class: "actions files" }, name, ...downloads(path)),
  ];
}

function openOverride(view: RunView, shell: Shell): void {
  const failed = view.stages.filter(({ outcome }) => outcome === "FAIL" || outcome === "ERROR");
  const choices = ["SpecValidate", "identity", ...failed.map(({ stage }) => stage)];
  // What its reason begins with is what it holds for.
  const holdsFor = choices.find((choice) => view.reason.startsWith(choice)) ?? choices[0];
  const what = element(
    "select",
    { name: "what" },
    ...choices.map((choice) =>
      element("option", { value: choice, selected: choice === holdsFor }, choice),
    ),
  );
  const reason = element("input", { name: "reason", required: true, maxlength: 512 });
  shell.dialog({
    title: `Accept what failed of ${view.host}`,
    content: [
      field("What failed", what),
      field("Why it may be so", reason, "The verdict says it for ever"),
    ],
    action: "Accept",
    isDangerous: true,
    act: () =>
      ask("POST", `/v1/vetting/runs/${view.run}/override`, {
        ...{ what: what.value, reason: reason.value },
      }),
  });
}

function downloads(path: string): HTMLElement[] {
  const files = [
    ["report.html", "Report"],
    ["report.json", "JSON"],
    ["report.ocp.jsonl", "OCP lines"],
    ["manifest.json", "Manifest"],
  ] as const;
  return files.map(([name, label]) =>
    element(
      "a",
      {
        ...{ class: "button quiet", href: `${path}/${name}` },
        ...(name === "report.html" ? { target: "_blank", rel: "noopener" } : { download: "" }),
      },
      label,
    ),
  );
}
