import { createReadStream, statSync } from "node:fs";
import { resolve } from "node:path";
import { printText } from "../../command-line/output.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { formatHash, hashPath } from "../../image/nar.ts";
import { ExitCode } from "../../units/exit-code.ts";

interface HashFlags {
  readonly folder: string;
  readonly contents: boolean;
}

/** Prints what `nix hash path` prints, or `nix hash file`. */
export async function runHash({ folder, contents }: HashFlags): Promise<number> {
  if (folder === "") throw new UsageError("Expected a file or a folder, received no name");
  const path = resolve(folder);
  if (contents && statSync(path).isDirectory()) {
    throw new UsageError(`${folder}: expected a file, received a folder: leave --contents out`);
  }
  await printText(`${contents ? await hashContents(path) : await hashPath(path)}\n`);
  return ExitCode.done;
}

async function hashContents(path: string): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const piece of createReadStream(path)) hasher.update(piece);
  return formatHash(hasher.digest());
}
