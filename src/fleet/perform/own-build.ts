import { readlinkSync } from "node:fs";
import { basename, dirname } from "node:path";
import { parseFolder } from "../layout.ts";
import type { Build } from "../protocol.ts";
import { AgentRefused } from "../upgrade-agent.ts";
import { hashFile } from "./hashing.ts";
import { readVerified } from "./layout-files.ts";

/**
 * What this process runs, as its installation knows it: its file is hashed, and is to be what was
 * verified there.
 * @throws AgentRefused for a file of no version, and for another one than was verified
 */
export function ownBuild(folder: string): Build {
  const path = readlinkSync("/proc/self/exe");
  const name = basename(dirname(path));
  const verified = parseFolder(name) === undefined ? undefined : readVerified(folder, name);
  const { digest } = hashFile("/proc/self/exe");
  if (verified?.digest === digest) return { version: verified.version, digest };
  throw new AgentRefused(
    `Cannot be an agent of ${folder}: expected a program of its versions, received ${path}. ` +
      `Start ${folder}/current/hostler, which hostler fleet install makes.`,
  );
}
