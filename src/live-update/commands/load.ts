import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { printJson, printText, tellText } from "../../command-line/output.ts";
import { renderTable } from "../../command-line/table.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { LiveUpdateClient, LiveUpdateError } from "../client.ts";
import type { LoadReport } from "../protocol.ts";
import { isHindering } from "../target-findings.ts";
import { type Composed, composeCommandLine } from "./command-line-of.ts";
import { streamLine } from "./words.ts";

interface LoadOptions {
  readonly kernel: string;
  readonly initrd: string | undefined;
  readonly "reuse-cmdline": boolean;
  readonly cmdline: string | undefined;
  readonly append: string | undefined;
  readonly force: boolean;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Bytes of a command line: far more than a kernel takes, and less than a request may have. */
const LONGEST_COMMAND_LINE = 32_768;

/** Has the next kernel checked and loaded, and says all that was found. */
export async function runLoad(options: LoadOptions): Promise<number> {
  const { commandLine, stripped } = chooseCommandLine(options);
  const { initrd, force, json } = options;
  const bytes = Buffer.byteLength(commandLine);
  if (bytes > LONGEST_COMMAND_LINE) {
    const most = `at most ${LONGEST_COMMAND_LINE} bytes`;
    throw new UsageError(`Expected a command line of ${most}, received ${bytes} bytes`);
  }
  using client = await LiveUpdateClient.connect(options["control-socket"]);
  if (stripped.length > 0) {
    tellText(streamLine(["left out, because the boot loader wrote it:", ...stripped]));
  }
  // luod has a working directory of its own.
  const report = await client.load({
    kernel: resolve(options.kernel),
    ...(initrd !== undefined && { initrd: resolve(initrd) }),
    commandLine,
    force,
  });
  if (json) await printJson(report);
  else await printText(renderReport(report));
  if (!report.loaded) throw new LiveUpdateError(describeRefusal(report, force));
  return ExitCode.done;
}

/** @throws UsageError when it is not said which, or when it is said twice */
export function chooseCommandLine(
  asked: Pick<LoadOptions, "reuse-cmdline" | "cmdline" | "append">,
  readCurrent: () => string = () => readFileSync("/proc/cmdline", "utf8"),
): Composed {
  const { cmdline, append = "" } = asked;
  if (cmdline !== undefined && asked["reuse-cmdline"]) {
    throw new UsageError(
      "Expected --reuse-cmdline or --cmdline, received both. " +
        'To add words to the current command line: --reuse-cmdline --append "WORDS".',
    );
  }
  if (cmdline !== undefined) return composeCommandLine({ base: cmdline, isReused: false, append });
  if (!asked["reuse-cmdline"] && asked.append === undefined) {
    throw new UsageError("Expected --reuse-cmdline or --cmdline, received neither");
  }
  return composeCommandLine({ base: readCurrent(), isReused: true, append });
}

/** The findings, the worst first, and what is loaded now. */
export function renderReport(report: LoadReport): string {
  const order = ["fatal", "unknown", "warning", "ok"];
  const findings = report.findings.toSorted(
    (left, right) => order.indexOf(left.status) - order.indexOf(right.status),
  );
  const hasMends = findings.some(({ mend }) => mend !== null);
  const columns = ["STATUS", "CHECK", "FOUND", "EXPECTED", ...(hasMends ? ["MEND"] : [])];
  const rows = findings.map(({ status, check, found, expected, mend }) => [
    status,
    check,
    found,
    expected,
    ...(hasMends ? [mend ?? ""] : []),
  ]);
  const table = rows.length === 0 ? "" : renderTable(columns, rows);
  const { kernel } = report;
  if (!report.loaded || kernel === null) return table;
  const version = kernel.version === null ? "" : ` (${kernel.version})`;
  return `${table}${streamLine([`loaded ${kernel.path}${version}:`, kernel.command_line])}`;
}

/** What hinders the load, and whether --force would help. */
export function describeRefusal(
  { findings }: Pick<LoadReport, "findings">,
  wasForced: boolean,
): string {
  const hindering = findings.filter(
    (finding) => isHindering(finding) && !(wasForced && finding.forceable),
  );
  const names = hindering.map(({ check }) => check).join(", ");
  const why = names === "" ? "" : `: ${names}`;
  const canForce =
    !wasForced && hindering.length > 0 && hindering.every(({ forceable }) => forceable);
  const mend = canForce ? " --force loads it in spite of that." : "";
  return `The kernel is not loaded${why}.${mend}`;
}
