import type { LogLine } from "../protocol.ts";
import { element, field, replace } from "./dom.ts";

/** Lines of a run's log, all or of one stage; the view stays at the end unless it was moved. */

export const LOG_LINES = 5_000;
const SHOWN = 1_000;

export class RunLog {
  readonly place: HTMLElement;
  readonly #lines: LogLine[] = [];
  readonly #seen = new Set<string>();
  readonly #list = element("pre", { class: "log", tabindex: 0, "aria-label": "log" });
  readonly #stage = element("select", {}, element("option", { value: "" }, "all stages"));
  readonly #isBad = element("input", { type: "checkbox" });
  #isDue = false;

  constructor() {
    this.#stage.addEventListener("change", () => this.#draw());
    this.#isBad.addEventListener("change", () => this.#draw());
    this.place = element(
      "div",
      {},
      element(
        "div",
        { class: "row" },
        field("Stage", this.#stage),
        element("label", { class: "check" }, this.#isBad, " warnings and errors alone"),
      ),
      this.#list,
    );
  }

  add(lines: readonly LogLine[]): void {
    for (const line of lines) {
      const id = `${line.sequence} ${line.time} ${line.text}`;
      if (this.#seen.has(id)) continue;
      this.#seen.add(id);
      this.#lines.push(line);
      if (line.stage !== null) this.#addStage(line.stage);
    }
    for (const old of this.#lines.splice(0, Math.max(0, this.#lines.length - LOG_LINES))) {
      this.#seen.delete(`${old.sequence} ${old.time} ${old.text}`);
    }
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#draw();
    });
  }

  #addStage(stage: string): void {
    if ([...this.#stage.options].some(({ value }) => value === stage)) return;
    this.#stage.append(element("option", { value: stage }, stage));
  }

  #draw(): void {
    const list = this.#list;
    const isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 8;
    const stage = this.#stage.value;
    const shown = this.#lines
      .filter((line) => stage === "" || line.stage === stage)
      .filter(({ level }) => !this.#isBad.checked || level === "warn" || level === "error")
      .slice(-SHOWN);
    const rows = shown.map(({ time, level, stage: of, text }) =>
      element(
        "span",
        { class: `line ${level}` },
        `${time.slice(11, 19)} ${level.padEnd(6)} ${of ?? "-"}: ${text}\n`,
      ),
    );
    replace(list, ...(rows.length === 0 ? ["Nothing was said yet."] : rows));
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  }
}
