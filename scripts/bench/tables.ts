/** Tables of Markdown, and their place in a README. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "../setup.ts";
import { ScriptError } from "../terminal.ts";
import type { Memory } from "./process-status.ts";
import type { Summary } from "./statistics.ts";

/** 0.52, 1.94, 12.3, 1006: three digits, or all before the point. */
function digits(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** The median, its spread and how many there are. */
export function describe(summary: Summary | undefined): string {
  if (summary === undefined) return "—";
  const { median, low, high, count } = summary;
  return `**${digits(median)}** (${digits(low)}–${digits(high)}), ${count}`;
}

/** A factor. */
export const times = (ratio: number | undefined) =>
  ratio === undefined ? "—" : `${digits(ratio)} ×`;
const mebibytes = (kibibytes: number) => digits(kibibytes / 1024);

/** RSS, PSS and anonymous memory in MiB. */
export function describeMemory(memory: Memory | undefined): string[] {
  if (memory === undefined) return ["—", "—", "—"];
  return [memory.resident, memory.proportional, memory.anonymous].map(mebibytes);
}

/** A table of Markdown. */
export function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(heading), line(heading.map(() => "---")), ...rows.map(line)].join("\n");
}

/** Where the tables of a bench stand: between two marks of a file of the repository. */
export interface Place {
  readonly file: string;
  /** Such as "process": between <!-- bench:process --> and <!-- /bench:process -->. */
  readonly bench: string;
}

/** The text with something else between the marks; undefined when it has no place for it. */
export function replaceBlock(text: string, bench: string, block: string): string | undefined {
  const [first, last] = marksOf(bench);
  const begin = text.indexOf(first);
  const end = text.indexOf(last);
  if (begin < 0 || end < begin) return undefined;
  return `${text.slice(0, begin + first.length)}\n${block}\n${text.slice(end)}`;
}

const marksOf = (bench: string) => [`<!-- bench:${bench} -->`, `<!-- /bench:${bench} -->`] as const;

/** @throws ScriptError (1) when the file has no place for it */
export function writeReadme({ file, bench }: Place, block: string): void {
  const path = join(repositoryRoot, file);
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  const replaced = replaceBlock(text, bench, block);
  if (replaced === undefined) {
    const wanted = marksOf(bench).join(" and ");
    throw new ScriptError(`${file} has no lines ${wanted}, between which the tables belong.`, {
      exitCode: 1,
    });
  }
  writeFileSync(path, replaced);
}
