import { escapeControls } from "../logging/format.ts";

/** Rows under a heading, in columns; the last column is not padded. Ends with a newline. */
export function renderTable(columns: readonly string[], rows: readonly (readonly string[])[]) {
  return `${alignColumns([columns, ...rows]).join("\n")}\n`;
}

/** Rows in columns, two spaces apart. Nothing in a cell can drive the terminal. */
export function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const cells = rows.map((row) => row.map(escapeControls));
  const widths: number[] = [];
  for (const row of cells) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, Bun.stringWidth(cell));
    });
  }
  return cells.map((row) => {
    const padded = row.map((cell, column) => {
      if (column === row.length - 1) return cell;
      return cell + " ".repeat(Math.max(0, (widths[column] ?? 0) - Bun.stringWidth(cell)));
    });
    return padded.join("  ").trimEnd();
  });
}

/** Characters of a cell that is cut, at least, or it says nothing any more. */
const NARROWEST_CELL = 12;

/**
 * As `renderTable`, in at most so many columns: the widest cells are cut, and end with "…".
 * @param width undefined: as wide as it is, where nobody looks at a terminal
 */
export function renderTableWithin(
  columns: readonly string[],
  rows: readonly (readonly string[])[],
  width: number | undefined,
): string {
  const cells = [columns, ...rows].map((row) => row.map(escapeControls));
  if (width === undefined) return renderTable(columns, rows);
  const widths = columns.map((_name, column) =>
    cells.reduce((most, row) => Math.max(most, Bun.stringWidth(row[column] ?? "")), 0),
  );
  let over = widths.reduce((sum, one) => sum + one, 2 * (columns.length - 1)) - width;
  while (over > 0) {
    const widest = Math.max(...widths);
    if (widest <= NARROWEST_CELL) break;
    widths[widths.lastIndexOf(widest)] = widest - 1;
    over -= 1;
  }
  const cut = cells.map((row) => row.map((cell, column) => cutTo(cell, widths[column] ?? 0)));
  return `${alignColumns(cut).join("\n")}\n`;
}

function cutTo(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  let kept = "";
  for (const character of text) {
    if (Bun.stringWidth(kept + character) >= width) break;
    kept += character;
  }
  return `${kept}…`;
}

/**
 * Names and what they are, one below the other; a long text goes on in the next line, at a word
 * where there is one. Ends with a newline.
 * @param width undefined: a text has one line
 */
export function renderFacts(
  facts: readonly (readonly [name: string, text: string])[],
  width: number | undefined,
): string {
  const indent = facts.reduce((most, [name]) => Math.max(most, Bun.stringWidth(name)), 0) + 2;
  const room = width === undefined ? Number.POSITIVE_INFINITY : Math.max(24, width - indent);
  const lines = facts.flatMap(([name, text]) =>
    wrapped(escapeControls(text), room).map((line, index) =>
      `${(index === 0 ? escapeControls(name) : "").padEnd(indent)}${line}`.trimEnd(),
    ),
  );
  return `${lines.join("\n")}\n`;
}

/** A word that is longer than a line is broken. */
function wrapped(text: string, room: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (Bun.stringWidth(longer) <= room) {
      line = longer;
      continue;
    }
    if (line !== "") lines.push(line);
    line = word;
    while (Bun.stringWidth(line) > room) {
      lines.push(line.slice(0, room));
      line = line.slice(room);
    }
  }
  return [...lines, line];
}
