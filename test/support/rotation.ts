/**
 * Enumerated cases that do not fit into every run take turns: each commit runs a part, and as
 * many commits in a row as there are parts run them all. HOSTLER_TEST_ALL=1 runs every case;
 * HOSTLER_TEST_TURN=N repeats the part of another commit.
 */
import { spawnSync } from "node:child_process";

/**
 * @param name of the enumeration; parts of differently named ones need not coincide
 * @param cases in an order that does not change from run to run
 * @returns those whose turn it is
 */
export function rotating<T>(
  name: string,
  cases: readonly T[],
  options: { readonly outOf: number },
): T[] {
  if (process.env["HOSTLER_TEST_ALL"] === "1") return [...cases];
  return casesOfTurn(cases, { outOf: options.outOf, turn: currentTurn() + spread(name) });
}

/** Defines the tests only where everything runs: `run test --all`. */
export function onlyInAll(define: () => void): void {
  if (process.env["HOSTLER_TEST_ALL"] === "1") define();
}

/** @param options.turn any whole number; turns that differ by outOf are the same */
export function casesOfTurn<T>(
  cases: readonly T[],
  options: { readonly outOf: number; readonly turn: number },
): T[] {
  const { outOf, turn } = options;
  if (!Number.isInteger(outOf) || outOf < 1) {
    throw new RangeError(`outOf must be a whole number above 0, and is ${outOf}`);
  }
  return cases.filter((_case, index) => index % outOf === turn % outOf);
}

/** @returns the number of commits up to this one; 0 outside of git */
export function currentTurn(): number {
  const chosen = process.env["HOSTLER_TEST_TURN"];
  if (chosen !== undefined) return Number.parseInt(chosen, 10);
  const counted = spawnSync("git", ["rev-list", "--count", "HEAD"], {
    cwd: import.meta.dirname,
    encoding: "utf8",
  });
  return counted.status === 0 ? Number.parseInt(counted.stdout, 10) : 0;
}

function spread(name: string): number {
  return new Bun.CryptoHasher("sha256").update(name).digest().readUInt16BE(0);
}
