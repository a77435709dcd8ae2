import { resolve } from "node:path";
import * as v from "valibot";
import { headOf, ownTarget } from "../../artifact/installed.ts";
import { lookAtExecutable } from "../../artifact/protocol-executable.ts";
import { NamedFileRefused, withNamedFile } from "../../journal/file-refused.ts";
import type { Milliseconds } from "../../units/units.ts";
import { runPlainly } from "./prove.ts";

/** Longest time for a file to say its version; then it is killed, and has not said it. */
const ANSWER_LIMIT: Milliseconds = 30_000;

const answerSchema = v.looseObject({ version: v.string(), commit: v.string(), bun: v.string() });

/**
 * Has each file that can run here say its version, because a manifest would say it of any file.
 * @returns the files that cannot be asked: they are for another architecture or libc
 * @throws NamedFileRefused for one that says another version, or is no hostler
 */
export async function askVersions(
  files: readonly string[],
  version: string,
): Promise<readonly string[]> {
  const unasked: string[] = [];
  const own = ownTarget();
  for (const file of files) {
    const reading = { what: "read the executable", path: file, otherwise: "name another" };
    const found = withNamedFile(reading, () => lookAtExecutable(headOf(file)));
    // What is no executable at all is refused by its reason where the release is made.
    if (found.kind !== "executable") continue;
    const isForHere = found.architecture === own.architecture && found.libc === own.libc;
    if (isForHere) await askOne(file, version);
    else unasked.push(file);
  }
  return unasked;
}

async function askOne(file: string, version: string): Promise<void> {
  const { code, output, said } = await runPlainly(
    [resolve(file), "--version", "--json"],
    ANSWER_LIMIT,
  );
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), answerSchema), output);
  if (code === 0 && parsed.success && parsed.output.version === version) return;
  const isAnswer = code === 0 && parsed.success;
  const received = isAnswer
    ? `one of version ${parsed.output.version}`
    : `exit ${code} of ${file} --version --json, saying ${JSON.stringify(said.slice(0, 200))}`;
  const mend = isAnswer
    ? `Name version ${parsed.output.version}, or build it from another source`
    : "Name a program of hostler, or give --skip-version-check";
  throw new NamedFileRefused(
    `Cannot use ${file}: expected a hostler of version ${version}, received ${received}. ${mend}.`,
  );
}
