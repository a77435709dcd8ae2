import { resolve } from "node:path";
import { UsageError } from "../../command-line/usage-error.ts";
import { parseBytes } from "../../units/bytes.ts";
import { type ClientFlags, readClientFlags, sayAloud } from "./client-flags.ts";

interface HoldFlags extends ClientFlags {
  readonly once: boolean;
  readonly limit: string;
  readonly paths: readonly string[];
}

/** Holds files, and restores those of an earlier kernel first. */
export async function runHold(flags: HoldFlags): Promise<number> {
  const { once, limit, json } = flags;
  const choices = readClientFlags(flags);
  const mostBytes = parseBytes(limit);
  if (mostBytes === undefined) {
    throw new UsageError(`Expected a size such as 512MiB after --limit, received ${limit}`);
  }
  const paths = [...new Set(flags.paths.map((path) => resolve(path)))];
  const { holdFiles } = await import("../hold/hold.ts");
  return await holdFiles({ ...choices, paths, once, mostBytes }, sayAloud(choices.id, json));
}
