/**
 * The contract of ffi/ without a test runner, so that it can be compiled for another processor
 * and run under an emulator: one line a check; exit code 1 when one failed.
 *
 * --self=JSON         the words that start this program, when it cannot start itself as it is
 * --errno-calls=N     how many failing calls the errno check makes
 * --emulated          leave out what emulation in user space does otherwise
 * --become=NAME       be the child of a check
 */
import { cLibrary } from "../../ffi/c-library.ts";
import { checkGroups } from "./ffi-checks/all.ts";
import { become } from "./ffi-checks/become.ts";
import type { Check, CheckContext } from "./ffi-checks/check.ts";

function option(name: string): string | undefined {
  const prefix = `--${name}=`;
  return process.argv.find((word) => word.startsWith(prefix))?.slice(prefix.length);
}

/** Compiled, this file is its own program; otherwise Bun runs it. */
function ownWords(): string[] {
  const isCompiled = Bun.main.startsWith("/$bunfs/");
  return isCompiled ? [process.execPath] : [process.execPath, Bun.main];
}

async function runCheck(check: Check, context: CheckContext): Promise<boolean> {
  const absence = check.absence?.();
  const unlike = process.argv.includes("--emulated") ? check.unlikeEmulator : undefined;
  if (absence !== undefined || unlike !== undefined) {
    console.log(`SKIPPED ${check.name}: ${absence ?? `the emulator ${unlike}`}`);
    return true;
  }
  try {
    await check.run(context);
    console.log(`ok      ${check.name}`);
    return true;
  } catch (error) {
    console.log(`FAILED  ${check.name}\n${Bun.inspect(error)}`);
    return false;
  }
}

async function main(): Promise<number> {
  const name = option("become");
  if (name !== undefined) {
    await become(name);
    return 0;
  }
  const context: CheckContext = {
    self: JSON.parse(option("self") ?? JSON.stringify(ownWords())) as string[],
    errnoCalls: Number(option("errno-calls") ?? 1_000_000),
  };
  console.log(`${process.arch}, ${cLibrary.name}, ${context.errnoCalls} failing calls`);
  let failures = 0;
  for (const checks of Object.values(checkGroups)) {
    for (const check of checks) if (!(await runCheck(check, context))) failures += 1;
  }
  console.log(failures === 0 ? "All checks passed." : `${failures} checks failed.`);
  return failures === 0 ? 0 : 1;
}

process.exitCode = await main();
