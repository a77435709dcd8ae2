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
