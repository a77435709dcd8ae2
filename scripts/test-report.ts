/** What a test run says at its end: budgets, skips, failures, and the line that counts. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "./setup.ts";
import { formatTable } from "./terminal.ts";
import type { FileResult, Skip } from "./test-file.ts";
import { budgetSeconds, type System, systemOf, totalBudgetSeconds } from "./test-suites.ts";

export interface Totals {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** The run as a whole, beside its files. */
export interface Run {
  readonly results: readonly FileResult[];
  readonly wallSeconds: number;
  /** Everything was asked for: all suites, all files, all names. */
  readonly isWhole: boolean;
  /** --all, which has no limit of time. */
  readonly isAll: boolean;
  /** In CI a skip must be expected. */
  readonly isCi: boolean;
}

/** Prints the end of a run. @returns whether all was well */
export function report(run: Run): boolean {
  const skips = run.results.flatMap((result) => result.skips);
  const complaints = [...complaintsAboutSkips(skips, run), ...complaintsAboutTime(run)];
  console.log(`\n${formatBudgets(run)}`);
  for (const skip of skips) console.log(`SKIPPED ${skip.name}: ${skip.reason} (${skip.where})`);
  const totals = sum(run.results, complaints.length);
  for (const result of run.results) {
    if (result.failed > 0) console.log(`FAILED ${result.path}: ${result.failed} failed`);
  }
  for (const complaint of complaints) console.log(`FAILED ${complaint}`);
  console.log(`\n${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
  return totals.failed === 0 && totals.passed > 0;
}

function sum(results: readonly FileResult[], complaints: number): Totals {
  return {
    passed: results.reduce((count, result) => count + result.passed, 0),
    failed: results.reduce((count, result) => count + result.failed, complaints),
    skipped: results.reduce((count, result) => count + result.skips.length, 0),
  };
}

function complaintsAboutSkips(skips: readonly Skip[], run: Run): string[] {
  const { unexpected, absent } = compareSkips(skips, readExpectedSkips());
  if (run.isWhole) {
    for (const skip of absent) {
      console.log(`Expected to be skipped, and was not: ${skip.name} (${skip.where})`);
    }
  }
  if (!run.isCi) return [];
  return unexpected.map(
    (skip) =>
      `skip of ${skip.name} (${skip.where}): ${skip.reason}. Mend the machine, or enter it in ` +
      "test/expected-skips.json.",
  );
}

function complaintsAboutTime(run: Run): string[] {
  if (run.isAll || run.wallSeconds <= totalBudgetSeconds) return [];
  return [`the run took ${Math.round(run.wallSeconds)} s of ${totalBudgetSeconds} s`];
}

function readExpectedSkips(): Skip[] {
  return JSON.parse(readFileSync(join(repositoryRoot, "test/expected-skips.json"), "utf8"));
}

/** A skip is the same as another when name, reason and file are. */
export function compareSkips(
  found: readonly Skip[],
  expected: readonly Skip[],
): { unexpected: Skip[]; absent: Skip[] } {
  const isIn = (list: readonly Skip[], skip: Skip) =>
    list.some(
      (other) =>
        other.name === skip.name && other.reason === skip.reason && other.where === skip.where,
    );
  return {
    unexpected: found.filter((skip) => !isIn(expected, skip)),
    absent: expected.filter((skip) => !isIn(found, skip)),
  };
}

function formatBudgets(run: Run): string {
  const rows: string[][] = [["system", "used", "budget", ""]];
  for (const system of Object.keys(budgetSeconds) as System[]) {
    const files = run.results.filter((result) => systemOf(result.path) === system);
    if (files.length === 0) continue;
    const used = files.reduce((time, file) => time + file.milliseconds, 0) / 1000;
    const budget = budgetSeconds[system];
    const isOver = used > budget && !run.isAll;
    rows.push([system, `${used.toFixed(1)} s`, `${budget} s`, isOver ? "OVER ITS BUDGET" : ""]);
  }
  rows.push(["the whole run", `${run.wallSeconds.toFixed(1)} s`, `${totalBudgetSeconds} s`, ""]);
  return formatTable(rows);
}
