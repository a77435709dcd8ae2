import { html, type Markup, type Part } from "./escape.ts";

/** Tables of a report. Pure. */

/** Rows of one table; what is more stands in the JSON. */
export const ROWS_LIMIT = 500;

export interface Column<Row> {
  readonly title: string;
  readonly isNumber?: boolean;
  cell(row: Row): Part;
}

/** undefined where there are no rows. */
export function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
): Markup | undefined {
  if (rows.length === 0) return undefined;
  const kind = (column: Column<Row>) => (column.isNumber === true ? "number" : "text");
  const shown = rows.slice(0, ROWS_LIMIT);
  const more = rows.length - shown.length;
  return html`<div class="scroll" tabindex="0"><table>
<thead><tr>${columns.map(
    (column) => html`<th scope="col" class="${kind(column)}">${column.title}</th>`,
  )}</tr></thead>
<tbody>
${shown.map(
  (row) => html`<tr>${columns.map(
    (column) => html`<td class="${kind(column)}">${column.cell(row)}</td>`,
  )}</tr>
`,
)}</tbody></table></div>
${more > 0 ? html`<p class="faint">and ${more} more, which the JSON has</p>` : undefined}`;
}

/** What is known of one thing, by name; what is not known is left out. */
export function facts(pairs: readonly (readonly [name: string, value: Part | null])[]): Markup {
  const told = pairs.filter(([, value]) => value !== null && value !== "" && value !== undefined);
  return html`<dl>${told.map(
    ([name, value]) => html`<dt>${name}</dt><dd>${value ?? undefined}</dd>`,
  )}</dl>
`;
}

export function badge(word: string): Markup {
  return html`<span class="badge ${word}">${word}</span>`;
}
