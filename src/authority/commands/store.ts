import { join, resolve } from "node:path";
import { printJson, printText } from "../../command-line/output.ts";
import { renderTable } from "../../command-line/table.ts";
import { formatBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { authorityApi, places, type Usage } from "../protocol.ts";
import { type ClientFlags, show } from "./client-flags.ts";
import { agoText } from "./words.ts";

interface OfflineFlags {
  readonly "state-directory": string;
  readonly json: boolean;
}

const DAY = 24 * 3_600_000;

export async function runStorage(flags: ClientFlags): Promise<number> {
  return await show(flags, (client) => client.call(authorityApi.usage, {}), renderUsage);
}

export async function runBackup(flags: ClientFlags & { readonly file: string }): Promise<number> {
  const file = resolve(flags.file);
  return await show(
    flags,
    (client) => client.call(authorityApi.backup, { file }),
    ({ entries, sha256, beside }) => {
      const more =
        beside === undefined
          ? ""
          : `${beside.file}: ${beside.rows} rows, sha256 ${beside.sha256}; keep both together\n`;
      return `${file}: ${entries} entries, sha256 ${sha256}\n${more}`;
    },
  );
}

export async function runUpgrade(flags: ClientFlags): Promise<number> {
  return await show(
    flags,
    (client) => client.call(authorityApi.upgrade, {}),
    ({ before, format }) =>
      before === format
        ? `the database has format ${format}, the newest, already\n`
        : `the database has format ${format} in place of ${before}\n`,
  );
}

export async function runRestore(
  flags: OfflineFlags & { readonly file: string; readonly "without-ledger": boolean },
): Promise<number> {
  const { restore } = await import("../../store/restore.ts");
  const folder = join(resolve(flags["state-directory"]), places.store);
  const file = resolve(flags.file);
  const report = restore({ folder, file, withoutLedger: flags["without-ledger"] });
  const { entries, keptAs, fenced } = report;
  const kept = keptAs === undefined ? "" : `the former database is kept as ${keptAs}\n`;
  const spent = fenced
    ? "nothing here knows what was spent since: all that was issued before counts as spent\n"
    : "what was spent since the backup stays spent\n";
  if (flags.json) await printJson(report);
  else await printText(`restored ${entries} entries of ${file}\n${kept}${spent}`);
  return ExitCode.done;
}

export async function runVerify(flags: OfflineFlags): Promise<number> {
  const { verifyStore } = await import("../../store/verify.ts");
  const report = verifyStore(join(resolve(flags["state-directory"]), places.store));
  const { entries, bytes, format, ledgerEntries } = report;
  const told =
    `intact: ${entries} entries in ${formatBytes(bytes)}, format ${format}; ` +
    `${ledgerEntries} things spent\n`;
  if (flags.json) await printJson(report);
  else await printText(told);
  return ExitCode.done;
}

export function renderUsage(usage: Usage): string {
  const columns = ["BUCKET", "ENTRIES", "BYTES", "AT MOST", "OLDEST", "A DAY", "FULL"];
  const now = Date.now();
  const rows = usage.buckets.map((bucket) => [
    bucket.bucket,
    String(bucket.entries),
    formatBytes(bucket.bytes),
    formatBytes(bucket.size),
    bucket.oldest_ms === null ? "-" : agoText(bucket.oldest_ms),
    formatBytes(Math.max(0, Math.round(bucket.bytes_per_day))),
    fullText(bucket.full_after_ms, now),
  ]);
  const { database, disk, audit, ledger_entries } = usage;
  return (
    `${renderTable(columns, rows)}\n` +
    `database  ${formatBytes(database.bytes)}, format ${database.format}\n` +
    `disk      ${formatBytes(disk.free)} of ${formatBytes(disk.total)} free; full ` +
    `${fullText(database.full_after_ms, now)}\n` +
    `audit     ${formatBytes(audit.bytes)} of ${formatBytes(audit.size)}\n` +
    `spent     ${ledger_entries} things\n`
  );
}

/** The day on which it fills, at the pace of late. */
function fullText(after: number | null, now: number): string {
  if (after === null) return "never, as it grows now";
  if (after === 0) return "now";
  if (after > 3_650 * DAY) return "in more than ten years";
  return `on ${new Date(now + after).toISOString().slice(0, 10)}`;
}
