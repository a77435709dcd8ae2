import type { LogLine } from "../protocol.ts";
import { element, field, later, replace } from "./dom.ts";
import { clockText } from "./format.ts";

/** Lines of a run's log, all or of one stage; the view stays at the end unless it was moved. */

export const LOG_LINES = 5_000;
const SHOWN = 1_000;
const NOTHING = "Nothing was said yet: lines of the agent and of the host's kernel come here.";
const NONE_FITS = "No line is of that stage, with those words.";

export class RunLog {
  readonly place: HTMLElement;
  #lines: LogLine[] = [];
  /** What of them was not looked at by the last drawing. */
  #fresh: LogLine[] = [];
  readonly #seen = new Set<string>();
  readonly #list = element("pre", { class: "log", tabindex: 0, "aria-label": "log" });
  readonly #empty = element("p", { class: "faint" }, NOTHING);
  readonly #stage = element("select", {}, element("option", { value: "" }, "all stages"));
  readonly #words = element("input", { type: "search" });
  readonly #isBad = element("input", { type: "checkbox" });
  readonly #draw = later(() => {
    const isAtEnd = this.#isAtEnd;
    this.#append(this.#fresh);
    this.#fresh = [];
    if (isAtEnd) this.#list.scrollTop = this.#list.scrollHeight;
  });

  constructor() {
    const whole = later(() => {
      replace(this.#list);
      this.#fresh = [];
      this.#append(this.#lines);
      this.#list.scrollTop = this.#list.scrollHeight;
    });
    for (const choice of [this.#stage, this.#words, this.#isBad]) {
      choice.addEventListener("input", whole);
    }
    this.place = element(
      "div",
      {},
      element(
        "div",
        { class: "row" },
        field("Stage", this.#stage),
        field("With the words", this.#words),
        element("label", { class: "check" }, this.#isBad, " warnings and errors alone"),
      ),
      ...[this.#empty, this.#list],
    );
  }

  add(lines: readonly LogLine[]): void {
    for (const line of lines) {
      const id = idOf(line);
      if (this.#seen.has(id)) continue;
      this.#seen.add(id);
      this.#lines.push(line);
      this.#fresh.push(line);
      if (line.stage !== null) this.#addStage(line.stage);
    }
    const over = Math.max(0, this.#lines.length - LOG_LINES);
    for (const old of this.#lines.splice(0, over)) this.#seen.delete(idOf(old));
    this.#draw();
  }

  get #isAtEnd(): boolean {
    const { scrollTop, clientHeight, scrollHeight } = this.#list;
    return scrollTop + clientHeight >= scrollHeight - 8;
  }

  #addStage(stage: string): void {
    if ([...this.#stage.options].some(({ value }) => value === stage)) return;
    this.#stage.append(element("option", { value: stage }, stage));
  }

  #isShown({ stage, level, text }: LogLine): boolean {
    if (this.#stage.value !== "" && stage !== this.#stage.value) return false;
    if (this.#isBad.checked && level !== "warn" && level !== "error") return false;
    return text.toLowerCase().includes(this.#words.value.toLowerCase());
  }

  /** What was selected or scrolled to stays: lines that stand there are not made anew. */
  #append(lines: readonly LogLine[]): void {
    const shown = lines.filter((line) => this.#isShown(line)).slice(-SHOWN);
    this.#list.append(...shown.map(lineOf));
    while (this.#list.childElementCount > SHOWN) this.#list.firstElementChild?.remove();
    const isNone = this.#list.childElementCount === 0;
    this.#list.hidden = isNone;
    this.#empty.hidden = !isNone;
    this.#empty.textContent = this.#lines.length === 0 ? NOTHING : NONE_FITS;
  }
}

const idOf = ({ sequence, time, text }: LogLine) => `${sequence} ${time} ${text}`;

function lineOf({ time, level, stage, text }: LogLine): HTMLElement {
  const at = clockText(new Date(time));
  const words = `${at} ${level.padEnd(6)} ${stage ?? "-"}: ${text}\n`;
  return element("span", { class: `line ${level}`, title: time }, words);
}
