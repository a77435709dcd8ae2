import { resolve } from "node:path";
import { tellText } from "../../command-line/output.ts";
import type { HostIdentity } from "../../identity/host.ts";
import { openHost } from "../host-side.ts";

/** This host, as the command's --directory has it; what it lives with is told on stderr. */
export function hostIn(directory: string): HostIdentity {
  return openHost(resolve(directory), (message) => tellText(`${message}\n`));
}
