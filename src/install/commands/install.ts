import { normalize } from "node:path";
import { printJson, printText, tellText } from "../../command-line/output.ts";
import { alignColumns } from "../../command-line/table.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { escapeControls } from "../../logging/format.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { hostlerVersion } from "../../units/version.ts";
import { changes, type InstallReport, install, type Step } from "../install.ts";
import type { Action, InstallOptions } from "../items.ts";
import { adviceOf } from "./advice.ts";

interface Flags {
  readonly role: readonly string[];
  readonly prefix: string;
  readonly "unit-directory": string;
  readonly root: string;
  readonly remove: boolean;
  readonly force: boolean;
  readonly "dry-run": boolean;
  readonly json: boolean;
}

export async function runInstall(flags: Flags): Promise<number> {
  const options = readOptions(flags);
  const report = await install(options);
  if (flags.json) await printJson(encode(options, report));
  else await tell(options, report);
  const isLeft = report.steps.some(({ action }) => action === "leave" || action === "refuse");
  return isLeft || typeof report.reload === "object" ? ExitCode.refused : ExitCode.done;
}

function readOptions(flags: Flags): InstallOptions {
  if (flags.role.length === 0) {
    throw new UsageError("Expected --role, such as --role luod or --role all, received none");
  }
  if (hostlerVersion === "source") {
    throw new UsageError(
      "Expected the compiled program, which copies itself, received its source. Build it first",
    );
  }
  return {
    roles: flags.role,
    root: readPath("--root", flags.root),
    prefix: readPath("--prefix", flags.prefix),
    unitDirectory: readPath("--unit-directory", flags["unit-directory"]),
    remove: flags.remove,
    force: flags.force,
    dryRun: flags["dry-run"],
  };
}

/** What a unit can name without quoting, and without a specifier: systemd.unit(5). */
const plainPath = /^\/[\w.+@/-]*$/;

function readPath(flag: string, path: string): string {
  const isRoot = flag === "--root";
  if (isRoot ? path !== "" : plainPath.test(path)) {
    return isRoot ? path : normalize(path).replace(/(?<=.)\/$/, "");
  }
  const expected = isRoot ? "a folder" : "an absolute path of letters, digits and . _ + @ - /";
  throw new UsageError(`Expected ${expected} after ${flag}, received ${JSON.stringify(path)}`);
}

const done: Readonly<Record<Action, string>> = {
  create: "created",
  replace: "replaced",
  remove: "removed",
  keep: "kept",
  leave: "left",
  refuse: "refused",
};

async function tell(options: InstallOptions, report: InstallReport): Promise<void> {
  const { steps, isAccepted } = report;
  const isDone = isAccepted && !options.dryRun;
  const rows = steps
    .filter(({ action, reason }) => changes(action) || reason !== undefined)
    .map((step) => row(step, isDone));
  await printText(textOf([...alignColumns(rows), ...summarize(options, report)]));
  if (typeof report.reload === "object") {
    const { problem } = report.reload;
    tellText(`hostler install: systemctl daemon-reload failed: ${escapeControls(problem)}\n`);
  }
}

function textOf(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}

function summarize(options: InstallOptions, report: InstallReport): string[] {
  if (!report.isAccepted) return ["Nothing was done: see what is refused."];
  const isQuiet = report.steps.every(({ action }) => action === "keep");
  const why = options.remove ? "nothing of it is left" : "everything is there";
  return [...(isQuiet ? [`Nothing to do: ${why}.`] : []), ...adviceOf(options, report)];
}

function row({ item, action, reason }: Step, isDone: boolean): string[] {
  const isPlanned = !isDone && changes(action);
  const word = isPlanned ? `would ${action}` : done[action];
  return [word, item.path, ...(reason === undefined ? [] : [reason])];
}

function encode(options: InstallOptions, report: InstallReport): unknown {
  const { steps, isAccepted, reload } = report;
  return {
    root: options.root,
    dry_run: options.dryRun,
    ok: isAccepted,
    items: steps.map(({ item, action, reason }) => ({
      kind: item.kind,
      path: item.path,
      action,
      reason: reason ?? null,
    })),
    reload: typeof reload === "object" ? reload.problem : reload,
    advice: isAccepted ? adviceOf(options, report) : [],
  };
}
