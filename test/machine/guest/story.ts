/** How a story in a guest tells its cases over the serial line, and how the host reads them. */

export interface CaseResult {
  readonly name: string;
  readonly outcome: "ok" | "not ok" | "skipped";
  /** Why it is not ok, or skipped; what was seen, when it is. */
  readonly detail: string;
  readonly milliseconds: number;
}

const mark = "HOSTLER-CASE";

export function writeCase({ name, outcome, detail, milliseconds }: CaseResult): string {
  const oneLine = detail.replaceAll(/\s*\n\s*/g, " | ");
  return `${mark} ${outcome}: ${name} (${Math.round(milliseconds)} ms): ${oneLine}`;
}

export function readCases(lines: readonly string[]): CaseResult[] {
  const pattern = new RegExp(`^${mark} (ok|not ok|skipped): (.*?) \\((\\d+) ms\\): (.*)$`);
  return lines.flatMap((line) => {
    const [, outcome, name = "", milliseconds, detail = ""] = pattern.exec(line) ?? [];
    if (outcome === undefined) return [];
    const known = outcome as CaseResult["outcome"];
    return [{ name, outcome: known, detail, milliseconds: Number(milliseconds) }];
  });
}
