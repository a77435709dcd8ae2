import { existsSync } from "node:fs";
import { join } from "node:path";
import { runEnrol } from "../../authority/commands/enrol.ts";
import { defaultHostDirectory } from "../../authority/protocol.ts";
import { layoutNames } from "../layout.ts";
import { agentUnit } from "../units.ts";
import { readPath } from "./read-path.ts";

interface Flags {
  readonly folder: string;
  readonly directory: string;
  readonly "token-file": string;
  readonly json: boolean;
}

/** Lets this host into a fleet; what is still to be done on it is said. */
export async function runEnroll(flags: Flags): Promise<number> {
  const folder = readPath("--folder", flags.folder);
  return await runEnrol(flags, nextSteps(folder, flags.directory));
}

/** For its test exported. @param folder of the installation @param directory of the identity */
export function nextSteps(folder: string, directory: string): string {
  const isUsual = directory === defaultHostDirectory;
  const identity = isUsual ? "" : ` -- --identity ${directory}`;
  const start = isUsual
    ? `systemctl enable --now ${agentUnit}\n  or, without systemd: hostler fleet supervise`
    : `hostler fleet supervise${identity}`;
  const isPinned = existsSync(join(folder, layoutNames.trust, "root.json"));
  const install =
    existsSync(join(folder, "current")) && isPinned
      ? ""
      : "  hostler fleet install --root FILE   (the root set that releases have to lead to)\n";
  return `next:\n${install}  ${start}\n`;
}
