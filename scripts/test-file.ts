/** Runs one test file in a process of its own and counts its cases. */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { bunExecutable } from "./command.ts";
import { repositoryRoot } from "./setup.ts";
import type { Suite } from "./test-suites.ts";

/** For one case, unless the case names its own; a loaded machine must not fail a test. */
export const caseTimeoutMilliseconds = 60_000;
/** Of a file's output, what is kept; the end is what tells why it failed. */
const outputLimit = 400_000;

export interface Skip {
  readonly name: string;
  readonly reason: string;
  readonly where: string;
}

export interface FileResult {
  readonly path: string;
  readonly passed: number;
  readonly failed: number;
  readonly skips: readonly Skip[];
  readonly milliseconds: number;
  /** Both outputs of the file, to be shown when it failed. */
  readonly output: string;
}

export interface FileRun {
  readonly path: string;
  readonly suite: Suite;
  /** A regular expression over the names of cases. */
  readonly only: string | undefined;
  readonly seed: number;
  readonly environment: Readonly<Record<string, string>>;
  /** An empty folder for reports. */
  readonly scratch: string;
}

export async function runTestFile(run: FileRun): Promise<FileResult> {
  const begin = performance.now();
  const scratch = join(run.scratch, run.path.replaceAll("/", "-"));
  mkdirSync(scratch, { recursive: true });
  const report = join(scratch, "junit.xml");
  const skipsFile = join(scratch, "skips");
  const { exitCode, output } = await runGroup(bunTestWords(run, report), {
    environment: { ...run.environment, HOSTLER_TEST_SKIPS: skipsFile },
    limitMilliseconds: run.suite.minutesPerFile * 60_000,
  });
  const skips = readSkips(skipsFile);
  const counted = countCases(existsSync(report) ? readFileSync(report, "utf8") : "");
  const faults = findFaults({ exitCode, counted, skips: skips.length, only: run.only });
  return {
    path: run.path,
    passed: counted.tests - counted.failures - counted.skipped,
    failed: counted.failures + faults.length,
    skips,
    milliseconds: performance.now() - begin,
    output: [output.trimEnd(), ...faults].join("\n"),
  };
}

function bunTestWords(run: FileRun, report: string): string[] {
  return [
    bunExecutable,
    "test",
    // Whatever a test started dies with it, also when this runner is killed.
    "--no-orphans",
    // A file may have cases for --all alone.
    "--pass-with-no-tests",
    "--only-failures",
    `--timeout=${caseTimeoutMilliseconds}`,
    `--max-concurrency=${navigator.hardwareConcurrency}`,
    "--reporter=junit",
    `--reporter-outfile=${report}`,
    ...(run.suite.randomize ? ["--randomize", `--seed=${run.seed}`] : []),
    ...(run.only === undefined ? [] : [`--test-name-pattern=${run.only}`]),
    `./${run.path}`,
  ];
}

/** Runs the words as a process group, so that a file that does not end goes as a whole. */
async function runGroup(
  words: string[],
  options: { environment: Record<string, string>; limitMilliseconds: number },
): Promise<{ exitCode: number; output: string }> {
  const child = Bun.spawn(words, {
    cwd: repositoryRoot,
    env: { ...process.env, ...options.environment },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
  });
  let ending = "";
  const timer = setTimeout(() => {
    ending = `\nKilled: it had not ended after ${options.limitMilliseconds / 60_000} minutes.`;
    process.kill(-child.pid, "SIGKILL");
  }, options.limitMilliseconds);
  const pieces: string[] = [];
  await Promise.all([keep(child.stdout, pieces), keep(child.stderr, pieces)]);
  const exitCode = await child.exited;
  clearTimeout(timer);
  return { exitCode, output: pieces.join("").slice(-outputLimit) + ending };
}

async function keep(stream: ReadableStream<Uint8Array>, pieces: string[]): Promise<void> {
  const decoder = new TextDecoder();
  for await (const bytes of stream) pieces.push(decoder.decode(bytes, { stream: true }));
}

interface Counted {
  readonly tests: number;
  readonly failures: number;
  readonly skipped: number;
}

/** @param xml JUnit, whose first element sums up the whole file; "" when none was written */
export function countCases(xml: string): Counted {
  const [element = ""] = /<testsuites [^>]*>/.exec(xml) ?? [];
  const attribute = (name: string) =>
    Number(new RegExp(` ${name}="(\\d+)"`).exec(element)?.[1] ?? 0);
  return {
    tests: attribute("tests"),
    failures: attribute("failures"),
    skipped: attribute("skipped"),
  };
}

/** What is wrong beyond failed cases; each counts as one more failure. */
export function findFaults(file: {
  exitCode: number;
  counted: Counted;
  skips: number;
  only: string | undefined;
}): string[] {
  const faults: string[] = [];
  if (file.exitCode !== 0 && file.counted.failures === 0) {
    faults.push(`The file ended with exit code ${file.exitCode} and no failed case.`);
  }
  // Cases that --only leaves out are counted as skipped by Bun.
  if (file.only === undefined && file.counted.skipped !== file.skips) {
    faults.push(
      `${file.counted.skipped} cases were skipped, ${file.skips} of them with a name and a ` +
        "reason: use skipUnless of test/support/skips.ts.",
    );
  }
  return faults;
}

function readSkips(path: string): Skip[] {
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Skip);
}
