import { accessSync, constants, realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import * as v from "valibot";
import { printJson, printText } from "../../command-line/output.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { ExitCode } from "../../units/exit-code.ts";
import type { Milliseconds } from "../../units/units.ts";
import { OrchestratorClient, OrchestratorError } from "../client.ts";
import { digestOf } from "../perform/own-program.ts";
import type { About } from "../protocol.ts";
import { refuseDigest, renderAbout } from "./about.ts";

interface UpgradeOptions {
  readonly binary: string | undefined;
  readonly digest: string | undefined;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Longest time for a self-test; then it is killed, and has failed. */
const PROOF_LIMIT: Milliseconds = 60_000;
/** Bytes of what a self-test says; one that says more has failed. */
const LONGEST_REPORT = 1024 * 1024;
/** Letters that are told of what is no report. */
const LONGEST_TOLD = 400;

const reportSchema = v.looseObject({
  version: v.string(),
  ok: v.boolean(),
  checks: v.array(v.looseObject({ check: v.string(), status: v.string(), found: v.string() })),
});

/**
 * Proves a file of hostler by its own self-test, then has the orchestrator go on as that very
 * file; and prints which one that is. What fails leaves everything as it was.
 */
export async function runUpgrade(options: UpgradeOptions): Promise<number> {
  const wanted = options.digest;
  refuseDigest(wanted);
  const binary = binaryOf(options.binary);
  const socket = options["control-socket"];
  const before = await withClient(socket, (client) => client.about());
  const digest = await readDigest(binary);
  if (wanted !== undefined && wanted !== digest) {
    throw new OrchestratorError(
      `Expected ${binary} to have the SHA-256 ${wanted}, received ${digest}. Nothing has changed.`,
    );
  }
  await prove(binary, digest);
  // What was proven, whatever stands there by now.
  const after = await withClient(socket, (client) => client.reexecute({ program: binary, digest }));
  if (options.json) await printJson({ before, after });
  else await printText(`${describe(before)} → ${describe(after)}\n\n${renderAbout(after)}`);
  return ExitCode.done;
}

const describe = ({ version, commit }: About) => `${version} (${commit})`;

async function withClient<Result>(
  socket: string,
  ask: (client: OrchestratorClient) => Promise<Result>,
): Promise<Result> {
  using client = await OrchestratorClient.connect(socket);
  return await ask(client);
}

/** Without a name it is the file that this command runs. */
function binaryOf(named: string | undefined): string {
  if (named !== undefined) return resolve(named);
  if (Bun.main.startsWith("/$bunfs/")) return realpathSync(process.execPath);
  throw new UsageError("Expected --binary PATH, because this command runs from its sources");
}

/** Only of a file that can be executed: nobody waits for a pipe, or reads a device to its end. */
async function readDigest(binary: string): Promise<string> {
  try {
    if (statSync(binary).isFile()) accessSync(binary, constants.X_OK);
    else throw new Error("expected an executable file, received something else");
    return await digestOf(binary);
  } catch (error) {
    const { message } = error as Error;
    const told = `Cannot read ${binary}: ${message}. Nothing has changed.`;
    throw new OrchestratorError(told, { cause: error });
  }
}

/** @throws OrchestratorError with the check that has failed */
async function prove(binary: string, digest: string): Promise<void> {
  const path = process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin";
  const { code, output } = await runProof([binary, "--self-test", "--json", "--digest", digest], {
    PATH: path,
  });
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), reportSchema), output);
  const checks = parsed.success ? parsed.output.checks : [];
  const failed = checks.find(({ status }) => status === "failed");
  if (code === 0 && parsed.success && parsed.output.ok && failed === undefined) return;
  const received =
    failed === undefined
      ? `exit ${code ?? "by a signal"}, saying ${JSON.stringify(output.slice(0, LONGEST_TOLD))}`
      : `${failed.check}: ${failed.found}`;
  throw new OrchestratorError(
    `Expected that ${binary} --self-test passes, received ${received}. Nothing has changed; run ` +
      "it to see all that it tried.",
  );
}

async function runProof(
  argv: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<{ readonly code: number | null; readonly output: string }> {
  try {
    const child = Bun.spawn([...argv], {
      env: { ...environment },
      cwd: "/",
      stdio: ["ignore", "pipe", "ignore"],
      timeout: PROOF_LIMIT,
      killSignal: "SIGKILL",
      maxBuffer: LONGEST_REPORT,
    });
    const output = await new Response(child.stdout).text();
    await child.exited;
    return { code: child.exitCode, output };
  } catch (error) {
    return { code: null, output: (error as Error).message };
  }
}
