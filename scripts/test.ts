/**
 * `run test`: gets what is needed, builds, checks, and runs the suites, the guests of the last one
 * beside the one before it.
 *
 *   run test [--all] [--only PATTERN] [--seed N] [PART-OF-PATH …]
 *
 * Exit code 0 when every case passed, 1 when one failed, 100 when the words were wrong.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { currentTurn } from "../test/support/rotation.ts";
import { buildAll, readCommit } from "./build.ts";
import { listChecks, runCheck } from "./check.ts";
import { findLiveUpdateKernel, makeLiveUpdateKernel } from "./guest-kernel.ts";
import { fetchNatsServers } from "./nats-server.ts";
import { fetchNewerQemu } from "./newer-qemu.ts";
import {
  ensureDependencies,
  ensureSystemPackages,
  explainMissing,
  missingSystemPackages,
} from "./setup.ts";
import { formatSeconds, readWords, runScript, ScriptError, withStep } from "./terminal.ts";
import { type FileResult, runTestFile } from "./test-file.ts";
import { report } from "./test-report.ts";
import { filesOf, longFiles, type Suite, suites, waitsForNextTurn } from "./test-suites.ts";

/** After so long without a line, the runner says what it is at. */
const silenceMilliseconds = 20_000;

interface Options {
  readonly all: boolean;
  readonly only: string | undefined;
  readonly seed: number;
  readonly parts: readonly string[];
}

const usage = "Usage: run test [--all] [--only PATTERN] [--seed N] [PART-OF-PATH …]";

function readOptions(): Options {
  const { values, positionals } = readWords(usage, {
    allowPositionals: true,
    options: {
      all: { type: "boolean", default: false },
      only: { type: "string" },
      seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 31)) },
    },
  });
  const seed = Number(values.seed);
  if (!Number.isInteger(seed) || seed < 0) {
    throw new ScriptError(`--seed ${values.seed}: not a whole number\n${usage}`, { exitCode: 100 });
  }
  return { all: values.all, only: values.only, seed, parts: positionals };
}

/** In a run of everything that is not --all. */
function waits(file: string, { all, only, parts }: Options): boolean {
  return !all && only === undefined && parts.length === 0 && waitsForNextTurn(file, currentTurn());
}

