/**
 * Skips with a name and a reason. A suite that lacks a feature of the kernel or the machine is
 * skipped by this file alone, so that the runner can tell an expected skip (it stands in
 * test/expected-skips.json) from one that hides a broken machine.
 */
import { describe, test } from "bun:test";
import { appendFileSync, existsSync } from "node:fs";
import { release } from "node:os";
import { relative } from "node:path";

/** Something that a machine has or has not. */
export interface Feature {
  /** Why it is absent, as the reason of a skip; undefined when it is there. */
  readonly absence: () => string | undefined;
}

export interface SkipRecord {
  readonly name: string;
  readonly reason: string;
  /** The test file, from the repository's root. */
  readonly where: string;
}

/**
 * Defines the suite when the features are there, or one skipped test of that name.
 * @param name of the suite; together with reason and file it is the skip's identity
 */
export function skipUnless(
  name: string,
  features: Feature | readonly Feature[],
  define: () => void,
): void {
  const wanted = "absence" in features ? [features] : features;
  const reason = wanted
    .map((feature) => feature.absence())
    .find((absence) => absence !== undefined);
  if (reason === undefined) {
    describe(name, define);
    return;
  }
  record({ name, reason, where: relative(process.cwd(), Bun.main) });
  test.skipIf(true)(name, () => {});
}

/** The runner reads the file that HOSTLER_TEST_SKIPS names: one JSON object a line. */
function record(skip: SkipRecord): void {
  console.log(`SKIPPED ${skip.name}: ${skip.reason}`);
  const path = process.env["HOSTLER_TEST_SKIPS"];
  if (path !== undefined) appendFileSync(path, `${JSON.stringify(skip)}\n`);
}

/** @param reason completes "SKIPPED name: …"; the same on every machine that lacks it */
export function feature(reason: string, isThere: () => boolean): Feature {
  return { absence: () => (isThere() ? undefined : reason) };
}

export const root: Feature = feature("not root", () => process.getuid?.() === 0);

/** @param debianPackage the one that carries the program */
export function program(name: string, debianPackage: string): Feature {
  return feature(`no ${name} (Debian: ${debianPackage})`, () => Bun.which(name) !== null);
}

/** @param debianPackage the one that carries the file */
export function file(path: string, debianPackage: string): Feature {
  return feature(`no ${path} (Debian: ${debianPackage})`, () => existsSync(path));
}

/** @param version such as "6.15": the first kernel that has what the suite is about */
export function kernel(version: string): Feature {
  return feature(`kernel older than ${version}`, () => isKernelAtLeast(version, kernelRelease()));
}

/** @param release as in uname -r: "6.18.44-cloud" */
export function isKernelAtLeast(version: string, release: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [ownMajor = 0, ownMinor = 0] = release.split(/[.-]/).map(Number);
  return ownMajor > major || (ownMajor === major && ownMinor >= minor);
}

function kernelRelease(): string {
  return release();
}
