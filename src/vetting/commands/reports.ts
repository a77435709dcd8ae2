import { existsSync, mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { printJson, printText, tellText } from "../../command-line/output.ts";
import { renderTableWithin } from "../../command-line/table.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { withNewFile } from "../../journal/file-refused.ts";
import { escapeControls } from "../../logging/format.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { runApi } from "../protocol-api.ts";
import type { Outlier } from "../protocol-operator.ts";
import { reportFiles } from "../report/manifest.ts";
import { verifyReports } from "../report-files.ts";
import { outlierRules } from "../spec/outliers.ts";
import { connect, type RunFlags, runNumber, show } from "./ask.ts";
import { writeNew } from "./files.ts";

/** Reports of a run, and what they prove. */

const fileOf = { html: "report.html", json: "report.json", ocp: "report.ocp.jsonl" } as const;

export async function runReport(
  flags: RunFlags & {
    readonly format: keyof typeof fileOf | undefined;
    readonly out: string | undefined;
  },
): Promise<number> {
  const { format, out, json } = flags;
  if (format === undefined && out === undefined && !json) {
    throw new UsageError(
      "Expected --out FOLDER, or --format for one of the reports, received neither",
    );
  }
  using client = await connect(flags);
  const reports = await client.call(runApi.report, { run: runNumber(flags.run) });
  if (format !== undefined) {
    const text = reports[fileOf[format]];
    if (out === undefined) await printText(text);
    else writeNew("write the report", out, text);
  } else if (out !== undefined) writeFolder(resolve(out), reports);
  else await printJson(reports);
  return ExitCode.done;
}

function writeFolder(path: string, reports: Readonly<Record<string, string>>): void {
  const file = { what: "make the folder", path, otherwise: "name a folder that is new" };
  withNewFile(file, () => mkdirSync(path));
  // The manifest last: where it is, all of them are.
  for (const name of [...reportFiles, "manifest.json"]) {
    writeNew("write the report", join(path, name), reports[name] ?? "");
  }
}

export async function runReportVerify(flags: {
  readonly folder: string;
  readonly pin: string;
  readonly json: boolean;
}): Promise<number> {
  const pin = flags.pin.replaceAll(/[\s:]/g, "").toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(pin)) {
    throw new UsageError(`Expected 64 hexadecimal digits for --pin, received ${flags.pin}`);
  }
  if (!existsSync(flags.folder)) {
    throw new UsageError(`Expected a folder of reports, received nothing at ${flags.folder}`);
  }
  const { manifest, key, faults } = verifyReports(resolve(flags.folder), pin);
  const verdict = faults.length === 0 ? "as it was signed" : "not as it was signed";
  if (flags.json) {
    await printJson({ verdict: faults.length === 0 ? "intact" : "broken", key, faults, manifest });
  } else if (faults.length === 0 && manifest !== undefined) {
    const { run, host, verdict: came, made, chain } = manifest;
    await printText(
      escapeControls(
        `run ${run} of ${host}, ${came ?? "under way"}: ${verdict} at ${made}; ` +
          `${chain.results} results in its chain`,
      ).concat("\n"),
    );
  } else {
    const lines = faults.map(
      ({ file, expected, received }) => `${file}: expected ${expected}; received ${received}`,
    );
    tellText(
      [verdict, ...lines]
        .map(escapeControls)
        .map((line) => `${line}\n`)
        .join(""),
    );
  }
  return faults.length === 0 ? ExitCode.done : 1;
}

export async function runOutliers(flags: RunFlags): Promise<number> {
  const run = runNumber(flags.run);
  return await show(
    flags,
    (client) => client.call(runApi.outliers, { run }),
    ({ outliers, hosts }) => renderOutliers(outliers, hosts, process.stdout.columns),
  );
}

function renderOutliers(
  found: readonly Outlier[],
  hosts: number,
  width: number | undefined,
): string {
  if (hosts < outlierRules.hosts) {
    return `${hosts} other hosts have run with this spec; ${outlierRules.hosts} are needed\n`;
  }
  if (found.length === 0) return `nothing is far from the ${hosts} other hosts\n`;
  const round = (value: number) => String(Number(value.toPrecision(4)));
  const rows = found.map((one) =>
    one.kind === "fact"
      ? [one.path, one.found, one.usual, `${one.agreeing} of ${one.hosts} hosts`]
      : [
          `${one.name} of ${one.component}`,
          `${round(one.value)} ${one.unit}`,
          `${round(one.median)} ${one.unit}`,
          `${round(one.deviations)} deviations, ${one.hosts} hosts`,
        ],
  );
  return renderTableWithin(["WHAT", "HERE", "OTHERS", "BY"], rows, width);
}
