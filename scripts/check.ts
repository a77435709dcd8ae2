/** `run check`: types, format and lint, fences. Exit code 0 when all is well, 1 when not. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { bunExecutable, tryCommand } from "./command.ts";
import { ensureDependencies, repositoryRoot } from "./setup.ts";
import { formatSeconds, readWords, runScript, ScriptError } from "./terminal.ts";
import { caseTimeoutMilliseconds } from "./test-file.ts";

export interface Check {
  readonly name: string;
  readonly argv: readonly string[];
}

/** @param options fix: true lets Biome write what it can mend by itself */
export function listChecks(options: { fix: boolean }): Check[] {
  return [
    { name: "types", argv: [bunExecutable, "check", "--no-script", "--all"] },
    // It runs in browsers, and knows what is there.
    {
      name: "types of the page",
      argv: [bunExecutable, "check", "--no-script", "--all", "-p", "src/vetting/page"],
    },
    {
      name: "format and lint",
      argv: [
        biomeExecutable(),
        ...(options.fix ? ["check", "--write"] : ["ci"]),
        "--colors=off",
        "--error-on-warnings",
      ],
    },
  ];
}

/** The fences are a test; `run test` has it among its suites. */
export const fences: Check = {
  name: "fences",
  argv: [bunExecutable, "test", `--timeout=${caseTimeoutMilliseconds}`, "./test/tidy.test.ts"],
};

/** Runs one check; prints one line when it is fine and its whole output when not. */
export async function runCheck(check: Check): Promise<boolean> {
  const begin = performance.now();
  const result = await tryCommand(check.argv, { workingDirectory: repositoryRoot });
  const time = formatSeconds(performance.now() - begin);
  const isFine = result.exitCode === 0;
  console.log(`${isFine ? "ok    " : "FAILED"}  ${check.name}  ${time}`);
  if (!isFine) console.log(result.output.trimEnd());
  return isFine;
}

/** The package's own launcher is a Node script; the executable beside it needs no Node. */
function biomeExecutable(): string {
  const path = join(
    repositoryRoot,
    `node_modules/@biomejs/cli-linux-${process.arch === "arm64" ? "arm64" : "x64"}/biome`,
  );
  if (existsSync(path)) return path;
  throw new ScriptError(`Biome is not at ${path}: remove node_modules and run this again.`, {
    exitCode: 100,
  });
}

async function main(): Promise<number> {
  const { values } = readWords("Usage: run check [--fix]", {
    options: { fix: { type: "boolean", default: false } },
  });
  await ensureDependencies();
  let isFine = true;
  for (const check of [...listChecks({ fix: values.fix }), fences]) {
    isFine = (await runCheck(check)) && isFine;
  }
  return isFine ? 0 : 1;
}

if (import.meta.main) await runScript(main);
