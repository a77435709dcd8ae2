import * as v from "valibot";
import { FileRefused } from "../../journal/file-refused.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { CommandAnswer, Executor } from "../executor.ts";
import { programOf, readVerified } from "./layout-files.ts";
import { runCommand } from "./run-command.ts";

/** Longest time for a self-test; then it is killed, and has failed. */
const PROOF_LIMIT: Milliseconds = 60_000;

const reportSchema = v.looseObject({
  version: v.string(),
  ok: v.boolean(),
  checks: v.array(v.looseObject({ check: v.string(), status: v.string(), found: v.string() })),
});

/** What a version that does not prove itself is refused with. */
export class ProofRefused extends FileRefused {}

/**
 * Has a stored version say whether it can do its work on this host: its file is hashed by itself
 * against what was verified, and says itself which version it is, because a manifest says that of
 * any file.
 * @param run how it is run; without it, by nobody's leave but ours
 * @throws ProofRefused
 */
export async function proveProgram(
  folder: string,
  name: string,
  run: Executor["runConfined"] = runPlainly,
): Promise<void> {
  const { version, digest } = readVerified(folder, name) ?? { version: "none", digest: "none" };
  const program = programOf(folder, name);
  const { code, output, said } = await run(
    [program, "--self-test", "--json", "--digest", digest],
    PROOF_LIMIT,
  );
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), reportSchema), output);
  const checks = parsed.success ? parsed.output.checks : [];
  const failed = checks.find(({ status }) => status === "failed");
  const isProven = code === 0 && parsed.success && parsed.output.ok && failed === undefined;
  if (isProven && parsed.output.version === version) return;
  if (isProven) {
    throw new ProofRefused(
      `Cannot use ${name}: expected a file of version ${version}, received one that says ` +
        `${parsed.output.version} of itself. Build the release anew: hostler fleet artifact build.`,
    );
  }
  const received =
    failed === undefined
      ? `exit ${code}, saying ${JSON.stringify(said)}`
      : `${failed.check}: ${failed.found}`;
  throw new ProofRefused(
    `Cannot use ${name}: expected that ${program} --self-test passes, received ${received}. ` +
      "Run it to see all that it tried.",
  );
}

/** Nothing of ours steers it, and nothing of the service manager's is told by it. */
export function runPlainly(argv: readonly string[], limit: Milliseconds): Promise<CommandAnswer> {
  const path = process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin";
  return runCommand(argv, limit, { PATH: path });
}
