import { shownText } from "./format.ts";
import { after } from "./timers.ts";

/** Elements. All text goes in as text: what a host tells is never markup. */

type Child = Node | string | number | null | undefined | false;
type Listener = (event: Event) => void;

export interface Properties {
  readonly class?: string;
  readonly on?: Readonly<Record<string, Listener>>;
  readonly [attribute: string]: unknown;
}

export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  properties: Properties = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  const { on = {}, ...attributes } = properties;
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== undefined && value !== null && value !== false) {
      made.setAttribute(name, String(value));
    }
  }
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  made.append(...nodesOf(children));
  return made;
}

function nodesOf(children: readonly Child[]): (Node | string)[] {
  return children.flatMap((child): (Node | string)[] => {
    if (child === null || child === undefined || child === false) return [];
    if (typeof child === "object") return [child];
    return [typeof child === "number" ? String(child) : shownText(child)];
  });
}

const focusable = "a[href], button, input, select, textarea, summary, [tabindex]";

/**
 * What is drawn anew keeps the focus on what it was on, and what was unfolded. Where that is gone
 * the view has the focus, and nothing else: a key that is pressed must not do another thing.
 */
export function replace(place: Element, ...children: readonly Child[]): void {
  const unfolded = new Map(foldsIn(place).map((one) => [one.dataset["key"], one.open]));
  keepFocus(place, () => {
    place.replaceChildren(...nodesOf(children));
    for (const one of foldsIn(place)) one.open = unfolded.get(one.dataset["key"]) ?? one.open;
  });
}

const foldsIn = (place: Element) => [
  ...place.querySelectorAll<HTMLDetailsElement>("details[data-key]"),
];

/** Changes a place, and gives what stands for what had the focus there the focus again. */
export function keepFocus(place: Element, change: () => void): void {
  const held = document.activeElement;
  if (held === null || held === document.body || !place.contains(held)) {
    change();
    return;
  }
  const wanted = meaningOf(held);
  change();
  const stands = [...place.querySelectorAll(focusable)].find((one) => meaningOf(one) === wanted);
  const next = place.contains(held) ? held : (stands ?? document.getElementById("view"));
  if (next instanceof HTMLElement && next !== document.activeElement) {
    next.focus({ preventScroll: true });
  }
}

/** What an element does, in letters: by it the same one is known when it was drawn anew. */
function meaningOf(one: Element): string {
  const owner = one.closest("[data-row]")?.getAttribute("data-row") ?? "";
  const own =
    one.getAttribute("data-key") ?? one.getAttribute("href") ?? one.textContent?.slice(0, 200);
  return `${one.tagName} ${owner} ${own}`;
}

/**
 * Once for all that comes before the next picture.
 * @param pace milliseconds from the end of one time to the next one: what costs much leaves room
 */
export function later(act: () => void, pace = 0): () => void {
  let isDue = false;
  let next = 0;
  const draw = () =>
    requestAnimationFrame(() => {
      isDue = false;
      act();
      next = performance.now() + pace;
    });
  return () => {
    if (isDue) return;
    isDue = true;
    const wait = next - performance.now();
    if (wait > 0) after(wait, draw);
    else draw();
  };
}

export function button(label: string, act: () => void, properties: Properties = {}) {
  return element("button", { type: "button", on: { click: act }, ...properties }, label);
}

export const badge = (word: string) => element("span", { class: `badge ${word}` }, word);

export interface Column<Row> {
  readonly title: string;
  /** A number stands right; "tight" is never broken; "wide" has what room there is. */
  readonly kind?: "number" | "tight" | "wide" | "actions";
  cell(row: Row): Child;
}

/** A table that a narrow screen can push aside. @param label what it is of */
export function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  label: string,
): HTMLElement {
  return tableOf(columns, element("tbody", {}, ...rows.map((row) => rowOf(row, columns))), label);
}

export function rowOf<Row>(row: Row, columns: readonly Column<Row>[], key?: string) {
  const cells = columns.map(({ title, kind = "text", cell }) =>
    element("td", { class: kind, "data-title": title }, clipped(cell(row))),
  );
  return element("tr", { "data-row": key }, ...cells);
}

export function tableOf<Row>(
  columns: readonly Column<Row>[],
  body: HTMLElement,
  label: string,
): HTMLElement {
  const head = columns.map(({ title, kind = "text" }) =>
    element("th", { scope: "col", class: kind }, title || element("span", UNSEEN, "actions")),
  );
  const made = element("table", {}, element("thead", {}, element("tr", {}, ...head)), body);
  const place = element("div", { class: "scroll", "aria-label": label }, made);
  reaches.observe(place);
  reaches.observe(made);
  return place;
}

const UNSEEN = { class: "unseen" };

/** Letters of a cell; what is longer is unfolded by whoever wants it. */
export const CELL_LENGTH = 320;

function clipped(told: Child): Child {
  if (typeof told !== "string" || told.length <= CELL_LENGTH) return told;
  const start = `${told.slice(0, 120)}… (${told.length} letters)`;
  return element("details", {}, element("summary", {}, start), element("pre", {}, told));
}

/** Only what can be pushed aside is a stop of the Tab key. */
const reaches = new ResizeObserver((changed) => {
  for (const { target } of changed) {
    const place = target.closest(".scroll");
    if (place === null) continue;
    const isWider = place.scrollWidth > place.clientWidth + 1;
    for (const [name, value] of [
      ["tabindex", "0"],
      ["role", "region"],
    ] as const) {
      if (isWider) place.setAttribute(name, value);
      else place.removeAttribute(name);
    }
  }
});

export function facts(pairs: readonly (readonly [name: string, value: Child])[]): HTMLElement {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element(
    "dl",
    {},
    ...told.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
}

export function section(title: string, ...children: readonly Child[]): HTMLElement {
  return element("section", {}, element("h2", {}, title), ...children);
}

/** A label above what it names. */
export function field(label: string, input: HTMLElement, hint?: string): HTMLElement {
  return element(
    "label",
    { class: "field" },
    element("span", {}, label),
    input,
    hint === undefined ? undefined : element("small", {}, hint),
  );
}
