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
  return children.flatMap((child) => {
    if (child === null || child === undefined || child === false) return [];
    return [typeof child === "number" ? String(child) : child];
  });
}

const focusable = "a[href], button, input, select, textarea, summary, [tabindex]";

/** What is drawn anew keeps the focus where it was: whoever goes by keys stays there. */
export function replace(place: Element, ...children: readonly Child[]): void {
  const reachable = () => [...place.querySelectorAll<HTMLElement>(focusable)];
  const at = reachable().indexOf(document.activeElement as HTMLElement);
  place.replaceChildren(...nodesOf(children));
  if (at >= 0) reachable()[at]?.focus({ preventScroll: true });
}

export function button(label: string, act: () => void, properties: Properties = {}) {
  return element("button", { type: "button", on: { click: act }, ...properties }, label);
}

export const badge = (word: string) => element("span", { class: `badge ${word}` }, word);

export interface Column<Row> {
  readonly title: string;
  readonly isNumber?: boolean;
  cell(row: Row): Child;
}

/** A table that a narrow screen can push aside. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): HTMLElement {
  const kind = (column: Column<Row>) => (column.isNumber === true ? "number" : "text");
  const head = columns.map((column) =>
    element("th", { scope: "col", class: kind(column) }, column.title),
  );
  const body = rows.map((row) =>
    element(
      "tr",
      {},
      ...columns.map((column) =>
        element("td", { class: kind(column), "data-title": column.title }, column.cell(row)),
      ),
    ),
  );
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "table" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...body),
    ),
  );
}

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
