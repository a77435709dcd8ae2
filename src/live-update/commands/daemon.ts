import { isAbsolute, resolve } from "node:path";
import { durationArgument, wholeNumber } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { configureLogging } from "../../logging/logger.ts";
import type { DaemonOptions, EntryWay, IdRule, UnclaimedPolicy } from "../options.ts";

export interface DaemonFlags {
  readonly socket: string;
  readonly "control-socket": string;
  readonly "state-directory": string;
  readonly "allow-uid": readonly string[];
  readonly "allow-gid": readonly string[];
  readonly "allow-id": readonly string[];
  readonly "command-uid": readonly string[];
  readonly unclaimed: string;
  readonly "kexec-hook": readonly string[];
  readonly by: EntryWay;
  readonly "log-json": boolean;
  readonly verbose: boolean;
}

export async function runDaemonCommand(flags: DaemonFlags): Promise<number> {
  const options = readDaemonFlags(flags, process.getuid?.() ?? 0);
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  const { runDaemon } = await import("../daemon.ts");
  return await runDaemon(options);
}

/** @param ownUser may do everything when nobody is named. @throws UsageError */
export function readDaemonFlags(flags: DaemonFlags, ownUser: number): DaemonOptions {
  const clientSocket = socketPath("--socket", flags.socket);
  const controlSocket = socketPath("--control-socket", flags["control-socket"]);
  if (clientSocket === controlSocket) {
    throw new UsageError(
      `Expected two paths after --socket and --control-socket, received ${clientSocket} twice`,
    );
  }
  const users = readIds("--allow-uid", flags["allow-uid"]);
  const groups = readIds("--allow-gid", flags["allow-gid"]);
  const commandUsers = readIds("--command-uid", flags["command-uid"]);
  return {
    clientSocket,
    controlSocket,
    stateDirectory: resolve(flags["state-directory"]),
    allowUsers: users.length + groups.length === 0 ? [ownUser] : users,
    allowGroups: groups,
    idRules: flags["allow-id"].map(readIdRule),
    commandUsers: commandUsers.length === 0 ? [ownUser] : commandUsers,
    unclaimed: readUnclaimed(flags.unclaimed),
    kexecHooks: flags["kexec-hook"].map(readHook),
    by: flags.by,
  };
}

/** sun_path of struct sockaddr_un has 108 bytes, one of them the end: unix(7). */
function socketPath(flag: string, given: string): string {
  const path = given === "" ? "" : resolve(given);
  const bytes = Buffer.byteLength(path);
  if (path !== "" && bytes <= 107 && !path.includes("\0")) return path;
  throw new UsageError(`Expected a path of 1 to 107 bytes after ${flag}, received ${bytes} bytes`);
}

/** (uid_t)-1 means "no user" to the kernel. */
const LARGEST_ID = 2 ** 32 - 2;

/** Ids one by one or with commas between them. */
function readIds(name: string, given: readonly string[]): number[] {
  return given
    .flatMap((text) => text.split(","))
    .map((text) => wholeNumber(text, { name, least: 0, most: LARGEST_ID }));
}

/** "qemu-*=107": the last sign divides, because a pattern may have one. */
function readIdRule(text: string): IdRule {
  const sign = text.lastIndexOf("=");
  const user = text.slice(sign + 1);
  if (sign < 1 || !/^\d{1,10}$/.test(user) || Number(user) > LARGEST_ID) {
    throw new UsageError(
      `Expected PATTERN=UID, such as qemu-*=107, after --allow-id, received ${text}`,
    );
  }
  return { pattern: text.slice(0, sign), user: Number(user) };
}

function readUnclaimed(text: string): UnclaimedPolicy {
  if (text === "keep") return { kind: "keep" };
  if (/^\d/.test(text)) return { kind: "finish", after: durationArgument("--unclaimed", text) };
  throw new UsageError(
    `Expected keep, or a duration such as 10min, after --unclaimed, received ${text}`,
  );
}

/**
 * One that is not there is no error: a hook that went missing must keep nobody from a kexec's
 * restored sessions, and stands in the way of the next kexec alone. luod warns of it.
 */
function readHook(path: string): string {
  if (isAbsolute(path)) return path;
  throw new UsageError(`Expected an absolute path after --kexec-hook, received ${path}`);
}