async function main(): Promise<number> {
  const begin = performance.now();
  const options = readOptions();
  const plan = suites
    .map((suite) => ({ suite, files: filesOf(suite, options.parts) }))
    .map(({ suite, files }) => ({ suite, files: files.filter((file) => !waits(file, options)) }))
    .filter(({ files }) => files.length > 0);
  if (plan.length === 0) {
    throw new ScriptError(`No test file has ${options.parts.join(" or ")} in its path.`, {
      exitCode: 100,
    });
  }
  const isWhole = options.parts.length === 0 && options.only === undefined;
  const results: FileResult[] = [];
  await ensureDependencies();
  await preparePackages(plan.map(({ suite }) => suite));
  await withStep("build", buildAll);
  if (plan.some(({ files }) => files.some(isAboutLiveUpdateGuests))) await prepareGuestKernel();
  if (plan.some(({ files }) => files.some(isAboutNats))) await fetchNatsServers();
  if (options.all && plan.some(({ files }) => files.some(isAboutNewerQemu))) await fetchNewerQemu();
  if (isWhole) results.push(...(await runChecks()));
  const scratch = mkdtempSync(join(tmpdir(), "hostler-test-"));
  try {
    for (const together of byCompany(plan)) {
      const runs = together.map((one) => runSuite({ ...one, options, scratch }));
      results.push(...(await Promise.all(runs)).flat());
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  const waiting = longFiles.filter((file) => waits(file, options));
  if (waiting.length > 0) {
    console.log(`\n${waiting.length} long files have their turn with the next commit: --all`);
  }
  console.log(`\ncommit ${await readCommit()}, seed ${options.seed}`);
  const wallSeconds = (performance.now() - begin) / 1000;
  const isCi = process.env["CI"] === "true";
  return report({ results, wallSeconds, isWhole, isAll: options.all, isCi }) ? 0 : 1;
}

/** Without root the suites run all the same, and name what they skip. */
async function preparePackages(chosen: readonly Suite[]): Promise<void> {
  const groups = chosen.flatMap((suite) => suite.packages);
  const missing = missingSystemPackages(groups);
  if (process.getuid?.() !== 0 && missing.length > 0) {
    console.log(`${explainMissing(missing, "tests")}\nUntil then those tests are skipped.`);
    return;
  }
  await ensureSystemPackages(groups, "tests");
}

function isAboutLiveUpdateGuests(path: string): boolean {
  return path.startsWith("test/machine/live-update");
}

const isAboutNewerQemu = (path: string): boolean => path.includes("newer-qemu");

function isAboutNats(path: string): boolean {
  return path.startsWith("test/namespace/") && path.includes("-nats");
}

/** Minutes of work once, so it is done here, where it is seen, and not within a test. */
async function prepareGuestKernel(): Promise<void> {
  if (process.arch !== "x64" || findLiveUpdateKernel() !== undefined) return;
  const missing = missingSystemPackages(["kernel"]);
  if (process.getuid?.() !== 0 && missing.length > 0) {
    console.log(explainMissing(missing, "the kernel of the test guests"));
    return;
  }
  await makeLiveUpdateKernel();
}

async function runChecks(): Promise<FileResult[]> {
  const results: FileResult[] = [];
  for (const check of listChecks({ fix: false })) {
    const begin = performance.now();
    const isFine = await runCheck(check);
    results.push({
      path: `check: ${check.name}`,
      passed: isFine ? 1 : 0,
      failed: isFine ? 0 : 1,
      skips: [],
      milliseconds: performance.now() - begin,
      output: "",
    });
  }
  return results;
}

interface PlannedSuite {
  readonly suite: Suite;
  readonly files: readonly string[];
}

/** One suite after another, but for one that runs beside the one before it. */
function byCompany(plan: readonly PlannedSuite[]): PlannedSuite[][] {
  const groups: PlannedSuite[][] = [];
  for (const one of plan) {
    const before = groups.at(-1);
    if (one.suite.runsBeside && before !== undefined) before.push(one);
    else groups.push([one]);
  }
  return groups;
}

interface SuiteRun extends PlannedSuite {
  readonly options: Options;
  readonly scratch: string;
}

async function runSuite(run: SuiteRun): Promise<FileResult[]> {
  const { suite, files } = run;
  console.log(`\n${suite.name}: ${files.length} ${files.length === 1 ? "file" : "files"}`);
  if (suite.needsRoot && process.getuid?.() !== 0) return [skipSuite(suite)];
  const results: FileResult[] = [];
  const waiting = [...files];
  const underWay = new Map<string, number>();
  const silence = startReminder(underWay);
  const work = async () => {
    for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) {
      underWay.set(path, performance.now());
      const result = await runTestFile({ ...fileRun(run), path });
      underWay.delete(path);
      results.push(result);
      print(result);
      silence.refresh();
    }
  };
  await Promise.all(Array.from({ length: suite.width }, work));
  clearInterval(silence);
  return results;
}

function fileRun({ suite, options, scratch }: SuiteRun) {
  return {
    suite,
    only: options.only,
    seed: options.seed,
    scratch,
    environment: {
      HOSTLER_TEST_BUILT: "1",
      ...(options.all && { HOSTLER_TEST_ALL: "1" }),
    },
  };
}

function skipSuite(suite: Suite): FileResult {
  const skip = { name: suite.name, reason: "not root", where: suite.place };
  console.log(`SKIPPED ${skip.name}: ${skip.reason}`);
  return { path: suite.place, passed: 0, failed: 0, skips: [skip], milliseconds: 0, output: "" };
}

function startReminder(underWay: ReadonlyMap<string, number>): Timer {
  return setInterval(() => {
    for (const [path, begin] of underWay) {
      console.log(`…       ${path}  ${formatSeconds(performance.now() - begin)} so far`);
    }
  }, silenceMilliseconds);
}

function print(result: FileResult): void {
  const counts = [
    `${result.passed} passed`,
    ...(result.failed > 0 ? [`${result.failed} failed`] : []),
    ...(result.skips.length > 0 ? [`${result.skips.length} skipped`] : []),
  ].join(", ");
  const word = result.failed > 0 ? "FAILED" : "ok    ";
  console.log(`${word}  ${result.path}  ${counts}  ${formatSeconds(result.milliseconds)}`);
  if (result.failed > 0) console.log(`${result.output}\n`);
}

await runScript(main);
