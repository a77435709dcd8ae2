import type { DiffPart, Dossier, Outlier } from "../protocol-operator.ts";
import { ask } from "./ask.ts";
import { badge, button, element, replace, section, table } from "./dom.ts";
import { valueText } from "./format.ts";
import type { Shell } from "./shell.ts";

/** A host beside its spec, and beside the other hosts of its spec. */

export function diffSection({ rules, view, inventory }: Dossier, shell: Shell): HTMLElement {
  const broken = rules.filter(({ outcome }) => outcome !== "PASS");
  const whole = element("div");
  const openWhole = async () => {
    const told = await shell.attempt(() =>
      ask<{ readonly parts: readonly DiffPart[] }>("GET", `/v1/vetting/runs/${view.run}/diff`),
    );
    if (told !== undefined) replace(whole, ...told.parts.map(partOf));
  };
  const words =
    rules.length === 0
      ? "No rule was held against this host yet: that is done when its inventory is there."
      : `${rules.length - broken.length} of ${rules.length} rules hold.`;
  return section(
    `Spec ${view.spec}`,
    element("p", {}, words),
    broken.length === 0 ? undefined : rowsOf(broken),
    inventory === null ? undefined : button("All of it, part by part", () => void openWhole()),
    whole,
  );
}

function rowsOf(rows: Dossier["rules"]): HTMLElement {
  return table(
    rows,
    [
      { title: "rule", kind: "tight", cell: ({ outcome }) => badge(outcome) },
      { title: "place", cell: ({ path }) => element("code", {}, path) },
      { title: "expected", cell: ({ expected }) => expected },
      { title: "found", cell: ({ found }) => found },
      { title: "because", cell: ({ because }) => because ?? "" },
    ],
    "rules",
  );
}

function partOf({ part, rows, broken, free }: DiffPart): HTMLElement {
  const words = `${part}: ${rows.length - broken} hold, ${broken} broken, ${free.length} free`;
  return element(
    "details",
    { open: broken > 0, "data-key": `part ${part}` },
    element("summary", {}, words),
    rows.length === 0 ? undefined : rowsOf(rows),
    free.length === 0
      ? undefined
      : table(
          free,
          [
            { title: "no rule is about", cell: ({ path }) => element("code", {}, path) },
            { title: "found", cell: ({ found }) => found },
          ],
          "what no rule is about",
        ),
  );
}

export function comparisonSection(shell: Shell, run: number): HTMLElement {
  const place = element("div");
  const compare = async () => {
    const told = await shell.attempt(() =>
      ask<{ readonly outliers: readonly Outlier[]; readonly hosts: number }>(
        "GET",
        `/v1/vetting/runs/${run}/outliers`,
      ),
    );
    if (told === undefined) return;
    const { outliers, hosts } = told;
    const others = hosts === 1 ? "the one other host" : `the ${hosts} other hosts`;
    const needed = hosts < 5 ? "; five are needed at least" : "";
    const words =
      outliers.length === 0
        ? `Nothing is far from ${others} of this spec${needed}.`
        : `Beside ${hosts} other hosts of this spec:`;
    replace(
      place,
      element("p", {}, words),
      outliers.length === 0 ? undefined : outlierTable(outliers),
    );
  };
  return section(
    "Beside the fleet",
    button("Compare with the other hosts", () => void compare()),
    place,
  );
}

function outlierTable(outliers: readonly Outlier[]): HTMLElement {
  return table(
    outliers,
    [
      {
        title: "what",
        cell: (one) =>
          one.kind === "fact" ? element("code", {}, one.path) : `${one.name} of ${one.component}`,
      },
      {
        title: "here",
        cell: (one) => (one.kind === "fact" ? one.found : `${valueText(one.value)} ${one.unit}`),
      },
      {
        title: "others",
        cell: (one) => (one.kind === "fact" ? one.usual : `${valueText(one.median)} ${one.unit}`),
      },
      {
        title: "by",
        cell: (one) =>
          one.kind === "fact"
            ? `${one.agreeing} of ${one.hosts} hosts`
            : `${valueText(one.deviations)} deviations`,
      },
    ],
    "outliers",
  );
}
