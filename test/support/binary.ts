/** The compiled files for tests, built when the source has changed since. */
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";

export const repositoryRoot: string = dirname(dirname(import.meta.dirname));

/** @returns the path of dist/hostler */
export function hostler(): string {
  return built("hostler");
}

/** @returns the path of dist/hostler-faults: the same source with its kill points */
export function hostlerWithFaults(): string {
  return built("hostler-faults");
}

/** The runner has built already, and says so: its own build must not change under a test. */
function built(name: string): string {
  if (process.env["HOSTLER_TEST_BUILT"] !== "1") {
    const build = spawnSync(process.execPath, ["scripts/build.ts"], {
      cwd: repositoryRoot,
      encoding: "utf8",
    });
    if (build.status !== 0) throw new Error(`Cannot build:\n${build.stdout}${build.stderr}`);
  }
  return join(repositoryRoot, "dist", name);
}
