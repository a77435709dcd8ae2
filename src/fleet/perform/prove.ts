import * as v from "valibot";
import { FileRefused } from "../../journal/file-refused.ts";
import type { Milliseconds } from "../../units/units.ts";
import { programOf, readVerified } from "./layout-files.ts";

/** Longest time for a self-test; then it is killed, and has failed. */
export const PROOF_LIMIT: Milliseconds = 60_000;
/** Characters of what a failed one said. */
const MOST_SAID = 2_000;

const reportSchema = v.looseObject({
  ok: v.boolean(),
  checks: v.array(v.looseObject({ check: v.string(), status: v.string(), found: v.string() })),
});

/** What a version that does not prove itself is refused with. */
export class ProofRefused extends FileRefused {}

/**
 * Has a stored version say whether it can do its work on this host: its file is hashed by itself
 * against what was verified, and it may neither take for ever nor keep anything.
 * @throws ProofRefused
 */
export async function proveProgram(
  folder: string,
  name: string,
  limit: Milliseconds = PROOF_LIMIT,
): Promise<void> {
  const verified = readVerified(folder, name);
  const digest = verified?.digest ?? "none";
  const argv = [programOf(folder, name), "--self-test", "--json", "--digest", digest];
  const refuse = (received: string) =>
    new ProofRefused(
      `Cannot use ${name}: expected that ${argv[0]} --self-test passes, received ${received}. ` +
        "Run it to see all that it tried.",
    );
  let child: ReturnType<typeof start>;
  try {
    child = start(argv, limit);
  } catch (error) {
    throw refuse((error as Error).message);
  }
  const [output, said] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (child.signalCode !== null) throw refuse(`its end by ${child.signalCode}`);
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), reportSchema), output);
  const failed = parsed.success
    ? parsed.output.checks.filter(({ status }) => status === "failed")
    : [];
  if (child.exitCode === 0 && parsed.success && parsed.output.ok && failed.length === 0) return;
  const [first] = failed;
  if (first !== undefined) throw refuse(`${first.check}: ${first.found}`);
  throw refuse(`exit ${child.exitCode}, saying ${JSON.stringify(said.trim().slice(-MOST_SAID))}`);
}

function start(argv: readonly string[], limit: Milliseconds) {
  return Bun.spawn([...argv], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: limit,
    killSignal: "SIGKILL",
    // Nothing of ours steers it, and nothing of the service manager's is told by it.
    env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin" },
  });
}
