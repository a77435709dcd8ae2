import type { LogLine } from "../protocol.ts";
import type { Dossier, KeptResult, LiveEvent, RunEvent, RunView } from "../protocol-operator.ts";
import { ask } from "./ask.ts";
import { badge, element, facts, replace, section } from "./dom.ts";
import { reasonText, timeText } from "./format.ts";
import { runActions } from "./run-actions.ts";
import { RunCharts } from "./run-charts.ts";
import { comparisonSection, diffSection } from "./run-compare.ts";
import { diskSection } from "./run-disks.ts";
import { holdSection } from "./run-hold.ts";
import { RunLog } from "./run-log.ts";
import { resultSections } from "./run-results.ts";
import type { Shell, View } from "./shell.ts";
import { silenceText, type ToldRun } from "./silence.ts";
import { type Accepted, acceptedOf, acceptedText, stageTable } from "./stages.ts";
import { every } from "./timers.ts";

/** One run: where it is, what it measures, what was found, and what an operator can do. */

/** Milliseconds between two looks at how long a host has been silent. */
const SILENCE_PACE = 1_000;

export function runView(shell: Shell, number: number): View {
  const place = element("div", {}, element("p", { class: "faint" }, `Reads run ${number}`));
  const charts = new RunCharts();
  const log = new RunLog();
  const path = `/v1/vetting/runs/${number}`;
  let page: RunPage | undefined;
  let isGone = false;
  // Followed first, and read then: what happens in between is in one of the two.
  const early: LiveEvent[] = [];
  const stop = shell.follow(
    `${path}/events`,
    (event) => (page === undefined ? early.push(event) : page.take(event)),
    () => void page?.readAgain(),
  );
  const open = async () => {
    const dossier = await shell.attempt(() => ask<Dossier>("GET", `${path}/dossier`));
    if (isGone) return;
    if (dossier === undefined) {
      stop();
      const back = element("a", { href: "#/" }, "To the fleet");
      replace(place, element("h1", {}, `Run ${number}`), "It cannot be shown. ", back);
      return;
    }
    document.title = `Run ${number}, ${dossier.view.host} · hostler vetting`;
    page = new RunPage(shell, dossier, { charts, log });
    for (const event of early.splice(0)) page.take(event);
    replace(place, page.place);
  };
  void open();
  const endLooking = every(SILENCE_PACE, () => page?.drawSilence());
  return {
    title: `Run ${number}`,
    place,
    stop: () => {
      isGone = true;
      endLooking();
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
  #told: ToldRun;
  readonly #silence = element("p", { class: "warn", hidden: true });
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
    this.#told = { view: dossier.view, at: performance.now() };
    this.#charts = parts.charts;
    this.#log = parts.log;
    const { head, stages, hold, disks, diff, results, events } = this.#parts;
    const { run } = dossier.view;
    this.place = element(
      "div",
      {},
      ...[head, this.#silence, hold, section("Stages", stages)],
      ...[section("While it works", this.#charts.place), section("What was found", results)],
      ...[diff, disks, section("Log", this.#log.place), comparisonSection(shell, run)],
      section("What happened", events),
    );
    this.#open(dossier);
  }

  #open(dossier: Dossier): void {
    this.#dossier = dossier;
    this.#told = { view: dossier.view, at: performance.now() };
    this.#charts.open(dossier);
    this.#log.add(dossier.log);
    this.#drawView();
    this.#drawDisks();
    this.#drawEvents();
    this.#drawResults();
    this.#drawDiff();
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
        this.#takeEvent(event.event);
        break;
      case "host":
    }
  }

  #takeView(view: RunView): void {
    const before = this.#dossier.view;
    this.#dossier = { ...this.#dossier, view };
    this.#told = { view, at: performance.now() };
    this.#charts.setStages(view);
    this.#drawView();
    if (before.state !== view.state) {
      this.#drawDisks();
      const reason = reasonText(view.reason);
      this.#shell.announce(`${view.host}: ${view.verdict ?? view.state}. ${reason}`);
    }
    // Rules are held against the host when the inventory is there.
    const isJudged = before.state === "InventoryCheck" && view.state !== before.state;
    if (isJudged || before.verdict !== view.verdict) void this.readAgain();
  }

  #takeEvent(event: RunEvent): void {
    const { events } = this.#dossier;
    // What came with the dossier may come once more.
    if (events.some(({ sequence }) => sequence === event.sequence)) return;
    this.#dossier = { ...this.#dossier, events: [...events, event] };
    this.#drawEvents();
    if (event.what === "override") this.#drawView();
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
    this.#drawResults();
    if (inventory === undefined) return;
    this.#drawDiff();
    this.#drawDisks();
  }

  /** All of it: rules were held against the host, or something was missed. */
  async readAgain(): Promise<void> {
    const { run } = this.#dossier.view;
    const dossier = await this.#shell.attempt(() =>
      ask<Dossier>("GET", `/v1/vetting/runs/${run}/dossier`),
    );
    if (dossier !== undefined) this.#open(dossier);
  }

  #drawView(): void {
    const { view } = this.#dossier;
    const { head, stages, hold } = this.#parts;
    const accepted = acceptedOf(view, this.#dossier.events);
    replace(head, headOf(view, accepted, this.#shell));
    replace(stages, stageTable(view, accepted));
    replace(hold, holdSection(view, this.#shell));
    this.drawSilence();
  }

  drawSilence(): void {
    const words = silenceText(this.#told, performance.now());
    this.#silence.hidden = words === undefined;
    this.#silence.textContent = words ?? "";
  }

  #drawDiff(): void {
    replace(this.#parts.diff, diffSection(this.#dossier, this.#shell));
  }

  #drawDisks(): void {
    replace(this.#parts.disks, diskSection(this.#dossier, this.#shell));
  }

  #drawResults(): void {
    const sections = resultSections(this.#dossier.results);
    const none = element(
      "p",
      { class: "faint" },
      "No stage has ended yet: each tells here what it found.",
    );
    replace(this.#parts.results, ...(sections.length === 0 ? [none] : sections));
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
    const list = { class: "events", tabindex: 0, "aria-label": "what happened, the newest first" };
    replace(this.#parts.events, element("ol", list, ...items));
  }
}

function headOf(view: RunView, accepted: Accepted, shell: Shell): HTMLElement {
  const word = view.verdict ?? view.state;
  const identity = accepted.get("identity");
  const rules = accepted.get("SpecValidate");
  return element(
    "header",
    { class: "run-head" },
    element("h1", {}, `${view.host} `, badge(word)),
    view.reason === "" ? undefined : element("p", { class: "reason" }, reasonText(view.reason)),
    facts([
      ["run", view.run],
      ["boots from", view.mac],
      ["spec", `${view.spec}, revision ${view.spec_revision}`],
      ["identity", identity === undefined ? null : acceptedText(identity)],
      ["broken rules", rules === undefined ? null : acceptedText(rules)],
      ["address", view.address],
      ["created", timeText(view.created)],
      ["ended", timeText(view.ended)],
      ["overridden", view.overrides.length === 0 ? null : view.overrides.join(", ")],
      ["waits", view.directives.map(({ kind }) => kind).join(", ")],
      ["lost on the way", view.dropped === 0 ? null : `${view.dropped} lines and readings`],
    ]),
    ...runActions(view, shell),
  );
}
