import { printJson, printText } from "../command-line/output.ts";
import { renderTable } from "../command-line/table.ts";
import { UsageError } from "../command-line/usage-error.ts";
import { describeError } from "../logging/format.ts";
import { ExitCode } from "../units/exit-code.ts";
import { hostlerCommit, hostlerVersion } from "../units/version.ts";
import { type HostCheck, type HostPlaces, hostChecks, usualPlaces } from "./self-test-host.ts";
import { roles } from "./self-test-roles.ts";

/** One thing that was tried, and what came of it. */
export interface SelfTestResult {
  readonly subject: "code" | "libc" | "host";
  readonly check: string;
  /** absent: this host has nothing of the kind; warned: it is wrong, and not by this file. */
  readonly status: "passed" | "absent" | "warned" | "failed";
  readonly found: string;
}

export interface SelfTestOptions {
  readonly json: boolean;
  /** SHA-256 that this file is to have; undefined: any. */
  readonly digest: string | undefined;
  readonly places?: HostPlaces;
}

/**
 * `hostler --self-test`: whether this file can do on this host what it may be asked to. It starts
 * no role, changes nothing, and needs no network.
 * @returns done, or refused when one check has failed
 * @throws UsageError
 */
export async function selfTest(options: SelfTestOptions): Promise<ExitCode> {
  const { digest } = options;
  if (digest !== undefined && !/^[0-9a-f]{64}$/.test(digest)) {
    throw new UsageError(
      `Expected 64 hexadecimal digits after --digest, received ${JSON.stringify(digest)}`,
    );
  }
  const results = await runSelfTest(options);
  const failed = results.filter(({ status }) => status === "failed").length;
  if (options.json) {
    const [version, commit] = [hostlerVersion, hostlerCommit];
    await printJson({ version, commit, ok: failed === 0, checks: results });
  } else {
    const rows = results.map(({ subject, check, status, found }) => [
      subject,
      check,
      status,
      found.split("\n")[0] ?? "",
    ]);
    const verdict = failed === 0 ? "It can do its work here." : `Failed: ${failed}.`;
    await printText(`${renderTable(["subject", "check", "status", "found"], rows)}\n${verdict}\n`);
  }
  return failed === 0 ? ExitCode.done : ExitCode.refused;
}

async function runSelfTest(options: SelfTestOptions): Promise<SelfTestResult[]> {
  const results: SelfTestResult[] = [];
  for (const [role, load] of Object.entries(roles)) {
    results.push(await attempt("code", role, () => load().then(() => "loaded")));
  }
  const contract = await attempt("libc", "functions", loadContract);
  results.push(contract);
  if (contract.status === "passed") {
    const { contractChecks } = await import("./self-test-contract.ts");
    for (const [check, run] of Object.entries(contractChecks)) {
      results.push(await attempt("libc", check, run));
    }
  }
  const checks = hostChecks(options.places ?? usualPlaces, options.digest);
  for (const [check, run] of Object.entries(checks)) {
    results.push(await attempt("host", check, run));
  }
  return results;
}

async function loadContract(): Promise<string> {
  await import("./self-test-contract.ts");
  return "all found";
}

/** Whatever is thrown is what was found: one check must not hide the others. */
async function attempt(
  subject: SelfTestResult["subject"],
  check: string,
  run: HostCheck,
): Promise<SelfTestResult> {
  try {
    const found = await run();
    if (found === undefined) return { subject, check, status: "absent", found: "none here" };
    if (typeof found === "string") return { subject, check, status: "passed", found };
    return { subject, check, status: "warned", found: found.warning };
  } catch (error) {
    return { subject, check, status: "failed", found: describeError(error) };
  }
}
