import { resolve } from "node:path";
import { followAudit, type ReadItem, readAudit } from "../../audit/read.ts";
import type { AuditRecord } from "../../audit/record.ts";
import { printJsonLine, printText, tellText } from "../../command-line/output.ts";
import { wholeNumber } from "../../command-line/parse.ts";
import { alignColumns } from "../../command-line/table.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { brokenChainExitCode, checkReadable } from "./audit-words.ts";

export interface AuditListFlags {
  readonly count: string | undefined;
  readonly who: string | undefined;
  readonly verb: string | undefined;
  readonly object: string | undefined;
  readonly after: string | undefined;
  readonly own: boolean;
  readonly follow: boolean;
  readonly directory: string;
  readonly json: boolean;
}

/** Records that are shown when nobody says how many. */
const usualCount = 100;
/** Rows whose columns are aligned together; the whole log would be too many. */
const pageRows = 500;
/** Letters of a change that a table shows; --json has all of it. */
const changeLetters = 120;

/** Prints records, the oldest first. */
export async function runAuditList(flags: AuditListFlags): Promise<number> {
  const { who, verb, object, own } = flags;
  const directory = resolve(flags.directory);
  const filter = {
    directory,
    ...(who !== undefined && { who }),
    ...(verb !== undefined && { verb }),
    ...(object !== undefined && { object }),
    isAll: own,
  };
  const range = { name: "--after", least: 0, most: Number.MAX_SAFE_INTEGER };
  const asked = flags.after === undefined ? 0 : wholeNumber(flags.after, range);
  const limit = readCount(flags);
  checkReadable(directory);
  const after = await beginning({ ...filter, after: asked }, limit);
  const printer = flags.json ? new LinePrinter() : new TablePrinter();
  let last = after;
  for await (const item of readAudit({ ...filter, after })) {
    await printer.add(item);
    if (item.kind === "record") last = item.record.sequence;
  }
  await printer.flush();
  if (flags.follow) {
    const { signal } = new AbortController();
    for await (const item of followAudit({ ...filter, after: last, signal })) {
      await printer.add(item);
      await printer.flush();
    }
  }
  return endOf(printer.broken);
}

/** @throws UsageError */
function readCount({ count, after }: AuditListFlags): number {
  const usual = after === undefined ? usualCount : Number.POSITIVE_INFINITY;
  if (count === undefined) return usual;
  if (count === "all") return Number.POSITIVE_INFINITY;
  return wholeNumber(count, { name: "-n", least: 0, most: Number.MAX_SAFE_INTEGER });
}

/**
 * Where to begin so that only the newest `limit` follow: their sequences are looked at backwards,
 * and nothing of them is kept.
 */
async function beginning(
  options: Parameters<typeof readAudit>[0] & { readonly after: number },
  limit: number,
): Promise<number> {
  const { after } = options;
  if (!Number.isFinite(limit)) return after;
  let oldest: number | undefined;
  let newest: number | undefined;
  for await (const item of readAudit({
    ...options,
    limit: Math.max(1, limit),
    newestFirst: true,
  })) {
    if (item.kind !== "record") continue;
    newest ??= item.record.sequence;
    oldest = item.record.sequence;
  }
  if (oldest === undefined || newest === undefined) return after;
  return limit === 0 ? newest : oldest - 1;
}

function endOf(broken: number): number {
  if (broken === 0) return ExitCode.done;
  const lines = broken === 1 ? "1 line is not as it was" : `${broken} lines are not as they were`;
  tellText(`${lines} written, and left out. Run hostler audit verify.\n`);
  return brokenChainExitCode;
}

/** One JSON object a line, as the log has it. */
class LinePrinter {
  broken = 0;

  async add(item: ReadItem): Promise<void> {
    if (item.kind === "broken") this.broken += 1;
    else await printJsonLine(item.record);
  }

  async flush(): Promise<void> {}
}

const heading = ["SEQUENCE", "TIME", "WHO", "FROM", "VERB", "OBJECT", "RESULT", "CHANGE"];

/** A table whose columns grow from page to page, and never shrink. */
class TablePrinter {
  broken = 0;
  #rows: string[][] = [heading];
  #widest: string[] = [];

  async add(item: ReadItem): Promise<void> {
    if (item.kind === "broken") {
      this.broken += 1;
      return;
    }
    this.#rows.push(rowOf(item.record));
    if (this.#rows.length >= pageRows) await this.flush();
  }

  async flush(): Promise<void> {
    const rows = this.#rows;
    this.#rows = [];
    if (rows.length === 0) return;
    const lines = alignColumns([this.#widest, ...rows]).slice(1);
    this.#widest = heading.map((_, column) =>
      [this.#widest, ...rows].reduce((widest, row) => {
        const cell = row[column] ?? "";
        return Bun.stringWidth(cell) > Bun.stringWidth(widest) ? cell : widest;
      }, ""),
    );
    await printText(`${lines.join("\n")}\n`);
  }
}

function rowOf(record: AuditRecord): string[] {
  const { sequence, time } = record;
  if (record.kind !== "call") {
    return [String(sequence), time, "-", "-", `audit.${record.kind}`, "-", "-", ownText(record)];
  }
  const { who, from, verb, object, result } = record;
  return [String(sequence), time, who, from, verb, object, result, changeText(record)];
}

/** What the log says of itself, beside its chain. */
function ownText(record: AuditRecord): string {
  switch (record.kind) {
    case "dropped":
      return `records ${record.first} to ${record.last}, by ${record.reason}`;
    case "cut-short":
      return `${record.bytes} bytes of a line that a power cut left`;
    default:
      return "";
  }
}

/** `{"state":"enrolled"} → {"state":"revoked"}` */
function changeText({ before, after }: AuditRecord & { readonly kind: "call" }): string {
  if (before === undefined && after === undefined) return "";
  const told = [before, after].map((value) => (value === undefined ? "-" : JSON.stringify(value)));
  const text = told.join(" → ");
  return text.length <= changeLetters ? text : `${text.slice(0, changeLetters)}…`;
}
