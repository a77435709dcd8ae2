import { resolve } from "node:path";
import { printText } from "../../command-line/output.ts";
import { hashPath } from "../../image/nar.ts";
import { ExitCode } from "../../units/exit-code.ts";

/** Prints what `nix hash path` prints. */
export async function runHash(path: string): Promise<number> {
  await printText(`${await hashPath(resolve(path))}\n`);
  return ExitCode.done;
}
