import type { LogLine } from "../protocol.ts";
import type { Dossier, KeptResult, LiveEvent, RunView } from "../protocol-operator.ts";
import { ask } from "./ask.ts";
import { badge, element, facts, replace, section } from "./dom.ts";
import { durationText, timeText } from "./format.ts";
import { runActions } from "./run-actions.ts";
import { RunCharts } from "./run-charts.ts";
import { comparisonSection, diffSection } from "./run-compare.ts";
import { diskSection } from "./run-disks.ts";
import { holdSection } from "./run-hold.ts";
import { RunLog } from "./run-log.ts";
import { resultSections } from "./run-results.ts";
import type { Shell, View } from "./shell.ts";
import { stageTable } from "./stages.ts";

/** One run: where it is, what it measures, what was found, and what an operator can do. */

export function runView(shell: Shell, number: number): View {
  const place = element("div", {}, element("p", { class: "faint" }, `Reads run ${number}`));
  const charts = new RunCharts();
  const log = new RunLog();
  let stop = () => {};
  let isGone = false;
  const open = async () => {
    const dossier = await shell.attempt(() =>
      ask<Dossier>("GET", `/v1/vetting/runs/${number}/dossier`),
    );
    if (dossier === undefined || isGone) return;
    const page = new RunPage(shell, dossier, { charts, log });
    replace(place, page.place);
    stop = shell.follow(`/v1/vetting/runs/${number}/events`, (event) => page.take(event));
  };
  void open();
  return {
    title: `Run ${number}`,
    place,
    stop: () => {
      isGone = true;
      stop();
      charts.destroy();
    },
  };
}

class RunPage {
  readonly place: HTMLElement;
  readonly #shell: Shell;
  readonly #charts: RunCharts;
  readonly #log: RunLog;
  #dossier: Dossier;
  readonly #parts = {
    head: element("div"),
    stages: element("div"),
    hold: element("div"),
    disks: element("div"),
    diff: element("div"),
    results: element("div"),
    events: element("div"),
  };

  constructor(
    shell: Shell,
    dossier: Dossier,
    parts: { readonly charts: RunCharts; readonly log: RunLog },
  ) {
    this.#shell = shell;
    this.#dossier = dossier;
    this.#charts = parts.charts;
    this.#log = parts.log;
    const { head, stages, hold, disks, diff, results, events } = this.#parts;
    const { run } = dossier.view;
    this.place = element(
      "div",
      {},
      ...[head, hold, section("Stages", stages), section("While it works", this.#charts.place)],
      ...[diff, disks, section("Log", this.#log.place), results, comparisonSection(shell, run)],
      section("What happened", events),
    );
    this.#charts.open(dossier);
    this.#log.add(dossier.log);
    this.#drawView();
    this.#drawFound();
  }

  take(event: LiveEvent): void {
    switch (event.kind) {
      case "run":
        this.#takeView(event.view);
        break;
      case "log":
        this.#log.add(event.lines as LogLine[]);
        break;
      case "sensors":
        this.#charts.add(event);
        break;
      case "result":
        this.#takeResult(event.result);
        break;
      case "event":
        this.#dossier = { ...this.#dossier, events: [...this.#dossier.events, event.event] };
        this.#drawEvents();
        break;
      case "host":
    }
  }

  #takeView(view: RunView): void {
    const before = this.#dossier.view;
    this.#dossier = { ...this.#dossier, view };
    this.#charts.setStages(view);
    this.#drawView();
    // Rules are held against the host when the inventory is there.
    const isJudged = before.state === "InventoryCheck" && view.state !== before.state;
    if (isJudged || before.verdict !== view.verdict) void this.#readAgain();
  }

  #takeResult(result: KeptResult): void {
    const isKnown = this.#dossier.results.some(({ hash }) => hash === result.hash);
    if (isKnown) return;
    const { inventory } = result.report;
    this.#dossier = {
      ...this.#dossier,
      results: [...this.#dossier.results, result],
      ...(inventory !== undefined && { inventory }),
    };
    this.#drawFound();
  }

  async #readAgain(): Promise<void> {
    const { run } = this.#dossier.view;
    const dossier = await this.#shell.attempt(() =>
      ask<Dossier>("GET", `/v1/vetting/runs/${run}/dossier`),
    );
    if (dossier === undefined) return;
    this.#dossier = dossier;
    this.#drawView();
    this.#drawFound();
  }

  #drawView(): void {
    const { view } = this.#dossier;
    const { head, stages, hold } = this.#parts;
    replace(head, headOf(view, this.#shell));
    replace(stages, stageTable(view));
    replace(hold, holdSection(view, this.#shell));
    this.#drawEvents();
  }

  #drawFound(): void {
    const { disks, diff, results } = this.#parts;
    replace(diff, diffSection(this.#dossier, this.#shell));
    replace(disks, diskSection(this.#dossier, this.#shell));
    replace(results, ...resultSections(this.#dossier.results));
  }

  #drawEvents(): void {
    const items = this.#dossier.events
      .toReversed()
      .map(({ at, who, what, message }) =>
        element(
          "li",
          {},
          element("time", { datetime: at }, timeText(at)),
          ` ${what} by ${who}`,
          message === "" ? undefined : element("span", { class: "faint" }, ` — ${message}`),
        ),
      );
    replace(this.#parts.events, element("ol", { class: "events", tabindex: 0 }, ...items));
  }
}

function headOf(view: RunView, shell: Shell): HTMLElement {
  const word = view.verdict ?? view.state;
  const silent = view.silent_ms;
  const isSilent = view.verdict === null && silent !== null && silent > 30_000;
  return element(
    "header",
    { class: "run-head" },
    element("h1", {}, `${view.host} `, badge(word)),
    view.reason === "" ? undefined : element("p", { class: "reason" }, view.reason),
    isSilent ? element("p", { class: "warn" }, `Silent for ${durationText(silent)}`) : undefined,
    facts([
      ["run", view.run],
      ["boots from", view.mac],
      ["spec", `${view.spec}, revision ${view.spec_revision}`],
      ["address", view.address],
      ["created", timeText(view.created)],
      ["ended", timeText(view.ended)],
      ["overridden", view.overrides.length === 0 ? null : view.overrides.join(", ")],
      ["waits", view.directives.map(({ kind }) => kind).join(", ")],
      ["lost on the way", view.dropped === 0 ? null : `${view.dropped} lines and readings`],
    ]),
    runActions(view, shell),
  );
}
